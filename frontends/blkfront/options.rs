// SPDX-License-Identifier: GPL-2.0

//! What the administrator wants of all disks.

use ring_proto::blkif::{Abi, MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS};
use ring_proto::ring::MAX_ORDER;
use ring_proto::xenbus::vbd::{FrontendSettings, MAX_QUEUES};

use crate::module_parameters as parameters;

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
        let queues = (*parameters::max_queues.value_ref()).clamp(1, MAX_QUEUES as u32);
        let order = *parameters::max_ring_page_order.value_ref();
        let segments = *parameters::max_indirect_segments.value_ref();
        let segments = segments.clamp(MAX_SEGMENTS as u32, u32::from(MAX_INDIRECT_SEGMENTS));
        Self {
            settings: FrontendSettings {
                queues: block::mq::online_queues(queues),
                ring_page_order: order.min(MAX_ORDER),
                persistent: *parameters::feature_persistent.value_ref(),
                abi: Abi::NATIVE,
            },
            segments: segments as u16,
            trusted: *parameters::trusted.value_ref(),
        }
    }
}
