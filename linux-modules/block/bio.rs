// SPDX-License-Identifier: GPL-2.0

//! Bios: what is asked of a block device, and the answer.
//!
//! A [`Bio`] is made once and used again and again, so that nothing is allocated for a request. It *owns* the pages that
//! it transfers to or from, and whoever submits it gives it away: until it is handed back to its [`Owner`] nobody can
//! touch it or let go of a page.
//!
//! C header: `include/linux/bio.h`.

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::{null_mut, NonNull};

use kernel::alloc::Flags;
use kernel::bindings;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

use crate::bdev::BlockDevice;

/// Most pages of one bio (`BIO_MAX_VECS`).
pub const MAX_PAGES: usize = 256;

/// An owner of one page that a device may transfer to and from.
///
/// # Safety
///
/// [`page`](Self::page) is always the same page, and it can be read and written by devices until the value is dropped.
pub unsafe trait Page: Send {
    /// The page.
    fn page(&self) -> NonNull<bindings::page>;
}

// SAFETY: As the first of the two promises.
unsafe impl<P: Page, Note: Send> Page for (P, Note) {
    #[inline]
    fn page(&self) -> NonNull<bindings::page> {
        self.0.page()
    }
}

/// What bios belong to.
pub trait Owner: Sized + Send + 'static {
    /// What owns their pages.
    type Page: Page;

    /// Takes back a bio that is done. Called in any context, also in that of an interrupt; not to sleep.
    fn completed(bio: BioBox<Self>);
}

/// A bio in the hands of whoever may change it.
pub type BioBox<T> = Pin<KBox<Bio<T>>>;

/// What is asked of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// From the device.
    Read,
    /// To the device. Without pages it has to have [`PREFLUSH`].
    Write,
    /// Forget sectors.
    Discard,
    /// Forget sectors so that nothing can restore them.
    SecureErase,
}

/// How it is asked: bits that can be or-ed.
pub type Hints = u32;

/// Before it, what was written before becomes durable.
pub const PREFLUSH: Hints = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
/// It is durable when it is done.
pub const FUA: Hints = 1 << bindings::req_flag_bits___REQ_FUA;
/// Somebody waits for it.
pub const SYNC: Hints = 1 << bindings::req_flag_bits___REQ_SYNC;
/// More like it is to be expected soon.
pub const IDLE: Hints = 1 << bindings::req_flag_bits___REQ_IDLE;

/// How it went (`blk_status_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(bindings::blk_status_t);

impl Status {
    /// Done.
    pub fn is_ok(self) -> bool {
        u32::from(self.0) == sys::causeway_blk_CAUSEWAY_BLK_STS_OK
    }

    /// The device has no such operation.
    pub fn is_not_supported(self) -> bool {
        u32::from(self.0) == sys::causeway_blk_CAUSEWAY_BLK_STS_NOTSUPP
    }

    /// As an error number of C.
    pub fn errno(self) -> i32 {
        // SAFETY: A function of its argument.
        unsafe { bindings::blk_status_to_errno(self.0) }
    }
}

/// Part of a page.
struct Piece<P> {
    /// `None` until it is [given](Bio::fill).
    page: Option<P>,
    offset: u16,
    len: u16,
}

/// A bio of a device, with room for so many pages and what its owner keeps with it.
#[pin_data]
pub struct Bio<T: Owner> {
    #[pin]
    bio: Opaque<bindings::bio>,
    device: Arc<BlockDevice>,
    /// Room for what the block layer reads.
    vectors: KVec<bindings::bio_vec>,
    pieces: KVec<Piece<T::Page>>,
    /// How many pieces have no page.
    missing: usize,
    /// Before this one, all have.
    next_missing: usize,
    status: Status,
    /// The next one in a list of [finished](crate::finished::Finished) ones.
    pub(crate) next: UnsafeCell<*mut Self>,
    /// The owner's own.
    pub data: T,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A bio that is not submitted is plain data. The raw pointers in it are only used while a list owns it.
unsafe impl<T: Owner> Send for Bio<T> {}

impl<T: Owner> Bio<T> {
    /// A bio of a device with room for `pages` pages, at most [`MAX_PAGES`].
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn new(device: Arc<BlockDevice>, pages: usize, data: T, flags: Flags) -> Result<BioBox<T>> {
        if pages > MAX_PAGES {
            return Err(EINVAL);
        }
        let vectors = KVec::zeroed(pages, flags)?;
        let pieces = KVec::with_capacity(pages, flags)?;
        KBox::pin_init(
            pin_init!(Self {
                bio <- Opaque::ffi_init(|bio: *mut bindings::bio| {
                    // SAFETY: There is room for it, and an empty bio refers to nothing.
                    unsafe { bindings::bio_init(bio, null_mut(), null_mut(), 0, 0) }
                }),
                device,
                vectors,
                pieces,
                missing: 0,
                next_missing: 0,
                status: Status(0),
                next: UnsafeCell::new(null_mut()),
                data,
                _pin: PhantomPinned,
            }),
            flags,
        )
    }

    /// How many more pages there is room for.
    pub fn room(&self) -> usize {
        self.vectors.len().saturating_sub(self.pieces.len())
    }

    /// How it went, after it was [completed](Owner::completed).
    pub fn status(&self) -> Status {
        self.status
    }

    /// What its owner keeps with it.
    pub fn data_mut(self: Pin<&mut Self>) -> &mut T {
        // SAFETY: `data` is not pinned.
        unsafe { &mut self.get_unchecked_mut().data }
    }

