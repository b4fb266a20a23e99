// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

/// Waits for any of some descriptors to be readable.
pub(crate) struct Waiter<'a> {
    ring: IoUring,
    /// Each with whether the kernel watches it now.
    descriptors: Vec<(BorrowedFd<'a>, bool)>,
}

impl<'a> Waiter<'a> {
    /// For at most 32 descriptors.
    pub(crate) fn new(descriptors: Vec<BorrowedFd<'a>>) -> io::Result<Self> {
        let descriptors = descriptors.into_iter().map(|fd| (fd, false)).collect();
        Ok(Self { ring: IoUring::new(32)?, descriptors })
    }

    /// Waits for at most `timeout`. Returns the descriptors that are readable: bit `n` for the one of number `n`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<u32> {
        for (number, (fd, armed)) in self.descriptors.iter_mut().enumerate() {
            if !*armed {
                let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32)
                    .build()
                    .user_data(number as u64);
                // SAFETY: the entry points to no memory.
                *armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
            }
        }
        let time = types::Timespec::from(timeout.unwrap_or(Duration::MAX / 4));
        let mut arguments = types::SubmitArgs::new();
        if timeout.is_some() {
            arguments = arguments.timespec(&time);
        }
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
        let mut readable = 0;
        for completion in self.ring.completion() {
            let number = completion.user_data() as usize;
            readable |= 1 << number;
            if let Some((_, armed)) = self.descriptors.get_mut(number) {
                *armed = false;
            }
        }
        Ok(readable)
    }
}
