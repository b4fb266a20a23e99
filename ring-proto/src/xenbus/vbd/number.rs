// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! What a guest calls a disk: the number in `virtual-device`, as `docs/man/xen-vbd-interface.7` encodes it, and the
//! name and minor numbers that Linux makes of it.

use core::fmt;

/// The major number of Linux' Xen disks, whatever the number of the device says.
pub const LINUX_MAJOR: u32 = 202;

/// Bits that Linux has for a minor number.
const MINOR_BITS: u32 = 20;

/// Numbers of a disk with its partitions, and of one of those that have many.
const MINORS: u32 = 16;
const MINORS_EXTENDED: u32 = 256;

/// Which disk a device is, or which partition that comes without its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskNumber {
    /// 0 is `xvda`.
    disk: u32,
    first_minor: u32,
    minors: u32,
}

impl DiskNumber {
    /// That of `virtual-device`, or `None` when the number means no disk.
    pub const fn of(virtual_device: u32) -> Option<Self> {
        let (disk, first_minor, minors) = match (virtual_device >> 28, virtual_device >> 8) {
            (1, _) => {
                let minor = virtual_device & ((1 << 28) - 1);
                (minor / MINORS_EXTENDED, minor, MINORS_EXTENDED)
            }
            (0, major) => {
                let minor = virtual_device & 0xff;
                let unit = minor / MINORS;
                let (disk, minor) = match major {
                    LINUX_MAJOR => (unit, minor),
                    // IDE disks have 64 numbers each, and Linux keeps the whole disk only.
                    3 => (minor / 64, minor / 64 * MINORS),
                    22 => (minor / 64 + 2, (minor / 64 + 2) * MINORS),
                    // SCSI disks: sixteen to each of sixteen majors.
                    8 => (unit, minor),
                    65..=71 => (unit + (major - 64) * 16, minor + (major - 64) * 256),
                    128..=135 => (unit + (major - 120) * 16, minor + (major - 120) * 256),
                    _ => return None,
                };
                (disk, minor, MINORS)
            }
            _ => return None,
        };
        if first_minor >> MINOR_BITS != 0 {
            return None;
        }
        let minors = if first_minor % minors == 0 { minors } else { 1 };
        Some(Self { disk, first_minor, minors })
    }

    /// Whether `virtual-device` is a number of frontends' own, not that of a disk which firmware may emulate too.
    pub const fn is_own(virtual_device: u32) -> bool {
        matches!((virtual_device >> 28, virtual_device >> 8), (1, _) | (0, LINUX_MAJOR))
    }

    /// The minor number of the disk.
    pub const fn first_minor(&self) -> u32 {
        self.first_minor
    }

    /// How many minor numbers there are: for the disk and its partitions, or 1 for a lone partition.
    pub const fn minors(&self) -> u32 {
        self.minors
    }

    /// Its number when it is a partition that comes without its disk.
    const fn partition(&self) -> Option<u32> {
        match self.minors {
            // Only the extended encoding has more than 15 of them, and a smaller one never has the bits above.
            1 if self.first_minor / MINORS == self.disk => Some(self.first_minor % MINORS),
            1 => Some(self.first_minor % MINORS_EXTENDED),
            _ => None,
        }
    }
}

impl fmt::Display for DiskNumber {
    /// The name of the device: `xvda`, `xvdaa`, `xvda3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("xvd")?;
        // With 20 bits of minor numbers, a disk's number has at most 16, which is four letters.
        let mut letters = ['a'; 4];
        let (mut left, mut count) = (self.disk, 0);
        for letter in letters.iter_mut().rev() {
            *letter = char::from(b'a' + (left % 26) as u8);
            count += 1;
            match (left / 26).checked_sub(1) {
                Some(next) => left = next,
                None => break,
            }
        }
        for letter in letters.iter().skip(4 - count) {
            fmt::Write::write_char(f, *letter)?;
        }
        match self.partition() {
            Some(partition) => write!(f, "{partition}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn shown(virtual_device: u32) -> (std::string::String, u32, u32) {
        let number = DiskNumber::of(virtual_device).unwrap();
        (format!("{number}"), number.first_minor(), number.minors())
    }

    /// What Linux' own frontend makes of these numbers.
    #[test]
    fn names_and_numbers_are_those_of_linux() {
        for (device, name, minor, minors) in [
            (202 << 8, "xvda", 0, 16),
            (202 << 8 | 16, "xvdb", 16, 16),
            (202 << 8 | 15 << 4, "xvdp", 240, 16),
            (202 << 8 | 3, "xvda3", 3, 1),
            (202 << 8 | 16 | 15, "xvdb15", 31, 1),
            (1 << 28, "xvda", 0, 256),
            (1 << 28 | 16 << 8, "xvdq", 16 * 256, 256),
            (1 << 28 | 26 << 8, "xvdaa", 26 * 256, 256),
            (1 << 28 | 701 << 8, "xvdzz", 701 * 256, 256),
            (1 << 28 | 702 << 8, "xvdaaa", 702 * 256, 256),
            (1 << 28 | 4 << 8 | 17, "xvde17", 4 * 256 + 17, 1),
            (1 << 28 | 4095 << 8, "xvdfan", 4095 * 256, 256),
            (3 << 8, "xvda", 0, 16),
            (3 << 8 | 64, "xvdb", 16, 16),
            (22 << 8 | 64, "xvdd", 48, 16),
            (8 << 8, "xvda", 0, 16),
            (8 << 8 | 33, "xvdc1", 33, 1),
            (65 << 8, "xvdq", 256, 16),
            (71 << 8 | 240, "xvddx", 7 * 256 + 240, 16),
            (128 << 8, "xvddy", 8 * 256, 16),
            (135 << 8 | 240, "xvdiv", 15 * 256 + 240, 16),
        ] {
            assert_eq!(shown(device), (name.into(), minor, minors), "{device:#x}");
        }
    }

    #[test]
    fn what_is_no_disk() {
        for device in [0, 9 << 8, 72 << 8, 127 << 8, 136 << 8, 203 << 8, 2 << 28, u32::MAX, 1 << 20]
        {
            assert_eq!(DiskNumber::of(device), None, "{device:#x}");
        }
        // Linux has 20 bits for a minor number.
        assert_eq!(DiskNumber::of(1 << 28 | 1 << 20), None);
    }

    #[test]
    fn every_number_has_a_name_of_its_length() {
        for device in (0..1 << 16).chain((1 << 28)..(1 << 28) + (1 << 20)) {
            let Some(number) = DiskNumber::of(device) else { continue };
            let name = format!("{number}");
            assert!(name.len() <= 10 && name.is_ascii(), "{name}");
        }
    }
}
