// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask bench …`: starts the benchmark binaries, built for release.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{command, packages};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The part that is measured against its stock counterpart.
    part: Part,
    /// Passed on, such as `--json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// The ring engine against Xen's ring.h compiled by `cc -O2`.
    Ring,
    /// A hosted disk against raw io_uring on the same file, and its NBD server against qemu-nbd.
    Block,
}

/// Builds and runs the benchmark.
///
/// # Errors
///
/// When something it needs is missing, or it fails.
pub fn run(options: &Options) -> Result<()> {
    packages::ensure()?;
    let program: &[&str] = match options.part {
        Part::Ring => &["--package", "bench", "--bin", "ring", "--"],
        Part::Block => &["--package", "causeway", "--", "bench", "block"],
    };
    command::run(
        command::cargo().args(["run", "--quiet", "--release"]).args(program).args(&options.rest),
    )
}
