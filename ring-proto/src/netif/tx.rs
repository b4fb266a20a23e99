// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Packets that a frontend sends.

use super::wire::{RawTxRequest, RawTxResponse};
use super::{flag, tx_flags, ExtraError, Extras, Multicast, ETH_HLEN, MAX_FRAGMENTS, NR_SLOTS_MIN};
use crate::ring::RingError;
use crate::shared::PAGE_SIZE;
use crate::xen::GrantRef;

/// Most slots of a packet that can be read to its end and answered, extra info not counted.
const MAX_SLOTS: usize = 32;

/// What became of a fragment (`NETIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum TxStatus {
    /// Dropped.
    Dropped = -2,
    /// Refused.
    Error = -1,
    /// Sent.
    Okay = 0,
    /// Nothing: the slot held extra info.
    Null = 1,
}

/// A well-formed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxResponse {
    /// That of the request, if the backend is honest; without meaning for [`TxStatus::Null`].
    pub id: u16,
    /// What became of it.
    pub status: TxStatus,
}

/// A response that no backend may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTxResponse {
    /// The id in it.
    pub id: u16,
    /// The number of the status in it.
    pub status: i16,
}

impl core::fmt::Display for BadTxResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "response to id {} with status {}, which is not legal", self.id, self.status)
    }
}

impl core::error::Error for BadTxResponse {}

impl RawTxResponse {
    /// The response to the fragment of this id.
    pub fn new(id: u16, status: TxStatus) -> Self {
        Self { id, status: status as i16 as u16 }
    }

    /// Judges what a backend wrote.
    ///
    /// # Errors
    ///
    /// [`BadTxResponse`] when no backend may answer so.
    pub fn check(&self) -> Result<TxResponse, BadTxResponse> {
        let id = self.id;
        let status = match self.status as i16 {
            -2 => TxStatus::Dropped,
            -1 => TxStatus::Error,
            0 => TxStatus::Okay,
            1 => TxStatus::Null,
            status => return Err(BadTxResponse { id, status }),
        };
        Ok(TxResponse { id, status })
    }
}

/// A part of a packet, within one page. It may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    id: u16,
    gref: GrantRef,
    offset: u16,
    size: u16,
}

impl Fragment {
    /// `size` bytes from `offset` of the page granted as `gref`; `None` when they do not lie in a page. `id` is the
    /// frontend's own value.
    pub const fn new(id: u16, gref: GrantRef, offset: u16, size: u16) -> Option<Self> {
        if offset as usize + size as usize > PAGE_SIZE {
            return None;
        }
        Some(Self { id, gref, offset, size })
    }

    /// The frontend's own value.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// The page. Whether the frontend really granted it shows when it is mapped or copied.
    pub const fn gref(&self) -> GrantRef {
        self.gref
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

/// The slots of a packet, to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxSlots {
    ids: [u16; MAX_SLOTS],
    count: u8,
    extras: u8,
}

impl TxSlots {
    fn new(id: u16) -> Self {
        let mut ids = [0; MAX_SLOTS];
        ids[0] = id;
        Self { ids, count: 1, extras: 0 }
    }

    /// Adds a slot and returns how many there were, or `None` when there is no room for it.
    fn push(&mut self, id: u16) -> Option<usize> {
        let count = usize::from(self.count);
        *self.ids.get_mut(count)? = id;
        self.count += 1;
        Some(count)
    }

    /// The responses that give all slots back: one each, in the order of the slots.
    pub fn responses(&self, status: TxStatus) -> impl Iterator<Item = RawTxResponse> + '_ {
        let used = self.ids.get(..usize::from(self.count)).unwrap_or_default();
        let (first, rest) = used.split_at_checked(1).unwrap_or_default();
        let answer = move |id: &u16| RawTxResponse::new(*id, status);
        let nulls = (0..self.extras).map(|_| RawTxResponse::new(0, TxStatus::Null));
        first.iter().map(answer).chain(nulls).chain(rest.iter().map(answer))
    }
}

/// A packet of legal form.
#[derive(Clone, Copy, Debug)]
pub struct TxPacket {
    /// The checksum has still to be filled in.
    pub csum_blank: bool,
    /// The sender vouches for the data.
    pub data_validated: bool,
    extras: Extras,
    size: u16,
    count: u8,
    fragments: [Fragment; MAX_FRAGMENTS],
}

