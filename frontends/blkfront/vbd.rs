// SPDX-License-Identifier: GPL-2.0

//! A virtual disk: its part of the handshake, and its life.
//!
//! What has to be done next, `ring_proto::xenbus::Frontend` says, and it is done here. A backend that goes is waited
//! for: the disk is quiesced, and what was not answered is asked for anew when there is a backend again. Only when the
//! toolstack wants the disk gone (`online` is 0), or the backend cannot be trusted, the disk is dead.

use block::mq::{Disk, Limits, Numbers, TagSet};
use block::NoIo;
use kernel::device::Core;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::aref::ARef;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::{delay::fsleep, Delta};
use ring_proto::blkif::{FrontRing, MAX_SEGMENTS};
use ring_proto::xenbus::vbd::{
    BackendFeatures, Connection, FrontendConfig, FrontendSettings, Geometry, Queue as QueueKeys,
    LINUX_MAJOR,
};
use ring_proto::xenbus::{self, keys, Frontend, FrontendWork, ReadDirectory, State};
use xen::event::{EventChannel, Line};
use xen::grant::GrantedRing;
use xen::work;
use xen::xenbus::{transaction, Device};

use crate::disk::{limits, Queues, Set};
use crate::link::{retry, Agreement, Flush, Link, Slot};
use crate::minors::{Minors, Registry};
use crate::options::Options;
use crate::queue::{Phase, Queue};
use crate::statistics::Statistics;

/// Most lines in the log that are about what a backend may do as often as it likes.
const TELL: u32 = 100;

/// How often pages that are not used are given back, in milliseconds.
const TRIM: u32 = 10_000;

/// How often it is looked whether a backend has let go of pages, in milliseconds.
const RETRY: u32 = 100;

/// How long a disk that is removed waits for that, in the steps above.
const PATIENCE: u32 = 50;

/// See the module.
#[pin_data]
pub(crate) struct Vbd {
    device: ARef<Device>,
    config: FrontendConfig,
    registry: Arc<Registry>,
    #[pin]
    control: Mutex<Control>,
}

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

struct Control {
    frontend: Frontend,
    /// The disk fails everything, for ever.
    dead: bool,
    /// The block layer submits nothing.
    quiesced: bool,
    options: Options,
    settings: FrontendSettings,
    /// There are queues from the first publication on.
    set: Option<Arc<Set>>,
    prepared: KVec<Prepared>,
    channels: KVec<EventChannel<Queue>>,
    disk: Option<Arc<Disk<Queues>>>,
    added: bool,
    limits: Option<Limits>,
    minors: Option<Minors>,
    stuck: KVec<Stuck>,
    /// Lines that a backend has caused in the log, by going or by resizing: it could do so for ever.
    told: u32,
    /// To have [`Vbd`] and [`Adder`] work. None before the workers are made, and once they are about to go.
    alarm: Option<Arc<work::Request<Vbd>>>,
    adder: Option<Arc<work::Request<Adder>>>,
}

