// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Byte streams through shared memory: the rings of the console, of xenstore, of libxenvchan, and the flexible ring of
//! `io/ring.h`.
//!
//! All of them are one buffer of 2^n bytes for each direction, and two indices that run freely over 32 bits: the
//! producer's says how many bytes were ever written, the consumer's how many were ever read. They differ in where
//! these lie ([`Layout`]) and in when the doorbell rings. Console, xenstore and the flexible ring have no field for
//! that: whoever moved an index rings. libxenvchan has, see [`vchan`](crate::vchan).
//!
//! Each end takes its own index from shared memory once, when it attaches, and keeps it to itself from then on.

use crate::shared::SharedMemory;

/// Where one direction of a stream lies. The indices and the data may be in different memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the producer's index.
    pub prod: usize,
    /// Offset of the consumer's index.
    pub cons: usize,
    /// Offset of the buffer.
    pub data: usize,
    /// Length of the buffer in bytes, a power of two.
    pub size: u32,
}

/// Why a stream cannot go on. None of these is recoverable: the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The layout does not lie in the memory, or its size is no power of two (a mistake of the caller).
    Layout(Layout),
    /// The indices are further apart than the buffer is long, or the peer's went backwards.
    Overflow {
        /// The producer's index.
        producer: u32,
        /// The consumer's index.
        consumer: u32,
        /// Length of the buffer.
        size: u32,
    },
}

impl core::fmt::Display for StreamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Layout(layout) => write!(f, "the memory does not hold a stream of {layout:?}"),
            Self::Overflow { producer, consumer, size } => {
                write!(f, "producer {producer} and consumer {consumer} cannot be those of a buffer of {size} bytes")
            }
        }
    }
}

impl core::error::Error for StreamError {}

/// What the ends have in common.
#[derive(Clone, Copy, Debug)]
struct Buffer<I, D> {
    index: I,
    data: D,
    layout: Layout,
}

impl<I: SharedMemory, D: SharedMemory> Buffer<I, D> {
    fn new(index: I, data: D, layout: Layout) -> Result<Self, StreamError> {
        let in_index = |offset: usize| {
            offset % 4 == 0 && offset.checked_add(4).is_some_and(|end| end <= index.len())
        };
        let in_data =
            layout.data.checked_add(layout.size as usize).is_some_and(|end| end <= data.len());
        if layout.size.is_power_of_two()
            && in_index(layout.prod)
            && in_index(layout.cons)
            && in_data
        {
            Ok(Self { index, data, layout })
        } else {
            Err(StreamError::Layout(layout))
        }
    }

    /// Number of bytes between the indices.
    #[inline]
    fn filled(&self, producer: u32, consumer: u32) -> Result<u32, StreamError> {
        let (filled, size) = (producer.wrapping_sub(consumer), self.layout.size);
        if filled > size {
            return Err(StreamError::Overflow { producer, consumer, size });
        }
        Ok(filled)
    }

    /// Where the byte of this index lies, and how many follow before the buffer's end.
    #[inline]
    fn place(&self, index: u32) -> (usize, usize) {
        let start = index & (self.layout.size - 1);
        (self.layout.data + start as usize, (self.layout.size - start) as usize)
    }
}

/// The end that writes. `I` is the memory of the indices, `D` that of the data.
#[derive(Debug)]
pub struct Producer<I, D> {
    buffer: Buffer<I, D>,
    /// Bytes ever written.
    prod: u32,
    /// Bytes that the consumer is known to have read.
    cons_seen: u32,
}

impl<I: SharedMemory, D: SharedMemory> Producer<I, D> {
    /// Takes this end where the stream stands.
    ///
    /// # Errors
    ///
    /// [`StreamError`], when the layout does not fit or the indices in memory contradict each other.
    pub fn attach(index: I, data: D, layout: Layout) -> Result<Self, StreamError> {
        let buffer = Buffer::new(index, data, layout)?;
        let prod = buffer.index.load(layout.prod);
        let cons_seen = buffer.index.load_acquire(layout.cons);
        buffer.filled(prod, cons_seen)?;
        Ok(Self { buffer, prod, cons_seen })
    }

    /// Length of the buffer in bytes.
    pub fn size(&self) -> u32 {
        self.buffer.layout.size
    }

