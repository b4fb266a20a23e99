// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! See [`ring_proto_fuzz::ring::back`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_proto_fuzz::ring::back(data));
