// SPDX-License-Identifier: GPL-2.0

//! Parameters of a module that can be read, and changed, while it is loaded.
//!
//! Those of the `kernel` crate are set once and are not in sysfs. These are C's: the same text is taken for a value, and
//! the mode says who may read and write `/sys/module/<module>/parameters/<name>`.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use kernel::bindings;

/// Declares parameters of a module.
///
/// # Examples
///
/// ```ignore
/// xen::module_params! {
///     /// Queues that a disk may have.
///     static MAX_QUEUES: uint = 4, "max_queues", 0o444, "Maximum number of queues of a disk";
///     static TRUSTED: bool = true, "trusted", 0o644, "Whether backends are trusted";
/// }
///
/// let queues: u32 = MAX_QUEUES.get();
/// ```
#[macro_export]
macro_rules! module_params {
    ($(
        $(#[$meta:meta])*
        $vis:vis static $param:ident: $type:tt = $default:expr, $name:literal, $mode:literal, $text:literal;
    )*) => {$(
        $(#[$meta])*
        $vis static $param: $crate::module_params!(@type $type) =
            <$crate::module_params!(@type $type)>::new($default);

        const _: () = {
            #[link_section = "__param"]
            #[used]
            static ENTRY: $crate::param::Entry = $param.entry(concat!($name, "\0"), $mode);

            const TYPE: &str = concat!("parmtype=", $name, ":", stringify!($type), "\0");
            #[link_section = ".modinfo"]
            #[used]
            static TYPE_BYTES: [u8; TYPE.len()] = $crate::param::bytes(TYPE);

            const TEXT: &str = concat!("parm=", $name, ":", $text, "\0");
            #[link_section = ".modinfo"]
            #[used]
            static TEXT_BYTES: [u8; TEXT.len()] = $crate::param::bytes(TEXT);
        };
    )*};
    (@type uint) => { $crate::param::Uint };
    (@type int) => { $crate::param::Int };
    (@type bool) => { $crate::param::Bool };
}

macro_rules! parameter {
    ($(#[$meta:meta] $name:ident, $atomic:ty, $value:ty, $ops:ident;)*) => {$(
        #[$meta]
        #[repr(transparent)]
        pub struct $name($atomic);

        impl $name {
            #[doc(hidden)]
            pub const fn new(default: $value) -> Self {
                Self(<$atomic>::new(default))
            }

            /// Its value now.
            #[inline]
            pub fn get(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }

            /// Changes it, so that sysfs shows what is in force.
            pub fn set(&self, value: $value) {
                self.0.store(value, Ordering::Relaxed);
            }

            /// What the kernel is told of it. The name ends with a zero byte.
            #[doc(hidden)]
            #[inline]
            pub const fn entry(&'static self, name: &'static str, mode: u16) -> Entry {
                assert!(matches!(name.as_bytes(), [_, .., 0]), "the name ends with a zero byte");
                Entry(bindings::kernel_param {
                    name: name.as_ptr().cast(),
                    mod_: (&raw const bindings::__this_module).cast_mut(),
                    ops: &raw const bindings::$ops,
                    perm: mode,
                    level: -1,
                    flags: 0,
                    __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                        arg: (&raw const self.0).cast_mut().cast(),
                    },
                })
            }
        }
    )*};
}

parameter! {
    /// An unsigned number.
    Uint, AtomicU32, u32, param_ops_uint;
    /// A signed number.
    Int, AtomicI32, i32, param_ops_int;
    /// Yes or no.
    Bool, AtomicBool, bool, param_ops_bool;
}

/// A parameter as the kernel finds it in the section `__param`.
#[doc(hidden)]
#[repr(transparent)]
pub struct Entry(bindings::kernel_param);

// SAFETY: It is not changed, and what it points to is atomic or C's own.
unsafe impl Sync for Entry {}

/// The bytes of a text.
#[doc(hidden)]
#[inline]
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    match text.as_bytes().first_chunk() {
        Some(bytes) => *bytes,
        None => panic!("the array is longer than the text"),
    }
}
