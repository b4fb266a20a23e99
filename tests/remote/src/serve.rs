// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end in a DomU.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hypervisor_client::store::Store;

use crate::{DIRECTORY, PIECE};

/// Most bytes of output that are given back: the last ones.
const MOST: u64 = 60_000;

/// Runs what is asked for below `home`, each command beside the others: one that hangs does not keep the next from
/// running. `connect` makes one connection to xenstore more; `scratch` is a folder for output.
///
/// # Errors
///
/// When xenstore is not there any more.
pub fn serve(
    connect: impl Fn() -> Result<Store> + Clone + Send + 'static,
    home: &str,
    scratch: &Path,
) -> Result<()> {
    let commands = format!("{home}{DIRECTORY}/command");
    let store = connect()?;
    store.watch(&commands, "")?;
    let mut seen = HashSet::new();
    while let Some(event) = store.next_event(None)? {
        let Some(number) = event.path.strip_prefix(&commands) else { continue };
        let Some(number) = number.strip_prefix('/') else {
            // The first event, which comes at once: whoever sees this node may write.
            store.write(&format!("{home}{DIRECTORY}/ready"), "1")?;
            continue;
        };
        // A command is removed when it is done, which is an event too.
        if !seen.insert(number.to_owned()) {
            continue;
        }
        let (connect, home, number) = (connect.clone(), home.to_owned(), number.to_owned());
        let output = scratch.join(format!("output.{number}"));
        std::thread::spawn(move || {
            if let Err(error) = run(&connect, &home, &number, &output) {
                eprintln!("remote: command {number}: {error:#}");
            }
        });
    }
    Ok(())
}

/// Runs a command and gives its output and its code back.
fn run(
    connect: &impl Fn() -> Result<Store>,
    home: &str,
    number: &str,
    output: &Path,
) -> Result<()> {
    let store = connect()?;
    let node = |kind: &str| format!("{home}{DIRECTORY}/{kind}/{number}");
    let command = store.read_str(&node("command"))?;
    // A file: what the command leaves running in the background may keep it open.
    let file = File::create(output).with_context(|| output.display().to_string())?;
    // A pipe's code is that of what failed in it, so that none hides a failure by printing what came of it.
    let status = Command::new("bash")
        .args(["-o", "pipefail", "-c", &command])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let text = last(output)?;
    fs::remove_file(output)?;
    for (at, piece) in text.chunks(PIECE).enumerate() {
        store.write(&format!("{}/{at}", node("output")), piece)?;
    }
    store.write(&node("done"), format!("{code} {}", text.len().div_ceil(PIECE)))?;
    Ok(())
}

/// The end of a file.
fn last(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}
