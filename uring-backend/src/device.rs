// SPDX-License-Identifier: MIT OR Apache-2.0

//! One virtual block device: the handshake with its frontend, its image, and its queues.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client, Error, Mapping};
use ring_proto::blkif::MAX_INDIRECT_SEGMENTS;
use ring_proto::blkif::limits::{Limits, Rates};
use ring_proto::xen::{DomId, Errno, GrantRef};
use ring_proto::xenbus::vbd::{
    BackendConfig, BackendFeatures, Connection, Discard, Geometry, MAX_QUEUES, keys,
};
use ring_proto::xenbus::{self, Backend, BackendWork, State};

use crate::allowance::Lines;
use crate::claim::{Kind, UnknownFormat};
use crate::image::{DiscardBy, Image, ImageError, OpenOptions};
use crate::journal::{self, Identity};
use crate::options::Options;
use crate::queue::{Disk, JournalPart, Queue, QueueControl, QueueError, QueueParts};
use crate::report::DiskReport;
use crate::stats::QueueStats;

/// How long whoever holds an image, or a frontend's event channels, has to let go of it before that is an error. A
/// connection that ends, and a process that was killed, keep theirs until the kernel has finished with the last of their
/// I/O; and the kernel closes one file after the other.
const HELD_TIME: Duration = Duration::from_secs(2);

/// How long to wait before it is tried again, until then.
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// Which device: its kind, its frontend's domain and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceId {
    pub(crate) kind: Kind,
    pub(crate) frontend: u16,
    pub(crate) device: u32,
}

impl DeviceId {
    /// How logs call it.
    pub(crate) fn name(self) -> String {
        format!("vbd {}/{}", self.frontend, self.device)
    }

    /// Takes apart a path below the directory of all backends, such as `vbd/5/51712/state`: the device, and what
    /// stands below it. A slash may stand before.
    pub(crate) fn parse(path: &str) -> Option<(Self, Option<&str>)> {
        let mut names = path.trim_start_matches('/').splitn(4, '/');
        let kind = Kind::from_name(names.next()?)?;
        let (frontend, device) = (names.next()?.parse().ok()?, names.next()?.parse().ok()?);
        Some((Self { kind, frontend, device }, names.next()))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.frontend, self.device)
    }
}

/// What every device of the backend needs.
pub(crate) struct Context {
    pub(crate) client: Arc<dyn Client>,
    pub(crate) store: Store,
    pub(crate) options: Options,
    /// Called by each queue's thread when it ends.
    pub(crate) queue_ended: Arc<dyn Fn(DeviceId) + Send + Sync>,
    /// The backend is to end.
    pub(crate) stopping: bool,
}

/// Why a device cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Format(#[from] UnknownFormat),
    #[error(transparent)]
    Hypervisor(#[from] hypervisor_client::Error),
    #[error(transparent)]
    Key(#[from] xenbus::KeyError),
    #[error(transparent)]
    Peer(#[from] xenbus::PeerError),
    #[error("queue {number}: {error}")]
    Queue { number: usize, error: QueueError },
    #[error("queue {number}: {error}")]
    Channel { number: usize, error: Error },
    #[error("cannot start the thread of queue {number}: {source}")]
    Thread { number: usize, source: std::io::Error },
}

impl From<xenbus::Error<hypervisor_client::Error>> for DeviceError {
    fn from(error: xenbus::Error<hypervisor_client::Error>) -> Self {
        match error {
            xenbus::Error::Store(error) => Self::Hypervisor(error),
            xenbus::Error::Key(error) => Self::Key(error),
        }
    }
}

/// What somebody else may be about to let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Image,
    Channel,
}

impl DeviceError {
    /// What somebody else has, if that is what is wrong.
    fn held(&self) -> Option<Held> {
        match self {
            Self::Image(ImageError::InUse { .. }) => Some(Held::Image),
            Self::Channel { .. } => Some(Held::Channel),
            _ => None,
        }
    }
}

/// An opened image and what was offered of it.
struct Serving {
    disk: Arc<Disk>,
    offered: BackendFeatures,
    geometry: Geometry,
}

/// A queue's thread.
struct QueueThread {
    control: Arc<QueueControl>,
    stats: Arc<QueueStats>,
    /// Set when the thread is about to end.
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), QueueError>>>,
}

