// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask test`: every proof of the project, one step after the other.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::command::{self, cargo};
use crate::versions::RUSTC;
use crate::{debian13, fuzz, lab, loom, packages};

/// Which tests to run, and for how long.
#[derive(Args)]
pub struct Options {
    /// Run only the steps whose name begins with this.
    filter: Option<String>,
    /// Seconds that each fuzz target runs.
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u64,
    /// Run only this fuzz target.
    #[arg(long)]
    fuzz_target: Option<String>,
    /// Preemptions in one execution of a concurrency model; by default each model's own bound, 2 or 3.
    #[arg(long)]
    loom_preemptions: Option<usize>,
}

/// The language of modules: the kernel's build says so.
const KERNEL_EDITION: &str = "2021";

/// A step: its name and what it does.
type Step = (&'static str, fn(&Options) -> Result<()>);

const STEPS: &[Step] = &[
    ("packages", |_| packages::ensure()),
    ("format", |_| format()),
    ("lints", |_| {
        in_both_workspaces(&["clippy", "--workspace", "--all-targets"], &["--", "-D", "warnings"])
    }),
    ("documentation", |_| documentation()),
    ("tests", |_| command::run(cargo().args(["test", "--workspace", "--no-fail-fast"]))),
    ("models", |options| loom::run(options.loom_preemptions)),
    ("fuzz", |options| fuzz::run(options.fuzz_seconds, options.fuzz_target.as_deref())),
    ("demo", |_| command::run(cargo().args(["run", "--release", "--", "demo"]))),
    ("modules", |_| lab::modules()),
    // The lab has it, so that it is not fetched.
    ("rust-1.85.1", |_| kernel_compiler()),
    ("lab", |_| lab::test()),
];

/// Runs the steps, prints a line for each and the count of all.
///
/// # Errors
///
/// When a step failed, or no step has the name asked for.
pub fn run(options: &Options) -> Result<()> {
    let chosen =
        |name: &str| options.filter.as_deref().is_none_or(|filter| name.starts_with(filter));
    let (mut passed, mut failures) = (0, Vec::new());
    for (name, step) in STEPS.iter().filter(|(name, _)| chosen(name)) {
        let start = Instant::now();
        println!("---- {name}");
        match step(options) {
            Ok(()) => {
                passed += 1;
                println!("PASS {name} ({:.0} s)", start.elapsed().as_secs_f64());
            }
            Err(why) => {
                println!("FAIL {name}: {why:#}");
                failures.push(format!("FAIL {name}: {why:#}"));
            }
        }
    }
    // Again, where who looks at the end of a long log sees them.
    for failure in &failures {
        println!("{failure}");
    }
    let failed = failures.len();
    println!("{passed} passed, {failed} failed");
    match (passed, failed) {
        (0, 0) => bail!("no step begins with `{}`", options.filter.as_deref().unwrap_or_default()),
        (_, 0) => Ok(()),
        _ => std::process::exit(1),
    }
}

/// Runs cargo in this workspace and in that of the fuzz targets.
fn in_both_workspaces(command: &[&str], rest: &[&str]) -> Result<()> {
    command::run(cargo().args(command).args(rest))?;
    let fuzz = ["--manifest-path", "ring-proto/fuzz/Cargo.toml"];
    command::run(cargo().args(command).args(fuzz).args(rest))
}

/// Looks at the workspaces and at the crates of kernel modules, which cargo does not know: each is its `lib.rs` with what
/// follows from it.
fn format() -> Result<()> {
    in_both_workspaces(&["fmt", "--all"], &["--check"])?;
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--check", "--edition", KERNEL_EDITION, "frontends/blkfront/lib.rs"]);
    for folder in Path::new("linux-modules").read_dir()? {
        let root = folder?.path().join("lib.rs");
        if root.exists() {
            rustfmt.arg(root);
        }
    }
    command::run(&mut rustfmt)
}

fn documentation() -> Result<()> {
    let mut doc = cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    command::run(&mut doc)?;
    let page = std::fs::read_to_string("docs/src/xenstore-keys.md")?;
    let tables =
        command::output(cargo().args(["run", "--quiet", "-p", "ring-proto", "--example", "keys"]))?;
    ensure!(
        page.ends_with(&tables),
        "docs/src/xenstore-keys.md is not what `--example keys` prints"
    );
    Ok(())
}

/// Compiles the protocol crate with the compiler that kernel modules are built with.
fn kernel_compiler() -> Result<()> {
    let out = command::workspace().join(format!("target/rust-{RUSTC}"));
    std::fs::create_dir_all(&out)?;
    let mut rustc: Command = debian13::rustc()?;
    rustc.args([
        "--edition",
        KERNEL_EDITION,
        "--crate-type",
        "lib",
        "--crate-name",
        "ring_proto",
        "-D",
        "warnings",
    ]);
    rustc
        .args(["-C", "opt-level=2", "-C", "panic=abort", "--emit", "metadata,obj", "--out-dir"])
        .arg(out);
    command::run(rustc.arg("ring-proto/src/lib.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_the_name_of_the_kernels_compiler() {
        let name = format!("rust-{RUSTC}");
        assert!(STEPS.iter().any(|(step, _)| *step == name), "no step {name}");
    }
}
