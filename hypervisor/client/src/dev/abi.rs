// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures and numbers of `linux/include/uapi/xen/{gntalloc,gntdev,evtchn}.h`.
//!
//! Where a structure ends with an array of unknown length, the fixed part is here, and the array follows it.

use ring_proto::wire;

/// Number of a request as `_IOC(_IOC_NONE, group, number, size)` makes it.
const fn request(group: u8, number: u8, size: usize) -> u64 {
    ((size as u64) << 16) | ((group as u64) << 8) | number as u64
}

/// Size of `struct ioctl_gntalloc_alloc_gref`, which holds one reference and padding.
const ALLOC_GREF_SIZE: usize = 24;
/// Size of `struct ioctl_gntdev_map_grant_ref`, which holds one reference.
const MAP_GRANT_REF_SIZE: usize = 24;

/// Takes [`AllocGref`] and the references (`u32`).
pub const GNTALLOC_ALLOC_GREF: u64 = request(b'G', 5, ALLOC_GREF_SIZE);
/// Takes [`DeallocGref`].
pub const GNTALLOC_DEALLOC_GREF: u64 = request(b'G', 6, size_of::<DeallocGref>());
/// Takes [`MapGrantRef`] and the grants ([`GrantRef`]).
pub const GNTDEV_MAP_GRANT_REF: u64 = request(b'G', 0, MAP_GRANT_REF_SIZE);
/// Takes [`UnmapGrantRef`].
pub const GNTDEV_UNMAP_GRANT_REF: u64 = request(b'G', 1, size_of::<UnmapGrantRef>());
/// Takes [`GrantCopy`].
pub const GNTDEV_GRANT_COPY: u64 = request(b'G', 8, size_of::<GrantCopy>());
/// Takes [`BindInterdomain`], returns the port.
pub const EVTCHN_BIND_INTERDOMAIN: u64 = request(b'E', 1, size_of::<BindInterdomain>());
/// Takes [`BindUnboundPort`], returns the port.
pub const EVTCHN_BIND_UNBOUND_PORT: u64 = request(b'E', 2, size_of::<BindUnboundPort>());
/// Takes [`Notify`].
pub const EVTCHN_NOTIFY: u64 = request(b'E', 4, size_of::<Notify>());

/// In [`AllocGref::flags`]: the peer may write.
pub const GNTALLOC_FLAG_WRITABLE: u16 = 1;

wire! {
    /// `struct ioctl_gntalloc_alloc_gref`, without its array of references.
    pub struct AllocGref {
        /// To whom the pages are granted.
        pub domid: u16,
        /// [`GNTALLOC_FLAG_WRITABLE`] or nothing.
        pub flags: u16,
        /// How many pages.
        pub count: u32,
        /// Out: offset for `mmap`.
        pub index: u64,
    }
}

wire! {
    /// `struct ioctl_gntalloc_dealloc_gref`.
    pub struct DeallocGref {
        /// Offset as allocated.
        pub index: u64,
        /// How many pages.
        pub count: u32,
        /// Nothing.
        pub pad: u32,
    }
}

wire! {
    /// `struct ioctl_gntdev_grant_ref`.
    pub struct GrantRef {
        /// Who granted.
        pub domid: u32,
        /// Its reference.
        pub gref: u32,
    }
}

wire! {
    /// `struct ioctl_gntdev_map_grant_ref`, without its array of [`GrantRef`].
    pub struct MapGrantRef {
        /// How many grants.
        pub count: u32,
        /// Nothing.
        pub pad: u32,
        /// Out: offset for `mmap`.
        pub index: u64,
    }
}

wire! {
    /// `struct ioctl_gntdev_unmap_grant_ref`.
    pub struct UnmapGrantRef {
        /// Offset as mapped.
        pub index: u64,
        /// How many grants.
        pub count: u32,
        /// Nothing.
        pub pad: u32,
    }
}

