// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Grant tables as `grant_table.h` lays them out: entries of both versions, flags, operations, status codes.
//!
//! The structures are those of a 64-bit guest. A `frame_list` is a guest address. Numbers in them are raw: domain
//! ids and references come from guests and are judged by whoever reads them.

use crate::wire;

/// Entries at the beginning of a table that survive a change of its version (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const NR_RESERVED_ENTRIES: u32 = 8;
/// Reference of the console's ring page, if the toolstack granted it.
pub const RESERVED_CONSOLE: u32 = 0;
/// Reference of xenstore's ring page, if the toolstack granted it.
pub const RESERVED_XENSTORE: u32 = 1;

/// Mask of the type of an entry in its flags.
pub const GTF_TYPE_MASK: u16 = 3;
/// Type: the entry grants nothing.
pub const GTF_INVALID: u16 = 0;
/// Type: the domain may map or access the frame.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// Type: the domain may give a frame to this one.
pub const GTF_ACCEPT_TRANSFER: u16 = 2;
/// Type (version 2): the domain may use a grant that this one got from a third. Copies only.
pub const GTF_TRANSITIVE: u16 = 3;
/// Only reading is granted.
pub const GTF_READONLY: u16 = 1 << 2;
/// In use for reading; set by the hypervisor.
pub const GTF_READING: u16 = 1 << 3;
/// In use for writing; set by the hypervisor.
pub const GTF_WRITING: u16 = 1 << 4;
/// x86 cache attribute of mappings.
pub const GTF_PWT: u16 = 1 << 5;
/// x86 cache attribute of mappings.
pub const GTF_PCD: u16 = 1 << 6;
/// x86 cache attribute of mappings.
pub const GTF_PAT: u16 = 1 << 7;
/// Only a part of the page is granted (version 2). Copies only.
pub const GTF_SUB_PAGE: u16 = 1 << 8;
/// The hypervisor is about to transfer a frame into the entry.
pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2;
/// The transfer is done.
pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3;

wire! {
    /// A grant entry, version 1 (`grant_entry_v1`).
    pub struct EntryV1 {
        /// `GTF_*`.
        pub flags: u16,
        /// The domain to which it is granted.
        pub domid: u16,
        /// Guest frame that is granted.
        pub frame: u32,
    }
}

wire! {
    /// A full-page grant entry, version 2 (`grant_entry_v2.full_page`). In a sub-page grant `page_off` and `length`
    /// bound the bytes granted; otherwise they mean nothing.
    pub struct EntryV2 {
        /// `GTF_*`; the hypervisor's flags are in the status word instead.
        pub flags: u16,
        /// The domain to which it is granted.
        pub domid: u16,
        /// Where in the page the grant begins, in bytes.
        pub page_off: u16,
        /// How many bytes are granted.
        pub length: u16,
        /// Guest frame that is granted.
        pub frame: u64,
    }
}

wire! {
    /// A transitive grant entry, version 2 (`grant_entry_v2.transitive`).
    pub struct EntryV2Transitive {
        /// `GTF_*`.
        pub flags: u16,
        /// The domain to which it is granted.
        pub domid: u16,
        /// The domain that granted to this one.
        pub trans_domid: u16,
        /// Nothing.
        pub pad0: u16,
        /// The reference in that domain's table.
        pub gref: u32,
        /// Nothing.
        pub pad1: u32,
    }
}

/// Size of a status word (`grant_status_t`, version 2) in bytes. It holds [`GTF_READING`] and [`GTF_WRITING`].
pub const STATUS_SIZE: usize = 2;
/// Version 1 entries in a page.
pub const V1_PER_PAGE: u32 = 512;
/// Version 2 entries in a page.
pub const V2_PER_PAGE: u32 = 256;
/// Status words in a page.
pub const STATUS_PER_PAGE: u32 = 2048;

