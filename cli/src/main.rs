// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `causeway` command: the demo, the daemons, and what a person types to plug disks.

mod attach;
mod bench;
mod daemons;
mod demo;
mod domain;
mod folder;
mod stage;

use clap::{Parser, Subcommand};

/// Block I/O between domains that share nothing but pages and a doorbell.
///
/// Begin with `causeway demo`: it needs no root and no virtual machine. By hand, start `causeway hosted`, then
/// `causeway backend`, plug a disk in with `causeway block-attach`, and serve it to programs with `causeway nbd`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a disk at work: copied, verified, its backend killed, measured
    Demo(demo::Options),
    /// Run a hypervisor as a process, with its xenstore
    Hosted(daemons::Hosted),
    /// Serve the block devices of this domain from images, on io_uring
    Backend(daemons::Backend),
    /// Show what a backend has done
    Stats(daemons::Stats),
    /// Plug a disk into a domain
    BlockAttach(attach::Attach),
    /// Unplug a disk from a domain
    BlockDetach(attach::Detach),
    /// Be the frontend of a disk and serve it over NBD
    Nbd(daemons::Nbd),
    /// Be the frontend of a disk and put load on it
    Load(daemons::Load),
    /// Measure against the stock part
    Bench(bench::Options),
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let result = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Hosted(options) => options.run(),
        Command::Backend(options) => options.run(),
        Command::Stats(options) => options.run(),
        Command::BlockAttach(options) => options.run(),
        Command::BlockDetach(options) => options.run(),
        Command::Nbd(options) => options.run(),
        Command::Load(options) => options.run(),
        Command::Bench(options) => bench::run(&options),
    };
    if let Err(error) = result {
        eprintln!("causeway: {error:#}");
        std::process::exit(1);
    }
}
