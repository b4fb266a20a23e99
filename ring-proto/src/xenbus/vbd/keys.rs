// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Every key of a `vbd`, beside those that [every device](super::super::keys) has.

use super::super::key::{keys, Absent, Key, Kind, Place, Source, Writer};

/// The words of `protocol` that a backend on this machine serves (`io/protocols.h`).
const ABIS: &[&str] = if cfg!(any(target_arch = "arm", target_arch = "aarch64")) {
    &["x86_32-abi", "x86_64-abi", "arm-abi"]
} else {
    &["x86_32-abi", "x86_64-abi"]
};

/// A number of 32 bits that is at least 1.
const POSITIVE: Kind = Kind::Number { min: 1, max: u32::MAX as u64 };

keys! {
    MODE = Backend "mode", Kind::Word(&["r", "w"]), by Toolstack, absent Absent::Error, Xen:
        "whether the frontend may only read, or also write";
    TYPE = Backend "type", Kind::Text("`file`, `phy`, `vbd3`, `qdisk`"), by Toolstack,
        absent Absent::As("the backend finds out"), Xen:
        "what `params` names";
    PARAMS = Backend "params", Kind::Text("path"), by Toolstack, absent Absent::Error, Xen:
        "the image or block device";
    SCRIPT = Backend "script", Kind::Text("path"), by Toolstack, absent Absent::As("none"), Linux:
        "what the toolstack runs when the backend is at `InitWait`, and when it is `Closed`";
    PHYSICAL_DEVICE = Backend "physical-device", Kind::Text("MAJOR:MINOR, hexadecimal"), by Toolstack,
        absent Absent::As("none"), Xen:
        "the block device, written by the hotplug script for the kernel's backend";
    PHYSICAL_DEVICE_PATH = Backend "physical-device-path", Kind::Text("path"), by Toolstack,
        absent Absent::As("none"), Xen:
        "the same as a path";
    DEVICE_TYPE = Both "device-type", Kind::Word(&["disk", "cdrom", "floppy"]), by Toolstack,
        absent Absent::Word("disk"), Xen:
        "what the guest sees";
    BOOTABLE = Backend "bootable", Kind::Flag, by Toolstack, absent Absent::Number(0), Linux:
        "whether a guest's loader may start from it; neither driver looks";
    DISCARD_ENABLE = Backend "discard-enable", Kind::Flag, by Toolstack, absent Absent::Number(1), Xen:
        "0: discard is not offered even if the image could";
    DIRECT_IO_SAFE = Backend "direct-io-safe", Kind::Flag, by Toolstack, absent Absent::Number(0), Xen:
        "whether `O_DIRECT` is safe on this storage for backends that copy nothing";
    IOPS_LIMIT = Backend "iops-limit", Kind::U64, by Toolstack, absent Absent::Number(0), Causeway:
        "requests a second; 0: no limit";
    IOPS_BURST = Backend "iops-burst", Kind::U64, by Toolstack, absent Absent::Number(0), Causeway:
        "requests that may go at once after a pause; 0: a tenth of a second's";
    BANDWIDTH_LIMIT = Backend "bandwidth-limit", Kind::U64, by Toolstack, absent Absent::Number(0), Causeway:
        "bytes a second; 0: no limit";
    BANDWIDTH_BURST = Backend "bandwidth-burst", Kind::U64, by Toolstack, absent Absent::Number(0), Causeway:
        "bytes that may go at once after a pause; 0: a tenth of a second's";
    DIRECT_IO = Backend "direct-io", Kind::Flag, by Driver, absent Absent::As("not known"), Causeway:
        "whether the backend reads and writes the image past the page cache; for people, no frontend looks";
    MAX_QUEUES = Backend "multi-queue-max-queues", POSITIVE, by Driver, absent Absent::Number(1), Xen:
        "most queues that the backend serves";
    MAX_RING_PAGE_ORDER = Backend "max-ring-page-order", Kind::U32, by Driver, absent Absent::Number(0), Xen:
        "largest ring that the backend maps, in pages, as a power of two";
    MAX_RING_PAGES = Backend "max-ring-pages", Kind::U32, by Driver, absent Absent::Number(1), Xen:
        "deprecated; `max-ring-page-order` says it, and this one is neither written nor read";
    MAX_INDIRECT_SEGMENTS = Backend "feature-max-indirect-segments", Kind::U32, by Driver,
        absent Absent::Number(0), Xen:
        "most segments of an indirect request; 0: no indirect requests";
    PERSISTENT = Both "feature-persistent", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether the frontend reuses its pages, and the backend can keep them mapped";
    FLUSH_CACHE = Backend "feature-flush-cache", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether requests to flush are served";
    BARRIER = Backend "feature-barrier", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether barrier requests are served";
    DISCARD = Backend "feature-discard", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether requests to discard are served";
    DISCARD_GRANULARITY = Backend "discard-granularity", Kind::U32, by Driver,
        absent Absent::As("`sector-size`"), Xen:
        "bytes that are discarded together; 0 is read as absent";
    DISCARD_ALIGNMENT = Backend "discard-alignment", Kind::U32, by Driver, absent Absent::Number(0), Xen:
        "bytes before the first such extent";
    DISCARD_SECURE = Backend "discard-secure", Kind::Flag, by Driver, absent Absent::Number(0), Xen:
        "whether a discard can be made unrecoverable";
    SECTORS = Backend "sectors", Kind::Number { min: 0, max: u64::MAX / 512 }, by Driver,
        absent Absent::Error, Xen:
        "size of the disk in units of 512 bytes";
    SECTOR_SIZE = Backend "sector-size", Kind::Number { min: 512, max: 4096 }, by Driver,
        absent Absent::Error, Xen:
        "bytes of a logical block: a power of two";
    PHYSICAL_SECTOR_SIZE = Backend "physical-sector-size", Kind::U32, by Driver,
        absent Absent::As("`sector-size`"), Xen:
        "bytes of a physical block: a multiple of `sector-size`";
    INFO = Backend "info", Kind::U32, by Driver, absent Absent::Error, Xen:
        "bits: 1 CD-ROM, 2 removable, 4 read-only; others are ignored";

    VIRTUAL_DEVICE = Frontend "virtual-device", Kind::U32, by Toolstack,
        absent Absent::As("`virtual-device-ext`"), Xen:
        "which disk this is to the guest, encoded as Xen's `vbd-interface` says";
    VIRTUAL_DEVICE_EXT = Frontend "virtual-device-ext", Kind::U32, by Toolstack, absent Absent::Error, Linux:
        "the same, where older frontends are not to see it";
    TRUSTED = Frontend "trusted", Kind::Flag, by Toolstack, absent Absent::Number(1), Xen:
        "0: the frontend shows the backend no page that holds anything else";
    NUM_QUEUES = Frontend "multi-queue-num-queues", POSITIVE, by Driver, absent Absent::Number(1), Xen:
        "how many queues there are; with 2 or more, each has a directory `queue-N`";
    RING_PAGE_ORDER = Frontend "ring-page-order", Kind::U32, by Driver, absent Absent::Number(0), Xen:
        "pages of each ring, as a power of two";
    NUM_RING_PAGES = Frontend "num-ring-pages", Kind::U32, by Driver, absent Absent::Number(1), Xen:
        "deprecated; `ring-page-order` says it, and this one is neither written nor read";
    RING_REF = Frontend queue "ring-ref", Kind::GrantRef, by Driver, absent Absent::Error, Xen:
        "the page of a ring that has only one";
    RING_REF_N = Frontend queue "ring-ref%u", Kind::GrantRef, by Driver, absent Absent::Error, Xen:
        "each page of a ring that has several";
    EVENT_CHANNEL = Frontend queue "event-channel", Kind::Port, by Driver, absent Absent::Error, Xen:
        "the doorbell of a queue";
    PROTOCOL = Frontend "protocol", Kind::Word(ABIS), by Driver, absent Absent::As("the backend's own"), Xen:
        "which machine's layout the requests have";
    LARGE_SECTOR_SIZE = Frontend "feature-large-sector-size", Kind::Flag, by Driver,
        absent Absent::Number(0), Xen:
        "not used by anyone, and not here: sectors are always 512 bytes";
}
