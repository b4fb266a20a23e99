// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::directory::{Error, KeyError, KeyPath, ReadDirectory, Reason, WriteDirectory};
use super::super::key::{read_number, refuse_repeated};
use super::super::Key;
use super::features::write_flags;
use super::{keys, BackendFeatures, Offloads, MAX_QUEUES, MAX_XDP_HEADROOM};
use crate::xen::{GrantRef, Port};

/// How a frontend connects: first what it wants at most, then what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendSettings {
    /// Number of queues.
    pub queues: u32,
    /// Each queue has a doorbell for each direction.
    pub split_event_channels: bool,
    /// There is a control ring.
    pub ctrl_ring: bool,
    /// The backend filters multicast packets.
    pub multicast_control: bool,
    /// The frontend rings the doorbell when it has given pages to receive into.
    pub rx_notify: bool,
    /// Bytes to leave before received packets, at most [`MAX_XDP_HEADROOM`].
    pub xdp_headroom: u16,
    /// What the frontend accepts.
    pub offloads: Offloads,
}

impl FrontendSettings {
    /// The most of `wanted` that the backend and this crate allow.
    ///
    /// # Errors
    ///
    /// When the backend does not copy packets (`feature-rx-copy`).
    pub fn negotiate(wanted: &Self, offered: &BackendFeatures) -> Result<Self, KeyError> {
        if !offered.rx_copy {
            return Err(keys::RX_COPY.refuse(&keys::RX_COPY.path(), 0, Reason::HasToBe(1)));
        }
        Ok(Self {
            queues: wanted.queues.min(offered.max_queues).clamp(1, MAX_QUEUES as u32),
            split_event_channels: wanted.split_event_channels && offered.split_event_channels,
            ctrl_ring: wanted.ctrl_ring && offered.ctrl_ring,
            multicast_control: wanted.multicast_control && offered.multicast_control,
            rx_notify: wanted.rx_notify,
            xdp_headroom: match offered.xdp_headroom {
                true => wanted.xdp_headroom.min(MAX_XDP_HEADROOM),
                false => 0,
            },
            offloads: wanted.offloads,
        })
    }
}

/// The doorbells of a queue, in the frontend's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One for both rings.
    Shared(Port),
    /// One for each ring.
    Split {
        /// For packets from the guest.
        tx: Port,
        /// For packets to the guest.
        rx: Port,
    },
}

/// A queue as published. All of it is an allegation until mapped and bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The page of the ring of packets from the guest.
    pub tx: GrantRef,
    /// The page of the ring of packets to the guest.
    pub rx: GrantRef,
    /// The doorbells.
    pub channels: Channels,
}

impl Queue {
    const NONE: Self =
        Self { tx: GrantRef::INVALID, rx: GrantRef::INVALID, channels: Channels::Shared(Port(0)) };

    fn pages(&self) -> [(Key, u32); 2] {
        [(keys::TX_RING_REF, self.tx.0), (keys::RX_RING_REF, self.rx.0)]
    }

    fn ports(&self) -> impl Iterator<Item = (Key, u32)> + Clone {
        let (first, second) = match self.channels {
            Channels::Shared(port) => ((keys::EVENT_CHANNEL, port.0), None),
            Channels::Split { tx, rx } => {
                ((keys::EVENT_CHANNEL_TX, tx.0), Some((keys::EVENT_CHANNEL_RX, rx.0)))
            }
        };
        core::iter::once(first).chain(second)
    }
}

/// A control ring as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The page of the ring.
    pub gref: GrantRef,
    /// The doorbell, in the frontend's domain.
    pub port: Port,
}

/// All that a frontend publishes: what it decided, its queues and its control ring. No page and no event channel occurs
/// twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    settings: FrontendSettings,
    queues: [Queue; MAX_QUEUES],
    control: Option<Control>,
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("settings", &self.settings)
            .field("queues", &self.queues())
            .field("control", &self.control)
            .finish()
    }
}

impl Connection {
    /// A connection as `settings` say, with these queues and this control ring.
    ///
    /// # Errors
    ///
    /// When the queues are not as many, or they or the control ring not of the kind that `settings` say, or anything
    /// is used twice. Names the key that would be wrong.
    pub fn new(
        settings: FrontendSettings,
        queues: &[Queue],
        control: Option<Control>,
    ) -> Result<Self, KeyError> {
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
        let connection = Self { settings, queues: copied, control };
        let missing = |path| KeyError { path, value: None, reason: Reason::Missing };
        for (at, queue) in queues.iter().enumerate() {
            let split = matches!(queue.channels, Channels::Split { .. });
            if split != settings.split_event_channels {
                let key = if split { keys::EVENT_CHANNEL } else { keys::EVENT_CHANNEL_TX };
                return Err(missing(connection.path(key, at)));
            }
        }
        if control.is_some() != settings.ctrl_ring {
            return Err(missing(keys::CTRL_RING_REF.path()));
        }
        keys::XDP_HEADROOM.check(&keys::XDP_HEADROOM.path(), u64::from(settings.xdp_headroom))?;
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

    /// The control ring, if there is one.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Where a key of a queue stands: in the device's directory itself when there is only one queue.
    fn path(&self, key: Key, queue: usize) -> KeyPath {
        let alone = self.settings.queues <= 1 || !key.per_queue;
        key.path_in_queue(if alone { None } else { Some(queue as u32) })
    }

    /// Every page, with its key and the number of its queue.
    fn pages(&self) -> impl Iterator<Item = ((Key, usize), u32)> + Clone + '_ {
        let queues = self.queues().iter().enumerate().flat_map(|(at, queue)| {
            queue.pages().into_iter().map(move |(key, gref)| ((key, at), gref))
        });
        let control = self.control.map(|control| ((keys::CTRL_RING_REF, 0), control.gref.0));
        queues.chain(control)
    }

