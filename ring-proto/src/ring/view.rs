// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! How far both ends of a ring are: for people who look for the reason of a standstill.

use core::fmt;

use super::header;
use crate::shared::SharedMemory;

/// A ring's header as it is in shared memory, which the peer can write anything into, and what this end knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Number of slots.
    pub size: u32,
    /// The header's words.
    pub req_prod: u32,
    /// See [`header::REQ_EVENT`].
    pub req_event: u32,
    /// See [`header::RSP_PROD`].
    pub rsp_prod: u32,
    /// See [`header::RSP_EVENT`].
    pub rsp_event: u32,
    /// The next request that this end writes or takes.
    pub request: u32,
    /// The next response that this end writes or takes.
    pub response: u32,
}

impl View {
    pub(super) fn new<M: SharedMemory>(memory: &M, size: u32, request: u32, response: u32) -> Self {
        Self {
            size,
            req_prod: memory.load(header::REQ_PROD),
            req_event: memory.load(header::REQ_EVENT),
            rsp_prod: memory.load(header::RSP_PROD),
            rsp_event: memory.load(header::RSP_EVENT),
            request,
            response,
        }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, req_prod, req_event, rsp_prod, rsp_event, request, response } = self;
        write!(
            f,
            "slots {size}, req_prod {req_prod}, req_event {req_event}, rsp_prod {rsp_prod}, rsp_event {rsp_event}, \
             next request {request}, next response {response}"
        )
    }
}
