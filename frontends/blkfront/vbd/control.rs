// SPDX-License-Identifier: GPL-2.0

//! What a disk has, and what the steps of its handshake do to it.

use block::mq::{Disk, Limits, Numbers, TagSet};
use kernel::device::Core;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::time::{Delta, Instant, Monotonic};
use ring_proto::blkif::{FrontRing, MAX_SEGMENTS};
use ring_proto::xenbus::vbd::{
    BackendFeatures, Connection, FrontendConfig, FrontendSettings, Geometry, Queue as QueueKeys,
    LINUX_MAJOR,
};
use ring_proto::xenbus::{Frontend, State};
use xen::event::{EventChannel, Line};
use xen::grant::GrantedRing;
use xen::work;
use xen::xenbus::{transaction, Device};

use super::care::Adder;
use super::{Failure, Vbd, RETRY, TRIM};
use crate::disk::{limits, Queues, Set};
use crate::link::{retry, Agreement, Flush, Link, Remains, Slot};
use crate::minors::Minors;
use crate::options::Options;
use crate::queue::{Phase, Queue};

/// Most lines in the log that are about what a backend may do as often as it likes.
const TELL: u32 = 100;

/// How long requests of a disk that is wanted no more may be answered, in seconds.
const GRACE: i64 = 30;

/// How many connections in a row may fail for want of something that passes.
pub(super) const ATTEMPTS: u32 = 10;

/// How many connections' memory a backend may keep before it gets no more.
const MOST_REMAINS: usize = 2;

/// A queue that is published, and that the backend is not connected to yet.
struct Prepared {
    ring: FrontRing<GrantedRing>,
    line: Arc<Line>,
}

/// Requests whose pages a backend has not let go of, with the number of their queue.
struct Stuck {
    queue: usize,
    slots: KVec<KBox<Slot>>,
}

pub(super) struct Control {
    pub(super) frontend: Frontend,
    /// The disk fails everything, for ever.
    pub(super) dead: bool,
    /// Since when the disk is wanted no more.
    retired: Option<Instant<Monotonic>>,
    /// The block layer was told that the disk is dead.
    marked: bool,
    /// The block layer submits nothing.
    quiesced: bool,
    options: Options,
    settings: FrontendSettings,
    /// There are queues from the first publication on.
    set: Option<Arc<Set>>,
    prepared: KVec<Prepared>,
    channels: KVec<EventChannel<Queue>>,
    pub(super) disk: Option<Arc<Disk<Queues>>>,
    pub(super) added: bool,
    limits: Option<Limits>,
    /// The block layer does not know of these limits yet.
    unset: bool,
    minors: Option<Minors>,
    stuck: KVec<Stuck>,
    /// Memory of former connections' that their backend has mapped.
    remains: KVec<Remains>,
    /// The backend may see what requests have in memory beside their data.
    trusted: bool,
    /// Connections in a row that failed for want of something that passes.
    attempts: u32,
    /// Lines that a backend has caused in the log, by going or by resizing: it could do so for ever.
    told: u32,
    /// To have the workers work. None before they are made, and once they are about to go.
    pub(super) alarm: Option<Arc<work::Request<Vbd>>>,
    pub(super) adder: Option<Arc<work::Request<Adder>>>,
}

impl Control {
    pub(super) fn new(found: State) -> Self {
        let options = Options::now();
        Self {
            frontend: Frontend::found(found),
            dead: false,
            retired: None,
            marked: false,
            quiesced: false,
            settings: options.settings,
            options,
            set: None,
            prepared: KVec::new(),
            channels: KVec::new(),
            disk: None,
            added: false,
            limits: None,
            unset: false,
            minors: None,
            stuck: KVec::new(),
            remains: KVec::new(),
            trusted: false,
            attempts: 0,
            told: 0,
            alarm: None,
            adder: None,
        }
    }

    pub(super) fn queues(&self) -> &[Arc<Queue>] {
        self.set.as_ref().map_or(&[], |set| set.queues())
    }

