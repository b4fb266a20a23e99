// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine whose Dom0 has booted and waits to be told its scenario, in a file: machines that go on from there are
//! spared 40 seconds of a processor each.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Lab;
use super::machine::{Killed, Machine};

/// What Dom0 is told on its command line.
pub const WORDS: &str = "lab=await";

/// What it says when it waits.
const WAITS: &str = "lab: Dom0 waits";

/// What it says when it was told.
const BEGINS: &str = "lab: scenario ";

/// Seconds that it may take until there is one. It takes a sixth of that on an idle machine.
const LIMIT: u64 = 300;

/// See the module.
pub struct Snapshot {
    file: PathBuf,
}

impl Snapshot {
    /// Boots `machine`, which has [`WORDS`], and writes it to a file in the folder `out`.
    ///
    /// # Errors
    ///
    /// When it does not come to wait, or the emulator refuses.
    pub fn take(machine: &Machine, arguments: &[&str], lab: &Lab, out: &Path) -> Result<Self> {
        let file = out.join("ready.state");
        let (serial, report) = (out.join("ready.serial.log"), out.join("ready.report.log"));
        let _ = fs::remove_file(&file);
        File::create(&report)?;
        let log = File::create(&serial)?;
        let mut qemu = machine.command(lab, &report);
        qemu.args(arguments).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut qemu = Killed(qemu.spawn()?);
        let end = Instant::now() + Duration::from_secs(LIMIT);
        let mut asked = false;
        while qemu.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "not done after {LIMIT} s; see {}", serial.display());
            if !asked && says(&serial, WAITS) {
                asked = true;
                // Ctrl-A C leads from the serial port to the emulator's monitor.
                let orders = format!("\x01c\nmigrate file:{}\nquit\n", file.display());
                qemu.0.stdin.as_mut().context("no standard input")?.write_all(orders.as_bytes())?;
            }
            thread::sleep(Duration::from_millis(200));
        }
        ensure!(
            asked && fs::metadata(&file).is_ok_and(|file| file.len() > 0),
            "the emulator did not write it; see {}",
            serial.display()
        );
        let _ = fs::remove_file(serial);
        let _ = fs::remove_file(report);
        Ok(Self { file })
    }

    /// Arguments of the emulator, to go on from here.
    pub fn arguments(&self) -> [String; 2] {
        ["-incoming".into(), format!("file:{}", self.file.display())]
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Tells a machine that goes on from a snapshot what its scenario is, as often as it takes: what it hears before it goes
/// on is lost.
pub struct Teller<'a> {
    words: String,
    serial: &'a Path,
    last: Option<Instant>,
    done: bool,
}

impl<'a> Teller<'a> {
    /// `words` are those that would stand on Dom0's command line; `serial` is the log of its console.
    pub fn new(words: String, serial: &'a Path) -> Self {
        Self { words, serial, last: None, done: false }
    }

    /// Once more, if a second has passed and the machine has not begun.
    ///
    /// # Errors
    ///
    /// When the emulator has gone.
    pub fn tell(&mut self, mut qemu: impl Write) -> Result<()> {
        if self.done || self.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return Ok(());
        }
        self.done = says(self.serial, BEGINS);
        if !self.done {
            self.last = Some(Instant::now());
            // The first character may be lost.
            match writeln!(qemu, "\n{}", self.words) {
                // One that reads nothing any more will run out of time.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn says(log: &Path, what: &str) -> bool {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).contains(what)
}