/// Why a step of the handshake failed.
enum Failure {
    Kernel(Error),
    Key(xenbus::KeyError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<kernel::alloc::AllocError> for Failure {
    fn from(error: kernel::alloc::AllocError) -> Self {
        Self::Kernel(error.into())
    }
}

impl From<xenbus::KeyError> for Failure {
    fn from(error: xenbus::KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<xenbus::Error<Error>> for Failure {
    fn from(error: xenbus::Error<Error>) -> Self {
        match error {
            xenbus::Error::Store(error) => Self::Kernel(error),
            xenbus::Error::Key(error) => Self::Key(error),
        }
    }
}

impl Vbd {
    /// A disk that the toolstack has made.
    pub(crate) fn new(device: &Device, registry: Arc<Registry>) -> Result<Arc<Self>> {
        let own = device.directory()?;
        let config = FrontendConfig::read(&mut &own).map_err(|error| match error {
            xenbus::Error::Store(error) => error,
            xenbus::Error::Key(error) => {
                device.fatal(EINVAL, format_args!("{error}"));
                EINVAL
            }
        })?;
        let options = Options::now();
        let control = Control {
            frontend: Frontend::found(device.state()),
            dead: false,
            quiesced: false,
            settings: options.settings,
            options,
            set: None,
            prepared: KVec::new(),
            channels: KVec::new(),
            disk: None,
            added: false,
            limits: None,
            minors: None,
            stuck: KVec::new(),
            told: 0,
            alarm: None,
            adder: None,
        };
        let device = device.into();
        let vbd = pin_init!(Self { device, config, registry, control <- new_mutex!(control) });
        Arc::pin_init(vbd, GFP_KERNEL)
    }

    /// Who is to be asked for work.
    pub(crate) fn employ(&self, alarm: Arc<work::Request<Self>>, adder: Arc<work::Request<Adder>>) {
        let mut control = self.control.lock();
        control.alarm = Some(alarm);
        control.adder = Some(adder);
    }

    /// Whether the disk can be used.
    pub(crate) fn is_ready(&self) -> bool {
        self.control.lock().added
    }

    /// What all queues have done.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for queue in self.control.lock().queues() {
            sum.add(&queue.statistics());
        }
        sum
    }

    /// Does what the states of both ends ask for.
    pub(crate) fn follow(&self, device: &Device<Core<'_>>, mut backend: State) {
        let _scope = NoIo::begin();
        let mut control = self.control.lock();
        // Each round goes to another state, and no chain of them is longer.
        for _ in 0..State::ALL.len() {
            let keep = !control.dead && (backend == State::Unknown || is_wanted(device));
            let step = match control.frontend.next(backend, keep) {
                Ok(step) => step,
                Err(error) => {
                    self.device.fatal(EPROTO, format_args!("{error}"));
                    control.fail(self);
                    let _ = control.frontend.enter(State::Closing);
                    continue;
                }
            };
            let result = match step.work {
                FrontendWork::Wait | FrontendWork::Restart | FrontendWork::Done => Ok(()),
                FrontendWork::Run => control.resize(device),
                FrontendWork::Publish => control.publish(self, device),
                FrontendWork::Connect => control.connect(self, device),
                FrontendWork::Disconnect => {
                    if keep {
                        control.suspend(self);
                    } else {
                        control.retire();
                    }
                    Ok(())
                }
                FrontendWork::Release => Ok(()),
            };
            if let Err(failure) = result {
                match failure {
                    Failure::Kernel(error) => {
                        self.device.fatal(error, format_args!("connecting to the backend"));
                    }
                    Failure::Key(error) => self.device.fatal(EINVAL, format_args!("{error}")),
                }
                control.fail(self);
                let _ = control.frontend.enter(State::Closing);
                continue;
            }
            if step.to == control.frontend.state() {
                return;
            }
            if control.frontend.enter(step.to).is_err() {
                return;
            }
            match step.to {
                State::Closed => self.device.frontend_closed(),
                // When it was not written, this end's directory is gone, or the bus goes to `Closing` by itself.
                to => drop(self.device.switch_state(to)),
            }
            backend = device.otherend_state();
        }
    }

    /// The domain was restored: all grants and channels are void, and there is another backend.
    pub(crate) fn resume(&self, device: &Device<Core<'_>>) {
        {
            let _scope = NoIo::begin();
            let mut control = self.control.lock();
            if !control.dead {
                control.suspend(self);
            }
            control.frontend = Frontend::found(State::Initialising);
        }
        self.follow(device, device.otherend_state());
    }

    /// The device goes away. Whatever was not answered fails.
    pub(crate) fn remove(&self) {
        let (disk, mut stuck) = {
            let mut control = self.control.lock();
            control.fail(self);
            control.alarm = None;
            control.adder = None;
            (control.disk.clone(), core::mem::take(&mut control.stuck))
        };
        for _ in 0..PATIENCE {
            if !self.release(&mut stuck) {
                return;
            }
            fsleep(Delta::from_millis(RETRY.into()));
        }
        // The pages of these requests belong to others, who would use them for something else once they have ended.
        if let Some(disk) = disk {
            self.device.error(
                EBUSY,
                format_args!("the backend does not let go of memory: the disk stays"),
            );
            disk.abandon();
        }
    }

    /// Looks whether requests can be had back, and returns whether some cannot.
    fn release(&self, stuck: &mut KVec<Stuck>) -> bool {
        let set = self.control.lock().set.clone();
        for _ in 0..stuck.len() {
            let Ok(Stuck { queue, mut slots }) = stuck.remove(0) else { break };
            let owner = set.as_ref().and_then(|set| set.queues().get(queue));
            let left = retry(&mut slots, |request, task| {
                if let Some(owner) = owner {
                    owner.adopt(request, task);
                }
            });
            if left {
                let _ = stuck.push_within_capacity(Stuck { queue, slots });
            }
        }
        !stuck.is_empty()
    }
}

/// Whether the toolstack wants the device: a toolstack that does not say so does.
fn is_wanted(device: &Device<Core<'_>>) -> bool {
    let Ok(backend) = device.otherend() else { return true };
    let mut value = [0; 2];
    match (&mut &backend).read(keys::ONLINE.name, &mut value) {
        Ok(Some(_)) => value == *b"1\0",
        _ => true,
    }
}

impl Control {
    fn queues(&self) -> &[Arc<Queue>] {
        self.set.as_ref().map_or(&[], |set| set.queues())
    }

    /// Allocates rings and event channels as the backend's offer allows, and publishes them.
    fn publish(&mut self, vbd: &Vbd, device: &Device<Core<'_>>) -> Result<(), Failure> {
        self.channels.clear();
        self.prepared.clear();
        self.options = Options::now();
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
    fn connect(&mut self, vbd: &Vbd, device: &Device<Core<'_>>) -> Result<(), Failure> {
        let backend = device.otherend()?;
        let offered = BackendFeatures::read(&mut &backend)?;
        let geometry = Geometry::read(&mut &backend)?;
        let (Some(set), Some(alarm)) = (self.set.clone(), self.alarm.clone()) else {
            return Err(EINVAL.into());
        };
        let agreement = self.agreement(vbd, &offered, &geometry);
        let limits = limits(&geometry, &agreement);
        if let (Some(disk), Some(before)) = (&self.disk, self.limits) {
            // Requests on their way are made of blocks of the size that there was.
            if limits.logical_block > before.logical_block {
                return Err(EINVAL.into());
            }
            let block = before.logical_block;
            disk.set_limits(&Limits { logical_block: block, ..limits })?;
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
        let prepared = core::mem::take(&mut self.prepared);
        for (queue, Prepared { ring, line }) in set.queues().iter().zip(prepared) {
            queue.connect(Link::new(ring, line, agreement)?, alarm.clone(), stuck)?;
        }
        if self.disk.is_none() {
            self.make_disk(vbd, &set, depth, &geometry, &limits)?;
        }
        self.limits = Some(match self.limits {
            Some(before) => Limits { logical_block: before.logical_block, ..limits },
            None => limits,
        });
        if core::mem::take(&mut self.quiesced) {
            if let Some(disk) = &self.disk {
                disk.unquiesce();
            }
        }
        alarm.after(TRIM);
        Ok(())
    }

    /// What both ends can do.
    fn agreement(&self, vbd: &Vbd, offered: &BackendFeatures, geometry: &Geometry) -> Agreement {
        let segments = offered.indirect_segments(self.options.segments);
        let trusted = self.options.trusted && vbd.config.trusted;
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
    fn resize(&mut self, device: &Device<Core<'_>>) -> Result<(), Failure> {
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
        self.channels.clear();
        self.prepared.clear();
        let Some(set) = self.set.clone() else { return };
        for (queue, each) in set.queues().iter().enumerate() {
            let slots = each.disconnect(to);
            if slots.is_empty() {
                continue;
            }
            if let Err(error) = self.stuck.push(Stuck { queue, slots }, GFP_KERNEL) {
                // Nobody will look for them again, and their pages are never used again.
                let _ = error;
            }
        }
        if let (false, Some(alarm)) = (self.stuck.is_empty(), &self.alarm) {
            alarm.after(RETRY);
        }
    }

    /// The backend is away, and may come back.
    fn suspend(&mut self, vbd: &Vbd) {
        if let (Some(disk), false) = (&self.disk, self.quiesced) {
            disk.quiesce();
            self.quiesced = true;
            if self.may_tell() {
                dev_warn!(vbd.device.as_ref(), "waiting for the backend to come back\n");
            }
        }
        self.disconnect(Phase::Away);
    }

    /// The disk is wanted no more. What is on its way may still be answered, until the device is removed.
    fn retire(&mut self) {
        self.dead = true;
        if let Some(disk) = &self.disk {
            disk.mark_dead();
        }
        if self.quiesced {
            self.disconnect(Phase::Failed);
        }
        self.resume_submission();
    }

    /// Everything fails from now on.
    fn fail(&mut self, _vbd: &Vbd) {
        self.dead = true;
        if let Some(disk) = &self.disk {
            disk.mark_dead();
        }
        self.disconnect(Phase::Failed);
        self.resume_submission();
    }

    fn resume_submission(&mut self) {
        if core::mem::take(&mut self.quiesced) {
            if let Some(disk) = &self.disk {
                disk.unquiesce();
            }
        }
    }
}

impl Vbd {
    /// Takes the disk's numbers.
    fn number(&self) -> Result<Minors> {
        let device = self.config.virtual_device;
        let number = ring_proto::xenbus::vbd::DiskNumber::of(device).ok_or(ENODEV)?;
        self.registry.take(number)
    }
}

impl work::Work for Vbd {
    /// Sees to what happened in interrupts, and to what has to be done from time to time.
    fn work(&self) {
        let _scope = NoIo::begin();
        let mut control = self.control.lock();
        let Some(alarm) = control.alarm.clone() else { return };
        let mut breach = None;
        for (index, queue) in control.queues().iter().enumerate() {
            let news = queue.news();
            breach = breach.or(news.breach.map(|breach| (index, breach)));
            if let (true, Some(disk)) = (news.discard_revoked, &control.disk) {
                disk.disable_discard();
                dev_warn!(self.device.as_ref(), "the backend does not discard after all\n");
            }
            if news.flush_revoked {
                dev_warn!(self.device.as_ref(), "the backend does not flush after all\n");
            }
            queue.trim();
        }
        if let Some((queue, breach)) = breach {
            self.device.fatal(
                EPROTO,
                format_args!("queue {queue}: the backend cannot be trusted: {breach}; disabled for further use"),
            );
            control.fail(self);
            let _ = control.frontend.enter(State::Closing);
        }
        let mut stuck = core::mem::take(&mut control.stuck);
        let dead = control.dead;
        drop(control);
        let left = self.release(&mut stuck);
        if left {
            let mut control = self.control.lock();
            while let Some(entry) = stuck.pop() {
                if control.stuck.push(entry, GFP_KERNEL).is_err() {
                    break;
                }
            }
        }
        match (left, dead) {
            (true, _) => alarm.after(RETRY),
            (false, false) => alarm.after(TRIM),
            (false, true) => {}
        }
    }
}

/// Shows a disk to everybody. Its partitions are read meanwhile, which takes as long as its backend likes, so nobody
/// else waits for it.
pub(crate) struct Adder(pub(crate) Arc<Vbd>);

impl work::Work for Adder {
    fn work(&self) {
        let vbd = &self.0;
        let Some(disk) = vbd.control.lock().disk.clone() else { return };
        match disk.add(vbd.device.as_ref()) {
            Ok(()) => vbd.control.lock().added = true,
            Err(error) => {
                vbd.device.fatal(error, format_args!("adding the disk"));
                let mut control = vbd.control.lock();
                control.fail(vbd);
                let _ = control.frontend.enter(State::Closing);
            }
        }
    }
}
