// SPDX-License-Identifier: MIT OR Apache-2.0

//! The requests of all connections of one queue.

use super::handshake::Export;
use super::wire::{self, Command, Errno, Limits, Request};
use crate::{Buffer, Completion, Error, Operation, Queue, SECTOR_SIZE};

/// Requests that the connections of a queue can have in progress together.
const REQUESTS: usize = 256;

/// Bytes of zeroes that are written at a time.
const ZEROES: usize = 256 << 10;

/// A connection, told from an earlier one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Where it stands among its thread's.
    pub place: usize,
    /// How many were there before it.
    pub count: u64,
}

/// A request in progress.
#[derive(Debug)]
pub struct Progress {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The client's own value.
    pub cookie: u64,
    request: Request,
    buffer: Option<Buffer>,
    /// Bytes of its data that came from the client, or went to the disk as zeroes.
    done: usize,
    /// Bytes of the reply that were put into the output, its header included.
    pub replied: usize,
    /// Everything is written; the flush that a `FUA` asked for is on its way.
    flushing: bool,
    /// What to reply.
    pub error: Option<Errno>,
}

/// A queue, and the requests on their way through it.
#[derive(Debug)]
pub struct Engine {
    queue: Queue,
    export: Export,
    requests: Vec<Option<Progress>>,
    free: Vec<usize>,
    zeroes: Option<Buffer>,
}

impl Engine {
    pub fn new(mut queue: Queue, export: Export) -> Self {
        let sectors = (ZEROES.min(export.limits.longest as usize) / SECTOR_SIZE) as u32;
        let zeroes = match export.limits.flags & wire::export::WRITE_ZEROES {
            0 => None,
            _ => queue.buffer(sectors).ok(),
        };
        if let Some(buffer) = &zeroes {
            queue.copy_in(buffer, 0, &[0; ZEROES][..sectors as usize * SECTOR_SIZE]);
        }
        Self {
            queue,
            export,
            requests: (0..REQUESTS).map(|_| None).collect(),
            free: (0..REQUESTS).rev().collect(),
            zeroes,
        }
    }

    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// The export as it is now: a disk may be resized at any time.
    pub fn export(&mut self) -> &Export {
        self.export.limits.size = self.queue.sectors() * SECTOR_SIZE as u64;
        &self.export
    }

    /// What a request may ask for now.
    pub fn limits(&mut self) -> Limits {
        self.export().limits
    }

    /// Takes a request in, with memory for its data. `None`: there is no room, and there will be when others are done.
    pub fn begin(
        &mut self,
        connection: ConnectionId,
        cookie: u64,
        request: Result<Request, Errno>,
    ) -> Option<usize> {
        let index = *self.free.last()?;
        let (request, error) = match request {
            Ok(request) => (request, None),
            Err(error) => {
                (Request { command: Command::Flush, offset: 0, len: 0, fua: false }, Some(error))
            }
        };
        let buffer = match request.command {
            Command::Read | Command::Write => {
                Some(self.queue.buffer(request.len.div_ceil(SECTOR_SIZE as u32)).ok()?)
            }
            _ => None,
        };
        self.free.pop();
        self.requests[index] = Some(Progress {
            connection,
            cookie,
            request,
            buffer,
            done: 0,
            replied: 0,
            flushing: false,
            error,
        });
        Some(index)
    }

    /// Takes as much of `data` as the request wants; returns how much that was, and whether the request has it all.
    pub fn receive(&mut self, index: usize, data: &[u8]) -> (usize, bool) {
        let Some(Some(progress)) = self.requests.get_mut(index) else { return (0, true) };
        let Some(buffer) = &progress.buffer else { return (0, true) };
        let wanted = progress.request.len as usize;
        let len = data.len().min(wanted - progress.done);
        self.queue.copy_in(buffer, progress.done, &data[..len]);
        progress.done += len;
        (len, progress.done == wanted)
    }

    /// Gives a request to the disk, or its next part. Returns whether it is over already.
    pub fn submit(&mut self, index: usize) -> bool {
        let Some(Some(progress)) = self.requests.get_mut(index) else { return false };
        if progress.error.is_some() {
            return true;
        }
        let request = progress.request;
        let sector = request.offset / SECTOR_SIZE as u64;
        let count = u64::from(request.len) / SECTOR_SIZE as u64;
        let operation = match (request.command, &progress.buffer, &self.zeroes) {
            _ if progress.flushing => Operation::Flush,
            (Command::Read, Some(buffer), _) => Operation::Read { sector, into: buffer.span() },
            (Command::Write, Some(buffer), _) => Operation::Write { sector, from: buffer.span() },
            (Command::Flush, ..) => Operation::Flush,
            (Command::Trim, ..) => Operation::Discard { sector, count, secure: false },
            (Command::WriteZeroes, _, Some(zeroes)) => {
                let done = (progress.done / SECTOR_SIZE) as u64;
                let sectors = u64::from(zeroes.sectors()).min(count - done) as u32;
                let Some(from) = zeroes.part(0, sectors) else { return true };
                progress.done += sectors as usize * SECTOR_SIZE;
                Operation::Write { sector: sector + done, from }
            }
            _ => {
                progress.error = Some(Errno::NotSup);
                return true;
            }
        };
        match self.queue.submit(operation, index as u64) {
            Ok(()) => false,
            Err(error) => {
                progress.error = Some(errno(&error));
                true
            }
        }
    }

    /// Takes note of what became of a request, or a part of one. Returns whether it is over.
    pub fn completed(&mut self, completion: &Completion) -> bool {
        let index = completion.tag as usize;
        let Some(Some(progress)) = self.requests.get_mut(index) else { return false };
        if let Err(error) = &completion.result {
            log::warn!("nbd: {error}");
            progress.error = Some(errno(error));
            return true;
        }
        let request = progress.request;
        if request.command == Command::WriteZeroes && progress.done < request.len as usize {
            return self.submit(index);
        }
        if request.fua && !progress.flushing {
            progress.flushing = true;
            return self.submit(index);
        }
        true
    }

    /// A request in progress.
    pub fn get(&mut self, index: usize) -> Option<&mut Progress> {
        self.requests.get_mut(index)?.as_mut()
    }

    /// How many bytes of data the reply has.
    pub fn reply_len(&self, index: usize) -> usize {
        match self.requests.get(index) {
            Some(Some(Progress { request, error: None, .. }))
                if request.command == Command::Read =>
            {
                request.len as usize
            }
            _ => 0,
        }
    }

    /// Copies data that was read, from byte `offset` of the request on.
    pub fn copy_out(&self, index: usize, offset: usize, data: &mut [u8]) {
        if let Some(Some(Progress { buffer: Some(buffer), .. })) = self.requests.get(index) {
            self.queue.copy_out(buffer, offset, data);
        }
    }

    /// Forgets a request that the disk does not have.
    pub fn end(&mut self, index: usize) {
        if let Some(progress) = self.requests.get_mut(index).and_then(Option::take) {
            if let Some(buffer) = progress.buffer {
                self.queue.release(buffer);
            }
            self.free.push(index);
        }
    }
}

fn errno(error: &Error) -> Errno {
    match error {
        Error::ReadOnly => Errno::Perm,
        Error::BeyondEnd { .. } => Errno::NoSpc,
        Error::Unsupported { .. } => Errno::NotSup,
        Error::Unaligned { .. } | Error::LongBarrier { .. } => Errno::Inval,
        Error::Removed | Error::Closed | Error::Breach { .. } => Errno::Shutdown,
        _ => Errno::Io,
    }
}