    /// Every event channel, with its key and the number of its queue.
    fn ports(&self) -> impl Iterator<Item = ((Key, usize), u32)> + Clone + '_ {
        let queues = self
            .queues()
            .iter()
            .enumerate()
            .flat_map(|(at, queue)| queue.ports().map(move |(key, port)| ((key, at), port)));
        let control = self.control.map(|control| ((keys::EVENT_CHANNEL_CTRL, 0), control.port.0));
        queues.chain(control)
    }

    fn check(&self) -> Result<(), KeyError> {
        for ((key, at), number) in self.pages().chain(self.ports()) {
            key.check(&self.path(key, at), u64::from(number))?;
        }
        refuse_repeated(self.pages(), |(key, at)| self.path(key, at))?;
        refuse_repeated(self.ports(), |(key, at)| self.path(key, at))
    }

    /// Publishes it in the frontend's own directory, before it goes to `Connected`, and removes what an earlier
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
                for key in keys::KEYS.iter().filter(|key| key.per_queue) {
                    own.remove(key.name)?;
                }
            }
        }
        for at in 0..self.queues().len() {
            let stale: &[Key] = match self.settings.split_event_channels {
                true => &[keys::EVENT_CHANNEL],
                false => &[keys::EVENT_CHANNEL_TX, keys::EVENT_CHANNEL_RX],
            };
            for key in stale {
                own.remove(self.path(*key, at).as_str())?;
            }
        }
        if self.control.is_none() {
            own.remove(keys::CTRL_RING_REF.name)?;
            own.remove(keys::EVENT_CHANNEL_CTRL.name)?;
        }
        for ((key, at), number) in self.pages().chain(self.ports()) {
            own.write(self.path(key, at).as_str(), format_args!("{number}"))?;
        }
        self.settings.offloads.write(own)?;
        write_flags(
            own,
            &[
                (keys::REQUEST_RX_COPY, true),
                (keys::RX_NOTIFY, self.settings.rx_notify),
                (keys::REQUEST_MULTICAST_CONTROL, self.settings.multicast_control),
            ],
        )?;
        own.write(keys::XDP_HEADROOM.name, format_args!("{}", self.settings.xdp_headroom))
    }

    /// Reads it from the frontend's directory, when the frontend is `Connected`, and checks it against what the
    /// backend `offered`. What was not offered is not read.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or a key is missing, not legal, or not within the offer.
    pub fn read<D: ReadDirectory>(
        frontend: &mut D,
        offered: &BackendFeatures,
    ) -> Result<Self, Error<D::Error>> {
        let key = keys::NUM_QUEUES;
        let queues = key.u32(frontend)?;
        let max = offered.max_queues.min(MAX_QUEUES as u32);
        if queues > max {
            let reason = Reason::OutOfRange { min: 1, max: u64::from(max) };
            return Err(key.refuse(&key.path(), u64::from(queues), reason).into());
        }
        let key = keys::REQUEST_RX_COPY;
        if !key.flag(frontend)? {
            return Err(key.refuse(&key.path(), 0, Reason::HasToBe(1)).into());
        }
        let headroom = match offered.xdp_headroom {
            true => keys::XDP_HEADROOM.number(frontend)?,
            false => 0,
        };
        let settings = FrontendSettings {
            queues,
            split_event_channels: false,
            ctrl_ring: false,
            multicast_control: keys::REQUEST_MULTICAST_CONTROL.flag(frontend)?
                && offered.multicast_control,
            rx_notify: keys::RX_NOTIFY.flag(frontend)?,
            xdp_headroom: u16::try_from(headroom).unwrap_or(MAX_XDP_HEADROOM),
            offloads: Offloads::read(frontend)?,
        };
        let mut connection = Self { settings, queues: [Queue::NONE; MAX_QUEUES], control: None };

        // The first queue says for all whether they have two doorbells each.
        let first = connection.path(keys::EVENT_CHANNEL_TX, 0);
        let split = offered.split_event_channels
            && read_number(frontend, &keys::EVENT_CHANNEL_TX, &first)?.is_some();
        connection.settings.split_event_channels = split;
        for at in 0..queues as usize {
            let mut read = |key: Key| key.u32_at(frontend, &connection.path(key, at));
            let queue = Queue {
                tx: GrantRef(read(keys::TX_RING_REF)?),
                rx: GrantRef(read(keys::RX_RING_REF)?),
                channels: match split {
                    true => Channels::Split {
                        tx: Port(read(keys::EVENT_CHANNEL_TX)?),
                        rx: Port(read(keys::EVENT_CHANNEL_RX)?),
                    },
                    false => Channels::Shared(Port(read(keys::EVENT_CHANNEL)?)),
                },
            };
            if let Some(slot) = connection.queues.get_mut(at) {
                *slot = queue;
            }
        }
        if offered.ctrl_ring {
            if let Some(gref) = keys::CTRL_RING_REF.optional_u32(frontend)? {
                let port = Port(keys::EVENT_CHANNEL_CTRL.u32(frontend)?);
                connection.control = Some(Control { gref: GrantRef(gref), port });
                connection.settings.ctrl_ring = true;
            }
        }
        connection.check()?;
        Ok(connection)
    }
}
