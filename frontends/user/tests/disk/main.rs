// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk against a backend that the tests write themselves, over the hosted hypervisor.

mod data;
mod data_path;
mod gone;
mod hostile;
mod nbd;
mod reconnect;
mod scripted;
