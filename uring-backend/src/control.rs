// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control thread: it finds devices in xenstore, takes each through its handshake, and starts and ends its queues.
//! It too waits in one place: for xenstore, for ended queues, for the end, and for readers of statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hypervisor_client::Client;
use hypervisor_client::store::WatchEvent;
use ring_proto::xen::Errno;
use ring_proto::xenbus::vbd::keys;
use rustix::event::{EventfdFlags, eventfd};

use crate::claim::{Claim, Kind};
use crate::device::{Context, Device, DeviceId, Progress};
use crate::io::Waiter;
use crate::journal;
use crate::options::Options;
use crate::stats_socket::StatsSocket;
use crate::stop::Stop;

/// How long the frontends have to close their ends once the backend is told to stop.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Most events of xenstore between two looks at everything else, so that a frontend that writes its state all the time
/// keeps the backend from nothing.
const EVENTS: usize = 1024;

/// Tokens of watches.
mod token {
    pub(super) const OWN: &str = "own";
    pub(super) const FRONTEND: &str = "frontend";
    pub(super) const DOMAINS: &str = "domains";
}

/// Why a backend could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hypervisor or xenstore failed.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor_client::Error),
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, naming the file.
        operation: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Serves the block devices of this domain that are its own, until `stop` says to end. Then it answers what it has
/// taken, closes each device (or leaves it to the next backend, with [`Options::state`]), and returns. What goes wrong with one device is logged and concerns only that one.
///
/// # Errors
///
/// When the backend cannot start, or xenstore is gone.
pub fn run(client: Arc<dyn Client>, options: Options, stop: &Stop) -> Result<(), Error> {
    let io_error = |operation: &str| {
        let operation = operation.to_owned();
        move |source| Error::Io { operation, source }
    };
    if let Some(state) = &options.state {
        let operation = format!("making the folder {}", state.display());
        std::fs::create_dir_all(state).map_err(io_error(&operation))?;
    }
    let stats = options.stats.as_deref().map(StatsSocket::bind).transpose()?;
    let (sender, ended) = mpsc::channel();
    let wake: Arc<OwnedFd> = Arc::new(
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| io_error("eventfd")(error.into()))?,
    );
    let waker = wake.clone();
    let store = client.store()?;
    let home = format!("/local/domain/{}/backend", client.domid().0);
    for kind in Kind::ALL {
        store.watch(&format!("{home}/{kind}"), token::OWN)?;
    }
    store.watch("@releaseDomain", token::DOMAINS)?;
    let context = Context {
        client,
        store,
        options,
        queue_ended: Arc::new(move |id| {
            // Nobody listens any more when the backend ended before the queue.
            let _ = sender.send(id);
            let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
        }),
        stopping: false,
    };
    let (devices, taken) = (BTreeMap::new(), BTreeSet::new());
    Control { context, home, devices, taken, ending: Vec::new(), stop_at: None }
        .serve(stop, &wake, &ended, stats)
}

struct Control {
    context: Context,
    /// The directory of this domain's backends.
    home: String,
    devices: BTreeMap<DeviceId, Device>,
    /// Devices that are named as this backend's, but the kernel takes them.
    taken: BTreeSet<DeviceId>,
    /// Devices that were removed while their queues were at work.
    ending: Vec<Device>,
    /// When to end without the frontends' consent.
    stop_at: Option<Instant>,
}

/// What has to be looked at.
#[derive(Default)]
struct Due {
    /// Which devices there are.
    list: bool,
    /// All devices.
    all: bool,
    /// A domain died.
    domains: bool,
    devices: BTreeSet<DeviceId>,
    limits: BTreeSet<DeviceId>,
}