    /// Allocates rings and event channels as the backend's offer allows, and publishes them.
    pub(super) fn publish(&mut self, vbd: &Vbd, device: &Device<Core<'_>>) -> Result<(), Failure> {
        self.drop_prepared();
        if self.free_remains() && self.remains.len() >= MOST_REMAINS * self.queues().len().max(1) {
            return Err(EBUSY.into());
        }
        self.options = Options::now();
        self.trusted = FrontendConfig::read(&mut &vbd.device.directory()?)?.trusted;
        let offered = BackendFeatures::read(&mut &device.otherend()?)?;
        let mut wanted = self.options.settings;
        if let Some(set) = &self.set {
            wanted.queues = set.queues().len() as u32;
        }
        self.settings = FrontendSettings::negotiate(&wanted, &offered);
        let set = match &self.set {
            Some(set) => set.clone(),
            None => {
                let set = Set::new(self.settings.queues)?;
                self.set = Some(set.clone());
                set
            }
        };
        let mut keys = KVec::new();
        for queue in set.queues().iter().take(self.settings.queues as usize) {
            let pages = GrantedRing::new(&vbd.device, self.settings.ring_page_order)?;
            let line = Line::new()?;
            let channel =
                EventChannel::allocate(&vbd.device, line.clone(), c"blkif", queue.clone())?;
            keys.push(QueueKeys::new(pages.refs(), channel.port()).ok_or(EINVAL)?, GFP_KERNEL)?;
            let ring = FrontRing::new(pages, self.settings.abi).map_err(|_| EINVAL)?;
            self.prepared.push(Prepared { ring, line }, GFP_KERNEL)?;
            self.channels.push(channel, GFP_KERNEL)?;
        }
        let connection = Connection::new(self.settings, &keys)?;
        let own = vbd.device.directory()?;
        transaction(|t| connection.write(&mut own.within(t)))?;
        Ok(())
    }

    /// Reads what the backend connected, and lets requests flow.
    pub(super) fn connect(&mut self, vbd: &Vbd, device: &Device<Core<'_>>) -> Result<(), Failure> {
        let backend = device.otherend()?;
        let offered = BackendFeatures::read(&mut &backend)?;
        let geometry = Geometry::read(&mut &backend)?;
        let (Some(set), Some(alarm)) = (self.set.clone(), self.alarm.clone()) else {
            return Err(EINVAL.into());
        };
        let agreement = self.agreement(vbd, &offered, &geometry);
        let mut limits = limits(&geometry, &agreement);
        if let (Some(disk), Some(before)) = (&self.disk, self.limits) {
            // Requests on their way are made of blocks of the size that there was.
            if limits.logical_block > before.logical_block {
                return Err(EINVAL.into());
            }
            limits.logical_block = before.logical_block;
            self.unset = (self.unset || limits != before) && !disk.try_set_limits(&limits)?;
            self.limits = Some(limits);
            disk.resize(geometry.sectors)?;
            disk.set_read_only(geometry.read_only);
        }
        set.set_cdrom(geometry.cdrom);
        set.use_rings(self.settings.queues);
        let depth = self.prepared.first().map_or(0, |first| first.ring.size());
        let stuck = self.stuck.iter().map(|stuck| stuck.slots.len()).sum();
        // What waits for a queue that has no ring now goes to one that has.
        let rings = self.prepared.len();
        for index in rings..set.queues().len() {
            if let (Some(from), Some(to)) =
                (set.queues().get(index), set.queues().get(index % rings.max(1)))
            {
                from.move_waiting(to)?;
            }
        }
        for stuck in &mut self.stuck {
            stuck.queue %= rings.max(1);
        }
        // Before anything happens that would ask for it sooner. What the last backend still has mapped is looked for as
        // often as before.
        let soon = self.unset || !self.stuck.is_empty();
        alarm.after(if soon { RETRY } else { TRIM });
        let prepared = core::mem::take(&mut self.prepared);
        for (queue, Prepared { ring, line }) in set.queues().iter().zip(prepared) {
            queue.connect(Link::new(ring, line, agreement)?, alarm.clone(), stuck)?;
        }
        if self.disk.is_none() {
            self.make_disk(vbd, &set, depth, &geometry, &limits)?;
        }
        self.limits = Some(limits);
        self.attempts = 0;
        if core::mem::take(&mut self.quiesced) {
            if let Some(disk) = &self.disk {
                disk.unquiesce();
            }
        }
        Ok(())
    }

    /// What both ends can do.
    fn agreement(&self, vbd: &Vbd, offered: &BackendFeatures, geometry: &Geometry) -> Agreement {
        let segments = offered.indirect_segments(self.options.segments);
        let trusted = self.options.trusted && self.trusted;
        let persistent = self.settings.persistent && offered.persistent;
        let flush = match (offered.flush_cache, offered.barrier) {
            (true, _) => Some(Flush::Cache),
            (false, true) => Some(Flush::Barrier),
            (false, false) => None,
        };
        Agreement {
            peer: vbd.device.otherend_id(),
            handle: vbd.config.virtual_device as u16,
            segments: segments.unwrap_or(MAX_SEGMENTS as u16),
            copy: persistent || !trusted,
            wipe: !trusted,
            flush,
            discard: geometry.discard.is_some(),
            secure_discard: geometry.discard.is_some_and(|discard| discard.secure),
        }
    }

