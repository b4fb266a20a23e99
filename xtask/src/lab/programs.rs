// SPDX-License-Identifier: MIT OR Apache-2.0

//! The project's programs for the machines: built by the host's cargo, which Debian 13's C library runs as long as the
//! host's is not newer.

use std::path::Path;

use anyhow::Result;

use super::image::Overlay;
use super::root::Root;
use crate::command;

/// Their packages, each of which has a program of its name.
const PROGRAMS: &[&str] = &["causeway", "hostile", "remote"];

/// Builds them, and copies them into the folder `out` without what only a debugger reads. Returns where they go in a
/// machine, and where they are.
///
/// # Errors
///
/// When one does not compile.
pub fn build(root: &Root, out: &Path) -> Result<Overlay> {
    let mut cargo = command::cargo();
    cargo.current_dir(command::workspace());
    // As the demo has it: it is built once for both.
    cargo.args(["build", "--quiet", "--release"]);
    command::prepare(cargo.args(PROGRAMS.iter().flat_map(|program| ["--package", program])))?;
    let copy = |program: &&str| {
        let built = command::workspace().join("target/release").join(program);
        let copy = out.join(program);
        let words = [built.display().to_string(), copy.display().to_string()];
        command::prepare(&mut root.script("strip -o \"$2\" \"$1\"", &[&words[0], &words[1]]))?;
        Ok((format!("/usr/bin/{program}"), copy))
    };
    PROGRAMS.iter().map(copy).collect()
}
