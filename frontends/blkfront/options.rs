// SPDX-License-Identifier: GPL-2.0

//! What the administrator wants of all disks.

use ring_proto::blkif::{Abi, MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS};
use ring_proto::ring::MAX_ORDER;
use ring_proto::xenbus::vbd::{FrontendSettings, MAX_QUEUES};

xen::module_params! {
    static SEGMENTS: uint = 32, "max_indirect_segments", 0o444,
        "Maximum amount of segments in indirect requests (default is 32)";
    static QUEUES: uint = 4, "max_queues", 0o444,
        "Maximum number of hardware queues/rings used per virtual disk";
    static ORDER: uint = 0, "max_ring_page_order", 0o444,
        "Maximum order of pages to be used for the shared ring";
    static TRUSTED: bool = true, "trusted", 0o644, "Is the backend trusted";
    static PERSISTENT: bool = true, "feature_persistent", 0o644,
        "Enables the persistent grants feature";
}

/// What a disk wants of its backend, at most, as the parameters were when it connected.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Queues, ring size, and whether the backend may keep pages mapped.
    pub(crate) settings: FrontendSettings,
    /// Segments of a request.
    pub(crate) segments: u16,
    /// The backend may see whatever lies on a page that a request names.
    pub(crate) trusted: bool,
}

impl Options {
    /// The parameters of the module at this moment.
    pub(crate) fn now() -> Self {
        let queues = QUEUES.get().clamp(1, MAX_QUEUES as u32);
        let segments = SEGMENTS.get().clamp(MAX_SEGMENTS as u32, u32::from(MAX_INDIRECT_SEGMENTS));
        Self {
            settings: FrontendSettings {
                queues: block::mq::online_queues(queues),
                ring_page_order: ORDER.get().min(MAX_ORDER),
                persistent: PERSISTENT.get(),
                abi: Abi::NATIVE,
            },
            segments: segments as u16,
            trusted: TRUSTED.get(),
        }
    }
}
