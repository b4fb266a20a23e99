// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which hypervisor a command runs on, and as which domain.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use hypervisor_client::{Client, hosted};
use ring_proto::xen::DomId;

/// How to reach the hypervisor.
#[derive(Args)]
pub struct Domain {
    /// `hosted:DIR`, or `dev` for /dev/xen of this machine; without it, `dev` where there is one
    #[arg(long, value_name = "SPEC", env = "CAUSEWAY_HYPERVISOR")]
    hypervisor: Option<String>,
    /// Hosted: the domain to be, instead of any that is free
    #[arg(long, value_name = "ID")]
    domid: Option<u16>,
    /// Hosted: how much memory can be granted at a time, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    grant_memory: u32,
}

impl Domain {
    /// Becomes that domain.
    ///
    /// # Errors
    ///
    /// When nothing answers there, or the id is taken.
    pub fn connect(&self, name: &str) -> anyhow::Result<Arc<dyn Client>> {
        let options = hosted::Options {
            domid: self.domid.map(DomId),
            name: name.to_owned(),
            pool_pages: self
                .grant_memory
                .checked_mul(256)
                .context("--grant-memory is too large")?,
        };
        let spec = self.hypervisor.as_deref().unwrap_or_default();
        let advice = "reaching the hypervisor (`causeway hosted --dir DIR` starts one for `--hypervisor hosted:DIR`)";
        hypervisor_client::connect(spec, options).context(advice)
    }
}
