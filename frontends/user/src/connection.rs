// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk's side of the handshake: what `ring_proto::xenbus` says has to be done next is done here.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor_client::store::{Store, WatchEvent};
use hypervisor_client::{Access, Client, Grant};
use ring_proto::blkif::{FrontRing, MAX_INDIRECT_PAGES};
use ring_proto::shared::PAGE_SIZE;
use ring_proto::xen::{DomId, Errno, Port};
use ring_proto::xenbus::vbd::{
    BackendFeatures, Connection, FrontendConfig, FrontendSettings, Geometry, Queue as QueueKeys,
};
use ring_proto::xenbus::{self, Frontend, FrontendWork, State, keys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::disk::Settings;
use crate::shared::{Link, Phase, Shared, consume};
use crate::{Error, Options};

/// How long a backend gets to notice that its frontend closes. Pages that it holds mapped afterwards stay granted.
const FAREWELL: Duration = Duration::from_millis(200);

/// Pages for the segments of indirect requests, for each queue. When all are in use, requests are direct.
const INDIRECT_PAGES: usize = 8 * MAX_INDIRECT_PAGES;

/// Where the backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backend {
    domain: DomId,
    directory: Arc<str>,
}

/// Talks to xenstore for a disk: first until it is connected, then as the disk's control thread.
pub(crate) struct Control {
    client: Arc<dyn Client>,
    store: Store,
    options: Options,
    /// This end's directory.
    directory: Arc<str>,
    frontend: Frontend,
    backend: Backend,
    backend_state: State,
    /// The backend's domain may have gone since it was last looked for.
    suspect: Cell<bool>,
    handle: u16,
    settings: FrontendSettings,
    /// What was published, until the backend is connected to it.
    links: Vec<Link>,
    /// Memory for the queues, until they are made.
    pools: Vec<Grant>,
    /// The domain that all queues' memory is granted to, or will be when they take their links. None when some queue's is
    /// not, because it did not look in time.
    granted: Option<DomId>,
    /// There is none before the first connection.
    shared: Option<Arc<Shared>>,
    /// Since when the disk has not been connected.
    lost: Option<Instant>,
}

impl Control {
    /// Finds the device.
    pub fn new(client: Arc<dyn Client>, device: u32, options: Options) -> Result<Self, Error> {
        let store = client.store().map_err(|error| Error::host("connecting to xenstore", error))?;
        let directory: Arc<str> =
            format!("/local/domain/{}/device/vbd/{device}", client.domid()).into();
        let backend = find_backend(&store, &directory)?.ok_or_else(|| {
            let missing = ring_proto::xenbus::KeyError {
                path: keys::BACKEND.path(),
                value: None,
                reason: xenbus::Reason::Missing,
            };
            Error::Key { directory: directory.clone(), error: missing.into() }
        })?;
        let config =
            FrontendConfig::read(&mut store.device(&directory)).map_err(illegal(&directory))?;
        let state = State::read(&mut store.device(&directory)).map_err(illegal(&directory))?;
        let control = Self {
            settings: options.wanted(),
            client,
            store,
            options,
            frontend: Frontend::found(state),
            backend_state: State::Unknown,
            suspect: Cell::new(true),
            handle: config.virtual_device as u16,
            links: Vec::new(),
            pools: Vec::new(),
            granted: None,
            shared: None,
            lost: Some(Instant::now()),
            directory,
            backend,
        };
        control.watch("@releaseDomain")?;
        control.watch(&format!("{}/backend", control.directory))?;
        control.watch_backend()?;
        Ok(control)
    }