impl Control {
    fn serve(
        mut self,
        stop: &Stop,
        wake: &OwnedFd,
        ended: &mpsc::Receiver<DeviceId>,
        stats: Option<StatsSocket>,
    ) -> Result<(), Error> {
        // The first bit is the store's: its events are looked for each time round.
        const WAKE: u32 = 1 << 1;
        const STOP: u32 = 1 << 2;
        const RELOAD: u32 = 1 << 3;
        const STATS: u32 = 1 << 4;
        let failed = |source| Error::Io { operation: "io_uring".to_owned(), source };
        // Waiting for the descriptor borrows nothing that the devices need.
        let store_fd = self.context.store.as_fd().try_clone_to_owned().map_err(failed)?;
        let mut descriptors =
            vec![store_fd.as_fd(), wake.as_fd(), stop.stop_fd(), stop.reload_fd()];
        descriptors.extend(stats.as_ref().map(AsFd::as_fd));
        let mut waiter = Waiter::new(descriptors).map_err(failed)?;
        self.forget_absent();
        let mut due = Due { list: true, ..Due::default() };
        let mut checked = Instant::now();
        loop {
            let mut busy = false;
            for number in 1..=EVENTS {
                let Some(event) = self.context.store.pending_event()? else { break };
                self.note(&event, &mut due);
                busy = number == EVENTS;
            }
            if self.leaves() {
                // What the next backend is to find stays as it is.
                due = Due::default();
                self.devices.retain(|_, device| device.draining() && device.is_ending());
            } else {
                busy |= self.work(&mut due)?;
            }
            self.ending.retain_mut(Device::is_ending);
            if self.context.stopping && self.devices.is_empty() && self.ending.is_empty() {
                return Ok(());
            }
            if self.stop_at.is_some_and(|at| Instant::now() >= at) {
                if self.leaves() {
                    log::warn!("what takes so long is left for the next backend to do again");
                    return Ok(());
                }
                for device in self.devices.values_mut() {
                    device.abandon(&self.context);
                }
                return Ok(());
            }
            // Any call to the store may have brought events, which nothing to wait for tells of.
            let timeout = if busy { Some(Duration::ZERO) } else { self.timeout(checked) };
            let readable = waiter.wait(timeout).map_err(failed)?;
            let over = |device: &Device| device.pause().is_some_and(|left| left.is_zero());
            due.devices.extend(self.devices.iter().filter(|it| over(it.1)).map(|it| *it.0));
            if readable & WAKE != 0 {
                // It is only a signal; what it is about stands in the channel.
                let _ = rustix::io::read(wake, &mut [0; 8]);
                due.devices.extend(ended.try_iter());
            }
            if readable & STOP != 0 && stop.take_stop() && !self.context.stopping {
                log::info!("stopping");
                self.context.stopping = true;
                self.stop_at = Some(Instant::now() + CLOSE_TIME);
                due.all = true;
            }
            let reload = readable & RELOAD != 0 && stop.take_reload();
            if reload
                || self.context.options.check().is_some_and(|period| checked.elapsed() >= period)
            {
                checked = Instant::now();
                self.check(&mut due);
            }
            if readable & STATS != 0
                && let Some(stats) = &stats
            {
                stats.serve(|| self.devices.values().filter_map(Device::report).collect());
            }
        }
    }

    /// Whether this backend is to end, and another one to go on with its connections.
    fn leaves(&self) -> bool {
        self.context.stopping && self.context.options.state.is_some()
    }

    /// How long to wait at most.
    fn timeout(&self, checked: Instant) -> Option<Duration> {
        let check = self.context.options.check().filter(|_| !self.devices.is_empty());
        let check = check.map(|period| period.saturating_sub(checked.elapsed()));
        let stop = self.stop_at.map(|at| at.saturating_duration_since(Instant::now()));
        let pauses = self.devices.values().filter_map(Device::pause);
        check.into_iter().chain(stop).chain(pauses).min()
    }

    /// Looks at what changes without a word: sizes of images, and images that could not be opened.
    fn check(&mut self, due: &mut Due) {
        for (id, device) in &mut self.devices {
            device.check_size(&self.context);
            if device.is_stuck() {
                due.devices.insert(*id);
            }
        }
    }

    /// Finds out what an event concerns.
    fn note(&self, event: &WatchEvent, due: &mut Due) {
        match event.token.as_str() {
            token::OWN => {
                let below = event.path.strip_prefix(&self.home).unwrap_or_default();
                match DeviceId::parse(below) {
                    Some((id, Some(key))) if self.devices.contains_key(&id) => match key {
                        "online" | "params" | "mode" | "state" => {
                            due.devices.insert(id);
                        }
                        _ if key.starts_with("iops-") || key.starts_with("bandwidth-") => {
                            due.limits.insert(id);
                        }
                        _ => {}
                    },
                    _ => due.list = true,
                }
            }
            token::DOMAINS => due.domains = true,
            frontend => {
                let id = frontend.strip_prefix(token::FRONTEND).and_then(DeviceId::parse);
                due.devices.extend(id.map(|(id, _)| id));
            }
        }
    }