    /// Adds `len` bytes from `offset` of a page, to be transferred after those added before. The page may also be given
    /// [later](Self::fill).
    ///
    /// # Errors
    ///
    /// Gives the page back when there is no room, or these bytes do not lie in a page.
    #[inline]
    pub fn add(
        self: Pin<&mut Self>,
        page: Option<T::Page>,
        offset: usize,
        len: usize,
    ) -> Result<(), Option<T::Page>> {
        let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= bindings::PAGE_SIZE);
        if !fits || self.room() == 0 {
            return Err(page);
        }
        // SAFETY: Nothing is moved out of what is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let missing = usize::from(page.is_none());
        // The capacity is that of `vectors`.
        this.pieces
            .push_within_capacity(Piece { page, offset: offset as u16, len: len as u16 })
            .map_err(|error| error.0.page)?;
        this.missing = this.missing.wrapping_add(missing);
        Ok(())
    }

    /// How many pages are still to be given.
    #[inline]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Gives the first page that is missing.
    ///
    /// # Errors
    ///
    /// Gives it back when none is.
    pub fn fill(self: Pin<&mut Self>, page: T::Page) -> Result<(), T::Page> {
        // SAFETY: Nothing is moved out of what is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        while let Some(piece) = this.pieces.get_mut(this.next_missing) {
            this.next_missing = this.next_missing.wrapping_add(1);
            if piece.page.is_none() {
                piece.page = Some(page);
                this.missing = this.missing.saturating_sub(1);
                return Ok(());
            }
        }
        Err(page)
    }

    /// Takes one of its pages back, and the piece with it, the one added last first. Pieces without a page go, too:
    /// after the last page, there are none.
    #[inline]
    pub fn take_page(self: Pin<&mut Self>) -> Option<T::Page> {
        // SAFETY: Nothing is moved out of what is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        while let Some(piece) = this.pieces.pop() {
            if piece.page.is_some() {
                return piece.page;
            }
        }
        (this.missing, this.next_missing) = (0, 0);
        None
    }

    /// Gives it to the block layer: a transfer between its pages and the device from `sector` on. It comes back through
    /// [`Owner::completed`], perhaps before this returns. Pieces from the first without a page on are left out. May
    /// sleep.
    pub fn submit(mut this: BioBox<T>, operation: Operation, hints: Hints, sector: u64) {
        this.as_mut().prepare(operation, hints, sector);
        // SAFETY: Nothing is moved out of what is pinned.
        let inner = unsafe { this.as_mut().get_unchecked_mut() };
        let bio = inner.bio.get();
        for piece in &inner.pieces {
            let Some(page) = &piece.page else { break };
            // SAFETY: The bio was initialised with as many vectors as there can be pieces; the page is as `Page`
            // promises, and stays in `pieces` until the bio is done.
            unsafe {
                bindings::__bio_add_page(
                    bio,
                    page.page().as_ptr(),
                    u32::from(piece.len),
                    u32::from(piece.offset),
                );
            }
        }
        Self::give(this);
    }

    /// Gives it to the block layer: forget `sectors` from `sector` on, at most [`MAX_DISCARD`](Self::MAX_DISCARD). As
    /// [`submit`](Self::submit) otherwise.
    pub fn submit_discard(mut this: BioBox<T>, operation: Operation, sector: u64, sectors: u32) {
        this.as_mut().prepare(operation, 0, sector);
        let bytes = sectors.min(Self::MAX_DISCARD) << 9;
        // SAFETY: The bio is initialised; a bio of these operations has a length and no pages.
        unsafe { (*this.bio.get()).bi_iter.bi_size = bytes };
        Self::give(this);
    }

    /// Most sectors of one discard.
    pub const MAX_DISCARD: u32 = u32::MAX >> 9;

    fn prepare(self: Pin<&mut Self>, operation: Operation, hints: Hints, sector: u64) {
        let operation = match operation {
            Operation::Read => bindings::req_op_REQ_OP_READ,
            Operation::Write => bindings::req_op_REQ_OP_WRITE,
            Operation::Discard => bindings::req_op_REQ_OP_DISCARD,
            Operation::SecureErase => bindings::req_op_REQ_OP_SECURE_ERASE,
        };
        // SAFETY: Nothing is moved out of what is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let bio = this.bio.get();
        // SAFETY: The bio is not submitted: it is initialised anew, for a device that `device` keeps open, and a table
        // of the length told, which lives and stays where it is as long as `this` does.
        unsafe {
            bindings::bio_init(
                bio,
                this.device.as_ptr(),
                this.vectors.as_mut_ptr(),
                this.vectors.len() as u16,
                operation | hints,
            );
            (*bio).bi_iter.bi_sector = sector;
            (*bio).bi_end_io = Some(Self::end_io);
        }
    }

    fn give(this: BioBox<T>) {
        let bio = this.bio.get();
        // SAFETY: What is pinned stays so: `end_io` makes a pinned box of it again.
        let _ = KBox::into_raw(unsafe { Pin::into_inner_unchecked(this) });
        // SAFETY: The bio is complete, and nobody else has it.
        unsafe { bindings::submit_bio(bio) };
    }

    /// # Safety
    ///
    /// To be called by the block layer, at the end of a bio that [`give`](Self::give) submitted.
    unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
        // SAFETY: `give` submitted the field `bio` of a box that it gave away with it, so the box is ours again.
        let this = unsafe {
            let this: *mut Self = container_of!(Opaque::cast_from(bio).cast_mut(), Self, bio);
            // The bio is done, and lives in that box. What the block layer attached to it is let go of before it is
            // initialised anew or freed.
            (*this).status = Status((*bio).bi_status);
            bindings::bio_uninit(bio);
            KBox::from_raw(this)
        };
        T::completed(KBox::into_pin(this));
    }
}