/// Whether a device goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for its frontend, the toolstack, or its queues.
    Waits,
    /// It is closed, and not to come back.
    Done,
}

pub(crate) struct Device {
    id: DeviceId,
    name: String,
    path: String,
    frontend_path: String,
    handshake: Backend,
    /// An earlier backend served it, and this one is to go on with the same rings.
    resumes: bool,
    serving: Option<Serving>,
    /// What the frontend had published when it was connected last.
    published: Option<Connection>,
    queues: Vec<QueueThread>,
    /// The disk's limits, over all connections: who comes back owes what it owed.
    limits: Arc<Limits>,
    clock: Instant,
    /// A page of a ring, until the connection is closed, to find out whether the frontend's domain is still there.
    ring_page: Option<GrantRef>,
    /// It is not.
    frontend_gone: bool,
    /// It cannot be offered as the toolstack described it. That is tried again; the frontend is not involved yet.
    stuck: bool,
    /// Since when something is held by somebody who may be about to let go of it.
    held: Option<(Held, Instant)>,
    /// When to try to open it again.
    again: Option<Instant>,
    /// What was said last to be wrong, so as not to say it again.
    complaint: Option<String>,
    lines: Arc<Lines>,
}

impl Device {
    /// Takes over the device in the backend's directory `path`, in whatever state it is.
    pub(crate) fn found(
        id: DeviceId,
        path: String,
        context: &Context,
    ) -> Result<Self, DeviceError> {
        let mut own = context.store.device(&path);
        let frontend_path = match own.text(xenbus::keys::FRONTEND.name)? {
            Some(path) => path,
            None => format!("/local/domain/{}/device/vbd/{}", id.frontend, id.device),
        };
        let state = State::read(&mut own)?;
        let name = id.name();
        if !matches!(state, State::Initialising | State::Unknown | State::Closed) {
            log::info!("{name}: found {state}, as an earlier backend left it");
        }
        Ok(Self {
            id,
            name,
            path,
            frontend_path,
            handshake: match context.options.state {
                Some(_) => Backend::resumed(state),
                None => Backend::found(state),
            },
            resumes: context.options.state.is_some() && state == State::Connected,
            serving: None,
            published: None,
            queues: Vec::new(),
            limits: Arc::default(),
            clock: Instant::now(),
            ring_page: None,
            frontend_gone: false,
            stuck: false,
            held: None,
            again: None,
            complaint: None,
            lines: Arc::new(Lines::new()),
        })
    }

    /// Where the frontend says how far it is.
    pub(crate) fn frontend_state_path(&self) -> String {
        format!("{}/state", self.frontend_path)
    }

    /// Does all that can be done now. Never fails: what goes wrong is said in the log and in xenstore.
    pub(crate) fn step(&mut self, context: &Context) -> Progress {
        match self.try_step(context) {
            Ok(progress) => progress,
            Err(error) if self.waits(&error) => {
                log::debug!("{}: {error}: waiting for it", self.name);
                Progress::Waits
            }
            Err(error) => {
                self.complain(context, &error);
                self.close_after_error(context);
                Progress::Waits
            }
        }
    }

    /// Whether to wait quietly until what is wrong passes.
    fn waits(&mut self, error: &DeviceError) -> bool {
        let quiet = self.stuck && error.held().is_some_and(|what| self.may_be_let_go(what));
        self.again = quiet.then(|| Instant::now() + HELD_PAUSE);
        quiet
    }

    /// Whether somebody still has time to let go of what this device needs.
    fn may_be_let_go(&mut self, what: Held) -> bool {
        let since = match self.held {
            Some((held, since)) if held == what => since,
            _ => Instant::now(),
        };
        self.held = Some((what, since));
        since.elapsed() < HELD_TIME
    }

    /// How soon to step again although nothing happened.
    pub(crate) fn pause(&self) -> Option<Duration> {
        Some(self.again?.saturating_duration_since(Instant::now()))
    }

