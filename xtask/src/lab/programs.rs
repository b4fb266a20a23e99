// SPDX-License-Identifier: MIT OR Apache-2.0

//! The project's programs for the machines: built by the host's cargo, which Debian 13's C library runs as long as the
//! host's is not newer.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::Root;
use crate::command;

/// Builds the `causeway` command, and copies it into the folder `out` without what only a debugger reads.
///
/// # Errors
///
/// When it does not compile.
pub fn build(root: &Root, out: &Path) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.current_dir(command::workspace());
    // As the demo has it: it is built once for both.
    command::run(cargo.args(["build", "--quiet", "--release", "--package", "causeway"]))?;
    let built = command::workspace().join("target/release/causeway");
    let copy = out.join("causeway");
    let words = [built.display().to_string(), copy.display().to_string()];
    command::run(&mut root.script("strip -o \"$2\" \"$1\"", &[&words[0], &words[1]]))?;
    Ok(copy)
}