    /// How many bytes can be written now.
    ///
    /// # Errors
    ///
    /// [`StreamError::Overflow`] when the consumer claims to have read what was not written.
    #[inline]
    pub fn free(&mut self) -> Result<u32, StreamError> {
        let cons = self.buffer.index.load_acquire(self.buffer.layout.cons);
        let unread = self.buffer.filled(self.prod, cons)?;
        if unread > self.prod.wrapping_sub(self.cons_seen) {
            return Err(StreamError::Overflow {
                producer: self.prod,
                consumer: cons,
                size: self.size(),
            });
        }
        self.cons_seen = cons;
        Ok(self.size() - unread)
    }

    /// Writes as much of `bytes` as there is room for and shows it to the consumer. Returns how many that were.
    ///
    /// # Errors
    ///
    /// As [`free`](Self::free).
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        let count = bytes.len().min(self.free()? as usize);
        let (now, _) = bytes.split_at(count);
        if now.is_empty() {
            return Ok(0);
        }
        let (start, to_end) = self.buffer.place(self.prod);
        let (head, rest) = now.split_at(now.len().min(to_end));
        self.buffer.data.copy_in(start, head);
        self.buffer.data.copy_in(self.buffer.layout.data, rest);
        self.prod = self.prod.wrapping_add(count as u32);
        self.buffer.index.publish(self.buffer.layout.prod, self.prod);
        Ok(count)
    }

    /// Writes all of `bytes` or, when there is no room for that, nothing. Returns whether it did.
    ///
    /// # Errors
    ///
    /// As [`free`](Self::free).
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<bool, StreamError> {
        Ok(bytes.len() <= self.free()? as usize && self.write(bytes)? == bytes.len())
    }
}

/// The end that reads. `I` is the memory of the indices, `D` that of the data.
#[derive(Debug)]
pub struct Consumer<I, D> {
    buffer: Buffer<I, D>,
    /// Bytes ever read.
    cons: u32,
    /// Bytes that the producer is known to have written.
    prod_seen: u32,
}

impl<I: SharedMemory, D: SharedMemory> Consumer<I, D> {
    /// Takes this end where the stream stands.
    ///
    /// # Errors
    ///
    /// [`StreamError`], when the layout does not fit or the indices in memory contradict each other.
    pub fn attach(index: I, data: D, layout: Layout) -> Result<Self, StreamError> {
        let buffer = Buffer::new(index, data, layout)?;
        let cons = buffer.index.load(layout.cons);
        let prod_seen = buffer.index.load_acquire(layout.prod);
        buffer.filled(prod_seen, cons)?;
        Ok(Self { buffer, cons, prod_seen })
    }

    /// Length of the buffer in bytes.
    pub fn size(&self) -> u32 {
        self.buffer.layout.size
    }

    /// How many bytes can be read now.
    ///
    /// # Errors
    ///
    /// [`StreamError::Overflow`] when the producer claims to have written more than there was room for.
    #[inline]
    pub fn available(&mut self) -> Result<u32, StreamError> {
        let prod = self.buffer.index.load_acquire(self.buffer.layout.prod);
        let unread = self.buffer.filled(prod, self.cons)?;
        if unread < self.prod_seen.wrapping_sub(self.cons) {
            return Err(StreamError::Overflow {
                producer: prod,
                consumer: self.cons,
                size: self.size(),
            });
        }
        self.prod_seen = prod;
        Ok(unread)
    }

    /// Copies out what there is, up to the length of `into`, and leaves it in the stream. Returns how many bytes that
    /// were.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn peek(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        let count = into.len().min(self.available()? as usize);
        let (now, _) = into.split_at_mut(count);
        let (start, to_end) = self.buffer.place(self.cons);
        let (head, rest) = now.split_at_mut(count.min(to_end));
        self.buffer.data.copy_out(start, head);
        self.buffer.data.copy_out(self.buffer.layout.data, rest);
        Ok(count)
    }

    /// Gives the room of the next `count` bytes back to the producer, but never of more than it has been seen to
    /// write.
    pub fn consume(&mut self, count: usize) {
        let seen = self.prod_seen.wrapping_sub(self.cons);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(seen);
        if count > 0 {
            self.cons = self.cons.wrapping_add(count);
            self.buffer.index.publish(self.buffer.layout.cons, self.cons);
        }
    }

    /// Takes what there is, up to the length of `into`. Returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        let count = self.peek(into)?;
        self.consume(count);
        Ok(count)
    }

    /// Fills all of `into` or, when there is not enough for that, takes nothing. Returns whether it did.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<bool, StreamError> {
        Ok(into.len() <= self.available()? as usize && self.read(into)? == into.len())
    }
}