    fn try_step(&mut self, context: &Context) -> Result<Progress, DeviceError> {
        self.again = None;
        loop {
            let own = context.store.device(&self.path);
            let mut peer = context.store.device(&self.frontend_path);
            let online =
                !context.stopping && own.text(xenbus::keys::ONLINE.name)?.as_deref() == Some("1");
            let frontend = match State::read(&mut peer) {
                _ if self.frontend_gone => State::Unknown,
                // Where the directory was, there may be nothing left that this domain may read.
                Err(xenbus::Error::Store(Error::Store { errno: Errno::EACCES, .. })) => {
                    State::Unknown
                }
                read => read?,
            };
            self.reap()?;
            if std::mem::take(&mut self.resumes) {
                self.resume(context, frontend, online)?;
            }
            let step = self.handshake.next(frontend, online)?;
            match step.work {
                BackendWork::Advertise => {
                    self.stuck = true;
                    self.advertise(context)?;
                    (self.stuck, self.held) = (false, None);
                }
                BackendWork::Connect => self.connect(context)?,
                BackendWork::Confirm | BackendWork::Run => {
                    let confirms = step.work == BackendWork::Confirm;
                    // Without queues: what was outdated has ended.
                    if self.queues.is_empty() || confirms && self.is_outdated(context)? {
                        if self.draining() {
                            return Ok(Progress::Waits);
                        }
                        self.connect(context)?;
                    }
                }
                BackendWork::Disconnect => {
                    if self.draining() {
                        return Ok(Progress::Waits);
                    }
                }
                BackendWork::Release => {
                    if self.draining() {
                        return Ok(Progress::Waits);
                    }
                    self.serving = None;
                }
                BackendWork::Done => return Ok(Progress::Done),
                BackendWork::Wait | BackendWork::Reconfigure => {}
            }
            if step.to == self.handshake.state() {
                return Ok(Progress::Waits);
            }
            self.go_to(context, step.to)?;
        }
    }

