// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, KeyError, ReadDirectory, Reason, WriteDirectory};
use super::super::key::{read_number, refuse_repeated};
use super::{keys, BackendFeatures, MAX_QUEUES, MAX_RING_PAGES};
use crate::blkif::Abi;
use crate::ring::MAX_ORDER;
use crate::xen::{GrantRef, Port};

/// How a frontend connects: first what it wants at most, then what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendSettings {
    /// Number of queues.
    pub queues: u32,
    /// Pages of each ring, as a power of two.
    pub ring_page_order: u32,
    /// The frontend reuses its pages. Whether the backend keeps them mapped is known only once it is connected.
    pub persistent: bool,
    /// Layout of the requests, as the key `protocol` names it.
    pub abi: Abi,
}

impl FrontendSettings {
    /// The most of `wanted` that the backend and this crate allow.
    pub fn negotiate(wanted: &Self, offered: &BackendFeatures) -> Self {
        Self {
            queues: wanted.queues.min(offered.max_queues).clamp(1, MAX_QUEUES as u32),
            ring_page_order: wanted.ring_page_order.min(offered.max_ring_page_order).min(MAX_ORDER),
            persistent: wanted.persistent,
            abi: wanted.abi,
        }
    }
}

/// A queue as published: the pages of its ring, and its doorbell. All of it is an allegation until mapped and bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    refs: [GrantRef; MAX_RING_PAGES],
    order: u32,
    /// The event channel, in the frontend's domain.
    pub port: Port,
}

impl Queue {
    const NONE: Self = Self { refs: [GrantRef::INVALID; MAX_RING_PAGES], order: 0, port: Port(0) };

    /// A queue whose ring lies in the pages `refs`, in this order; `None` when their number is not a power of two up to
    /// [`MAX_RING_PAGES`].
    pub fn new(refs: &[GrantRef], port: Port) -> Option<Self> {
        if !refs.len().is_power_of_two() {
            return None;
        }
        let mut queue = Self { order: refs.len().trailing_zeros(), port, ..Self::NONE };
        queue.refs.get_mut(..refs.len())?.copy_from_slice(refs);
        Some(queue)
    }

    /// The pages of the ring, in order.
    pub fn refs(&self) -> &[GrantRef] {
        let pages = 1usize.checked_shl(self.order).unwrap_or(usize::MAX);
        self.refs.get(..pages).unwrap_or(&self.refs)
    }
}

impl core::fmt::Debug for Queue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Queue").field("refs", &self.refs()).field("port", &self.port).finish()
    }
}

/// All that a frontend publishes: what it decided, and its queues. No page and no event channel occurs twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    settings: FrontendSettings,
    queues: [Queue; MAX_QUEUES],
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("settings", &self.settings)
            .field("queues", &self.queues())
            .finish()
    }
}

impl Connection {
    /// A connection as `settings` say, with these queues.
    ///
    /// # Errors
    ///
    /// When the queues are not as many, or their rings not as large, as `settings` say, or use anything twice. Names
    /// the key that would be wrong.
    pub fn new(settings: FrontendSettings, queues: &[Queue]) -> Result<Self, KeyError> {
        let count = queues.len() as u64;
        let mut copied = [Queue::NONE; MAX_QUEUES];
        match copied.get_mut(..queues.len()) {
            Some(room) if count == u64::from(settings.queues) && count > 0 => {
                room.copy_from_slice(queues);
            }
            _ => {
                let wanted = settings.queues.clamp(1, MAX_QUEUES as u32);
                let reason = Reason::HasToBe(u64::from(wanted));
                return Err(keys::NUM_QUEUES.refuse(&keys::NUM_QUEUES.path(), count, reason));
            }
        }
        for queue in queues {
            if queue.order != settings.ring_page_order {
                let reason = Reason::HasToBe(u64::from(settings.ring_page_order));
                let path = keys::RING_PAGE_ORDER.path();
                return Err(keys::RING_PAGE_ORDER.refuse(&path, u64::from(queue.order), reason));
            }
        }
        let connection = Self { settings, queues: copied };
        connection.check()?;
        Ok(connection)
    }

    /// What was decided.
    pub fn settings(&self) -> &FrontendSettings {
        &self.settings
    }

    /// The queues, in order.
    pub fn queues(&self) -> &[Queue] {
        self.queues.get(..self.settings.queues as usize).unwrap_or(&self.queues)
    }

    /// The name of a queue's directory: none when it is the only one.
    fn directory(&self, queue: usize) -> Option<u32> {
        (self.settings.queues > 1).then_some(queue as u32)
    }

    /// The key of a page: `ring-ref` when the ring has only one.
    fn ref_path(&self, queue: usize, page: usize) -> super::super::KeyPath {
        match self.settings.ring_page_order {
            0 => keys::RING_REF.path_in_queue(self.directory(queue)),
            _ => keys::RING_REF_N.path_of_index(self.directory(queue), page as u32),
        }
    }

    fn port_path(&self, queue: usize) -> super::super::KeyPath {
        keys::EVENT_CHANNEL.path_in_queue(self.directory(queue))
    }

