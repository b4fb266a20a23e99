// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The backend's end: it consumes requests and produces responses.

use core::marker::PhantomData;
use core::mem::size_of;

use super::{header, publish, slot_offset, slots, RingError, View, AHEAD};
use crate::shared::{SharedMemory, Wire};

/// A backend's end of a ring over memory `M`.
///
/// ```text
/// pop … pop → final_check → sleep if it says that nothing came
/// push … push → publish → (doorbell if it says so)
/// ```
#[derive(Debug)]
pub struct BackRing<M, Req, Rsp> {
    memory: M,
    mask: u32,
    /// Requests taken.
    req_cons: u32,
    /// Requests known to be there, checked against the room in the ring.
    req_seen: u32,
    /// Responses written, published or not.
    rsp_prod: u32,
    /// Responses that the frontend was shown.
    rsp_published: u32,
    slot: PhantomData<fn(Req) -> Rsp>,
}

impl<M: SharedMemory, Req: Wire, Rsp: Wire> BackRing<M, Req, Rsp> {
    /// Takes the backend's end of the ring in `memory`, at the first slot without a response (`BACK_RING_ATTACH`):
    /// the beginning of a new ring, or what an earlier backend that answered in order has left.
    ///
    /// # Errors
    ///
    /// [`RingError::TooSmall`] when not even one slot fits, [`RingError::Overflow`] when the indices in the ring are
    /// further apart than it has slots.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        Self::resume(memory, 0)
    }

    /// Takes the backend's end of a ring from an earlier backend that took `unanswered` requests which it did not
    /// answer, in whatever order. Their slots may hold answers by now: what they asked for, this backend has to know from
    /// elsewhere. It may answer each, and takes the next request after them.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub fn resume(memory: M, unanswered: u32) -> Result<Self, RingError> {
        let len = memory.len();
        let size = slots::<Req, Rsp>(len).ok_or(RingError::TooSmall { len })?;
        let answered = memory.load_acquire(header::RSP_PROD);
        let taken = answered.wrapping_add(unanswered);
        let mut ring = Self {
            memory,
            mask: size - 1,
            req_cons: taken,
            req_seen: taken,
            rsp_prod: answered,
            rsp_published: answered,
            slot: PhantomData,
        };
        if unanswered > size {
            return Err(RingError::Overflow { producer: taken, consumer: answered, limit: size });
        }
        ring.available()?;
        Ok(ring)
    }

    /// The index of the next response.
    #[inline]
    pub fn next_response(&self) -> u32 {
        self.rsp_prod
    }

    /// Number of slots.
    #[inline]
    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    /// Requests taken and not answered yet.
    #[inline]
    pub fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// How many requests can be taken now.
    ///
    /// # Errors
    ///
    /// [`RingError::Overflow`] when the frontend claims more requests than it had free slots.
    #[inline]
    pub fn available(&mut self) -> Result<u32, RingError> {
        let producer = self.memory.load_acquire(header::REQ_PROD);
        let limit = self.size() - self.req_cons.wrapping_sub(self.rsp_published);
        let ready = producer.wrapping_sub(self.req_cons);
        if ready > limit || ready < self.req_seen.wrapping_sub(self.req_cons) {
            return Err(RingError::Overflow { producer, consumer: self.req_cons, limit });
        }
        self.req_seen = producer;
        Ok(ready)
    }

    /// Takes the next request, if there is one. Its slot is this side's to answer into from then on.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Req>, RingError> {
        if self.req_cons == self.req_seen && self.available()? == 0 {
            return Ok(None);
        }
        let request = self.memory.read(slot_offset::<Req, Rsp>(self.req_cons, self.mask));
        self.req_cons = self.req_cons.wrapping_add(1);
        // For writing at once: read first and written later, the line would change hands twice.
        if self.req_seen.wrapping_sub(self.req_cons) > AHEAD {
            let ahead = slot_offset::<Req, Rsp>(self.req_cons.wrapping_add(AHEAD - 1), self.mask);
            self.memory.will_write(ahead, size_of::<Rsp>());
        }
        Ok(Some(request))
    }

    /// Writes a response. The frontend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// [`RingError::Full`] when every request taken has its response.
    #[inline]
    pub fn push(&mut self, response: &Rsp) -> Result<(), RingError> {
        if self.unanswered() == 0 {
            return Err(RingError::Full);
        }
        self.memory.write(slot_offset::<Req, Rsp>(self.rsp_prod, self.mask), response);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
        Ok(())
    }

    /// Shows the frontend all responses pushed, and returns whether it wants the doorbell
    /// (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    #[inline]
    #[must_use = "a frontend that asked for the doorbell sleeps until it rings"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.rsp_published, self.rsp_prod);
        self.rsp_published = new;
        old != new && publish(&self.memory, header::RSP_PROD, header::RSP_EVENT, old, new)
    }

    /// The last look before sleeping: asks for the doorbell at the next request, then returns whether requests are
    /// there already (`RING_FINAL_CHECK_FOR_REQUESTS`). Only after `false` may the caller sleep.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        if self.available()? > 0 {
            return Ok(true);
        }
        self.memory.publish(header::REQ_EVENT, self.req_cons.wrapping_add(1));
        Ok(self.available()? > 0)
    }

    /// How far both ends are.
    pub fn view(&self) -> View {
        View::new(&self.memory, self.size(), self.req_cons, self.rsp_prod)
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> M {
        self.memory
    }
}
