// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The rings of this crate against Xen's own: the macros of `ring.h`, and stock libxenvchan, compiled into a library.
//!
//! Each pairing of ends (C and C, C and Rust, Rust and C, Rust and Rust) gets pages of its own, all get the same
//! operations, and after every one of them all results and all pages have to be equal, byte for byte.

mod flex;
mod ring;
mod vchan;

use std::cell::UnsafeCell;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::OnceLock;

use libloading::{Library, Symbol};
use ring_proto::shared::{Region, PAGE_SIZE};

/// The C side, compiled once for all tests.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        assert!(
            Path::new("/usr/include/libxenvchan.h").exists(),
            "Xen's headers are missing: install the package libxen-dev"
        );
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let into = folder.path().join("libreference.so");
        let output = Command::new("cc")
            .args(["-std=gnu11", "-O2", "-shared", "-fPIC", "-o"])
            .arg(&into)
            .args([sources.join("rings.c"), sources.join("vchan.c")])
            .arg("-l:libxenvchan.a")
            .output()
            .unwrap_or_else(|error| panic!("no C compiler ({error}): install the package gcc"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: the library has no constructors.
        unsafe { Library::new(&into) }.expect("the library loads")
    })
}

/// A function of the library.
///
/// # Safety
///
/// `F` is the type that the function has in C.
unsafe fn function<F: Copy + 'static>(name: &str) -> F {
    // SAFETY: by the contract; the library is never unloaded.
    let symbol: Symbol<'static, F> = unsafe { library().get(name) }.expect("the library has it");
    *symbol
}

/// Pages that both languages work on. Nothing here runs at the same time as anything else.
struct Memory {
    pages: Box<[UnsafeCell<[u64; PAGE_SIZE / 8]>]>,
}

impl Memory {
    fn new(pages: usize) -> Self {
        Self { pages: (0..pages).map(|_| UnsafeCell::new([0; PAGE_SIZE / 8])).collect() }
    }

    fn words(&self) -> *mut u32 {
        self.pages.as_ptr().cast::<u32>().cast_mut()
    }

    fn base(&self) -> *mut u8 {
        self.words().cast()
    }

    fn len(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    /// The memory as the crate has it.
    fn region(&self) -> Region<'_> {
        let base = NonNull::new(self.base()).expect("a box is somewhere");
        // SAFETY: the box is that long, aligned to eight, and nobody has a reference into its cells.
        unsafe { Region::new(base, self.len()) }
    }

    /// The pages one by one.
    fn parts(&self) -> Vec<Region<'_>> {
        let part =
            |page| self.region().part(page * PAGE_SIZE, PAGE_SIZE).expect("the page is there");
        (0..self.pages.len()).map(part).collect()
    }

    /// All bytes, for as long as nothing writes them.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the box is that long; no C and no ring runs while a caller looks.
        unsafe { std::slice::from_raw_parts(self.base(), self.len()) }
    }
}

/// That all pairings did the same, and left the same bytes.
fn assert_same<R: PartialEq + std::fmt::Debug>(
    results: &[R],
    memories: &[&[Memory]],
    what: &dyn std::fmt::Debug,
) {
    for result in results {
        assert_eq!(result, &results[0], "after {what:?}");
    }
    for memory in memories {
        for (one, other) in memory.iter().zip(memories[0]) {
            let (one, other) = (one.bytes(), other.bytes());
            if one != other {
                let at = one.iter().zip(other).position(|(one, other)| one != other);
                panic!("the pages differ from byte {at:?} on after {what:?}");
            }
        }
    }
}
