// SPDX-License-Identifier: MIT OR Apache-2.0

//! The emulator: a copy of Debian's QEMU without one of its faults.
//!
//! When the hypervisor starts a domain with an interrupt for it (VMRUN with EVENTINJ), QEMU's `helper_vmrun` notes the
//! interrupt's number in `exception_index` and delivers it. The note stays. If QEMU leaves the domain's code for reasons
//! of its own before the domain exits to the hypervisor, as it does whenever a timer's moment has come, it finds the note
//! and delivers the interrupt once more, and does not ask whether the domain has interrupts on. A kernel that holds a lock
//! then may wait for that lock in the interrupt, for ever; and a wait with PAUSE is so dear in emulation that no limit of
//! time in the machine is reached. (QEMU 10.0; `target/i386/tcg/system/svm_helper.c`.)
//!
//! The copy lacks the note: the instruction that writes it does nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use super::folder;
use super::root::Root;
use super::stamp::Stamp;
use crate::command;

/// Debian's.
const STOCK: &str = "/usr/bin/qemu-system-x86_64";

/// Where it has the firmware from; a copy elsewhere does not find that by itself.
const FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// The function that starts a domain, and the one by which it delivers an interrupt.
const START: &str = "helper_vmrun";
const DELIVER: &str = "do_interrupt_x86_hardirq";

/// Counts the ways in which the copy was made: another one makes it anew.
const RECIPE: u32 = 1;

/// How far before the call the instruction is looked for, in bytes.
const BEFORE: usize = 96;

/// An instruction of six bytes that does nothing.
const NOP: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// What to run.
pub struct Emulator {
    /// In the root.
    pub program: String,
}

impl Emulator {
    /// The copy, made if there is none of this version. A QEMU that is built otherwise than those that are known is run as
    /// it is, after a line that says so.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or QEMU is no program.
    pub fn ensure(root: &Root) -> Result<Self> {
        let stock = root.outside(STOCK);
        let metadata = fs::metadata(&stock).with_context(|| stock.display().to_string())?;
        let copy = folder().join("qemu-system-x86_64");
        let made_from = format!("{RECIPE}: {} {}", metadata.len(), metadata.mtime());
        let stamp = Stamp::new("emulator", made_from);
        let _lock = command::lock(&folder().join("emulator.lock"))?;
        if !stamp.is_current() || !copy.exists() {
            if !make(&stock, &copy)? {
                eprintln!(
                    "this QEMU runs as it is: it may have a fault that stops a machine at times"
                );
                return Ok(Self { program: STOCK.into() });
            }
            stamp.set()?;
        }
        Ok(Self { program: copy.display().to_string() })
    }

    /// Arguments that it needs wherever it stands.
    pub fn arguments() -> impl Iterator<Item = &'static str> {
        FIRMWARE.into_iter().flat_map(|folder| ["-L", folder])
    }
}

/// Makes the copy, if QEMU is built like those that are known.
fn make(stock: &Path, copy: &Path) -> Result<bool> {
    let mut image = fs::read(stock).with_context(|| stock.display().to_string())?;
    let Some(at) = note(&image)? else { return Ok(false) };
    image[at..at + NOP.len()].copy_from_slice(&NOP);
    // One that runs cannot be written to.
    let new: PathBuf = copy.with_extension("new");
    fs::write(&new, image)?;
    fs::set_permissions(&new, fs::metadata(stock)?.permissions())?;
    fs::rename(&new, copy)?;
    Ok(true)
}

/// Where in the file the instruction stands that writes the note; `None` if that is not clear.
fn note(image: &[u8]) -> Result<Option<usize>> {
    let elf = object::File::parse(image)?;
    let symbol = |name: &str| elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
    let (Some(start), Some(deliver)) = (symbol(START), symbol(DELIVER)) else { return Ok(None) };
    let mut code = elf.sections().filter(|section| section.kind() == SectionKind::Text);
    let at = code.find_map(|section| {
        let from = start.address().checked_sub(section.address())?;
        let (offset, size) = section.file_range()?;
        (from < size).then_some((offset + from) as usize)
    });
    let function = at.and_then(|at| image.get(at..at + start.size() as usize));
    let store = function.and_then(|code| store(code, start.address(), deliver.address()));
    Ok(at.zip(store).map(|(at, store)| at + store))
}

/// Where in `function`, which stands at `address`, the note is written: `mov %esi, disp32(%rbx)`, before the one call of
/// `deliver`, whose second argument `%esi` is the interrupt; with a negative displacement, because the note is in the part
/// of the processor's state before the one that `%rbx` points to. `None` if there is not exactly one.
fn store(function: &[u8], address: u64, deliver: u64) -> Option<usize> {
    const CALL: u8 = 0xe8;
    const MOV: [u8; 2] = [0x89, 0b10_110_011];
    let word = |at: usize| Some(i32::from_le_bytes(*function.get(at..)?.first_chunk()?));
    let calls = |&at: &usize| {
        function[at] == CALL
            && word(at + 1).is_some_and(|by| {
                address.wrapping_add(at as u64 + 5).wrapping_add_signed(by.into()) == deliver
            })
    };
    let call = only((0..function.len()).filter(calls))?;
    let stores = |&at: &usize| {
        function[at..].starts_with(&MOV)
            && word(at + 2).is_some_and(|to| (-0x8000..0).contains(&to))
    };
    only((call.saturating_sub(BEFORE)..call.saturating_sub(NOP.len())).filter(stores))
}

fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::store;

    const ADDRESS: u64 = 0x7f_c547;
    const DELIVER: u64 = 0x86_7140;

    /// The instructions in question, of QEMU 10.0.13.
    const FUNCTION: [u8; 64] = [
        0x41, 0x0f, 0xb6, 0xf4, // movzbl %r12b,%esi
        0x44, 0x89, 0xab, 0xe0, 0x33, 0x00, 0x00, // mov %r13d,0x33e0(%rbx)
        0x89, 0xb3, 0x10, 0xd7, 0xff, 0xff, // mov %esi,-0x28f0(%rbx)
        0xc7, 0x83, 0xe4, 0x33, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // movl $0,0x33e4(%rbx)
        0x48, 0xc7, 0x83, 0xe8, 0x33, 0x00, 0x00, 0xff, 0xff, 0xff,
        0xff, // movq $-1,0x33e8(%rbx)
        0xf6, 0x05, 0xec, 0xe2, 0x3d, 0x01, 0x02, // testb $2,…(%rip)
        0x0f, 0x85, 0xc1, 0x00, 0x00, 0x00, // jne
        0xba, 0x01, 0x00, 0x00, 0x00, // mov $1,%edx
        0x48, 0x89, 0xdf, // mov %rbx,%rdi
        0xe8, 0xb9, 0xab, 0x06, 0x00, // call do_interrupt_x86_hardirq
    ];

    #[test]
    fn the_note_of_a_known_build_is_found() {
        assert_eq!(store(&FUNCTION, ADDRESS, DELIVER), Some(11));
    }

    #[test]
    fn another_build_is_left_alone() {
        // Nobody calls it from here.
        assert_eq!(store(&FUNCTION, ADDRESS, DELIVER + 1), None);
        // Two such stores, of which either may be the one.
        let twice = [&FUNCTION[11..17], &FUNCTION].concat();
        assert_eq!(store(&twice, ADDRESS - 6, DELIVER), None);
        // None.
        assert_eq!(store(&FUNCTION[17..], ADDRESS + 17, DELIVER), None);
        // The end is missing.
        assert_eq!(store(&FUNCTION[..61], ADDRESS, DELIVER), None);
    }
}
