// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a machine is asked that did not end in time, before it is killed: where its processor is, and what the hypervisor
//! knows of its domains. The answers are printed, for whoever has no more of a run than what it printed.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How often, and how long between, one looks where the processor is.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Keys of Xen, whose answers tell what nobody else can say when Dom0 does not: registers of the processor and of Dom0,
/// who runs, timers, event channels.
const KEYS: &str = "d0rae";

/// How long Xen may take to answer.
const ANSWERS: Duration = Duration::from_secs(20);

/// Asks the machine of the scenario `name`, and prints the end of the log `serial` with the answers in it. Best effort: it
/// may be past answering. Returns where in the log the answers begin.
pub fn ask(name: &str, mut qemu: impl Write, serial: &Path) -> usize {
    let before = fs::metadata(serial).map_or(0, |file| file.len()) as usize;
    if let Err(why) = put(&mut qemu) {
        println!("{name} | the emulator cannot be asked: {why}");
    }
    let log = fs::read(serial).unwrap_or_default();
    let (story, answers) = log.split_at(before.min(log.len()));
    let (story, answers) = (String::from_utf8_lossy(story), String::from_utf8_lossy(answers));
    let last = story.lines().count().saturating_sub(10);
    for line in story.lines().skip(last).chain(answers.lines().filter(|line| tells(line))) {
        println!("{name} | {}", line.trim_end());
    }
    before
}

fn put(qemu: &mut impl Write) -> io::Result<()> {
    // Ctrl-A C leads from the serial port to the emulator's monitor, and back.
    qemu.write_all(b"\x01c\n")?;
    for _ in 0..LOOKS {
        qemu.write_all(b"info registers\n")?;
        qemu.flush()?;
        thread::sleep(PAUSE);
    }
    // Three times Ctrl-A, each of which the emulator wants doubled, lead from Dom0 to Xen.
    qemu.write_all(b"\x01c\x01\x01\x01\x01\x01\x01")?;
    for key in KEYS.chars() {
        write!(qemu, "{key}")?;
        qemu.flush()?;
        thread::sleep(ANSWERS / KEYS.len() as u32);
    }
    Ok(())
}

/// Whether a line of an answer says where a processor is, or what waits: the others are registers of all kinds and words
/// of a stack, and stay in the log.
fn tells(line: &str) -> bool {
    let word = |word: &str| word.len() == 16 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
    let stack = |line: &str| line.split_whitespace().all(word);
    line.starts_with("RIP=") || line.strip_prefix("(XEN) ").is_some_and(|line| !stack(line))
}

#[cfg(test)]
mod tests {
    use super::tells;

    #[test]
    fn what_tells_where_a_processor_is() {
        assert!(tells("RIP=ffffffff8134bda1 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0"));
        assert!(tells("(XEN) RIP:    e033:[<ffffffff8134bda1>]"));
        assert!(!tells(
            "(XEN)    ffffc9000059d7f0 ffffc90040013b64 ffffffff8322a000 ffffffff822568c0"
        ));
        assert!(!tells("(XEN)"));
        assert!(!tells("CR0=80050033 CR2=ffff80000059d7f0 CR3=000000012b22a000 CR4=00000660"));
    }
}