impl TxPacket {
    /// A packet of these fragments; `None` when they are none, more than [`NR_SLOTS_MIN`], shorter than an Ethernet
    /// header or longer than [`MAX_TX_SIZE`](super::MAX_TX_SIZE) in all, or when `extras` change the multicast list.
    pub fn new(fragments: &[Fragment], extras: Extras) -> Option<Self> {
        let size = fragments.iter().map(|fragment| u32::from(fragment.size)).sum::<u32>();
        let size = u16::try_from(size).ok().filter(|size| *size >= ETH_HLEN)?;
        if fragments.len() > NR_SLOTS_MIN || extras.multicast.is_some() {
            return None;
        }
        let mut all = [*fragments.first()?; MAX_FRAGMENTS];
        all.get_mut(..fragments.len())?.copy_from_slice(fragments);
        let count = fragments.len() as u8;
        Some(Self { csum_blank: false, data_validated: false, extras, size, count, fragments: all })
    }

    /// Its length in bytes: the sum of its fragments.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Its fragments, at least one.
    pub fn fragments(&self) -> &[Fragment] {
        self.fragments.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Its extra info. [`Extras::multicast`] is not set.
    pub fn extras(&self) -> &Extras {
        &self.extras
    }

    /// The slots to give back once the packet is done with.
    pub fn slots(&self) -> TxSlots {
        let mut slots =
            TxSlots { ids: [0; MAX_SLOTS], count: self.count, extras: self.extras.count() as u8 };
        for (id, fragment) in slots.ids.iter_mut().zip(self.fragments()) {
            *id = fragment.id;
        }
        slots
    }

    /// The requests that send it.
    pub fn requests(&self) -> impl Iterator<Item = RawTxRequest> + '_ {
        let more =
            move |index: usize| flag(index + 1 < usize::from(self.count), tx_flags::MORE_DATA);
        let first = self.fragments().iter().take(1).map(move |fragment| RawTxRequest {
            gref: fragment.gref.0,
            offset: fragment.offset,
            flags: more(0)
                | flag(self.csum_blank, tx_flags::CSUM_BLANK)
                | flag(self.data_validated, tx_flags::DATA_VALIDATED)
                | flag(self.extras.count() > 0, tx_flags::EXTRA_INFO),
            id: fragment.id,
            size: self.size,
        });
        let rest = self.fragments().iter().enumerate().skip(1).map(move |(index, fragment)| {
            RawTxRequest {
                gref: fragment.gref.0,
                offset: fragment.offset,
                flags: more(index),
                id: fragment.id,
                size: fragment.size,
            }
        });
        first.chain(self.extras.to_raw().map(RawTxRequest::from)).chain(rest)
    }
}

impl PartialEq for TxPacket {
    fn eq(&self, other: &Self) -> bool {
        self.csum_blank == other.csum_blank
            && self.data_validated == other.data_validated
            && self.extras == other.extras
            && self.fragments() == other.fragments()
    }
}

impl Eq for TxPacket {}

/// Why a packet is dropped. Its slots are answered, and the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxProblem {
    /// More fragments than [`MAX_FRAGMENTS`].
    Fragments(u8),
    /// A fragment is longer than what is left of the packet.
    FragmentSize {
        /// Bytes of the fragment.
        size: u16,
        /// Bytes of the packet that are not in the fragments before it.
        left: u16,
    },
    /// Shorter than an Ethernet header.
    Short(u16),
}

impl core::fmt::Display for TxProblem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Fragments(count) => write!(f, "{count} fragments are more than {MAX_FRAGMENTS}"),
            Self::FragmentSize { size, left } => {
                write!(f, "a fragment of {size} bytes where {left} are left")
            }
            Self::Short(size) => write!(f, "{size} bytes are no packet"),
        }
    }
}