/// One side's two ends of a stream that runs both ways.
#[derive(Debug)]
pub struct Duplex<I, D> {
    /// What the peer says.
    pub rx: Consumer<I, D>,
    /// What this side says.
    pub tx: Producer<I, D>,
}

impl<M: SharedMemory + Clone> Duplex<M, M> {
    /// Attaches to both directions when all of it is in the same memory.
    ///
    /// # Errors
    ///
    /// As [`Consumer::attach`] and [`Producer::attach`].
    pub fn attach(memory: M, rx: Layout, tx: Layout) -> Result<Self, StreamError> {
        Ok(Self {
            rx: Consumer::attach(memory.clone(), memory.clone(), rx)?,
            tx: Producer::attach(memory.clone(), memory, tx)?,
        })
    }
}

/// The flexible ring (`DEFINE_XEN_FLEX_RING_AND_INTF`): indices and grants in one page, data in 2^order others, of
/// which the first half carries `in` (to the frontend) and the second `out` (to the backend).
pub mod flex {
    use super::{Consumer, Duplex, Layout, Producer, StreamError};
    use crate::shared::{SharedMemory, PAGE_SIZE};

    /// Offset of the consumer's index of `in`.
    pub const IN_CONS: usize = 0;
    /// Offset of the producer's index of `in`.
    pub const IN_PROD: usize = 4;
    /// Offset of the consumer's index of `out`.
    pub const OUT_CONS: usize = 64;
    /// Offset of the producer's index of `out`.
    pub const OUT_PROD: usize = 68;
    /// Offset of the order.
    pub const RING_ORDER: usize = 128;
    /// Offset of the grants of the data pages, four bytes each.
    pub const REF: usize = 132;
    /// Largest order whose grants fit in the page.
    pub const MAX_ORDER: u32 = ((PAGE_SIZE - REF) / 4).ilog2();

    /// Bytes of one direction (`XEN_FLEX_RING_SIZE`); `None` when the order is above [`MAX_ORDER`].
    pub const fn size(order: u32) -> Option<u32> {
        if order > MAX_ORDER {
            return None;
        }
        Some((PAGE_SIZE as u32 / 2) << order)
    }

    /// Layout of the direction to the frontend.
    pub const fn to_frontend(size: u32) -> Layout {
        Layout { prod: IN_PROD, cons: IN_CONS, data: 0, size }
    }

    /// Layout of the direction to the backend.
    pub const fn to_backend(size: u32) -> Layout {
        Layout { prod: OUT_PROD, cons: OUT_CONS, data: size as usize, size }
    }

    /// The frontend's side of a ring whose data fills `data`, 2^order pages. `index` is the page of the indices.
    ///
    /// # Errors
    ///
    /// As [`Consumer::attach`] and [`Producer::attach`].
    pub fn frontend<I: SharedMemory + Clone, D: SharedMemory + Clone>(
        index: I,
        data: D,
    ) -> Result<Duplex<I, D>, StreamError> {
        let size = half(&data);
        Ok(Duplex {
            rx: Consumer::attach(index.clone(), data.clone(), to_frontend(size))?,
            tx: Producer::attach(index, data, to_backend(size))?,
        })
    }

    /// The backend's side of a ring whose data fills `data`, 2^order pages. `index` is the page of the indices.
    ///
    /// # Errors
    ///
    /// As [`Consumer::attach`] and [`Producer::attach`].
    pub fn backend<I: SharedMemory + Clone, D: SharedMemory + Clone>(
        index: I,
        data: D,
    ) -> Result<Duplex<I, D>, StreamError> {
        let size = half(&data);
        Ok(Duplex {
            rx: Consumer::attach(index.clone(), data.clone(), to_backend(size))?,
            tx: Producer::attach(index, data, to_frontend(size))?,
        })
    }

    fn half<D: SharedMemory>(data: &D) -> u32 {
        u32::try_from(data.len() / 2).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
