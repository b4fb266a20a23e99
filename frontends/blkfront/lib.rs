// SPDX-License-Identifier: GPL-2.0

//! The block frontend.
#![forbid(unsafe_code)]
use kernel::prelude::*;

module! {
    type: Module,
    name: "causeway_blkfront",
    authors: ["Causeway"],
    description: "Block frontend of Xen's split-driver model",
    license: "GPL",
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("page {} in a Xen domain: {}\n", ring_proto::shared::PAGE_SIZE, xen::in_domain());
        Ok(Module)
    }
}
