// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Structures that may lie in shared memory.

use core::mem::{size_of, MaybeUninit};

/// A structure that may lie in shared memory: `repr(C)`, without padding, every bit pattern of it a value.
///
/// Declare one with [`wire!`](crate::wire), which proves the first two at compile time.
///
/// # Safety
///
/// The type has no padding, no invalid bit pattern, no reference, and no interior mutability.
pub unsafe trait Wire: Copy + 'static {}

// SAFETY: integers have neither padding nor invalid bit patterns.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above.
unsafe impl Wire for u64 {}
// SAFETY: as above.
unsafe impl Wire for i16 {}
// SAFETY: an array adds no padding to its elements.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

/// The value whose bytes are all zero.
#[inline]
pub const fn zeroed<T: Wire>() -> T {
    // SAFETY: every bit pattern of a `Wire` type is a value.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// The bytes of a structure, as they would lie in shared memory.
#[inline]
pub fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: a `Wire` type has no padding, so all its bytes are initialised; the borrow keeps it alive.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The bytes of a structure, to be filled in.
#[inline]
pub fn bytes_of_mut<T: Wire>(value: &mut T) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and any bytes written are a value again.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// The structure that begins `bytes`, or `None` when they are too few. `bytes` needs no alignment.
#[inline]
pub fn from_bytes<T: Wire>(bytes: &[u8]) -> Option<T> {
    let head = bytes.get(..size_of::<T>())?;
    let mut value = zeroed::<T>();
    bytes_of_mut(&mut value).copy_from_slice(head);
    Some(value)
}

/// Declares a structure of the wire: `#[repr(C)]`, all fields [`Wire`], no padding (else it does not compile).
///
/// ```
/// ring_proto::wire! {
///     /// One answer.
///     pub struct Response {
///         /// Id of the request.
///         pub id: u64,
///         /// What became of it.
///         pub status: u32,
///         /// Must be zero.
///         pub reserved: u32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! wire {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),* }

        const _: () = {
            const fn is_wire<T: $crate::shared::Wire>() -> usize { ::core::mem::size_of::<T>() }
            assert!(::core::mem::size_of::<$name>() == 0 $(+ is_wire::<$ty>())*, "the structure has padding");
        };

        #[allow(unsafe_code)]
        // SAFETY: every field is `Wire` and the assertion above excludes padding.
        unsafe impl $crate::shared::Wire for $name {}

        impl Default for $name {
            fn default() -> Self { $crate::shared::zeroed() }
        }
    };
}
