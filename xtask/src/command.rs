// SPDX-License-Identifier: MIT OR Apache-2.0

//! Running other programs, and where this project keeps what it fetched.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// The top folder of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where things that are fetched or built once are kept, outside the checkout: `CAUSEWAY_CACHE`, else
/// `$XDG_CACHE_HOME/causeway`, else `~/.cache/causeway`.
pub fn cache() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("CAUSEWAY_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|base| base.join("causeway")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/causeway")))
        .unwrap_or_else(|| std::env::temp_dir().join("causeway-cache"))
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command that prepares something, as [`run`] does. What it says goes to the error output, as all that this program
/// says of preparations: another program may be reading the report that follows.
pub fn prepare(command: &mut Command) -> anyhow::Result<()> {
    run(command.stdout(io::stderr()))
}

/// Runs a command with its output shown, and fails unless it exits with 0.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed; its error output is part of the error if it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Locks a file, made if it is not there, until the value is dropped: two of this program in one checkout would write
/// into each other's work.
pub fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("waiting for another xtask, which has {}", path.display());
        flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(file)
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    // A whole script as a word helps nobody.
    let shown = words.map(|word| match word.to_string_lossy() {
        word if word.contains('\n') => "…".into(),
        word => word,
    });
    shown.collect::<Vec<_>>().join(" ")
}
