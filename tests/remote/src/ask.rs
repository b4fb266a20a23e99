// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end in Dom0.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypervisor_client::store::Store;

use crate::DIRECTORY;

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code.
    pub code: u8,
    /// What it printed.
    pub output: Vec<u8>,
}

/// Has `command` run in the domain whose directory is `domain`. `number` is a name that no command there had. `None`
/// when it did not end in time: then it goes on by itself.
///
/// # Errors
///
/// When xenstore refuses something, or the DomU answers nonsense.
pub fn run(
    store: &Store,
    domain: &str,
    number: &str,
    command: &str,
    limit: Duration,
) -> Result<Option<Outcome>> {
    let node = |kind: &str| format!("{domain}/{DIRECTORY}/{kind}/{number}");
    store.write(&node("command"), command)?;
    let Ok(found) = wait(store, &node("done"), None, limit)? else { return Ok(None) };
    let done = String::from_utf8_lossy(&found);
    let (code, pieces) = done.split_once(' ').with_context(|| format!("the answer {done:?}"))?;
    let code = code.parse::<i32>().with_context(|| format!("the answer {done:?}"))?;
    let mut output = Vec::new();
    for at in 0..pieces.parse::<usize>().with_context(|| format!("the answer {done:?}"))? {
        output.extend(store.read(&format!("{}/{at}", node("output")))?);
    }
    for kind in ["command", "done", "output"] {
        // Without output there is no such node.
        let _ = store.rm(&node(kind));
    }
    Ok(Some(Outcome { code: code as u8, output }))
}

/// Waits until a node exists, with this value if one is given. Returns the value; when the time is up, what there was.
///
/// # Errors
///
/// When xenstore cannot be asked.
pub fn wait(
    store: &Store,
    path: &str,
    value: Option<&str>,
    limit: Duration,
) -> Result<Result<Vec<u8>, Option<Vec<u8>>>> {
    let end = Instant::now() + limit;
    store.watch(path, path)?;
    let mut found = None;
    // The first event comes at once.
    while store.next_event(Some(end.saturating_duration_since(Instant::now())))?.is_some() {
        found = store.try_read(path)?;
        let wanted = |found: &Vec<u8>| value.is_none_or(|value| value.as_bytes() == found);
        if let Some(found) = found.take_if(|found| wanted(found)) {
            store.unwatch(path, path)?;
            return Ok(Ok(found));
        }
    }
    store.unwatch(path, path)?;
    Ok(Err(found))
}
