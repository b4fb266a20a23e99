// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Rings of block requests whose layout is known only when the frontend has written its `protocol`.

use super::{
    Abi, BadRequest, BadResponse, RawRequest, RawRequest32, RawResponse, RawResponse32, Request,
    Response, Status, Tag,
};
use crate::ring::{self, RingError};
use crate::shared::SharedMemory;

#[derive(Debug)]
enum Back<M> {
    X86_64(ring::BackRing<M, RawRequest, RawResponse>),
    X86_32(ring::BackRing<M, RawRequest32, RawResponse32>),
}

#[derive(Debug)]
enum Front<M> {
    X86_64(ring::FrontRing<M, RawRequest, RawResponse>),
    X86_32(ring::FrontRing<M, RawRequest32, RawResponse32>),
}

/// Does the same with the ring of either layout.
macro_rules! either {
    ($kind:ident, $value:expr, |$ring:ident| $body:expr) => {
        match $value {
            $kind::X86_64($ring) => $body,
            $kind::X86_32($ring) => $body,
        }
    };
}

/// A backend's end of a block ring. See [`ring::BackRing`] for the order of calls.
#[derive(Debug)]
pub struct BackRing<M> {
    ring: Back<M>,
    max_indirect: u16,
}

impl<M: SharedMemory> BackRing<M> {
    /// Takes the backend's end of the ring in `memory`. `max_indirect` is the number of segments that the backend
    /// offered for an indirect request, 0 when it offered none.
    ///
    /// # Errors
    ///
    /// As [`ring::BackRing::attach`].
    pub fn attach(memory: M, abi: Abi, max_indirect: u16) -> Result<Self, RingError> {
        Self::resume(memory, abi, max_indirect, 0)
    }

    /// Takes it from an earlier backend that took `unanswered` requests which it did not answer.
    ///
    /// # Errors
    ///
    /// As [`ring::BackRing::resume`].
    pub fn resume(
        memory: M,
        abi: Abi,
        max_indirect: u16,
        unanswered: u32,
    ) -> Result<Self, RingError> {
        let ring = match abi {
            Abi::X86_64 => Back::X86_64(ring::BackRing::resume(memory, unanswered)?),
            Abi::X86_32 => Back::X86_32(ring::BackRing::resume(memory, unanswered)?),
        };
        Ok(Self { ring, max_indirect })
    }

    /// The index of the next response.
    #[inline]
    pub fn next_response(&self) -> u32 {
        either!(Back, &self.ring, |ring| ring.next_response())
    }

    /// Number of slots.
    pub fn size(&self) -> u32 {
        either!(Back, &self.ring, |ring| ring.size())
    }

    /// Requests taken and not answered yet.
    #[inline]
    pub fn unanswered(&self) -> u32 {
        either!(Back, &self.ring, |ring| ring.unanswered())
    }

    /// How many requests can be taken now.
    ///
    /// # Errors
    ///
    /// [`RingError::Overflow`] when the frontend claims more requests than it had free slots.
    #[inline]
    pub fn available(&mut self) -> Result<u32, RingError> {
        either!(Back, &mut self.ring, |ring| ring.available())
    }