    /// Every page, with the numbers of its queue and its own.
    fn pages(&self) -> impl Iterator<Item = ((usize, usize), u32)> + Clone + '_ {
        self.queues().iter().enumerate().flat_map(|(queue, ring)| {
            ring.refs().iter().enumerate().map(move |(page, gref)| ((queue, page), gref.0))
        })
    }

    /// Every event channel, with the number of its queue.
    fn ports(&self) -> impl Iterator<Item = (usize, u32)> + Clone + '_ {
        self.queues().iter().map(|queue| queue.port.0).enumerate()
    }

    fn check(&self) -> Result<(), KeyError> {
        for ((queue, page), gref) in self.pages() {
            keys::RING_REF.check(&self.ref_path(queue, page), u64::from(gref))?;
        }
        for (queue, port) in self.ports() {
            keys::EVENT_CHANNEL.check(&self.port_path(queue), u64::from(port))?;
        }
        refuse_repeated(self.pages(), |(queue, page)| self.ref_path(queue, page))?;
        refuse_repeated(self.ports(), |queue| self.port_path(queue))
    }

    /// Publishes it in the frontend's own directory, before it goes to `Initialised`, and removes what an earlier
    /// connection left there that would be misread.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    pub fn write<D: WriteDirectory>(&self, own: &mut D) -> Result<(), D::Error> {
        match self.settings.queues {
            1 => own.remove(keys::NUM_QUEUES.name)?,
            queues => {
                own.write(keys::NUM_QUEUES.name, format_args!("{queues}"))?;
                own.remove(keys::EVENT_CHANNEL.name)?;
            }
        }
        match self.settings.ring_page_order {
            0 => own.remove(keys::RING_PAGE_ORDER.name)?,
            order => own.write(keys::RING_PAGE_ORDER.name, format_args!("{order}"))?,
        }
        if self.settings.queues > 1 || self.settings.ring_page_order > 0 {
            own.remove(keys::RING_REF.name)?;
        }
        for ((queue, page), gref) in self.pages() {
            own.write(self.ref_path(queue, page).as_str(), format_args!("{gref}"))?;
        }
        for (queue, port) in self.ports() {
            own.write(self.port_path(queue).as_str(), format_args!("{port}"))?;
        }
        own.write(keys::PROTOCOL.name, format_args!("{}", self.settings.abi.protocol()))?;
        let persistent = u8::from(self.settings.persistent);
        own.write(keys::PERSISTENT.name, format_args!("{persistent}"))
    }

    /// Reads it from the frontend's directory, when the frontend is `Initialised`, and checks it against what the
    /// backend `offered`.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is missing, not legal, or not within the offer.
    pub fn read<D: ReadDirectory>(
        frontend: &mut D,
        offered: &BackendFeatures,
    ) -> Result<Self, Error<D::Error>> {
        let abi = keys::PROTOCOL.word(frontend)?.and_then(Abi::from_protocol);
        let abi = abi.unwrap_or(Abi::NATIVE);
        let persistent = keys::PERSISTENT.flag(frontend)?;

        let key = keys::NUM_QUEUES;
        let queues = key.u32(frontend)?;
        let max = offered.max_queues.min(MAX_QUEUES as u32);
        if queues > max {
            let reason = Reason::OutOfRange { min: 1, max: u64::from(max) };
            return Err(key.refuse(&key.path(), u64::from(queues), reason).into());
        }

        let key = keys::RING_PAGE_ORDER;
        let numbered = read_number(frontend, &key, &key.path())?.is_some();
        let order = key.u32(frontend)?;
        let max = offered.max_ring_page_order.min(MAX_ORDER);
        if order > max {
            let reason = Reason::OutOfRange { min: 0, max: u64::from(max) };
            return Err(key.refuse(&key.path(), u64::from(order), reason).into());
        }

        let settings = FrontendSettings { queues, ring_page_order: order, persistent, abi };
        let mut connection = Self { settings, queues: [Queue::NONE; MAX_QUEUES] };
        for at in 0..queues as usize {
            let directory = connection.directory(at);
            let mut ring = Queue { order, ..Queue::NONE };
            for (page, gref) in ring.refs.iter_mut().take(1 << order).enumerate() {
                let mut path = connection.ref_path(at, page);
                if order == 0 && numbered {
                    // Linux's backend takes `ring-page-order` = 0 to mean `ring-ref0`, the header `ring-ref`.
                    let first = keys::RING_REF_N.path_of_index(directory, 0);
                    if read_number(frontend, &keys::RING_REF_N, &first)?.is_some() {
                        path = first;
                    }
                }
                *gref = GrantRef(keys::RING_REF.u32_at(frontend, &path)?);
            }
            let path = keys::EVENT_CHANNEL.path_in_queue(directory);
            ring.port = Port(keys::EVENT_CHANNEL.u32_at(frontend, &path)?);
            if let Some(queue) = connection.queues.get_mut(at) {
                *queue = ring;
            }
        }
        connection.check()?;
        Ok(connection)
    }
}
