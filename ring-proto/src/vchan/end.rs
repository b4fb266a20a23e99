// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! One side's end of a channel.

use super::{
    Orders, VchanError, CLI_LIVE, CLI_NOTIFY, GRANTS, LEFT, LEFT_ORDER, NOTIFY_READ, NOTIFY_WRITE,
    RIGHT, SRV_LIVE, SRV_NOTIFY,
};
use crate::shared::SharedMemory;
use crate::stream::{Consumer, Producer};
use crate::xen::GrantRef;

/// The word that holds both `live` and both `notify`.
const FLAGS: usize = CLI_LIVE;

/// How often a bit of `notify` is tried for. The peer writes there once for each doorbell or request for one, so more
/// failures than this are meant.
const TRIES: u32 = 1000;

/// Which end of a channel this side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It shared the pages.
    Server,
    /// It mapped them.
    Client,
}

/// Whether a peer is there (`cli_live`, `srv_live`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// It has exited.
    Gone,
    /// It is connected.
    Connected,
    /// The client has not come yet.
    Awaited,
}

/// What a transfer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a peer that asked for the doorbell sleeps until it rings"]
pub struct Transfer {
    /// Bytes moved.
    pub count: usize,
    /// Whether the peer wants the doorbell.
    pub notify: bool,
}

impl Transfer {
    const NOTHING: Self = Self { count: 0, notify: false };
}

/// One end of a channel. `C` is the memory of the control page, `D` that of the buffers.
#[derive(Debug)]
pub struct Vchan<C, D> {
    control: C,
    role: Role,
    rx: Consumer<C, D>,
    tx: Producer<C, D>,
}

impl<C: SharedMemory + Clone, D: SharedMemory> Vchan<C, D> {
    /// The server's end. Writes the control page, which nobody else has yet. `left` and `right` are the memory of the
    /// buffers, and for a buffer in the control page that page itself; `grants` are those of their pages, left first.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when grants or memory do not fit the orders.
    pub fn server(
        control: C,
        left: D,
        right: D,
        orders: Orders,
        grants: &[GrantRef],
    ) -> Result<Self, VchanError> {
        let (given, wanted) = (grants.len(), orders.left_pages() + orders.right_pages());
        if given != wanted {
            return Err(VchanError::Grants { given, wanted });
        }
        for offset in [LEFT, LEFT + 4, RIGHT, RIGHT + 4] {
            control.store(offset, 0);
        }
        for (page, gref) in grants.iter().enumerate() {
            control.store(GRANTS + 4 * page, gref.0);
        }
        // The server waits for the client's first bytes; the client says for itself that it waits for the server's.
        control.store(FLAGS, u32::from_le_bytes([2, 1, NOTIFY_WRITE, 0]));
        control
            .store_release(LEFT_ORDER, u32::from(orders.left()) | u32::from(orders.right()) << 16);
        Ok(Self {
            rx: Consumer::attach(control.clone(), left, orders.left_layout())?,
            tx: Producer::attach(control.clone(), right, orders.right_layout())?,
            control,
            role: Role::Server,
        })
    }

    /// The client's end, connected from then on; the caller rings the doorbell once. `orders` are those
    /// [read](Orders::read) from the page, `left` and `right` the memory of the buffers, and for a buffer in the control
    /// page that page itself.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the memory does not fit the orders or the indices contradict each other.
    pub fn client(control: C, left: D, right: D, orders: Orders) -> Result<Self, VchanError> {
        let end = Self {
            rx: Consumer::attach(control.clone(), right, orders.right_layout())?,
            tx: Producer::attach(control.clone(), left, orders.left_layout())?,
            control,
            role: Role::Client,
        };
        end.set_live(true)?;
        end.request(NOTIFY_WRITE)?;
        Ok(end)
    }

    /// Whether the peer is there. Look at this before looking for data: what a peer wrote before it left can be read.
    pub fn peer(&self) -> Live {
        let [client, server, ..] = self.control.load_acquire(FLAGS).to_le_bytes();
        match if self.role == Role::Server { client } else { server } {
            0 => Live::Gone,
            2 => Live::Awaited,
            _ => Live::Connected,
        }
    }

    /// Says that this end exits. The caller rings the doorbell.
    ///
    /// # Errors
    ///
    /// [`VchanError::Notify`], when the peer did not let it be said.
    pub fn close(self) -> Result<(), VchanError> {
        self.set_live(false)
    }