    /// Makes the disk; it is shown to everybody by the adder.
    fn make_disk(
        &mut self,
        vbd: &Vbd,
        set: &Arc<Set>,
        depth: u32,
        geometry: &Geometry,
        limits: &Limits,
    ) -> Result {
        let minors = match self.minors.take() {
            Some(minors) => minors,
            None => vbd.number()?,
        };
        let number = minors.number();
        self.minors = Some(minors);
        let queues = set.queues().len() as u32;
        let tags = TagSet::new(Arc::new(Queues(set.clone()), GFP_KERNEL)?, queues, depth)?;
        let numbers = Numbers {
            major: LINUX_MAJOR,
            first_minor: number.first_minor(),
            minors: number.minors(),
        };
        let name = CString::try_from_fmt(format_args!("{number}"))?;
        let mut disk = Disk::new(
            tags,
            kernel::module::this_module::<crate::Blkfront>(),
            name.to_bytes(),
            numbers,
            limits,
        )?;
        disk.set_capacity(geometry.sectors)?;
        disk.set_read_only(geometry.read_only);
        if geometry.removable {
            disk.set_removable();
        }
        self.disk = Some(Arc::new(disk, GFP_KERNEL)?);
        if let Some(adder) = &self.adder {
            adder.now();
        }
        Ok(())
    }

    /// The disk may have another size now.
    pub(super) fn resize(&mut self, device: &Device<Core<'_>>) -> Result<(), Failure> {
        let (Some(disk), false) = (&self.disk, self.dead) else { return Ok(()) };
        let geometry = Geometry::read(&mut &device.otherend()?)?;
        if disk.resize(geometry.sectors)? {
            if self.may_tell() {
                dev_info!(device.as_ref(), "now {} sectors\n", geometry.sectors);
            }
        }
        Ok(())
    }

    fn may_tell(&mut self) -> bool {
        self.told = self.told.saturating_add(1);
        self.told <= TELL
    }

    /// Gives all rings up. What was not answered fails, or waits for the next connection.
    fn disconnect(&mut self, to: Phase) {
        self.drop_prepared();
        let Some(set) = self.set.clone() else { return };
        for (queue, each) in set.queues().iter().enumerate() {
            let (slots, remains) = each.disconnect(to);
            if let Some(remains) = remains {
                self.keep(remains);
            }
            if slots.is_empty() {
                continue;
            }
            if let Err(error) = self.stuck.push(Stuck { queue, slots }, GFP_KERNEL) {
                // Nobody will look for them again, and their pages are never used again.
                let _ = error;
            }
        }
        let all = self.stuck.is_empty() && self.remains.is_empty();
        if let (false, Some(alarm)) = (all, &self.alarm) {
            alarm.after(RETRY);
        }
    }

    /// Gives up what was published for a connection that did not come.
    fn drop_prepared(&mut self) {
        self.channels.clear();
        while let Some(Prepared { ring, .. }) = self.prepared.pop() {
            self.keep(Remains::of_ring(ring));
        }
    }

    /// Frees memory of a former connection, now or when the backend has let go of it.
    fn keep(&mut self, mut remains: Remains) {
        if !remains.free() {
            // Without memory for that the kernel does it, by and by.
            let _ = self.remains.push(remains, GFP_KERNEL);
        }
    }

    /// Frees what the backend has let go of, and returns whether there is more.
    pub(super) fn free_remains(&mut self) -> bool {
        for _ in 0..self.remains.len() {
            let Ok(remains) = self.remains.remove(0) else { break };
            self.keep(remains);
        }
        !self.remains.is_empty()
    }

    /// The backend is away, and may come back.
    pub(super) fn suspend(&mut self, vbd: &Vbd) {
        if let (Some(disk), false) = (&self.disk, self.quiesced) {
            disk.quiesce();
            self.quiesced = true;
            if self.may_tell() {
                dev_warn!(vbd.device.as_ref(), "waiting for the backend to come back\n");
            }
        }
        self.disconnect(Phase::Away);
    }

    /// The disk is wanted no more. What is on its way may still be answered, for a while.
    pub(super) fn retire(&mut self) {
        self.dead = true;
        self.retired.get_or_insert_with(Instant::now);
        for queue in self.queues() {
            queue.retire();
        }
        self.resume_submission();
        self.call_carer();
    }

    /// Everything fails from now on.
    pub(super) fn fail(&mut self) {
        self.dead = true;
        self.disconnect(Phase::Failed);
        self.resume_submission();
        self.call_carer();
    }