/// Why a frontend is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxError {
    /// The ring is broken.
    Ring(RingError),
    /// The extra info is not legal.
    Extra(ExtraError),
    /// The packet has more slots than any honest frontend's.
    Slots {
        /// The limit that it went beyond.
        limit: u8,
    },
    /// Another fragment was announced but is missing.
    Missing,
    /// A fragment does not lie in its page.
    CrossesPage {
        /// Where it begins.
        offset: u16,
        /// Its length.
        size: u16,
    },
}

impl core::fmt::Display for TxError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Extra(error) => error.fmt(f),
            Self::Slots { limit } => {
                write!(f, "a packet of more than {limit} slots after the first")
            }
            Self::Missing => f.write_str("a fragment was announced but is missing"),
            Self::CrossesPage { offset, size } => {
                write!(f, "a fragment of {size} bytes from {offset} does not lie in its page")
            }
        }
    }
}

impl core::error::Error for TxError {}

impl From<RingError> for TxError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// What a frontend's chain of slots turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a packet is built in place, without allocation")]
pub enum TxItem {
    /// A packet to send.
    Packet(TxPacket),
    /// A change of the multicast list.
    Multicast(Multicast, TxSlots),
    /// A packet that cannot be sent, to be answered with [`TxStatus::Error`].
    Dropped(TxProblem, TxSlots),
}

impl TxItem {
    /// Takes one chain, to its end, from what `next` yields: usually a ring's `pop`. `None` when there is not even a
    /// first slot. A packet of more than `fatal_slots` slots after the first ends the connection; stock Linux says 20.
    /// The value is taken to be between 18 and 31.
    ///
    /// # Errors
    ///
    /// [`TxError`], after which nothing more from this frontend can be trusted.
    pub fn gather(
        fatal_slots: u8,
        mut next: impl FnMut() -> Result<Option<RawTxRequest>, RingError>,
    ) -> Result<Option<Self>, TxError> {
        let limit = fatal_slots.clamp(NR_SLOTS_MIN as u8, MAX_SLOTS as u8 - 1);
        let Some(first) = next()? else { return Ok(None) };
        let mut slots = TxSlots::new(first.id);
        let mut extras = Extras::default();
        if first.flags & tx_flags::EXTRA_INFO != 0 {
            let gathered = Extras::gather(|| Ok(next()?.map(|slot| slot.as_extra())))?;
            extras = gathered.map_err(TxError::Extra)?;
            slots.extras = extras.count() as u8;
        }
        if let Some(change) = extras.multicast {
            return Ok(Some(Self::Multicast(change, slots)));
        }

        let mut fragments =
            [Fragment { id: first.id, gref: GrantRef(first.gref), offset: 0, size: 0 };
                MAX_FRAGMENTS];
        let mut left = first.size;
        let mut problem = None;
        let mut flags = first.flags;
        while flags & tx_flags::MORE_DATA != 0 {
            let slot = next()?.ok_or(TxError::Missing)?;
            if slots.count > limit {
                return Err(TxError::Slots { limit });
            }
            let index = slots.push(slot.id).ok_or(TxError::Slots { limit })?;
            let (offset, size) = (slot.offset, slot.size);
            let fragment = Fragment::new(slot.id, GrantRef(slot.gref), offset, size)
                .ok_or(TxError::CrossesPage { offset, size })?;
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => problem = problem.or(Some(TxProblem::FragmentSize { size, left })),
            }
            if let Some(into) = fragments.get_mut(index) {
                *into = fragment;
            }
            flags = slot.flags;
        }
        if usize::from(slots.count) > MAX_FRAGMENTS {
            problem = problem.or(Some(TxProblem::Fragments(slots.count)));
        }
        if first.size < ETH_HLEN {
            problem = problem.or(Some(TxProblem::Short(first.size)));
        }
        if let Some(problem) = problem {
            return Ok(Some(Self::Dropped(problem, slots)));
        }
        let (offset, size) = (first.offset, left);
        fragments[0] = Fragment::new(first.id, GrantRef(first.gref), offset, size)
            .ok_or(TxError::CrossesPage { offset, size })?;
        Ok(Some(Self::Packet(TxPacket {
            csum_blank: first.flags & tx_flags::CSUM_BLANK != 0,
            data_validated: first.flags & tx_flags::DATA_VALIDATED != 0,
            extras,
            size: first.size,
            count: slots.count,
            fragments,
        })))
    }
}