    /// How many bytes can be read now. Asks for the doorbell when there come more.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn data_ready(&mut self) -> Result<usize, VchanError> {
        self.request(NOTIFY_WRITE)?;
        Ok(self.rx.available()? as usize)
    }

    /// How many bytes can be written now. Asks for the doorbell when there can be more.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn buffer_space(&mut self) -> Result<usize, VchanError> {
        self.request(NOTIFY_READ)?;
        Ok(self.tx.free()? as usize)
    }

    /// Reads what there is, up to the length of `into`. Asks for the doorbell when that was less.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn read(&mut self, into: &mut [u8]) -> Result<Transfer, VchanError> {
        self.await_data(into.len())?;
        let count = self.rx.read(into)?;
        Ok(self.moved(count, NOTIFY_READ))
    }

    /// Fills all of `into`; or reads nothing and asks for the doorbell.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn recv(&mut self, into: &mut [u8]) -> Result<Transfer, VchanError> {
        if self.await_data(into.len())? < into.len() {
            return Ok(Transfer::NOTHING);
        }
        let count = self.rx.read(into)?;
        Ok(self.moved(count, NOTIFY_READ))
    }

    /// Writes as much of `bytes` as there is room for. Asks for the doorbell when that was not all.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Transfer, VchanError> {
        self.await_room(bytes.len())?;
        let count = self.tx.write(bytes)?;
        Ok(self.moved(count, NOTIFY_WRITE))
    }

    /// Writes all of `bytes`; or nothing and asks for the doorbell.
    ///
    /// # Errors
    ///
    /// [`VchanError`], when the peer broke the rules.
    pub fn send(&mut self, bytes: &[u8]) -> Result<Transfer, VchanError> {
        if self.await_room(bytes.len())? < bytes.len() {
            return Ok(Transfer::NOTHING);
        }
        let count = self.tx.write(bytes)?;
        Ok(self.moved(count, NOTIFY_WRITE))
    }

    fn await_data(&mut self, wanted: usize) -> Result<usize, VchanError> {
        match self.rx.available()? as usize {
            ready if ready >= wanted => Ok(ready),
            _ => self.data_ready(),
        }
    }

    fn await_room(&mut self, wanted: usize) -> Result<usize, VchanError> {
        match self.tx.free()? as usize {
            room if room >= wanted => Ok(room),
            _ => self.buffer_space(),
        }
    }

    fn moved(&self, count: usize, bit: u8) -> Transfer {
        Transfer { count, notify: count > 0 && self.notify_wanted(bit) }
    }

    fn set_live(&self, live: bool) -> Result<(), VchanError> {
        let own = if self.role == Role::Server { SRV_LIVE } else { CLI_LIVE };
        let shift = 8 * (own - FLAGS);
        self.change_flags(|flags| flags & !(0xff << shift) | u32::from(live) << shift)
            .map(|_| ())
            .ok_or(VchanError::Notify)
    }

    /// Asks the peer to ring; a full barrier, so that what the peer did before it saw this is seen afterwards.
    fn request(&self, bit: u8) -> Result<(), VchanError> {
        let peers = if self.role == Role::Server { CLI_NOTIFY } else { SRV_NOTIFY };
        let bit = u32::from(bit) << (8 * (peers - FLAGS));
        self.change_flags(|flags| flags | bit).map(|_| ()).ok_or(VchanError::Notify)
    }

    /// Whether the peer asked this end to ring; it has to ask anew the next time. A peer that does not let the bit be
    /// cleared gets its doorbell.
    fn notify_wanted(&self, bit: u8) -> bool {
        let own = if self.role == Role::Server { SRV_NOTIFY } else { CLI_NOTIFY };
        let bit = u32::from(bit) << (8 * (own - FLAGS));
        // Moving the index was a full barrier: a request made before the peer's last look is seen here.
        self.control.load(FLAGS) & bit != 0
            && self.change_flags(|flags| flags & !bit).is_none_or(|flags| flags & bit != 0)
    }

    /// Changes the flags in one step and returns what they were, or `None` when the peer changed them all the time.
    fn change_flags(&self, change: impl Fn(u32) -> u32) -> Option<u32> {
        let mut flags = self.control.load(FLAGS);
        for _ in 0..TRIES {
            match self.control.compare_exchange(FLAGS, flags, change(flags)) {
                Ok(old) => return Some(old),
                Err(now) => flags = now,
            }
        }
        None
    }
}
