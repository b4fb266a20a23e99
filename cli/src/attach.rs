// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plugging disks in and out, as a toolstack does it: by writing to xenstore.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{self, Vbd, VbdConfig};
use ring_proto::xen::DomId;
use ring_proto::xenbus::{Key, vbd::keys};

/// Which disk, of which domains, in which store.
#[derive(Args)]
struct Which {
    /// Folder of a hosted hypervisor
    #[arg(long)]
    dir: PathBuf,
    /// The domain that uses the disk
    #[arg(long, value_name = "ID", default_value_t = 1)]
    frontend: u16,
    /// The domain that serves the disk
    #[arg(long, value_name = "ID", default_value_t = 0)]
    backend: u16,
    /// Number of the disk: 51712 is xvda, 51728 xvdb
    #[arg(long, value_name = "NUMBER", default_value_t = 51712)]
    device: u32,
}

impl Which {
    fn vbd(&self) -> Vbd {
        Vbd { frontend: DomId(self.frontend), backend: DomId(self.backend), device: self.device }
    }

    fn store(&self) -> anyhow::Result<Store> {
        let advice = || format!("is `causeway hosted --dir {}` running?", self.dir.display());
        Store::connect(self.dir.join("xenstored.sock")).with_context(advice)
    }
}

/// Options of `causeway block-attach`.
#[derive(Args)]
pub struct Attach {
    #[command(flatten)]
    which: Which,
    /// The image or block device
    #[arg(long)]
    image: PathBuf,
    /// The frontend may not write
    #[arg(long)]
    read_only: bool,
    /// Logical sector size in bytes
    #[arg(long, value_name = "BYTES")]
    sector_size: Option<u32>,
    /// Most requests per second
    #[arg(long, value_name = "N")]
    iops_limit: Option<u64>,
    /// Most bytes per second
    #[arg(long, value_name = "BYTES")]
    bandwidth_limit: Option<u64>,
}

impl Attach {
    /// Writes the directories of both ends.
    pub fn run(&self) -> anyhow::Result<()> {
        let image = self.image.canonicalize().with_context(|| self.image.display().to_string())?;
        let image = image.to_str().context("the image's path is not UTF-8")?;
        let mut config = VbdConfig::new(self.which.vbd(), image);
        config.read_only = self.read_only;
        let mut key = |key: Key, value: Option<u64>| {
            config.backend_keys.extend(value.map(|value| (key, value.to_string())));
        };
        key(keys::SECTOR_SIZE, self.sector_size.map(u64::from));
        key(keys::IOPS_LIMIT, self.iops_limit);
        key(keys::BANDWIDTH_LIMIT, self.bandwidth_limit);
        Ok(toolstack::create_vbd(&self.which.store()?, &config)?)
    }
}

/// Options of `causeway block-detach`.
#[derive(Args)]
pub struct Detach {
    #[command(flatten)]
    which: Which,
    /// How many seconds the guest has to let go of the disk
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Remove the disk whatever its ends are doing
    #[arg(long)]
    force: bool,
}

impl Detach {
    /// Asks the backend to close, and removes the directories of both ends.
    pub fn run(&self) -> anyhow::Result<()> {
        let (store, vbd) = (self.which.store()?, self.which.vbd());
        if self.force {
            return Ok(toolstack::forget_vbd(&store, &vbd)?);
        }
        let advice = "the disk is still there; --force removes it all the same";
        toolstack::remove_vbd(&store, &vbd, Duration::from_secs(self.timeout)).context(advice)
    }
}
