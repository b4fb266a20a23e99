// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands that run until they are told to stop.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use frontend_user::load::{self, Job, Progress, QueueTarget};
use frontend_user::{Disk, nbd};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use uring_backend::Format;

use crate::domain::Domain;

/// Options of `causeway hosted`.
#[derive(Args)]
pub struct Hosted {
    /// Folder of the sockets `hypervisor.sock` and `xenstored.sock`, made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// End when standard input does, so as not to outlive who started this
    #[arg(long)]
    until_eof: bool,
}

impl Hosted {
    /// Serves until SIGTERM.
    pub fn run(&self) -> anyhow::Result<()> {
        let stop = hypervisor_hosted::Stop::new()?;
        let on_signal = stop.clone();
        at_the_end(move || on_signal.stop())?;
        if self.until_eof {
            let at_eof = stop.clone();
            std::thread::spawn(move || {
                // What cannot be read is over too.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                at_eof.stop();
            });
        }
        Ok(hypervisor_hosted::run(&self.dir, &stop)?)
    }
}

/// Options of `causeway backend`.
#[derive(Args)]
pub struct Backend {
    #[command(flatten)]
    domain: Domain,
    #[command(flatten)]
    options: uring_backend::Options,
}

impl Backend {
    /// Serves until SIGTERM, then drains.
    pub fn run(&self) -> anyhow::Result<()> {
        let stop = uring_backend::Stop::new()?;
        stop.on_signals()?;
        let client = self.domain.connect("backend")?;
        Ok(uring_backend::run(client, self.options.clone(), &stop)?)
    }
}

/// Options of `causeway stats`.
#[derive(Args)]
pub struct Stats {
    /// The backend's `--stats` socket
    #[arg(long)]
    socket: PathBuf,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    /// Print the text format of Prometheus
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
}

impl Stats {
    /// Prints a line for each queue.
    pub fn run(&self) -> anyhow::Result<()> {
        let format = match (self.json, self.prometheus) {
            (true, _) => Format::Json,
            (_, true) => Format::Prometheus,
            _ => Format::Table,
        };
        let advice = || format!("is `causeway backend --stats {}` running?", self.socket.display());
        println!("{}", uring_backend::fetch_stats(&self.socket, format).with_context(advice)?);
        Ok(())
    }
}

/// A disk of the domain.
#[derive(Args)]
struct Device {
    #[command(flatten)]
    domain: Domain,
    /// Number of the disk: 51712 is xvda, 51728 xvdb
    #[arg(long, value_name = "NUMBER", default_value_t = 51712)]
    device: u32,
    #[command(flatten)]
    options: frontend_user::Options,
}

impl Device {
    fn connect(&self) -> anyhow::Result<Disk> {
        let client = self.domain.connect("frontend")?;
        Ok(Disk::connect(client, self.device, self.options.clone())?)
    }
}

/// Options of `causeway nbd`.
#[derive(Args)]
pub struct Nbd {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    options: nbd::Options,
}

impl Nbd {
    /// Serves until SIGTERM, or the disk fails.
    pub fn run(&self) -> anyhow::Result<()> {
        let server = nbd::Server::start(self.device.connect()?, &self.options)?;
        println!("serving at {}", server.listen());
        at_the_end(server.stopper())?;
        Ok(server.wait()?)
    }
}

/// Options of `causeway load`.
#[derive(Args)]
pub struct Load {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    job: Job,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Load {
    /// Reads and writes, and reports.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut disk = self.device.connect()?;
        let mut queues = disk.take_queues();
        let mut targets: Vec<_> = queues.iter_mut().map(QueueTarget::new).collect();
        let report = load::run(&self.job, &mut targets, &Progress::default())?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{report}");
        }
        anyhow::ensure!(report.damaged == 0, "{} blocks are damaged", report.damaged);
        Ok(())
    }
}

/// Calls `stop` once on SIGTERM or SIGINT, on a thread of its own.
fn at_the_end(stop: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            stop();
        }
    })?;
    Ok(())
}
