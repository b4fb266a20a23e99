// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The frontend's end: it produces requests and consumes responses.

use core::marker::PhantomData;

use super::{header, publish, slot_len, slot_offset, slots, RingError, View, AHEAD};
use crate::shared::{SharedMemory, Wire};

/// A frontend's end of a ring over memory `M`.
///
/// ```text
/// push … push → publish → (doorbell if it says so)
/// pop … pop → final_check → sleep if it says that nothing came
/// ```
#[derive(Debug)]
pub struct FrontRing<M, Req, Rsp> {
    memory: M,
    mask: u32,
    /// Requests written, published or not.
    req_prod: u32,
    /// Requests that the backend was shown.
    req_published: u32,
    /// Responses taken.
    rsp_cons: u32,
    /// Responses known to be there, checked against what was asked.
    rsp_seen: u32,
    slot: PhantomData<fn(Req) -> Rsp>,
}

impl<M: SharedMemory, Req: Wire, Rsp: Wire> FrontRing<M, Req, Rsp> {
    /// Makes an empty ring in `memory` (`SHARED_RING_INIT` and `FRONT_RING_INIT`). The peer must not have it yet.
    ///
    /// # Errors
    ///
    /// [`RingError::TooSmall`] when not even one slot fits.
    pub fn new(memory: M) -> Result<Self, RingError> {
        let ring = Self::at(memory, 0)?;
        ring.memory.copy_in(0, &[0; header::LEN]);
        ring.memory.store(header::REQ_EVENT, 1);
        ring.memory.store_release(header::RSP_EVENT, 1);
        Ok(ring)
    }

    /// Takes over a ring that lives in `memory` already, all of its requests answered (`FRONT_RING_ATTACH`).
    ///
    /// # Errors
    ///
    /// [`RingError::Overflow`] when a request is unanswered, [`RingError::TooSmall`] as for [`new`](Self::new).
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let producer = memory.load_acquire(header::RSP_PROD);
        let requested = memory.load_acquire(header::REQ_PROD);
        if producer != requested {
            return Err(RingError::Overflow { producer, consumer: requested, limit: 0 });
        }
        Self::at(memory, producer)
    }

    fn at(memory: M, index: u32) -> Result<Self, RingError> {
        let len = memory.len();
        let size = slots::<Req, Rsp>(len).ok_or(RingError::TooSmall { len })?;
        Ok(Self {
            memory,
            mask: size - 1,
            req_prod: index,
            req_published: index,
            rsp_cons: index,
            rsp_seen: index,
            slot: PhantomData,
        })
    }

    /// Number of slots.
    #[inline]
    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    /// How many more requests can be pushed now (`RING_FREE_REQUESTS`).
    #[inline]
    pub fn free(&self) -> u32 {
        self.size() - self.outstanding()
    }

    /// Requests pushed whose responses were not taken yet.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// Writes a request. The backend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// [`RingError::Full`] when every slot holds an unanswered request.
    #[inline]
    pub fn push(&mut self, request: &Req) -> Result<(), RingError> {
        if self.free() == 0 {
            return Err(RingError::Full);
        }
        self.memory.write(slot_offset::<Req, Rsp>(self.req_prod, self.mask), request);
        self.req_prod = self.req_prod.wrapping_add(1);
        // The backend still has the slot's lines, from the time when it wrote a response there.
        if self.free() > AHEAD {
            let ahead = slot_offset::<Req, Rsp>(self.req_prod.wrapping_add(AHEAD - 1), self.mask);
            self.memory.will_write(ahead, slot_len::<Req, Rsp>());
        }
        Ok(())
    }

    /// Shows the backend all requests pushed, and returns whether it wants the doorbell
    /// (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    #[inline]
    #[must_use = "a backend that asked for the doorbell sleeps until it rings"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.req_published, self.req_prod);
        self.req_published = new;
        old != new && publish(&self.memory, header::REQ_PROD, header::REQ_EVENT, old, new)
    }

    /// How many responses can be taken now.
    ///
    /// # Errors
    ///
    /// [`RingError::Overflow`] when the backend claims to have answered more than was asked.
    #[inline]
    pub fn available(&mut self) -> Result<u32, RingError> {
        let producer = self.memory.load_acquire(header::RSP_PROD);
        let limit = self.req_published.wrapping_sub(self.rsp_cons);
        let ready = producer.wrapping_sub(self.rsp_cons);
        if ready > limit || ready < self.rsp_seen.wrapping_sub(self.rsp_cons) {
            return Err(RingError::Overflow { producer, consumer: self.rsp_cons, limit });
        }
        self.rsp_seen = producer;
        Ok(ready)
    }

    /// Takes the next response, if there is one.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Rsp>, RingError> {
        if self.rsp_cons == self.rsp_seen && self.available()? == 0 {
            return Ok(None);
        }
        let response = self.memory.read(slot_offset::<Req, Rsp>(self.rsp_cons, self.mask));
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(response))
    }

    /// The last look before sleeping: asks for the doorbell at the next response, then returns whether responses are
    /// there already (`RING_FINAL_CHECK_FOR_RESPONSES`). Only after `false` may the caller sleep.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        self.final_check_after(1)
    }

    /// As [`final_check`](Self::final_check), but asks for the doorbell only at the `count`-th response from now.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn final_check_after(&mut self, count: u32) -> Result<bool, RingError> {
        if self.available()? > 0 {
            return Ok(true);
        }
        self.memory.publish(header::RSP_EVENT, self.rsp_cons.wrapping_add(count));
        Ok(self.available()? > 0)
    }

    /// How far both ends are.
    pub fn view(&self) -> View {
        View::new(&self.memory, self.size(), self.req_prod, self.rsp_cons)
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
