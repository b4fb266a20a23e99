// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, ReadDirectory};
use super::keys;

/// The block device that the hotplug script chose, for the kernel's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalDevice {
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

impl PhysicalDevice {
    /// Reads it from the backend's own directory; `None` as long as the script has not written it.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the key is not two hexadecimal numbers with a colon between them.
    pub fn read<D: ReadDirectory>(own: &mut D) -> Result<Option<Self>, Error<D::Error>> {
        keys::PHYSICAL_DEVICE.parse(own, Self::parse)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let colon = text.iter().position(|byte| *byte == b':')?;
        let (major, minor) = text.split_at_checked(colon)?;
        Some(Self { major: hexadecimal(major)?, minor: hexadecimal(minor.get(1..)?)? })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | digit)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::Fake;
    use super::*;

    #[test]
    fn two_numbers_and_nothing_else() {
        let read = |text| PhysicalDevice::read(&mut Fake::of(&[("physical-device", text)]));
        assert_eq!(read("7:1f"), Ok(Some(PhysicalDevice { major: 7, minor: 31 })));
        assert_eq!(read("FD:0"), Ok(Some(PhysicalDevice { major: 253, minor: 0 })));
        for bad in
            ["", ":", "7", "7:", ":7", "7:1:2", "7:-1", " 7:1", "7:1\n", "123456789:0", "g:0"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(PhysicalDevice::read(&mut Fake::default()), Ok(None));
    }
}
