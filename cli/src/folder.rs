// SPDX-License-Identifier: MIT OR Apache-2.0

//! Folders that go when they are dropped, and also when a signal ends this process: images are large.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

/// How often to try to remove a folder.
const TRIES: u32 = 100;

/// What is there now.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary folder.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes one in `place`, with a name that begins with `prefix`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(prefix: &str, place: &Path) -> io::Result<Self> {
        watch_signals()?;
        let mut folders = folders();
        let folder = Self(tempfile::Builder::new().prefix(prefix).tempdir_in(place)?);
        folders.push(folder.path().to_owned());
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        folders().retain(|path| path != self.0.path());
    }
}

/// Starts the thread that ends the process, once.
fn watch_signals() -> io::Result<()> {
    static WATCHED: OnceLock<()> = OnceLock::new();
    if WATCHED.get().is_some() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        // No more are made from here on. Other threads may still put files into one that goes, but not for long.
        let folders = folders();
        for folder in folders.iter() {
            let gone = || std::fs::remove_dir_all(folder).is_ok() || !folder.exists();
            let _ = (0..TRIES).any(|_| gone());
        }
        std::process::exit(128 + signal);
    })?;
    let _ = WATCHED.set(());
    Ok(())
}