/// Operations of `HYPERVISOR_grant_table_op` (`GNTTABOP_*`).
pub mod op {
    /// Takes [`MapGrantRef`](super::MapGrantRef).
    pub const MAP_GRANT_REF: u32 = 0;
    /// Takes [`UnmapGrantRef`](super::UnmapGrantRef).
    pub const UNMAP_GRANT_REF: u32 = 1;
    /// Takes one [`SetupTable`](super::SetupTable).
    pub const SETUP_TABLE: u32 = 2;
    /// Takes [`DumpTable`](super::DumpTable).
    pub const DUMP_TABLE: u32 = 3;
    /// Takes [`Transfer`](super::Transfer).
    pub const TRANSFER: u32 = 4;
    /// Takes [`Copy`](super::Copy).
    pub const COPY: u32 = 5;
    /// Takes one [`QuerySize`](super::QuerySize).
    pub const QUERY_SIZE: u32 = 6;
    /// Takes [`UnmapAndReplace`](super::UnmapAndReplace).
    pub const UNMAP_AND_REPLACE: u32 = 7;
    /// Takes one [`SetVersion`](super::SetVersion).
    pub const SET_VERSION: u32 = 8;
    /// Takes one [`GetStatusFrames`](super::GetStatusFrames).
    pub const GET_STATUS_FRAMES: u32 = 9;
    /// Takes [`GetVersion`](super::GetVersion).
    pub const GET_VERSION: u32 = 10;
    /// Takes [`SwapGrantRef`](super::SwapGrantRef).
    pub const SWAP_GRANT_REF: u32 = 11;
    /// Takes [`CacheFlush`](super::CacheFlush).
    pub const CACHE_FLUSH: u32 = 12;
}

/// Map for access by devices; [`MapGrantRef::dev_bus_addr`] tells where.
pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
/// Map for access by the guest at [`MapGrantRef::host_addr`].
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
/// Map for reading only.
pub const GNTMAP_READONLY: u32 = 1 << 2;
/// Map for the guest's application too (PV guests).
pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
/// The host address is that of a page table entry (PV guests).
pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;

wire! {
    /// Argument of `GNTTABOP_map_grant_ref`.
    pub struct MapGrantRef {
        /// Guest-physical address to map at.
        pub host_addr: u64,
        /// `GNTMAP_*`.
        pub flags: u32,
        /// Reference in the table of `dom`.
        pub gref: u32,
        /// The domain that granted.
        pub dom: u16,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Out: names the mapping.
        pub handle: u32,
        /// Out: machine address of the frame.
        pub dev_bus_addr: u64,
    }
}

wire! {
    /// Argument of `GNTTABOP_unmap_grant_ref`.
    pub struct UnmapGrantRef {
        /// Guest-physical address of the mapping, or 0.
        pub host_addr: u64,
        /// Machine address of the mapping, or 0.
        pub dev_bus_addr: u64,
        /// Which mapping.
        pub handle: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad: u16,
    }
}

wire! {
    /// Argument of `GNTTABOP_setup_table`.
    pub struct SetupTable {
        /// Whose table.
        pub dom: u16,
        /// Nothing.
        pub pad0: u16,
        /// Frames wanted.
        pub nr_frames: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad1: [u16; 3],
        /// Where the frame numbers (`u64`) go.
        pub frame_list: u64,
    }
}

wire! {
    /// Argument of `GNTTABOP_dump_table`.
    pub struct DumpTable {
        /// Whose table.
        pub dom: u16,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
    }
}

wire! {
    /// Argument of `GNTTABOP_transfer`.
    pub struct Transfer {
        /// Frame to give away.
        pub mfn: u64,
        /// To whom.
        pub domid: u16,
        /// Nothing.
        pub pad0: u16,
        /// Entry of the receiver that accepts it.
        pub gref: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad1: [u16; 3],
    }
}

/// The source of a copy is a grant reference, not a frame of the domain.
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// The target of a copy is a grant reference, not a frame of the domain.
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

wire! {
    /// One end of a copy (`gnttab_copy_ptr`).
    pub struct CopyPtr {
        /// A grant reference in the low 32 bits, or a guest frame number.
        pub frame: u64,
        /// Whose.
        pub domid: u16,
        /// Where in the page, in bytes.
        pub offset: u16,
        /// Nothing.
        pub pad: u32,
    }
}

wire! {
    /// Argument of `GNTTABOP_copy`.
    pub struct Copy {
        /// From where.
        pub source: CopyPtr,
        /// To where.
        pub dest: CopyPtr,
        /// How many bytes.
        pub len: u16,
        /// `GNTCOPY_*`.
        pub flags: u16,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad: u16,
    }
}