    /// Does what is due. Returns whether there was anything.
    fn work(&mut self, due: &mut Due) -> Result<bool, Error> {
        let Due { list, all, domains, mut devices, limits } = std::mem::take(due);
        if list {
            devices.extend(self.list()?);
        }
        if domains {
            self.devices.values_mut().for_each(|device| device.check_frontend(&self.context));
        }
        if all || domains {
            devices.extend(self.devices.keys());
        }
        let any = list || !limits.is_empty() || !devices.is_empty();
        for id in limits {
            if let Some(device) = self.devices.get_mut(&id) {
                device.reread_limits(&self.context);
            }
        }
        for id in devices {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            if device.step(&self.context) == Progress::Done {
                self.forget(id);
            }
        }
        Ok(any)
    }

    /// Compares the devices in xenstore with those known. Returns the new ones.
    fn list(&mut self) -> Result<Vec<DeviceId>, Error> {
        let there = match self.there() {
            // What cannot be seen now is not gone.
            Err(error @ hypervisor_client::Error::Store { .. }) => {
                log::error!("{error}");
                return Ok(Vec::new());
            }
            there => there?,
        };
        let gone: Vec<_> = self.devices.keys().filter(|id| !there.contains(id)).copied().collect();
        for id in gone {
            log::info!("{}: removed", id.name());
            if let Some(device) = self.devices.get(&id) {
                // It may never have come to be closed.
                device.forget_journals(&self.context);
            }
            self.forget(id);
        }
        self.taken.retain(|id| there.contains(id));
        let mut new = Vec::new();
        for id in there {
            if self.context.stopping || self.devices.contains_key(&id) || !self.claims(id) {
                continue;
            }
            let path = format!("{}/{id}", self.home);
            // A path that cannot be watched, or one watch too many, concerns this device only.
            let found = Device::found(id, path, &self.context).and_then(|device| {
                let store = &self.context.store;
                store.watch(&device.frontend_state_path(), &frontend_token(id))?;
                Ok(device)
            });
            match found {
                Ok(device) => {
                    self.devices.insert(id, device);
                    new.push(id);
                }
                Err(error) => log::error!("{}: {error}", id.name()),
            }
        }
        Ok(new)
    }

    /// The devices in xenstore, whoever serves them.
    fn there(&self) -> Result<BTreeSet<DeviceId>, hypervisor_client::Error> {
        let mut there = BTreeSet::new();
        for kind in Kind::ALL {
            for frontend in self.children(&format!("{}/{kind}", self.home))? {
                for device in self.children(&format!("{}/{kind}/{frontend}", self.home))? {
                    let path = format!("{kind}/{frontend}/{device}");
                    there.extend(DeviceId::parse(&path).map(|(id, _)| id));
                }
            }
        }
        Ok(there)
    }

    /// Removes what an earlier backend noted of devices that are not there any more.
    fn forget_absent(&self) {
        let Some(directory) = &self.context.options.state else { return };
        let absent = |id| {
            let found = self.context.store.directory(&format!("{}/{id}", self.home));
            matches!(found, Err(hypervisor_client::Error::Store { errno: Errno::ENOENT, .. }))
        };
        if let Err(error) = journal::forget(directory, absent) {
            log::warn!("{}: {error}", directory.display());
        }
    }

    /// Whether a device is this backend's.
    fn claims(&mut self, id: DeviceId) -> bool {
        let path = format!("{}/{id}", self.home);
        let Context { store, client, .. } = &self.context;
        let script = store.device(&path).text(keys::SCRIPT.name).unwrap_or_else(|error| {
            log::error!("{}: {error}", id.name());
            None
        });
        let claim =
            Claim::of(id.kind, script.as_deref(), client.kernel_has_backend(id.kind.name()));
        if claim == Claim::Taken && self.taken.insert(id) {
            log::error!(
                "{}: the kernel's block backend takes all of backend/{}; give the disk `backendtype=tap`",
                id.name(),
                id.kind
            );
        }
        claim == Claim::Ours
    }

    /// Names of the nodes below a directory; none when it is not there.
    fn children(&self, path: &str) -> Result<Vec<String>, hypervisor_client::Error> {
        match self.context.store.directory(path) {
            Err(hypervisor_client::Error::Store { errno: Errno::ENOENT, .. }) => Ok(Vec::new()),
            children => children,
        }
    }

    fn forget(&mut self, id: DeviceId) {
        if let Some(device) = self.devices.remove(&id) {
            // The watch may be gone with its node's domain.
            let _ = self.context.store.unwatch(&device.frontend_state_path(), &frontend_token(id));
            if device.draining() {
                self.ending.push(device);
            }
        }
    }
}

fn frontend_token(id: DeviceId) -> String {
    format!("{}/{id}", token::FRONTEND)
}
