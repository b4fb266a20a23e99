// SPDX-License-Identifier: GPL-2.0

//! One device: what the bus, the watches and the queues tell it, and the work that follows.
//!
//! All of that work is one work item's, which runs when anybody says that something may have changed: it reads what is
//! so, asks the handshake for the next step, and does it, until there is nothing to do. Nothing waits in the thread of
//! xenstore's watches, which all devices of the kernel share; and what takes long (opening a disk, a disk that does not
//! finish what it has) holds up this device only.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use block::bdev::{BlockDevice, DeviceNumber};
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::aref::ARef;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::{delay::fsleep, Delta};
use kernel::workqueue::{
    impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork, Work, WorkItem,
};
use kernel::{dev_info, dev_warn};
use ring_proto::xenbus::vbd::{keys, BackendConfig, BackendFeatures, Geometry, PhysicalDevice};
use ring_proto::xenbus::{Backend, BackendWork, State, Step};
use xen::workqueue::WorkQueue;
use xen::xenbus::{transaction, Device, Directory, Next, WatchHandler};

use crate::allowance::Allowance;
use crate::attributes::{Counted as Counters, Files, Opened};
use crate::connection::{Connected, Failure, Fault};
use crate::disk::{geometry, whole_blocks, Disk};
use crate::params;
use crate::queue::MAX_INDIRECT;
use crate::unfinished::Id;

/// Where the work of all devices is done.
pub(crate) static WORK: WorkQueue = WorkQueue::new();

/// How many devices there are, also those that the bus does not know any more.
pub(crate) static DEVICES: AtomicUsize = AtomicUsize::new(0);

/// Seconds between two looks at what no event tells of.
const LOOK: u64 = 1;

/// Such looks between two at what queues could give back.
const TIDY: u32 = 10;

/// How often, and how long between, the end of a device is looked for: two seconds.
const UNBIND_LOOKS: u32 = 400;
const UNBIND_PAUSE: Delta = Delta::from_millis(5);

/// What is served.
pub(crate) struct Serving {
    pub(crate) disk: Arc<Disk>,
    pub(crate) features: BackendFeatures,
    pub(crate) geometry: Geometry,
}

/// What the work item works on.
struct Control {
    handshake: Backend,
    /// Which block device it is, from the moment it was opened.
    number: Option<DeviceNumber>,
    serving: Option<Serving>,
    connected: Connected,
    looks: u32,
}

/// A device.
#[pin_data]
pub(crate) struct Vbd {
    pub(crate) device: ARef<Device>,
    /// This end's directory.
    own: Directory,
    /// The frontend's.
    peer: Directory,
    #[pin]
    control: Mutex<Control>,
    /// What sysfs shows, while the disk is open and the driver has the device.
    #[pin]
    files: Mutex<Option<Files>>,
    pub(crate) counters: Arc<Counters>,
    /// Lines of the log about what the frontend did.
    pub(crate) lines: Arc<Allowance>,
    /// Connections that could not be made. The bus logs each ring that cannot be mapped.
    failures: Allowance,
    /// The driver does not have the device any more.
    gone: AtomicBool,
    /// And nothing of it is left.
    finished: AtomicBool,
    /// It stands among those that are unfinished.
    noted: AtomicBool,
    /// The device may be taken off the bus.
    done: AtomicBool,
    #[pin]
    work: Work<Vbd, 0>,
    #[pin]
    look: DelayedWork<Vbd, 1>,
    /// Last, so that all else is gone when nobody is counted.
    _counted: Counted,
}

impl_has_work! {
    impl HasWork<Self, 0> for Vbd { self.work }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for Vbd { self.look }
}

impl WorkItem<0> for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut control = this.control.lock();
        if let Err(failure) = this.step(&mut control) {
            this.fail(&mut control, &failure);
        }
    }
}

impl WorkItem<1> for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut control = this.control.lock();
        if this.gone() {
            return;
        }
        if control.connected.is_none() {
            drop(control);
            // It may be this that it waits for.
            return this.changed();
        }
        control.looks = control.looks.wrapping_add(1);
        if control.looks % TIDY == 0 {
            control.connected.tidy();
            if params::log_stats() {
                control.connected.log();
            }
        }
        this.check_size(&mut control);
        drop(control);
        this.look_later();
    }
}

/// Counts a device as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        DEVICES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DEVICES.fetch_sub(1, Ordering::Release);
    }
}

