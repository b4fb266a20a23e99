// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask lab shell`: a Dom0 to type in.

use std::fs;

use anyhow::Result;
use clap::Args;

use super::Lab;
use super::machine::{Dom0, Hypervisor, Machine, Memory, Turns};
use crate::command;

/// What boots.
#[derive(Args)]
pub struct Options {
    /// How Dom0 runs.
    #[arg(long, value_enum, default_value_t)]
    dom0: Dom0,
    /// The hypervisor.
    #[arg(long, value_enum, default_value_t)]
    hypervisor: Hypervisor,
}

/// Boots it on this terminal.
///
/// # Errors
///
/// When the lab cannot be made or the machine not be started.
pub fn run(options: &Options) -> Result<()> {
    let lab = Lab::ensure()?;
    let out = command::workspace().join("target/lab/shell");
    fs::create_dir_all(&out)?;
    let Hypervisor::Xen = options.hypervisor;
    let machine = Machine {
        hypervisor: lab.xen.clone(),
        kernel: lab.kernel.image(),
        initrd: lab.initrd(&out)?,
        dom0: options.dom0,
        turns: Turns::AtOnce,
        memory: Memory::default(),
        words: "lab=shell".into(),
    };
    println!("booting (about 20 s); end with `poweroff`, or Ctrl-A X");
    command::run(&mut machine.command(&lab, &out.join("report.log")))
}
