// SPDX-License-Identifier: GPL-2.0

//! A request of the block layer, owned.

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::bindings;

use super::{Cursor, Operations};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read into its memory.
    Read,
    /// Write from its memory.
    Write,
    /// Make completed writes durable.
    Flush,
    /// Forget sectors.
    Discard,
    /// Forget sectors so that nothing can restore them.
    SecureErase,
    /// Anything else, by its number (`enum req_op`).
    Other(u8),
}

/// What became of a request (`blk_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(bindings::blk_status_t);

impl Status {
    /// It is done.
    pub const OK: Self = Self(bindings::BLK_STS_OK as bindings::blk_status_t);
    /// It failed.
    pub const IO_ERROR: Self = Self(sys::CAUSEWAY_STS_IOERR as bindings::blk_status_t);
    /// The device does not have the operation.
    pub const NOT_SUPPORTED: Self = Self(sys::CAUSEWAY_STS_NOTSUPP as bindings::blk_status_t);

    pub(super) const fn raw(self) -> bindings::blk_status_t {
        self.0
    }
}

/// A request that belongs to the driver. Dropping it ends it with an error.
///
/// # Invariants
///
/// The pointer is to a request that blk-mq gave to the driver and that was not ended since. There is no other owner.
pub struct Request<T: Operations>(NonNull<bindings::request>, PhantomData<T>);

// SAFETY: a request is bound to no thread, and its owner is the only one to use it.
unsafe impl<T: Operations> Send for Request<T> {}
// SAFETY: a shared reference only reads what does not change while the driver owns the request.
unsafe impl<T: Operations> Sync for Request<T> {}

impl<T: Operations> Request<T> {
    /// # Safety
    ///
    /// `rq` belongs to the driver, and nothing else will be made its owner.
    pub(super) unsafe fn from_raw(rq: *mut bindings::request) -> Self {
        // INVARIANT: by the contract of this function.
        // SAFETY: blk-mq's requests are not at address 0.
        Self(unsafe { NonNull::new_unchecked(rq) }, PhantomData)
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::request {
        self.0.as_ptr()
    }

    #[inline]
    fn rq(&self) -> &bindings::request {
        // SAFETY: by the invariant the request is alive; the fields that are read through this reference stay as they
        // are while the driver owns it.
        unsafe { self.0.as_ref() }
    }

    /// What it asks for.
    #[inline]
    pub fn operation(&self) -> Operation {
        let raw = (self.rq().cmd_flags & ((1 << bindings::REQ_OP_BITS) - 1)) as u8;
        match u32::from(raw) {
            bindings::req_op_REQ_OP_READ => Operation::Read,
            bindings::req_op_REQ_OP_WRITE => Operation::Write,
            bindings::req_op_REQ_OP_FLUSH => Operation::Flush,
            bindings::req_op_REQ_OP_DISCARD => Operation::Discard,
            bindings::req_op_REQ_OP_SECURE_ERASE => Operation::SecureErase,
            _ => Operation::Other(raw),
        }
    }

    /// Whether a write has to be durable when it ends (`REQ_FUA`).
    #[inline]
    pub fn is_fua(&self) -> bool {
        self.rq().cmd_flags & (1 << bindings::req_flag_bits___REQ_FUA) != 0
    }

    /// First sector on the disk.
    #[inline]
    pub fn sector(&self) -> u64 {
        self.rq().__sector
    }

    /// Number of bytes, a multiple of 512. A discard has some too.
    #[inline]
    pub fn len(&self) -> u32 {
        self.rq().__data_len
    }

    /// Whether there are no bytes, as in a flush.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of parts of its memory, each in one page without a gap.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.rq().nr_phys_segments
    }

    /// The memory of a read or write, from its beginning. Empty for any other request.
    #[inline]
    pub fn cursor(&self) -> Cursor<'_> {
        match self.operation() {
            // SAFETY: the bios of a read or write have memory, and stay as they are while the driver owns the request.
            Operation::Read | Operation::Write => unsafe { Cursor::new(self.rq().bio) },
            _ => Cursor::empty(),
        }
    }

    /// Gives it back to the block layer. Whoever waits for it may submit more from within this call, so no lock that
    /// [`Operations::queue_rq`] takes may be held.
    #[inline]
    pub fn end(self, status: Status) {
        let rq = self.into_raw();
        // SAFETY: by the invariant the request is the driver's to end, and `self` is gone.
        unsafe { bindings::blk_mq_end_request(rq, status.raw()) };
    }

    pub(super) fn into_raw(self) -> *mut bindings::request {
        let rq = self.as_ptr();
        core::mem::forget(self);
        rq
    }
}

impl<T: Operations> Drop for Request<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant the request is the driver's to end, and nobody uses it after this.
        unsafe { bindings::blk_mq_end_request(self.as_ptr(), Status::IO_ERROR.raw()) };
    }
}

// SAFETY: a request's bios keep their pages until it ends, and it ends only by its owner.
unsafe impl<T: Operations> xen::grant::Lend for Request<T> {
    #[inline]
    fn for_each_page(
        &self,
        skip: u32,
        mut each: impl FnMut(kernel::page::BorrowedPage<'_>, u32, u32) -> bool,
    ) {
        let mut cursor = self.cursor();
        cursor.skip(skip as usize);
        while let Some(segment) = cursor.next_segment() {
            if !each(segment.page(), segment.offset(), segment.size()) {
                return;
            }
        }
    }
}
