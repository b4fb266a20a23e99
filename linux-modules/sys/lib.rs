// SPDX-License-Identifier: GPL-2.0

//! C declarations that the kernel's own `bindings` crate lacks: Xen's, and inline functions made callable by `shim.c`.
//!
//! Nothing here is safe to call; [`xen`](../xen) and [`block`](../block) make it so.
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(
    improper_ctypes,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unsafe_op_in_unsafe_fn,
    unreachable_pub
)]

mod generated {
    #[allow(unused_imports)]
    use kernel::{bindings::*, ffi};
    #[allow(unused_imports)]
    use pin_init::MaybeZeroable;

    include!(concat!(env!("CAUSEWAY_GENERATED"), "/bindings_generated.rs"));
}

pub use generated::*;