wire! {
    /// `struct ioctl_gntdev_grant_copy`.
    pub struct GrantCopy {
        /// How many segments.
        pub count: u32,
        /// Nothing.
        pub pad: u32,
        /// Address of the first [`CopySegment`].
        pub segments: u64,
    }
}

wire! {
    /// `struct gntdev_grant_copy_segment`.
    pub struct CopySegment {
        /// An address, or [`foreign`].
        pub source: u64,
        /// An address, or [`foreign`].
        pub dest: u64,
        /// How many bytes.
        pub len: u16,
        /// `GNTCOPY_*`.
        pub flags: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Nothing.
        pub pad: u16,
    }
}

/// The `foreign` member of the union in a [`CopySegment`].
pub const fn foreign(gref: u32, offset: u16, domid: u16) -> u64 {
    let [g0, g1, g2, g3] = gref.to_ne_bytes();
    let [o0, o1] = offset.to_ne_bytes();
    let [d0, d1] = domid.to_ne_bytes();
    u64::from_ne_bytes([g0, g1, g2, g3, o0, o1, d0, d1])
}

wire! {
    /// `struct ioctl_evtchn_bind_interdomain`.
    pub struct BindInterdomain {
        /// The other domain.
        pub remote_domain: u32,
        /// Its port.
        pub remote_port: u32,
    }
}

wire! {
    /// `struct ioctl_evtchn_bind_unbound_port`.
    pub struct BindUnboundPort {
        /// Who may bind.
        pub remote_domain: u32,
    }
}

