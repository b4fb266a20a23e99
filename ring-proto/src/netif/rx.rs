// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Packets that a frontend receives.
//!
//! A response lies in the very slot of the request that it answers: extra info has no id, so the place is all that
//! says which page is free again. A frontend goes by the place, and a backend must keep to it.

use super::wire::RawRxResponse;
use super::{flag, rx_flags, ExtraError, Extras, MAX_FRAGMENTS};
use crate::ring::RingError;
use crate::shared::PAGE_SIZE;

/// A part of a packet, within the page of one of the frontend's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFragment {
    id: u16,
    slot: u8,
    offset: u16,
    size: u16,
}

impl RxFragment {
    /// `size` bytes from `offset` of a page; `None` when they do not lie in it. `id` is that of the request.
    pub const fn new(id: u16, offset: u16, size: u16) -> Option<Self> {
        if offset as usize + size as usize > PAGE_SIZE {
            return None;
        }
        Some(Self { id, slot: 0, offset, size })
    }

    /// The id in the response: that of the request, if the backend is honest.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Which of the packet's slots it is, extra info counted: the place of the request that it answers.
    pub const fn slot(&self) -> u8 {
        self.slot
    }

    /// Where in the page it begins, in bytes.
    pub const fn offset(&self) -> u16 {
        self.offset
    }

    /// Its length in bytes; with the offset, not beyond the page.
    pub const fn size(&self) -> u16 {
        self.size
    }
}

/// A packet of legal form.
#[derive(Clone, Copy, Debug)]
pub struct RxPacket {
    /// The checksum has still to be filled in.
    pub csum_blank: bool,
    /// The sender vouches for the data.
    pub data_validated: bool,
    extras: Extras,
    count: u8,
    fragments: [RxFragment; MAX_FRAGMENTS],
}

impl RxPacket {
    /// A packet of these fragments; `None` when they are none or more than [`MAX_FRAGMENTS`].
    pub fn new(fragments: &[RxFragment], extras: Extras) -> Option<Self> {
        let mut all = [*fragments.first()?; MAX_FRAGMENTS];
        all.get_mut(..fragments.len())?.copy_from_slice(fragments);
        let after_extras = extras.count() as u8;
        for (index, fragment) in (0..).zip(&mut all) {
            fragment.slot = if index == 0 { 0 } else { after_extras + index };
        }
        let count = fragments.len() as u8;
        Some(Self { csum_blank: false, data_validated: false, extras, count, fragments: all })
    }

    /// Its fragments, at least one.
    pub fn fragments(&self) -> &[RxFragment] {
        self.fragments.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Its length in bytes.
    pub fn size(&self) -> u32 {
        self.fragments().iter().map(|fragment| u32::from(fragment.size)).sum()
    }

    /// Its extra info.
    pub fn extras(&self) -> &Extras {
        &self.extras
    }

    /// Number of slots that it takes, extra info counted.
    pub fn slots(&self) -> u8 {
        self.count + self.extras.count() as u8
    }

    /// The responses that deliver it.
    pub fn responses(&self) -> impl Iterator<Item = RawRxResponse> + '_ {
        let response = move |(index, fragment): (usize, &RxFragment)| RawRxResponse {
            id: fragment.id,
            offset: fragment.offset,
            flags: flag(index + 1 < usize::from(self.count), rx_flags::MORE_DATA),
            status: fragment.size,
        };
        let first =
            self.fragments().iter().enumerate().take(1).map(response).map(move |mut first| {
                first.flags |= flag(self.csum_blank, rx_flags::CSUM_BLANK)
                    | flag(self.data_validated, rx_flags::DATA_VALIDATED)
                    | flag(self.extras.count() > 0, rx_flags::EXTRA_INFO);
                first
            });
        let rest = self.fragments().iter().enumerate().skip(1).map(response);
        first.chain(self.extras.to_raw().map(RawRxResponse::from)).chain(rest)
    }
}

impl PartialEq for RxPacket {
    fn eq(&self, other: &Self) -> bool {
        self.csum_blank == other.csum_blank
            && self.data_validated == other.data_validated
            && self.extras == other.extras
            && self.fragments() == other.fragments()
    }
}

impl Eq for RxPacket {}

/// Why a backend is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxError {
    /// The ring is broken.
    Ring(RingError),
    /// The extra info is not legal.
    Extra(ExtraError),
    /// The packet has more than [`MAX_FRAGMENTS`] fragments.
    Fragments,
    /// Another fragment was announced but is missing.
    Missing,
    /// A fragment does not lie in its page.
    CrossesPage {
        /// Where it begins.
        offset: u16,
        /// Its length.
        size: u16,
    },
    /// The old way to say the segment size, which nobody asked for.
    GsoPrefix,
}

impl core::fmt::Display for RxError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Extra(error) => error.fmt(f),
            Self::Fragments => write!(f, "a packet of more than {MAX_FRAGMENTS} fragments"),
            Self::Missing => f.write_str("a fragment was announced but is missing"),
            Self::CrossesPage { offset, size } => {
                write!(f, "a fragment of {size} bytes from {offset} does not lie in its page")
            }
            Self::GsoPrefix => f.write_str("a GSO prefix was not agreed on"),
        }
    }
}

impl core::error::Error for RxError {}

impl From<RingError> for RxError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// What a backend's chain of slots turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a packet is built in place, without allocation")]
pub enum RxItem {
    /// A packet.
    Packet(RxPacket),
    /// A packet that the backend could not deliver: this many slots of it.
    Failed(u8),
}

impl RxItem {
    /// Takes one chain, to its end, from what `next` yields: usually a ring's `pop`. `None` when there is not even a
    /// first slot.
    ///
    /// # Errors
    ///
    /// [`RxError`], after which nothing more from this backend can be trusted.
    pub fn gather(
        mut next: impl FnMut() -> Result<Option<RawRxResponse>, RingError>,
    ) -> Result<Option<Self>, RxError> {
        let Some(first) = next()? else { return Ok(None) };
        if first.flags & rx_flags::GSO_PREFIX != 0 {
            return Err(RxError::GsoPrefix);
        }
        let mut extras = Extras::default();
        if first.flags & rx_flags::EXTRA_INFO != 0 {
            let gathered = Extras::gather(|| Ok(next()?.map(|slot| slot.as_extra())))?;
            extras = gathered.map_err(RxError::Extra)?;
        }
        let mut fragments = [RxFragment::default(); MAX_FRAGMENTS];
        let mut failed = false;
        let mut slot = first;
        let mut count = 0;
        loop {
            let into = fragments.get_mut(usize::from(count)).ok_or(RxError::Fragments)?;
            count += 1;
            let (offset, size) = (slot.offset, slot.status);
            if (size as i16) < 0 {
                failed = true;
            } else {
                *into = RxFragment::new(slot.id, offset, size)
                    .ok_or(RxError::CrossesPage { offset, size })?;
            }
            if slot.flags & rx_flags::MORE_DATA == 0 {
                break;
            }
            slot = next()?.ok_or(RxError::Missing)?;
        }
        if failed {
            return Ok(Some(Self::Failed(count + extras.count() as u8)));
        }
        let fragments = fragments.get(..usize::from(count)).unwrap_or(&[]);
        let packet = RxPacket::new(fragments, extras).ok_or(RxError::Fragments)?;
        Ok(Some(Self::Packet(RxPacket {
            csum_blank: first.flags & rx_flags::CSUM_BLANK != 0,
            data_validated: first.flags & rx_flags::DATA_VALIDATED != 0,
            ..packet
        })))
    }
}