    /// Writes a state that is legal now.
    fn go_to(&mut self, context: &Context, to: State) -> Result<(), DeviceError> {
        if let Err(illegal) = self.handshake.enter(to) {
            // The handshake proposes only legal moves.
            log::error!("{}: {illegal}", self.name);
            return Ok(());
        }
        to.write(&mut context.store.device(&self.path))?;
        log::debug!("{}: {to}", self.name);
        match to {
            State::Connected => self.complaint = None,
            State::Closed => {
                (self.frontend_gone, self.ring_page) = (false, None);
                self.forget_journals(context);
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes on where an earlier backend ended, if all is as that left it; else its connection is closed.
    fn resume(
        &mut self,
        context: &Context,
        frontend: State,
        online: bool,
    ) -> Result<(), DeviceError> {
        if online && frontend == State::Connected {
            self.stuck = true;
            let offered = BackendFeatures::read(&mut context.store.device(&self.path));
            let offered = offered.map_err(DeviceError::from);
            match offered.and_then(|offered| self.take_over(context, offered)) {
                Ok(()) => {
                    (self.stuck, self.held) = (false, None);
                    self.forget_complaint(context);
                    return Ok(());
                }
                // Its last I/O is not over. Nothing may overtake that.
                Err(error) if error.held() == Some(Held::Image) => {
                    self.resumes = true;
                    return Err(error);
                }
                // Its event channels are closed after its image.
                Err(error) if error.held().is_some_and(|what| self.may_be_let_go(what)) => {
                    self.resumes = true;
                    return Err(error);
                }
                Err(error) => log::error!("{}: cannot go on: {error}", self.name),
            }
            self.stuck = false;
            self.draining();
        }
        self.handshake = Backend::found(State::Connected);
        Ok(())
    }

    /// Serves the rings that an earlier backend served, which `offered` so much.
    fn take_over(
        &mut self,
        context: &Context,
        offered: BackendFeatures,
    ) -> Result<(), DeviceError> {
        let before = context.store.device(&self.path).text(keys::SECTORS.name)?;
        self.open(context, offered)?;
        self.start(context, true)?;
        let Some(serving) = &self.serving else { return Ok(()) };
        if before != Some(serving.geometry.sectors.to_string()) {
            let mut own = context.store.device(&self.path);
            serving.geometry.write(&mut own)?;
            State::Connected.write(&mut own)?;
        }
        Ok(())
    }

    /// Opens the image and publishes what can be done with it.
    fn advertise(&mut self, context: &Context) -> Result<(), DeviceError> {
        let Options { queues, ring_order, segments, persistent, .. } = context.options;
        let offered = BackendFeatures {
            max_queues: queues,
            max_ring_page_order: ring_order,
            max_indirect_segments: segments.into(),
            persistent: persistent > 0,
            flush_cache: true,
            barrier: true,
        };
        self.open(context, offered)?;
        let Some(serving) = &self.serving else { return Ok(()) };
        let mut own = context.store.device(&self.path);
        serving.offered.write(&mut own)?;
        serving.geometry.write(&mut own)?;
        let direct = u8::from(serving.disk.image.direct().is_some());
        xenbus::WriteDirectory::write(&mut own, "direct-io", format_args!("{direct}"))?;
        self.forget_complaint(context);
        Ok(())
    }

    /// Opens the image, to offer no more than this of it.
    fn open(&mut self, context: &Context, offered: BackendFeatures) -> Result<(), DeviceError> {
        let buffered = context.options.buffered;
        let mut own = context.store.device(&self.path);
        let config = BackendConfig::read(&mut own)?;
        let params = own.text(keys::PARAMS.name)?.unwrap_or_default();
        let path = self.id.kind.image(&params)?;
        let sector_size = match own.text(keys::SECTOR_SIZE.name)? {
            Some(_) => Some(keys::SECTOR_SIZE.u32(&mut own)?),
            None => context.options.sector_size,
        };
        let read_only = config.read_only || config.cdrom;
        // What an earlier connection had open is not to be in this one's way.
        self.serving = None;
        let image = Image::open(Path::new(path), OpenOptions { read_only, buffered, sector_size })?;
        // Each connection opens it anew.
        if let Some(reason) = image.fallback().filter(|_| self.lines.frontend.take()) {
            log::warn!("{}: image {path}: no direct I/O: {reason}", self.name);
        }
        let may_map = image.direct().is_none() || context.client.direct_io_on_mappings();
        let offered = BackendFeatures { persistent: offered.persistent && may_map, ..offered };
        let discard = image.discard().filter(|_| config.discard);
        let geometry = Geometry {
            sectors: image.sectors()?,
            sector_size: image.sector_size(),
            physical_sector_size: image.physical_sector_size(),
            cdrom: config.cdrom,
            removable: config.cdrom,
            read_only,
            discard: discard.map(|discard| Discard {
                granularity: discard.granularity,
                alignment: discard.alignment,
                secure: discard.by == DiscardBy::Ioctl { secure: true },
            }),
        };
        if self.lines.frontend.take() {
            log::info!("{}: serves {path}, {} MiB", self.name, geometry.sectors / 2048);
        }
        let disk = Disk {
            name: self.name.clone(),
            image: Arc::new(image),
            rules: geometry.disk(&offered),
            capacity: AtomicU64::new(geometry.sectors),
            limits: self.limits.clone(),
            lines: self.lines.clone(),
            clock: self.clock,
        };
        self.limits.set(Rates::from(&config));
        self.serving = Some(Serving { disk: Arc::new(disk), offered, geometry });
        Ok(())
    }

    /// Maps what the frontend published and starts the queues.
    fn connect(&mut self, context: &Context) -> Result<(), DeviceError> {
        if self.serving.is_none() {
            self.advertise(context)?;
        }
        self.start(context, false)
    }

    /// Whether the frontend has published something else since it was connected.
    fn is_outdated(&self, context: &Context) -> Result<bool, DeviceError> {
        let Some(serving) = &self.serving else { return Ok(false) };
        let mut peer = context.store.device(&self.frontend_path);
        Ok(self.published != Some(Connection::read(&mut peer, &serving.offered)?))
    }

    /// Maps what the frontend published and starts the queues: on new rings, or to `resume` those of an earlier backend.
    fn start(&mut self, context: &Context, resume: bool) -> Result<(), DeviceError> {
        let Some(serving) = &self.serving else { return Ok(()) };
        let mut peer = context.store.device(&self.frontend_path);
        let connection = Connection::read(&mut peer, &serving.offered)?;
        let settings = connection.settings();
        let domain = DomId(self.id.frontend);
        let persistent = settings.persistent && serving.offered.persistent;
        let mut queues = Vec::new();
        for (number, queue) in connection.queues().iter().enumerate() {
            let ring = context.client.map(domain, queue.refs(), Access::ReadWrite)?;
            let part = QueueParts {
                disk: serving.disk.clone(),
                number,
                client: context.client.clone(),
                peer: domain,
                channel: context
                    .client
                    .bind_interdomain(domain, queue.port)
                    .map_err(|error| DeviceError::Channel { number, error })?,
                abi: settings.abi,
                max_indirect: u16::try_from(serving.offered.max_indirect_segments)
                    .unwrap_or(MAX_INDIRECT_SEGMENTS),
                persistent: persistent.then_some(context.options.persistent),
                poll: context.options.poll(),
                control: Arc::new(
                    QueueControl::new().map_err(|source| DeviceError::Thread { number, source })?,
                ),
                stats: Arc::new(QueueStats::default()),
                journal: context.options.state.as_deref().map(|directory| JournalPart {
                    path: journal::path(directory, self.id, number),
                    identity: Identity::of(queue, settings.abi),
                    resume,
                }),
            };
            queues.push((ring, part));
        }
        if self.lines.frontend.take() {
            log::info!(
                "{}: connected with {} queues of {} pages, {}, {}",
                self.name,
                settings.queues,
                1 << settings.ring_page_order,
                settings.abi.protocol(),
                if persistent { "persistent grants" } else { "grant copies" },
            );
        }
        self.ring_page =
            connection.queues().first().and_then(|queue| queue.refs().first()).copied();
        for (ring, parts) in queues {
            self.start_queue(context, ring, parts)?;
        }
        self.published = Some(connection);
        Ok(())
    }

    fn start_queue(
        &mut self,
        context: &Context,
        ring: Mapping,
        parts: QueueParts,
    ) -> Result<(), DeviceError> {
        let (number, control, stats) = (parts.number, parts.control.clone(), parts.stats.clone());
        let (tell, id) = (context.queue_ended.clone(), self.id);
        let ended = Arc::new(AtomicBool::new(false));
        let ending = ended.clone();
        let thread = std::thread::Builder::new()
            .name(format!("vbd-{}-{}-q{number}", id.frontend, id.device))
            .spawn(move || {
                let result = Queue::new(ring, parts).and_then(|mut queue| queue.run());
                ending.store(true, Ordering::Release);
                tell(id);
                result
            })
            .map_err(|source| DeviceError::Thread { number, source })?;
        self.queues.push(QueueThread { control, stats, ended, thread: Some(thread) });
        Ok(())
    }

    /// Joins queues that ended. Fails with the reason of one that ended by itself.
    fn reap(&mut self) -> Result<(), DeviceError> {
        for (number, queue) in self.queues.iter_mut().enumerate() {
            if !queue.ended.load(Ordering::Acquire) {
                continue;
            }
            if let Some(thread) = queue.thread.take() {
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(DeviceError::Queue { number, error }),
                    Err(_) => {
                        let source = std::io::Error::other("its thread panicked");
                        let error = QueueError::System { operation: "serving the ring", source };
                        return Err(DeviceError::Queue { number, error });
                    }
                }
            }
        }
        if self.queues.iter().all(|queue| queue.thread.is_none()) {
            self.queues.clear();
        }
        Ok(())
    }

    /// Whether a queue of a device that was removed is still at what it took. It tells when it ends.
    pub(crate) fn is_ending(&mut self) -> bool {
        // What a queue ended with concerns nobody any more.
        while self.reap().is_err() {}
        !self.queues.is_empty()
    }

    /// Tells all queues to drain. Returns whether any is still at it.
    pub(crate) fn draining(&self) -> bool {
        for queue in &self.queues {
            queue.control.drain();
        }
        !self.queues.is_empty()
    }

    /// Closes the connection because of an error, unless none was begun.
    fn close_after_error(&mut self, context: &Context) {
        self.draining();
        if !self.stuck
            && self.handshake.enter(State::Closing).is_ok()
            && let Err(error) = State::Closing.write(&mut context.store.device(&self.path))
        {
            log::error!("{}: {error}", self.name);
        }
    }

    /// Removes what was noted of a connection that is over.
    pub(crate) fn forget_journals(&self, context: &Context) {
        let Some(directory) = &context.options.state else { return };
        for queue in 0..MAX_QUEUES {
            let removed = std::fs::remove_file(journal::path(directory, self.id, queue));
            if removed.is_err() {
                // There are no more: their numbers are in order.
                break;
            }
        }
    }

    /// Says what is wrong, in the log and where Xen's own drivers say it, once.
    fn complain(&mut self, context: &Context, error: &DeviceError) {
        let text = error.to_string();
        if self.complaint.as_ref() != Some(&text) {
            if self.lines.frontend.take() {
                log::error!("{}: {text}", self.name);
            }
            if let Err(error) = context.store.write(&self.error_path(), &text) {
                log::warn!("{}: {error}", self.name);
            }
            self.complaint = Some(text);
        }
    }

    fn forget_complaint(&mut self, context: &Context) {
        if self.complaint.take().is_some() {
            // It is a note to people; one that stays does no harm.
            let _ = context.store.rm(&self.error_path());
        }
    }

    /// `error/backend/vbd/F/D/error`, below the backend domain's home.
    fn error_path(&self) -> String {
        format!("error/backend/{}/error", self.id)
    }

    /// Takes over limits that the toolstack changed.
    pub(crate) fn reread_limits(&mut self, context: &Context) {
        let Some(serving) = &self.serving else { return };
        match BackendConfig::read(&mut context.store.device(&self.path)) {
            Ok(config) => {
                if serving.disk.limits.set(Rates::from(&config)) {
                    self.queues.iter().for_each(|queue| queue.control.wake());
                }
            }
            Err(error) => self.complain(context, &error.into()),
        }
    }

    /// Looks whether the image changed its size, and tells the frontend.
    pub(crate) fn check_size(&mut self, context: &Context) {
        let state = self.handshake.state();
        let Some(serving) = &mut self.serving else { return };
        let checked = serving.disk.image.sectors().map_err(DeviceError::from).and_then(|sectors| {
            let before = serving.disk.capacity.swap(sectors, Ordering::Relaxed);
            if before == sectors {
                return Ok(());
            }
            log::info!("{}: the image went from {before} to {sectors} sectors", self.name);
            serving.geometry.sectors = sectors;
            let mut own = context.store.device(&self.path);
            serving.geometry.write(&mut own)?;
            if state == State::Connected {
                // Written once more, it tells the frontend to look.
                state.write(&mut own)?;
            }
            Ok(())
        });
        if let Err(error) = checked {
            self.complain(context, &error);
        }
    }

    /// Finds out whether the frontend's domain died: its pages cannot be mapped then. Its state in xenstore would stay
    /// as it is, also while this end waits for it to close.
    pub(crate) fn check_frontend(&mut self, context: &Context) {
        let Some(page) = self.ring_page else { return };
        let domain = DomId(self.id.frontend);
        if let Err(error) = context.client.map(domain, &[page], Access::ReadOnly) {
            log::info!("{}: the frontend is gone: {error}", self.name);
            self.frontend_gone = true;
        }
    }

    /// Whether it waits for what is wrong to be put right.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Closes without waiting for the frontend any longer.
    pub(crate) fn abandon(&mut self, context: &Context) {
        log::warn!("{}: its frontend did not close in time", self.name);
        if self.handshake.enter(State::Closed).is_ok()
            && let Err(error) = State::Closed.write(&mut context.store.device(&self.path))
        {
            log::warn!("{}: {error}", self.name);
        }
    }

    /// Its statistics, if it serves an image.
    pub(crate) fn report(&self) -> Option<DiskReport> {
        let disk = &self.serving.as_ref()?.disk;
        Some(DiskReport {
            frontend: self.id.frontend,
            device: self.id.device,
            image: disk.image.path().display().to_string(),
            sectors: disk.capacity.load(Ordering::Relaxed),
            read_only: disk.image.read_only(),
            direct_io: disk.image.direct().is_some(),
            queues: self.queues.iter().map(|queue| queue.stats.report()).collect(),
        })
    }
}

impl Drop for Device {
    /// Waits for nothing: a queue whose disk hangs ends by itself, whenever that is.
    fn drop(&mut self) {
        self.draining();
    }
}
