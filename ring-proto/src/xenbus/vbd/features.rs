// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, ReadDirectory, WriteDirectory};
use super::keys;
use crate::blkif::{MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS};

/// What a backend offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFeatures {
    /// Most queues, at least 1.
    pub max_queues: u32,
    /// Largest ring, as the power of two of its pages.
    pub max_ring_page_order: u32,
    /// Most segments of an indirect request; 0 when there are none.
    pub max_indirect_segments: u32,
    /// Pages may stay mapped.
    pub persistent: bool,
    /// Flushes are served.
    pub flush_cache: bool,
    /// Barriers are served.
    pub barrier: bool,
}

impl Default for BackendFeatures {
    /// What a backend offers that writes nothing.
    fn default() -> Self {
        Self {
            max_queues: 1,
            max_ring_page_order: 0,
            max_indirect_segments: 0,
            persistent: false,
            flush_cache: false,
            barrier: false,
        }
    }
}

impl BackendFeatures {
    /// Publishes them in the backend's own directory, before it goes to `InitWait`.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    pub fn write<D: WriteDirectory>(&self, own: &mut D) -> Result<(), D::Error> {
        own.write(keys::MAX_QUEUES.name, format_args!("{}", self.max_queues))?;
        own.write(keys::MAX_RING_PAGE_ORDER.name, format_args!("{}", self.max_ring_page_order))?;
        // A backend without indirect requests must not have the key.
        let indirect = keys::MAX_INDIRECT_SEGMENTS.name;
        match self.max_indirect_segments {
            0 => own.remove(indirect)?,
            segments => own.write(indirect, format_args!("{segments}"))?,
        }
        for (key, on) in [
            (keys::PERSISTENT, self.persistent),
            (keys::FLUSH_CACHE, self.flush_cache),
            (keys::BARRIER, self.barrier),
        ] {
            own.write(key.name, format_args!("{}", u8::from(on)))?;
        }
        Ok(())
    }

    /// Reads them from the backend's directory: once when it is at `InitWait`, for the rings, and once when it is
    /// `Connected`, for the rest.
    ///
    /// Limits may be larger than this crate's; [`FrontendSettings::negotiate`](super::FrontendSettings::negotiate)
    /// and [`indirect_segments`](Self::indirect_segments) keep within both.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is not legal.
    pub fn read<D: ReadDirectory>(backend: &mut D) -> Result<Self, Error<D::Error>> {
        Ok(Self {
            max_queues: keys::MAX_QUEUES.u32(backend)?,
            max_ring_page_order: keys::MAX_RING_PAGE_ORDER.u32(backend)?,
            max_indirect_segments: keys::MAX_INDIRECT_SEGMENTS.u32(backend)?,
            persistent: keys::PERSISTENT.flag(backend)?,
            flush_cache: keys::FLUSH_CACHE.flag(backend)?,
            barrier: keys::BARRIER.flag(backend)?,
        })
    }

    /// How many segments a frontend that can handle `wanted` of them may put into an indirect request; `None` when
    /// that is no more than a direct one takes, so that indirect requests are of no use.
    pub fn indirect_segments(&self, wanted: u16) -> Option<u16> {
        let offered = u16::try_from(self.max_indirect_segments).unwrap_or(u16::MAX);
        let segments = wanted.min(offered).min(MAX_INDIRECT_SEGMENTS);
        (usize::from(segments) > MAX_SEGMENTS).then_some(segments)
    }
}