wire! {
    /// `struct ioctl_evtchn_notify`.
    pub struct Notify {
        /// This domain's port.
        pub port: u32,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::mem::offset_of;
    use std::process::Command;

    use super::*;

    /// Compiles a C program that prints the value of each expression, and returns the values.
    fn in_c(expressions: &[&str]) -> Vec<u64> {
        let mut program = String::from(
            "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n\
             typedef uint32_t grant_ref_t;\ntypedef uint16_t domid_t;\n\
             #include <xen/evtchn.h>\n#include <xen/gntalloc.h>\n#include <xen/gntdev.h>\nint main(void) {\n",
        );
        for expression in expressions {
            writeln!(program, "printf(\"%llu\\n\", (unsigned long long)({expression}));").unwrap();
        }
        program.push_str("}\n");
        let dir = tempfile::tempdir().unwrap();
        let (source, binary) = (dir.path().join("abi.c"), dir.path().join("abi"));
        std::fs::write(&source, program).unwrap();
        let compiled =
            Command::new("cc").arg("-o").arg(&binary).arg(&source).output().expect("cc runs");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let printed = Command::new(&binary).output().unwrap();
        String::from_utf8(printed.stdout)
            .unwrap()
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    }

    #[test]
    fn numbers_and_layouts_are_those_of_the_headers() {
        macro_rules! table {
            ($($c:literal => $rust:expr),* $(,)?) => { [$(($c, $rust as u64)),*] };
        }
        let table = table! {
            "IOCTL_GNTALLOC_ALLOC_GREF" => GNTALLOC_ALLOC_GREF,
            "IOCTL_GNTALLOC_DEALLOC_GREF" => GNTALLOC_DEALLOC_GREF,
            "IOCTL_GNTDEV_MAP_GRANT_REF" => GNTDEV_MAP_GRANT_REF,
            "IOCTL_GNTDEV_UNMAP_GRANT_REF" => GNTDEV_UNMAP_GRANT_REF,
            "IOCTL_GNTDEV_GRANT_COPY" => GNTDEV_GRANT_COPY,
            "IOCTL_EVTCHN_BIND_INTERDOMAIN" => EVTCHN_BIND_INTERDOMAIN,
            "IOCTL_EVTCHN_BIND_UNBOUND_PORT" => EVTCHN_BIND_UNBOUND_PORT,
            "IOCTL_EVTCHN_NOTIFY" => EVTCHN_NOTIFY,
            "GNTALLOC_FLAG_WRITABLE" => GNTALLOC_FLAG_WRITABLE,
            "offsetof(struct ioctl_gntalloc_alloc_gref, domid)" => offset_of!(AllocGref, domid),
            "offsetof(struct ioctl_gntalloc_alloc_gref, flags)" => offset_of!(AllocGref, flags),
            "offsetof(struct ioctl_gntalloc_alloc_gref, count)" => offset_of!(AllocGref, count),
            "offsetof(struct ioctl_gntalloc_alloc_gref, index)" => offset_of!(AllocGref, index),
            "offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids)" => size_of::<AllocGref>(),
            "sizeof(((struct ioctl_gntalloc_alloc_gref *)0)->gref_ids[0])" => size_of::<u32>(),
            "offsetof(struct ioctl_gntalloc_dealloc_gref, index)" => offset_of!(DeallocGref, index),
            "offsetof(struct ioctl_gntalloc_dealloc_gref, count)" => offset_of!(DeallocGref, count),
            "sizeof(struct ioctl_gntalloc_dealloc_gref)" => size_of::<DeallocGref>(),
            "offsetof(struct ioctl_gntdev_grant_ref, domid)" => offset_of!(GrantRef, domid),
            "offsetof(struct ioctl_gntdev_grant_ref, ref)" => offset_of!(GrantRef, gref),
            "sizeof(struct ioctl_gntdev_grant_ref)" => size_of::<GrantRef>(),
            "offsetof(struct ioctl_gntdev_map_grant_ref, count)" => offset_of!(MapGrantRef, count),
            "offsetof(struct ioctl_gntdev_map_grant_ref, index)" => offset_of!(MapGrantRef, index),
            "offsetof(struct ioctl_gntdev_map_grant_ref, refs)" => size_of::<MapGrantRef>(),
            "offsetof(struct ioctl_gntdev_unmap_grant_ref, index)" => offset_of!(UnmapGrantRef, index),
            "offsetof(struct ioctl_gntdev_unmap_grant_ref, count)" => offset_of!(UnmapGrantRef, count),
            "offsetof(struct ioctl_gntdev_grant_copy, count)" => offset_of!(GrantCopy, count),
            "offsetof(struct ioctl_gntdev_grant_copy, segments)" => offset_of!(GrantCopy, segments),
            "sizeof(struct gntdev_grant_copy_segment)" => size_of::<CopySegment>(),
            "offsetof(struct gntdev_grant_copy_segment, source)" => offset_of!(CopySegment, source),
            "offsetof(struct gntdev_grant_copy_segment, dest)" => offset_of!(CopySegment, dest),
            "offsetof(struct gntdev_grant_copy_segment, len)" => offset_of!(CopySegment, len),
            "offsetof(struct gntdev_grant_copy_segment, flags)" => offset_of!(CopySegment, flags),
            "offsetof(struct gntdev_grant_copy_segment, status)" => offset_of!(CopySegment, status),
            "({ struct gntdev_grant_copy_segment s = { .source.foreign = { .ref = 0x12345678, .offset = 0x9abc, \
              .domid = 0xdef0 } }; *(uint64_t *)&s.source; })" => foreign(0x1234_5678, 0x9abc, 0xdef0),
            "offsetof(struct ioctl_evtchn_bind_interdomain, remote_domain)" => offset_of!(BindInterdomain, remote_domain),
            "offsetof(struct ioctl_evtchn_bind_interdomain, remote_port)" => offset_of!(BindInterdomain, remote_port),
        };
        let expressions: Vec<&str> = table.iter().map(|&(c, _)| c).collect();
        let values = in_c(&expressions);
        assert_eq!(values.len(), table.len());
        for ((expression, ours), theirs) in table.into_iter().zip(values) {
            assert_eq!(ours, theirs, "{expression}");
        }
    }
}
