// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Arc;
use std::thread::JoinHandle;

use hypervisor_client::Client;
use ring_proto::blkif::Abi;
use ring_proto::xenbus::vbd::Geometry;

use crate::connection::Control;
use crate::shared::{Phase, Shared};
use crate::{Error, Options, Queue, Statistics};

/// What was negotiated with the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Number of queues.
    pub queues: u32,
    /// Pages of each ring, as a power of two.
    pub ring_page_order: u32,
    /// Layout of the requests.
    pub abi: Abi,
    /// Segments of an indirect request; 0 when there are none.
    pub indirect_segments: u16,
    /// The backend keeps buffers mapped.
    pub persistent: bool,
    /// There is flush.
    pub flush: bool,
    /// There are barriers.
    pub barrier: bool,
}

/// A virtual disk that is connected, or will be again. Dropping it closes it; its queues fail then.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use hypervisor_client::Client;
/// # fn first_sectors(client: Arc<dyn Client>) -> Result<(), frontend_user::Error> {
/// use frontend_user::{Disk, Operation, Options};
///
/// let mut disk = Disk::connect(client, 51712, Options::default())?;
/// let mut queue = disk.take_queues().remove(0);
/// let buffer = queue.buffer(8)?;
/// queue.submit(Operation::Read { sector: 0, into: buffer.span() }, 1)?;
/// queue.wait(None);
/// queue.complete(&mut |done| println!("{}: {:?}", done.tag, done.result))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    queues: Vec<Queue>,
    buffer_len: usize,
    control: Option<JoinHandle<()>>,
}

impl Disk {
    /// Connects to the backend of the virtual block device of this number, which the toolstack has made.
    ///
    /// # Errors
    ///
    /// When there is no such device, its backend offers what is not legal, or does not come within the time limit of
    /// the options.
    pub fn connect(client: Arc<dyn Client>, device: u32, options: Options) -> Result<Self, Error> {
        let (poll, buffer_len) = (options.poll(), options.buffers * 1024);
        let mut control = Control::new(client, device, options)?;
        let (shared, pools) = control.connect()?;
        let queues = (0..)
            .zip(pools)
            .map(|(index, pool)| Queue::new(index, shared.clone(), pool, poll))
            .collect();
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("vbd-{device}"))
                .spawn(move || control.run(&shared))
        };
        let thread = thread.map_err(|error| Error::host("starting the control thread", error))?;
        Ok(Self { shared, queues, buffer_len, control: Some(thread) })
    }

    /// The queues, the first time; each for one thread.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        std::mem::take(&mut self.queues)
    }

    /// What was negotiated; it may be another after a reconnection.
    pub fn settings(&self) -> Settings {
        self.shared.settings()
    }

    /// Size and nature of the disk at this moment.
    pub fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }

    /// Size of the disk at this moment, in units of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.shared.sectors()
    }

    /// Bytes of memory for buffers that each queue has.
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// How often the size has changed.
    pub fn resizes(&self) -> u64 {
        self.shared.resizes()
    }

    /// How often the backend came back.
    pub fn reconnects(&self) -> u64 {
        self.shared.reconnects()
    }

    /// What each queue has done.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.shared.counters.iter().map(|counters| counters.snapshot()).collect()
    }

    /// Why the disk has failed, if it has.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queues.clear();
        self.shared.change(Phase::Failed(Error::Closed));
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}
