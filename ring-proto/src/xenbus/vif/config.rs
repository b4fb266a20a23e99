// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, ReadDirectory};
use super::super::key::parse_number;
use super::keys;

/// An Ethernet address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Parses six bytes of one or two hexadecimal digits with colons between them.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(|byte| *byte == b':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2))?;
            for digit in part {
                let digit = char::from(*digit).to_digit(16)?;
                *byte = (*byte << 4) | u8::try_from(digit).ok()?;
            }
        }
        // The lowest bit of the first byte marks an address of a group.
        (parts.next().is_none() && bytes[0] & 1 == 0).then_some(Self(bytes))
    }

    /// Reads the key `mac` of either end's directory.
    fn read<D: ReadDirectory>(own: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(keys::MAC.parse(own, Self::parse)?.unwrap_or(Self([0; 6])))
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// How much a guest may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes in each interval, at least 1.
    pub bytes: u64,
    /// Length of the interval in microseconds, at least 1.
    pub microseconds: u64,
}

impl Rate {
    /// Parses `BYTES,MICROSECONDS`; the inner `None` is no limit.
    fn parse(text: &[u8]) -> Option<Option<Self>> {
        let comma = text.iter().position(|byte| *byte == b',')?;
        let bytes = parse_number(text.get(..comma)?)??;
        let microseconds = parse_number(text.get(comma + 1..)?)??;
        if microseconds == 0 {
            return Some(None);
        }
        (bytes > 0).then_some(Some(Self { bytes, microseconds }))
    }
}

/// What the toolstack tells a backend in the backend's own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// The guest's address (`mac`).
    pub mac: Mac,
    /// Which interface of the guest this is (`handle`).
    pub handle: u32,
    /// Bytes of payload of a packet (`mtu`).
    pub mtu: u16,
    /// How much the guest may send, if limited (`rate`).
    pub rate: Option<Rate>,
}

impl BackendConfig {
    /// Reads it from the backend's own directory. The rate may change during a connection.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is missing or not legal.
    pub fn read<D: ReadDirectory>(own: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(Self {
            mac: Mac::read(own)?,
            handle: keys::HANDLE.u32(own)?,
            mtu: read_mtu(own)?,
            rate: keys::RATE.parse(own, Rate::parse)?.flatten(),
        })
    }
}

/// What the toolstack tells a frontend in the frontend's own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendConfig {
    /// The guest's address (`mac`).
    pub mac: Mac,
    /// Which interface of the guest this is (`handle`).
    pub handle: u32,
    /// Bytes of payload of a packet (`mtu`).
    pub mtu: u16,
    /// The backend may see whatever lies on a granted page (`trusted`).
    pub trusted: bool,
}

impl FrontendConfig {
    /// Reads it from the frontend's own directory.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is missing or not legal.
    pub fn read<D: ReadDirectory>(own: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(Self {
            mac: Mac::read(own)?,
            handle: keys::HANDLE.u32(own)?,
            mtu: read_mtu(own)?,
            trusted: keys::TRUSTED.flag(own)?,
        })
    }
}

/// Reads the key `mtu`, whose bounds are within 16 bits.
fn read_mtu<D: ReadDirectory>(own: &mut D) -> Result<u16, Error<D::Error>> {
    Ok(u16::try_from(keys::MTU.number(own)?).unwrap_or(u16::MAX))
}
