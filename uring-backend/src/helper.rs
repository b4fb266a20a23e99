// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread for what io_uring cannot do: the ioctls that discard on a block device. It starts with the first of them,
//! so a queue never stalls for one, and a disk that discards otherwise has no such thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use crate::image::Image;
use crate::io::discard_range;

/// A discard to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiscardJob {
    /// The slot of the request.
    pub(crate) slot: u32,
    /// First byte.
    pub(crate) offset: u64,
    /// Number of bytes.
    pub(crate) len: u64,
    /// Whether nothing may be able to restore the data.
    pub(crate) secure: bool,
}

/// Slots of finished discards, each with the result as a completion would have it.
type Done = Arc<Mutex<Vec<(u32, i32)>>>;

/// The thread, as its queue sees it.
#[derive(Debug)]
pub(crate) struct Helper {
    jobs: Option<mpsc::Sender<DiscardJob>>,
    done: Done,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    /// Starts it. It writes to the eventfd `wake` after each job.
    pub(crate) fn start(image: Arc<Image>, wake: Arc<OwnedFd>) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<DiscardJob>();
        let done = Done::default();
        let outbox = done.clone();
        let thread = std::thread::Builder::new().name("discard".into()).spawn(move || {
            for job in inbox {
                let result = discard_range(image.buffered(), job.offset, job.len, job.secure);
                let result =
                    result.map_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
                outbox.lock().unwrap_or_else(PoisonError::into_inner).push((job.slot, result));
                // An eventfd takes a one unless it was never read 2^64 times.
                let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands it a job. Returns whether it took it.
    pub(crate) fn submit(&self, job: DiscardJob) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// Takes what is finished.
    pub(crate) fn finished(&self) -> Vec<(u32, i32)> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::image::OpenOptions;

    /// A file takes no such ioctls, which shows that they arrive at it and what comes of them arrives here.
    #[test]
    fn each_job_is_done_and_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let image = Arc::new(Image::open(file.path(), OpenOptions::default()).unwrap());
        assert!(!crate::io::can_secure_discard(image.buffered()));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let helper = Helper::start(image, wake.clone()).unwrap();
        for (slot, secure) in [(7, false), (3, true)] {
            assert!(helper.submit(DiscardJob { slot, offset: 0, len: 4096, secure }));
        }
        let mut finished = Vec::new();
        while finished.len() < 2 {
            assert_eq!(rustix::io::read(&wake, &mut [0; 8]), Ok(8), "waits for it to be told");
            finished.extend(helper.finished());
        }
        assert_eq!(finished, [(7, -libc::ENOTTY), (3, -libc::ENOTTY)]);
    }
}
