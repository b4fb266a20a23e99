// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ring_proto::shared::{Wire, bytes_of, from_bytes};
use ring_proto::xen::{DomId, Errno};

use crate::Error;

/// An argument that a driver reads and fills in: a structure, and the array that follows it.
#[derive(Debug)]
pub(super) struct Argument {
    /// Words, so that it is aligned for any structure.
    words: Vec<u64>,
}

impl Argument {
    /// `head`, followed by `len` bytes of zeroes or what [`put`](Self::put) puts there.
    pub fn new<T: Wire>(head: &T, len: usize) -> Self {
        let mut argument = Self { words: vec![0; (size_of::<T>() + len).div_ceil(8)] };
        argument.put(0, head);
        argument
    }

    /// Writes a structure at a byte offset that is a multiple of its alignment. What lies beyond the end is left out.
    pub fn put<T: Wire>(&mut self, offset: usize, value: &T) {
        for (at, &byte) in (offset..).zip(bytes_of(value)) {
            if let Some(word) = self.words.get_mut(at / 8) {
                let mut bytes = word.to_ne_bytes();
                if let Some(place) = bytes.get_mut(at % 8) {
                    *place = byte;
                }
                *word = u64::from_ne_bytes(bytes);
            }
        }
    }

    /// Reads a structure at a byte offset. What lies beyond the end is zero.
    pub fn get<T: Wire>(&self, offset: usize) -> T {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.get(offset..).and_then(from_bytes).unwrap_or_else(ring_proto::shared::zeroed)
    }

    /// The structures from a byte offset on.
    pub fn array<T: Wire>(&self, offset: usize, count: usize) -> Vec<T> {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let array = bytes.get(offset..).unwrap_or_default();
        array.chunks_exact(size_of::<T>()).take(count).filter_map(from_bytes).collect()
    }
}

/// Makes a request of a driver of `/dev/xen`. Returns what the driver returns, not less than 0.
pub(super) fn ioctl(file: &File, request: u64, argument: &mut Argument) -> io::Result<u32> {
    // SAFETY: the requests of `abi` read and write their structure and as many elements of the array as its count
    // says, all of which lie in `argument`, or in memory that the caller of `GRANT_COPY` vouches for.
    let result = unsafe {
        libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, argument.words.as_mut_ptr())
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// What a driver's error means: Linux has Xen's numbers for all that the drivers pass on.
pub(super) fn refused(operation: String, peer: DomId, error: io::Error) -> Error {
    match error.raw_os_error().and_then(Errno::from_raw) {
        Some(errno) => Error::Refused { operation, peer, errno },
        None => Error::Io { operation, source: error },
    }
}

#[cfg(test)]
mod tests {
    use ring_proto::wire;

    use super::*;

    wire! {
        struct Head {
            pub count: u32,
            pub pad: u32,
        }
    }

    #[test]
    fn array_follows_the_head() {
        let mut argument = Argument::new(&Head { count: 3, pad: 0 }, 3 * 4);
        for index in 0..3 {
            argument.put(8 + index * 4, &(10 + index as u32));
        }
        assert_eq!(argument.words, [3, 10 | 11 << 32, 12]);
        assert_eq!(argument.get::<Head>(0), Head { count: 3, pad: 0 });
        assert_eq!(argument.array::<u32>(8, 3), [10, 11, 12]);
        assert_eq!(argument.get::<u64>(24), 0, "beyond the end");
        argument.put(24, &7u32);
        assert_eq!(argument.words.len(), 3);
    }
}