    /// Takes the next request, if there is one. One that is not legal has to be answered all the same, with the tag
    /// and the status that come with it.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available); the ring can be used no more then.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Result<Request, BadRequest>>, RingError> {
        Ok(self.pop_raw()?.map(|slot| self.check(&slot)))
    }

    /// Takes the next request as it is, to be [checked](Self::check).
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    #[inline]
    pub fn pop_raw(&mut self) -> Result<Option<RawRequest>, RingError> {
        Ok(match &mut self.ring {
            Back::X86_64(ring) => ring.pop()?,
            Back::X86_32(ring) => ring.pop()?.map(Into::into),
        })
    }

    /// What a slot asks for, if that is legal.
    ///
    /// # Errors
    ///
    /// How to refuse it.
    #[inline]
    pub fn check(&self, slot: &RawRequest) -> Result<Request, BadRequest> {
        slot.check(self.max_indirect)
    }

    /// Answers the request of this tag. The frontend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// [`RingError::Full`] when every request taken has its response.
    #[inline]
    pub fn push(&mut self, tag: Tag, status: Status) -> Result<(), RingError> {
        let response = RawResponse::new(tag, status);
        match &mut self.ring {
            Back::X86_64(ring) => ring.push(&response),
            Back::X86_32(ring) => ring.push(&response.into()),
        }
    }

    /// Shows the frontend all responses pushed, and returns whether it wants the doorbell.
    #[inline]
    #[must_use = "a frontend that asked for the doorbell sleeps until it rings"]
    pub fn publish(&mut self) -> bool {
        either!(Back, &mut self.ring, |ring| ring.publish())
    }

    /// The last look before sleeping: only after `false` may the caller sleep.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        either!(Back, &mut self.ring, |ring| ring.final_check())
    }

    /// How far both ends are.
    pub fn view(&self) -> ring::View {
        either!(Back, &self.ring, |ring| ring.view())
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &M {
        either!(Back, &self.ring, |ring| ring.memory())
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> M {
        either!(Back, self.ring, |ring| ring.into_memory())
    }
}

/// A frontend's end of a block ring. See [`ring::FrontRing`] for the order of calls.
#[derive(Debug)]
pub struct FrontRing<M> {
    ring: Front<M>,
}

impl<M: SharedMemory> FrontRing<M> {
    /// Makes an empty ring in `memory`. The backend must not have it yet.
    ///
    /// # Errors
    ///
    /// As [`ring::FrontRing::new`].
    pub fn new(memory: M, abi: Abi) -> Result<Self, RingError> {
        let ring = match abi {
            Abi::X86_64 => Front::X86_64(ring::FrontRing::new(memory)?),
            Abi::X86_32 => Front::X86_32(ring::FrontRing::new(memory)?),
        };
        Ok(Self { ring })
    }

    /// Number of slots.
    pub fn size(&self) -> u32 {
        either!(Front, &self.ring, |ring| ring.size())
    }

    /// How many more requests can be pushed now.
    #[inline]
    pub fn free(&self) -> u32 {
        either!(Front, &self.ring, |ring| ring.free())
    }

    /// Requests pushed whose responses were not taken yet.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        either!(Front, &self.ring, |ring| ring.outstanding())
    }

    /// Writes a request. The backend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// [`RingError::Full`] when every slot holds an unanswered request.
    #[inline]
    pub fn push(&mut self, request: &Request) -> Result<(), RingError> {
        let slot = RawRequest::from(request);
        match &mut self.ring {
            Front::X86_64(ring) => ring.push(&slot),
            Front::X86_32(ring) => ring.push(&slot.into()),
        }
    }

    /// Shows the backend all requests pushed, and returns whether it wants the doorbell.
    #[inline]
    #[must_use = "a backend that asked for the doorbell sleeps until it rings"]
    pub fn publish(&mut self) -> bool {
        either!(Front, &mut self.ring, |ring| ring.publish())
    }

    /// How many responses can be taken now.
    ///
    /// # Errors
    ///
    /// [`RingError::Overflow`] when the backend claims to have answered more than was asked.
    #[inline]
    pub fn available(&mut self) -> Result<u32, RingError> {
        either!(Front, &mut self.ring, |ring| ring.available())
    }

    /// Takes the next response, if there is one. One that is not legal says that the backend cannot be trusted.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available); the ring can be used no more then.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Result<Response, BadResponse>>, RingError> {
        let slot: Option<RawResponse> = match &mut self.ring {
            Front::X86_64(ring) => ring.pop()?,
            Front::X86_32(ring) => ring.pop()?.map(Into::into),
        };
        Ok(slot.map(|slot| slot.check()))
    }

    /// The last look before sleeping: only after `false` may the caller sleep.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    #[inline]
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        either!(Front, &mut self.ring, |ring| ring.final_check())
    }

    /// As [`final_check`](Self::final_check), but asks for the doorbell only at the `count`-th response from now.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    pub fn final_check_after(&mut self, count: u32) -> Result<bool, RingError> {
        either!(Front, &mut self.ring, |ring| ring.final_check_after(count))
    }

    /// How far both ends are.
    pub fn view(&self) -> ring::View {
        either!(Front, &self.ring, |ring| ring.view())
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &M {
        either!(Front, &self.ring, |ring| ring.memory())
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> M {
        either!(Front, self.ring, |ring| ring.into_memory())
    }
}