impl Vbd {
    /// A device that the bus found.
    pub(crate) fn new(device: ARef<Device>, peer: Directory) -> Result<Arc<Self>> {
        let own = device.directory()?;
        let counters = Counters::new()?;
        let lines = Arc::new(Allowance::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                device,
                own,
                peer,
                control <- new_mutex!(Control {
                    // Whatever a former driver left: it has answered all that it took, or nothing is connected before
                    // it has. So the rings of a frontend that is still connected can be taken over, which all
                    // frontends let Linux's backend do.
                    handshake: Backend::found(State::Initialising),
                    number: None,
                    serving: None,
                    connected: Connected::none(),
                    looks: 0,
                }),
                files <- new_mutex!(None),
                counters,
                lines,
                failures: Allowance::new(),
                gone: AtomicBool::new(false),
                finished: AtomicBool::new(false),
                noted: AtomicBool::new(false),
                done: AtomicBool::new(false),
                work <- new_work!("Vbd::work"),
                look <- new_delayed_work!("Vbd::look"),
                _counted: Counted::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Something may have changed.
    pub(crate) fn changed(self: &Arc<Self>) {
        let vbd = self.clone();
        // If it waits to run already, it will see this, too.
        WORK.with(|queue| {
            let _ = queue.enqueue::<_, 0>(vbd);
        });
    }

    fn look_later(self: &Arc<Self>) {
        let vbd = self.clone();
        WORK.with(|queue| {
            let _ = queue.enqueue_delayed::<_, 1>(vbd, (LOOK * xen::thread::HZ) as usize);
        });
    }

    fn id(&self) -> Id {
        Id::new(self.device.otherend_id().0, self.handle().parse().unwrap_or(u32::MAX))
    }

    /// The driver has to let go of the device. Waits for what the disk has of it, but not long: all devices of this
    /// domain wait meanwhile.
    pub(crate) fn unbind(self: &Arc<Self>) {
        self.gone.store(true, Ordering::SeqCst);
        // Whoever makes files looks at `gone` under the lock.
        let files = self.files.lock().take();
        drop(files);
        self.changed();
        for _ in 0..UNBIND_LOOKS {
            if self.finished.load(Ordering::SeqCst) {
                return;
            }
            fsleep(UNBIND_PAUSE);
        }
        if self.id().add() {
            self.noted.store(true, Ordering::SeqCst);
        }
        if self.finished.load(Ordering::SeqCst) {
            self.forget();
        }
    }

    /// Takes it off those that are unfinished, if it stands there: another one's note stays.
    fn forget(&self) {
        if self.noted.swap(false, Ordering::SeqCst) {
            self.id().remove();
        }
    }

    fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// This domain is short of memory.
    pub(crate) fn squeeze(&self) {
        // Who has the lock may be the one who waits for memory.
        if let Some(control) = self.control.try_lock() {
            control.connected.squeeze();
        }
    }

    /// The number by which the frontend knows the device: the last part of its directory's name.
    pub(crate) fn handle(&self) -> &str {
        let path = self.device.nodename().to_str().unwrap_or_default();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// What people call the device: `xvda`.
    pub(crate) fn name(&self) -> Result<CString> {
        let value = self.own.value("dev")?;
        let name = value.as_deref().and_then(|name| core::str::from_utf8(name).ok());
        let name = name.unwrap_or_else(|| self.handle());
        CString::try_from_fmt(fmt!("{}", name.strip_prefix("/dev/").unwrap_or(name)))
    }

    pub(crate) fn peer(&self) -> &Directory {
        &self.peer
    }

    /// Does all that is to be done now.
    fn step(self: &Arc<Self>, control: &mut Control) -> Result<(), Failure> {
        loop {
            if self.gone() {
                let frontend = State::read(&mut &self.peer).unwrap_or(State::Connected);
                if !control.connected.end(frontend, &self.counters) {
                    control.serving = None;
                    self.finished.store(true, Ordering::SeqCst);
                    self.forget();
                }
                return Ok(());
            }
            control.connected.reap(&self.counters);
            control.connected.check()?;
            let frontend = State::read(&mut &self.peer)?;
            let online = self.device.is_online();
            let Step { work, to } = control.handshake.next(frontend, online)?;
            match work {
                BackendWork::Advertise => {
                    self.done.store(false, Ordering::Release);
                    self.advertise(control)?;
                }
                BackendWork::Connect => {
                    if !self.connect(control)? {
                        return Ok(());
                    }
                }
                // A frontend that is closing may still have a disk that somebody uses, and says that it is closed when
                // nobody does any more.
                BackendWork::Disconnect => {
                    let closing = matches!(frontend, State::Connected | State::Closing);
                    if !closing && control.connected.end(frontend, &self.counters) {
                        return Ok(());
                    }
                }
                BackendWork::Release => {
                    if control.connected.end(frontend, &self.counters) {
                        return Ok(());
                    }
                    if !online || self.frontend_is_gone(frontend) {
                        let files = self.files.lock().take();
                        drop(files);
                        control.serving = None;
                        control.number = None;
                    }
                }
                BackendWork::Done => self.done.store(true, Ordering::Release),
                BackendWork::Confirm | BackendWork::Run => {
                    self.open(control)?;
                    self.read_limits(control)?;
                    let outdated = match &control.serving {
                        Some(serving) if work == BackendWork::Confirm => {
                            control.connected.is_outdated(self, serving)?
                        }
                        // What was outdated has ended.
                        _ => control.connected.is_none(),
                    };
                    if outdated && !self.connect(control)? {
                        return Ok(());
                    }
                }
                BackendWork::Wait | BackendWork::Reconfigure => {
                    self.open(control)?;
                    self.read_limits(control)?;
                }
            }
            if to == control.handshake.state() {
                return Ok(());
            }
            if to == State::Closed {
                self.done.store(!online || self.frontend_is_gone(frontend), Ordering::Release);
            }
            self.go_to(control, to)?;
            if to == State::Connected {
                self.look_later();
            }
        }
    }

    /// Whether there is no frontend any more: one that writes nonsense into its state may think better of it.
    fn frontend_is_gone(&self, state: State) -> bool {
        state == State::Unknown && !self.peer.exists("")
    }

    fn go_to(&self, control: &mut Control, to: State) -> Result<(), Failure> {
        if control.handshake.enter(to).is_ok() && !self.gone() {
            self.device.switch_state(to)?;
        }
        Ok(())
    }

    /// Closes the connection because of an error, and says so: in xenstore each time, in the log for a while.
    fn fail(&self, control: &mut Control, failure: &Failure) {
        // What was taken is finished and answered; the queues say when it is.
        control.connected.end(State::Connected, &self.counters);
        if self.gone() {
            return;
        }
        let errno = match failure {
            Failure::Kernel(error) => *error,
            Failure::Key(_) | Failure::Peer(_) => EINVAL,
            Failure::Own(fault) => fault.errno(),
        };
        if self.lines.take() {
            self.device.error(errno, format_args!("{failure}"));
        } else {
            self.device.error_unlogged(errno, format_args!("{failure}"));
        }
        // Who is closed already stays so: it waits for a frontend that begins anew.
        if control.handshake.enter(State::Closing).is_ok() {
            let _ = self.device.switch_state(State::Closing);
        }
    }

    /// Publishes what is known before there is a disk.
    fn advertise(&self, control: &mut Control) -> Result<(), Failure> {
        self.features(false).write(&mut &self.own)?;
        // A disk that is open from before is served by them, too.
        if let Some(serving) = &mut control.serving {
            serving.features = self.features(serving.features.flush_cache);
        }
        Ok(())
    }

    fn features(&self, flush: bool) -> BackendFeatures {
        BackendFeatures {
            max_queues: params::max_queues(),
            max_ring_page_order: params::max_ring_page_order(),
            max_indirect_segments: MAX_INDIRECT.into(),
            persistent: params::feature_persistent(),
            flush_cache: flush,
            barrier: flush,
        }
    }

    /// Opens the block device that the hotplug script has named. Returns whether there is one.
    fn open(&self, control: &mut Control) -> Result<bool, Failure> {
        if matches!(control.handshake.state(), State::Closing | State::Closed) {
            return Ok(false);
        }
        let Some(PhysicalDevice { major, minor }) = PhysicalDevice::read(&mut &self.own)? else {
            return Ok(control.serving.is_some());
        };
        let number = DeviceNumber::new(major, minor).ok_or(ENODEV)?;
        if let Some(open) = control.number {
            if open != number && self.lines.take() {
                dev_warn!(
                    &*self.device,
                    "the block device cannot be changed from {:x}:{:x} to {major:x}:{minor:x}\n",
                    open.major(),
                    open.minor()
                );
            }
            return Ok(true);
        }
        let config = BackendConfig::read(&mut &self.own)?;
        let cdrom = matches!(keys::DEVICE_TYPE.word(&mut &self.peer), Ok(Some("cdrom")));
        let device = BlockDevice::open(number, !config.read_only)
            .map_err(|error| Failure::Own(Fault::Open(number, error)))?;
        let device = Arc::new(device, GFP_KERNEL)?;
        let geometry = geometry(&device, &config, cdrom || config.cdrom);
        let flush = device.limits().write_cache && !config.read_only;
        let features = self.features(flush);
        let disk = Arc::new(Disk::new(device, &config, &features, &geometry), GFP_KERNEL)?;
        {
            let mut files = self.files.lock();
            if files.is_none() && !self.gone() {
                let opened = Opened { number, read_only: config.read_only };
                *files = Some(Files::new(&self.device, opened, self.counters.clone())?);
            }
        }
        control.serving = Some(Serving { disk, features, geometry });
        control.number = Some(number);
        Ok(true)
    }

    /// Connects the frontend to the disk, if that can be done now. Returns whether it was.
    fn connect(self: &Arc<Self>, control: &mut Control) -> Result<bool, Failure> {
        // What was connected before has ended with the frontend that it was for.
        if control.connected.end(State::Closed, &self.counters) || !self.open(control)? {
            return Ok(false);
        }
        // A former device that its disk holds up serves these rings; and who comes and goes does not get round the
        // disk's limits.
        let owes = |serving: &Serving| serving.disk.limits.owe(xen::thread::now());
        if self.id().is_there()
            || !self.failures.is_left()
            || control.serving.as_ref().is_some_and(owes)
        {
            self.look_later();
            return Ok(false);
        }
        self.start(control).inspect_err(|_| {
            self.failures.take();
        })?;
        Ok(true)
    }

    /// Starts the queues that the frontend published, and publishes the disk.
    fn start(self: &Arc<Self>, control: &mut Control) -> Result<(), Failure> {
        let Some(serving) = &mut control.serving else { return Ok(()) };
        let device = &serving.disk.device;
        serving.geometry.sectors = whole_blocks(device.sectors(), serving.geometry.sector_size);
        // What was written through this domain's page cache before is on the disk afterwards.
        device.sync_and_invalidate()?;
        control.connected.start(self, serving)?;
        transaction(|t| -> Result<(), Failure> {
            serving.features.write(&mut self.own.within(t))?;
            serving.geometry.write(&mut self.own.within(t))?;
            Ok(())
        })
    }

    /// Takes over limits that the toolstack changed.
    fn read_limits(&self, control: &mut Control) -> Result<(), Failure> {
        let Some(serving) = &control.serving else { return Ok(()) };
        let config = BackendConfig::read(&mut &self.own)?;
        if serving.disk.limits.set((&config).into()) {
            control.connected.relook();
        }
        Ok(())
    }

    /// Tells the frontend when the disk has another size.
    fn check_size(&self, control: &mut Control) {
        let state = control.handshake.state();
        let Some(serving) = &mut control.serving else { return };
        let sectors = whole_blocks(serving.disk.device.sectors(), serving.geometry.sector_size);
        if sectors == serving.geometry.sectors || state != State::Connected {
            return;
        }
        let before = core::mem::replace(&mut serving.geometry.sectors, sectors);
        let told = transaction(|t| -> Result<(), Failure> {
            let mut own = self.own.within(t);
            // The toolstack may have written that it is to close.
            let now = State::read(&mut own)?;
            serving.geometry.write(&mut own)?;
            if now == State::Connected {
                // Written once more, it tells the frontend to look.
                now.write(&mut own)?;
            }
            Ok(())
        });
        match told {
            Ok(()) => {
                dev_info!(&*self.device, "the disk went from {before} to {sectors} sectors\n");
            }
            Err(failure) => {
                // The next look tries again.
                serving.geometry.sectors = before;
                if self.lines.take() {
                    dev_warn!(
                        &*self.device,
                        "telling the frontend of {sectors} sectors: {}\n",
                        format_args!("{failure}")
                    );
                }
            }
        }
    }

    /// The disk was found to have another size.
    pub(crate) fn resized(self: &Arc<Self>) {
        let vbd = self.clone();
        WORK.with(|queue| {
            let _ = queue.enqueue::<_, 1>(vbd);
        });
    }
}

/// The watch of the device's own directory.
pub(crate) struct OwnDirectory(pub(crate) Arc<Vbd>);

impl WatchHandler for OwnDirectory {
    fn changed(&self) -> Next {
        if self.0.done.load(Ordering::Acquire) {
            return Next::Unregister;
        }
        self.0.changed();
        Next::Stay
    }
}
