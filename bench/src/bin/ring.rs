// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ring [--json] [--pairs N]`: the ring against Xen's `ring.h`.

use clap::Parser;

/// Measures the ring against Xen's ring.h, and against two queues of Rust for scale.
#[derive(Parser)]
struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Pairs of runs for each line.
    #[arg(long, default_value_t = 11)]
    pairs: usize,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    bench::ring::run(options.pairs)?.print(options.json)
}
