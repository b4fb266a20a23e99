// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A handle that ends a running backend, or makes it look at its images again. Clones are handles of the same backend.
#[derive(Clone, Debug)]
pub struct Stop {
    stop: Arc<(UnixStream, UnixStream)>,
    reload: Arc<(UnixStream, UnixStream)>,
}

impl Stop {
    /// A handle for one backend.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let pair = || -> io::Result<_> {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            Ok(Arc::new((read, write)))
        };
        Ok(Self { stop: pair()?, reload: pair()? })
    }

    /// Makes the backend drain its queues, close its devices, and return.
    pub fn stop(&self) {
        // A full pipe says it already.
        let _ = (&self.stop.1).write(&[0]);
    }

    /// Makes the backend look at the sizes of its images now.
    pub fn reload(&self) {
        let _ = (&self.reload.1).write(&[0]);
    }

    /// Lets SIGTERM and SIGINT [`stop`](Self::stop), and SIGHUP [`reload`](Self::reload), from now on.
    ///
    /// # Errors
    ///
    /// When a handler cannot be installed.
    pub fn on_signals(&self) -> io::Result<()> {
        for (signal, pipe) in [(SIGTERM, &self.stop), (SIGINT, &self.stop), (SIGHUP, &self.reload)]
        {
            signal_hook::low_level::pipe::register(signal, pipe.1.try_clone()?)?;
        }
        Ok(())
    }

    pub(crate) fn stop_fd(&self) -> BorrowedFd<'_> {
        self.stop.0.as_fd()
    }

    pub(crate) fn reload_fd(&self) -> BorrowedFd<'_> {
        self.reload.0.as_fd()
    }

    pub(crate) fn take_stop(&self) -> bool {
        drain(&self.stop.0)
    }

    pub(crate) fn take_reload(&self) -> bool {
        drain(&self.reload.0)
    }
}

/// Reads all that is there. Returns whether it was anything.
fn drain(mut from: &UnixStream) -> bool {
    let mut any = false;
    while from.read(&mut [0; 64]).is_ok_and(|len| len > 0) {
        any = true;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_seen_once() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        other.stop();
        other.stop();
        assert!(!stop.take_reload() && stop.take_stop() && !stop.take_stop());
        other.reload();
        assert!(stop.take_reload() && !stop.take_stop());
    }
}
