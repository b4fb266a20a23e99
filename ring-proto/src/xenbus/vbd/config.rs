// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, ReadDirectory};
use super::super::Key;
use super::keys;

/// A rate that may not be exceeded, and how much of what was not used may be made up for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests or bytes a second, at least 1.
    pub rate: u64,
    /// Requests or bytes that may go at once after a pause, at least 1.
    pub burst: u64,
}

impl Limit {
    fn read<D: ReadDirectory>(
        own: &mut D,
        rate: Key,
        burst: Key,
    ) -> Result<Option<Self>, Error<D::Error>> {
        let rate = rate.number(own)?;
        let burst = match burst.number(own)? {
            0 => (rate / 10).max(1),
            burst => burst,
        };
        Ok((rate > 0).then_some(Self { rate, burst }))
    }
}

/// What the toolstack tells a backend in the backend's own directory. The image itself is [`keys::PARAMS`], a path of
/// any length that the backend reads by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// The frontend may not write (`mode`).
    pub read_only: bool,
    /// The guest sees a CD-ROM drive (`device-type`).
    pub cdrom: bool,
    /// Discard may be offered (`discard-enable`).
    pub discard: bool,
    /// `O_DIRECT` is safe (`direct-io-safe`).
    pub direct_io_safe: bool,
    /// Requests a second, if limited (`iops-limit`, `iops-burst`).
    pub iops: Option<Limit>,
    /// Bytes a second, if limited (`bandwidth-limit`, `bandwidth-burst`).
    pub bandwidth: Option<Limit>,
}

impl BackendConfig {
    /// Reads it from the backend's own directory. The limits may change during a connection.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is missing or not legal.
    pub fn read<D: ReadDirectory>(own: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(Self {
            read_only: keys::MODE.word(own)? != Some("w"),
            cdrom: keys::DEVICE_TYPE.word(own)? == Some("cdrom"),
            discard: keys::DISCARD_ENABLE.flag(own)?,
            direct_io_safe: keys::DIRECT_IO_SAFE.flag(own)?,
            iops: Limit::read(own, keys::IOPS_LIMIT, keys::IOPS_BURST)?,
            bandwidth: Limit::read(own, keys::BANDWIDTH_LIMIT, keys::BANDWIDTH_BURST)?,
        })
    }
}

/// What the toolstack tells a frontend in the frontend's own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendConfig {
    /// Which disk this is to the guest (`virtual-device`). Requests carry its low 16 bits as their handle.
    pub virtual_device: u32,
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
        let virtual_device = match keys::VIRTUAL_DEVICE.optional_u32(own)? {
            Some(number) => number,
            None => keys::VIRTUAL_DEVICE_EXT.u32(own)?,
        };
        Ok(Self { virtual_device, trusted: keys::TRUSTED.flag(own)? })
    }
}