wire! {
    /// Argument of `GNTTABOP_query_size`.
    pub struct QuerySize {
        /// Whose table.
        pub dom: u16,
        /// Nothing.
        pub pad0: u16,
        /// Out: frames it has.
        pub nr_frames: u32,
        /// Out: frames it may have.
        pub max_nr_frames: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad1: u16,
    }
}

wire! {
    /// Argument of `GNTTABOP_unmap_and_replace`.
    pub struct UnmapAndReplace {
        /// Address of the mapping.
        pub host_addr: u64,
        /// Address of the mapping that takes its place.
        pub new_addr: u64,
        /// Which mapping.
        pub handle: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad: u16,
    }
}

wire! {
    /// Argument of `GNTTABOP_set_version`.
    pub struct SetVersion {
        /// In: the version wanted; out: the version in force.
        pub version: u32,
    }
}

wire! {
    /// Argument of `GNTTABOP_get_status_frames`.
    pub struct GetStatusFrames {
        /// Frames wanted.
        pub nr_frames: u32,
        /// Whose table.
        pub dom: u16,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Where the frame numbers (`u64`) go.
        pub frame_list: u64,
    }
}

wire! {
    /// Argument of `GNTTABOP_get_version`.
    pub struct GetVersion {
        /// Whose table.
        pub dom: u16,
        /// Nothing.
        pub pad: u16,
        /// Out: the version in force.
        pub version: u32,
    }
}

wire! {
    /// Argument of `GNTTABOP_swap_grant_ref`.
    pub struct SwapGrantRef {
        /// One entry.
        pub ref_a: u32,
        /// The other.
        pub ref_b: u32,
        /// Out: 0 or a [`GrantError`].
        pub status: i16,
        /// Nothing.
        pub pad: u16,
    }
}

/// Write the cached bytes back to memory.
pub const GNTTAB_CACHE_CLEAN: u32 = 1 << 0;
/// Drop the cached bytes.
pub const GNTTAB_CACHE_INVAL: u32 = 1 << 1;
/// The page is named by reference, not by machine address.
pub const GNTTAB_CACHE_SOURCE_GREF: u32 = 1 << 31;

wire! {
    /// Argument of `GNTTABOP_cache_flush`.
    pub struct CacheFlush {
        /// Machine address of the page, or a reference in the low 32 bits.
        pub page: u64,
        /// Where in the page, in bytes.
        pub offset: u16,
        /// How many bytes.
        pub length: u16,
        /// `GNTTAB_CACHE_*`.
        pub op: u32,
    }
}

macro_rules! grant_error {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $constant:literal, $text:literal;)*) => {
        /// Why an operation on a grant was refused (`GNTST_*`, all negative).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum GrantError {
            $(#[doc = concat!("`", $constant, "`: ", $text, ".")] $name = $value,)*
        }

        impl GrantError {
            /// The error with this (negative) number.
            pub const fn from_raw(status: i16) -> Option<Self> {
                match status { $($value => Some(Self::$name),)* _ => None }
            }

            /// Its name in `grant_table.h`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $constant,)* }
            }
        }

        impl core::fmt::Display for GrantError {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

grant_error! {
    GeneralError = -1, "GNTST_general_error", "undefined error";
    BadDomain = -2, "GNTST_bad_domain", "no such domain";
    BadGntref = -3, "GNTST_bad_gntref", "no such grant, or not one for this use";
    BadHandle = -4, "GNTST_bad_handle", "no such mapping";
    BadVirtAddr = -5, "GNTST_bad_virt_addr", "inappropriate virtual address";
    BadDevAddr = -6, "GNTST_bad_dev_addr", "inappropriate device address";
    NoDeviceSpace = -7, "GNTST_no_device_space", "out of space in the IOMMU";
    PermissionDenied = -8, "GNTST_permission_denied", "permission denied";
    BadPage = -9, "GNTST_bad_page", "the page is not one for this operation";
    BadCopyArg = -10, "GNTST_bad_copy_arg", "the copy crosses the bounds of a page";
    AddressTooBig = -11, "GNTST_address_too_big", "the page's address is too large";
    Eagain = -12, "GNTST_eagain", "not done, try again";
    NoSpace = -13, "GNTST_no_space", "out of mapping handles";
}

impl GrantError {
    /// The status of an operation as it stands in its argument: 0, or the error's number.
    pub fn status(result: Result<(), Self>) -> i16 {
        result.map_or_else(|error| error as i16, |()| 0)
    }
}