    /// A step of the handshake did not succeed: the connection is closed. When the step may succeed another time, the
    /// disk waits for the next connection, which this end asks for as soon as this one is closed. Returns how long it
    /// should be waited before that: each time longer, a second in all.
    pub(super) fn close_after(&mut self, vbd: &Vbd, failure: Failure) -> Delta {
        let mut pause = Delta::ZERO;
        match failure {
            Failure::Kernel(error)
                if self.disk.is_some()
                    && !self.dead
                    && self.attempts < ATTEMPTS
                    && passes(error) =>
            {
                pause = Delta::from_millis(1 << self.attempts);
                self.attempts += 1;
                vbd.device.error(error, format_args!("connecting to the backend; once more"));
                self.suspend(vbd);
                let _ = vbd.device.switch_state(State::Closing);
            }
            Failure::Kernel(error) => {
                vbd.device.fatal(error, format_args!("connecting to the backend"));
                self.fail();
            }
            Failure::Key(error) => {
                vbd.device.fatal(EINVAL, format_args!("{error}"));
                self.fail();
            }
            Failure::Peer(error) => {
                vbd.device.fatal(EPROTO, format_args!("{error}"));
                self.fail();
            }
            Failure::Own(none) => match none {},
        }
        self.enter_closing();
        pause
    }

    /// This end's state was written, and is `Closing`.
    pub(super) fn enter_closing(&mut self) {
        let _ = self.frontend.enter(State::Closing);
    }

    fn call_carer(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.now();
        }
    }

    fn resume_submission(&mut self) {
        if core::mem::take(&mut self.quiesced) {
            if let Some(disk) = &self.disk {
                disk.unquiesce();
            }
        }
    }

    /// Sees to what happened in interrupts.
    pub(super) fn hear(&mut self, vbd: &Vbd) {
        let Some(set) = self.set.clone() else { return };
        let mut breach = None;
        for (index, queue) in set.queues().iter().enumerate() {
            let news = queue.news();
            breach = breach.or(news.breach.map(|breach| (index, breach)));
            if let (true, Some(disk)) = (news.discard_revoked, &self.disk) {
                disk.disable_discard();
                if let Some(limits) = &mut self.limits {
                    limits.discard = None;
                }
                dev_warn!(vbd.device.as_ref(), "the backend does not discard after all\n");
            }
            if news.flush_revoked {
                dev_warn!(vbd.device.as_ref(), "the backend does not flush after all\n");
            }
        }
        if let Some((queue, breach)) = breach {
            vbd.device.fatal(
                EPROTO,
                format_args!("queue {queue}: the backend cannot be trusted: {breach}; disabled for further use"),
            );
            self.fail();
            self.enter_closing();
        }
    }

    /// Looks whether requests can be had back that the backend had not let go of, and returns whether some cannot.
    pub(super) fn release(&mut self) -> bool {
        for _ in 0..self.stuck.len() {
            let Ok(Stuck { queue, mut slots }) = self.stuck.remove(0) else { break };
            let owner = self.set.as_ref().and_then(|set| set.queues().get(queue));
            let left = retry(&mut slots, |request, task| {
                if let Some(owner) = owner {
                    owner.adopt(request, task);
                }
            });
            if left {
                let _ = self.stuck.push_within_capacity(Stuck { queue, slots });
            }
        }
        !self.stuck.is_empty()
    }

    /// Fails what the backend of a disk that is wanted no more does not answer.
    pub(super) fn lose_patience(&mut self, vbd: &Vbd) {
        let Some(since) = self.retired else { return };
        if since.elapsed() < Delta::from_secs(GRACE) || self.is_idle() {
            return;
        }
        self.retired = None;
        vbd.device.error(ETIMEDOUT, format_args!("the backend does not answer: its requests fail"));
        self.fail();
    }

    /// Tells the block layer what the disk can do, if that could not be done at once. Returns whether it still cannot.
    pub(super) fn adapt(&mut self, vbd: &Vbd) -> bool {
        if let (true, Some(disk), Some(limits)) = (self.unset, &self.disk, &self.limits) {
            match disk.try_set_limits(limits) {
                Ok(done) => self.unset = !done,
                Err(error) => {
                    vbd.device.fatal(error, format_args!("changing the disk's limits"));
                    self.unset = false;
                    self.fail();
                    self.enter_closing();
                }
            }
        }
        self.unset
    }

    /// Whether no request is anywhere.
    pub(super) fn is_idle(&self) -> bool {
        self.stuck.is_empty() && self.queues().iter().all(|queue| queue.is_idle())
    }

    /// The disk, once, when everybody has to be told that it is dead. That waits for file systems, which may wait for
    /// requests, so there are none then; and it is done without the lock.
    pub(super) fn take_dead(&mut self) -> Option<Arc<Disk<Queues>>> {
        if !self.dead || self.marked || !self.added || !self.is_idle() {
            return None;
        }
        self.marked = true;
        self.disk.clone()
    }

    /// The disk and its numbers, for whoever cannot have the disk end.
    pub(super) fn give_up(&mut self) -> (Option<Arc<Disk<Queues>>>, Option<Minors>) {
        // From now on the kernel looks after it.
        drop(core::mem::take(&mut self.remains));
        (self.disk.clone(), self.minors.take())
    }
}

/// Whether what failed may succeed another time.
fn passes(error: Error) -> bool {
    [ENOMEM, ENOSPC, EAGAIN, EBUSY].contains(&error)
}