    /// Goes through the handshake until the backend is connected. Returns what the queues need.
    pub fn connect(&mut self) -> Result<(Arc<Shared>, Vec<Grant>), Error> {
        let result = loop {
            match self.step() {
                Ok(FrontendWork::Wait) => {
                    if let Err(error) = self.wait() {
                        break Err(error);
                    }
                }
                Ok(FrontendWork::Connect) => break Ok(()),
                Ok(FrontendWork::Done) => break Err(Error::Removed),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = result {
            self.leave();
            return Err(error);
        }
        let shared = self.shared.clone().ok_or(Error::Removed)?;
        Ok((shared, std::mem::take(&mut self.pools)))
    }

    /// Follows the backend until the disk has failed or was closed.
    pub fn run(mut self, shared: &Shared) {
        let reason = loop {
            if let Some(reason) = shared.failure() {
                break reason;
            }
            let next = self.step().and_then(|work| match work {
                FrontendWork::Wait | FrontendWork::Run => self.wait(),
                FrontendWork::Done => Err(Error::Removed),
                _ => Ok(()),
            });
            if let Err(reason) = next {
                break reason;
            }
        };
        match &reason {
            Error::Closed => log::info!("{}: closed", self.directory),
            reason => log::error!("{}: {reason}", self.directory),
        }
        shared.change(Phase::Failed(reason));
        self.leave();
    }

    /// Does what the states of both ends ask for, once, and says what it was.
    fn step(&mut self) -> Result<FrontendWork, Error> {
        match find_backend(&self.store, &self.directory)? {
            Some(backend) if backend == self.backend => {}
            Some(backend) => {
                log::info!(
                    "{}: the backend is now {} in domain {}",
                    self.directory,
                    backend.directory,
                    backend.domain
                );
                self.unwatch_backend();
                self.backend = backend;
                self.watch_backend()?;
            }
            None => return Err(Error::Removed),
        }
        let (state, online) = self.look()?;
        if state != self.backend_state {
            log::debug!("{}: the backend is {state}", self.directory);
        }
        self.backend_state = state;
        let keep = state == State::Unknown || online;
        let step = self
            .frontend
            .next(state, keep)
            .map_err(|error| Error::host(self.directory.clone(), error))?;
        match step.work {
            FrontendWork::Publish => self.publish()?,
            FrontendWork::Connect => self.connected()?,
            FrontendWork::Disconnect => self.disconnected(),
            FrontendWork::Release => self.links.clear(),
            FrontendWork::Run => self.look_at_size()?,
            FrontendWork::Wait | FrontendWork::Restart | FrontendWork::Done => {}
        }
        self.enter(step.to)?;
        Ok(step.work)
    }

    /// The backend's state, [`State::Unknown`] when its domain is gone, and whether the disk is to stay.
    fn look(&self) -> Result<(State, bool), Error> {
        let Backend { domain, directory } = &self.backend;
        if self.suspect.get() {
            if !self.lives(*domain) {
                return Ok((State::Unknown, true));
            }
            self.suspect.set(false);
        }
        let mut reading = self.store.device(directory);
        let state = State::read(&mut reading).map_err(illegal(directory))?;
        let online = keys::ONLINE.flag(&mut reading).map_err(illegal(directory))?;
        Ok((state, online))
    }

    /// Whether there is such a domain. xenstore tells only domain 0, but the hypervisor tells everybody who wants to
    /// bind to a port: there is no port 0, and no port at all in a domain that is gone.
    fn lives(&self, domain: DomId) -> bool {
        let refusal = self.client.bind_interdomain(domain, Port(0));
        !matches!(refusal, Err(hypervisor_client::Error::Refused { errno: Errno::ESRCH, .. }))
    }

    /// Allocates rings and event channels as the backend's offer allows, and publishes them.
    fn publish(&mut self) -> Result<(), Error> {
        let Backend { domain, directory } = self.backend.clone();
        let offered = BackendFeatures::read(&mut self.store.device(&directory))
            .map_err(illegal(&directory))?;
        let mut wanted = self.options.wanted();
        if let Some(shared) = &self.shared {
            // The queues have their owners, and there are no more of them than there were.
            wanted.queues = shared.counters.len() as u32;
        }
        let settings = FrontendSettings::negotiate(&wanted, &offered);
        if self.shared.is_some() && settings.queues < wanted.queues {
            return Err(Error::FewerQueues { offered: settings.queues, used: wanted.queues });
        }
        let refused = |error| Error::host(self.directory.clone(), error);
        let grant = |pages| self.client.grant(domain, pages, Access::ReadWrite).map_err(refused);
        let (mut links, mut published, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.queues {
            let pages = grant(1 << settings.ring_page_order)?;
            let channel = self.client.alloc_unbound(domain).map_err(refused)?;
            published.extend(QueueKeys::new(pages.refs(), channel.port()));
            let ring = FrontRing::new(pages, settings.abi)
                .map_err(|error| Error::host(self.directory.clone(), error))?;
            let mut pool = None;
            if self.granted != Some(domain) {
                let memory = grant(self.options.buffer_pages())?;
                match self.shared {
                    Some(_) => pool = Some(memory),
                    None => pools.push(memory),
                }
            }
            links.push(Link {
                ring,
                channel,
                indirect: None,
                indirect_segments: 0,
                pool,
                handle: self.handle,
                flush: false,
                secure_discard: false,
                barrier: false,
            });
        }
        let connection = Connection::new(settings, &published).map_err(|error| Error::Key {
            directory: self.directory.clone(),
            error: error.into(),
        })?;
        let written =
            self.store.transaction(|tx| connection.write(&mut tx.device(&self.directory)));
        written.map_err(refused)?;
        (self.settings, self.links) = (settings, links);
        if self.shared.is_none() && !pools.is_empty() {
            self.pools = pools;
        }
        // With queues already made, the memory moves when they take their links; a connection that fails before that
        // allocates it anew.
        if self.shared.is_none() {
            self.granted = Some(domain);
        }
        Ok(())
    }

    /// Lets requests flow.
    fn connected(&mut self) -> Result<(), Error> {
        let Backend { domain, directory } = self.backend.clone();
        let mut reading = self.store.device(&directory);
        let offered = BackendFeatures::read(&mut reading).map_err(illegal(&directory))?;
        let geometry = Geometry::read(&mut reading).map_err(illegal(&directory))?;
        let wanted = self.options.indirect_segments;
        let segments = offered.indirect_segments(wanted).unwrap_or(0);
        for link in &mut self.links {
            if segments > 0 {
                // A backend maps persistent grants for writing, whatever it uses them for.
                let access = match self.settings.persistent {
                    true => Access::ReadWrite,
                    false => Access::ReadOnly,
                };
                let pages = self.client.grant(domain, INDIRECT_PAGES, access);
                link.indirect =
                    Some(pages.map_err(|error| Error::host(self.directory.clone(), error))?);
            }
            link.indirect_segments = usize::from(segments);
            (link.flush, link.barrier) = (offered.flush_cache, offered.barrier);
            link.secure_discard = geometry.discard.is_some_and(|discard| discard.secure);
        }
        let settings = Settings {
            queues: self.settings.queues,
            ring_page_order: self.settings.ring_page_order,
            abi: self.settings.abi,
            indirect_segments: segments,
            persistent: offered.persistent && self.settings.persistent,
            flush: offered.flush_cache,
            barrier: offered.barrier,
        };
        let links = self.links.drain(..).map(Some).collect::<Vec<_>>();
        let shared = match &self.shared {
            Some(shared) => shared.clone(),
            None => Arc::new(
                Shared::new(links.len(), settings, geometry)
                    .map_err(|error| Error::host("an eventfd", error))?,
            ),
        };
        shared.describe(settings, geometry);
        shared.change(Phase::Connected(links));
        self.granted = Some(domain);
        if let (Some(lost), Some(_)) = (self.lost, &self.shared) {
            log::info!(
                "{}: connected again after {:.3} s",
                self.directory,
                lost.elapsed().as_secs_f64()
            );
            shared.count_reconnect();
        }
        (self.lost, self.shared) = (None, Some(shared));
        Ok(())
    }

    /// Keeps everything from the rings.
    fn disconnected(&mut self) {
        self.links.clear();
        if let Some(shared) = &self.shared {
            if shared.has_pool_left() {
                self.granted = None;
            }
            shared.change(Phase::Lost);
        }
        if self.lost.is_none() {
            self.lost = Some(Instant::now());
            log::warn!(
                "{}: the backend is {}: waiting for it to come back",
                self.directory,
                self.backend_state
            );
        }
    }

    /// The disk may have another size now.
    fn look_at_size(&self) -> Result<(), Error> {
        let directory = &self.backend.directory;
        let geometry =
            Geometry::read(&mut self.store.device(directory)).map_err(illegal(directory))?;
        if let Some(shared) = &self.shared
            && shared.resize(geometry)
        {
            log::info!("{}: now {} sectors", self.directory, geometry.sectors);
        }
        Ok(())
    }

    /// Closes this end, and gives the backend a moment to close its own.
    fn leave(&mut self) {
        let begin = Instant::now();
        self.links.clear();
        if !matches!(self.frontend.state(), State::Closing | State::Closed | State::Unknown) {
            let _ = self.enter(State::Closing);
        }
        while self.frontend.state() == State::Closing {
            let gone = self.look().map_or(true, |(state, _)| {
                matches!(
                    state,
                    State::Unknown
                        | State::Initialising
                        | State::InitWait
                        | State::Closing
                        | State::Closed
                )
            });
            let left = FAREWELL.saturating_sub(begin.elapsed());
            if gone || left.is_zero() {
                let _ = self.enter(State::Closed);
                return;
            }
            if self.store.next_event(Some(left)).is_err() {
                return;
            }
        }
    }

    /// Goes to another state and writes it, unless the device's directory is gone.
    fn enter(&mut self, to: State) -> Result<(), Error> {
        if to == self.frontend.state() {
            return Ok(());
        }
        let failed = |error| Error::host(self.directory.clone(), error);
        self.frontend.enter(to).map_err(|error| Error::host(self.directory.clone(), error))?;
        self.store
            .transaction(|tx| match tx.try_read(&format!("{}/backend", self.directory))? {
                Some(_) => to.write(&mut tx.device(&self.directory)),
                None => Ok(()),
            })
            .map_err(failed)
    }

    /// Waits until xenstore tells of something, or the disk failed.
    fn wait(&self) -> Result<(), Error> {
        let gone = |error| Error::host(self.directory.clone(), error);
        let left = match (self.lost, self.options.time_limit()) {
            (Some(lost), Some(limit)) => {
                let left = limit.saturating_sub(lost.elapsed());
                if left.is_zero() {
                    let Backend { directory, .. } = self.backend.clone();
                    return Err(Error::NoBackend {
                        directory,
                        state: self.backend_state,
                        waited: lost.elapsed(),
                    });
                }
                Some(left)
            }
            _ => None,
        };
        // Everything is looked at anew after any event, so one look serves all that have arrived.
        if self.drain().map_err(gone)? {
            return Ok(());
        }
        match &self.shared {
            None => {
                if let Some(event) = self.store.next_event(left).map_err(gone)? {
                    self.note(&event);
                }
                Ok(())
            }
            Some(shared) => {
                let wake = shared.control_wake();
                let mut fds = [
                    PollFd::new(&self.store, PollFlags::IN),
                    PollFd::from_borrowed_fd(wake, PollFlags::IN),
                ];
                let timeout = left.and_then(|left| Timespec::try_from(left).ok());
                if poll(&mut fds, timeout.as_ref()).is_ok() && !fds[1].revents().is_empty() {
                    consume(wake);
                }
                self.drain().map(drop).map_err(gone)
            }
        }
    }

    /// Takes the events that have arrived; whether there were any.
    fn drain(&self) -> Result<bool, hypervisor_client::Error> {
        let mut any = false;
        while let Some(event) = self.store.pending_event()? {
            self.note(&event);
            any = true;
        }
        Ok(any)
    }

    fn note(&self, event: &WatchEvent) {
        if event.path == "@releaseDomain" {
            self.suspect.set(true);
        }
    }

    fn watch(&self, path: &str) -> Result<(), Error> {
        self.store.watch(path, "disk").map_err(|error| Error::host(self.directory.clone(), error))
    }

    fn watch_backend(&self) -> Result<(), Error> {
        self.watch(&format!("{}/state", self.backend.directory))?;
        self.watch(&format!("{}/online", self.backend.directory))
    }

    fn unwatch_backend(&self) {
        for key in ["state", "online"] {
            // A watch that is gone already is no loss.
            let _ = self.store.unwatch(&format!("{}/{key}", self.backend.directory), "disk");
        }
    }
}

/// Where the toolstack says that the backend is; `None` when the device is gone.
fn find_backend(store: &Store, directory: &Arc<str>) -> Result<Option<Backend>, Error> {
    let path = format!("{directory}/{}", keys::BACKEND.name);
    let value = store.try_read(&path).map_err(|error| Error::host(path, error))?;
    let Some(value) = value else { return Ok(None) };
    let domain = keys::BACKEND_ID.u32(&mut store.device(directory)).map_err(illegal(directory))?;
    Ok(Some(Backend {
        domain: DomId(domain as u16),
        directory: String::from_utf8_lossy(&value).into(),
    }))
}

/// What stands in a directory is not legal, or cannot be read.
fn illegal(directory: &Arc<str>) -> impl Fn(xenbus::Error<hypervisor_client::Error>) -> Error + '_ {
    |error| match error {
        xenbus::Error::Store(error) => Error::host(directory.clone(), error),
        xenbus::Error::Key(error) => {
            Error::Key { directory: directory.clone(), error: error.into() }
        }
    }
}

impl Options {
    fn buffer_pages(&self) -> usize {
        (self.buffers * 1024).div_ceil(PAGE_SIZE)
    }
}
