// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Sizes and offsets of structures.

use std::mem::{offset_of, size_of};

use ring_proto::xen::{event_channel, grant_table};
use ring_proto::{blkif, netif};

use crate::{Table, Target};

fn field_size<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Adds the size of a structure, and offset and size of its fields. A field with another name in C says which.
macro_rules! layout {
    ($table:ident, $target:ident, $rust:ty, $c:literal { $($field:ident $(= $name:literal)?),* $(,)? }) => {
        $table.row(Target::$target, concat!("sizeof(", $c, ")"), size_of::<$rust>() as i128);
        $({
            let name = [stringify!($field) $(, $name)?];
            let name = name[name.len() - 1];
            let offset = offset_of!($rust, $field);
            $table.row(Target::$target, format!("offsetof({}, {name})", $c), offset as i128);
            let size = field_size(|it: &$rust| &it.$field);
            $table.row(Target::$target, format!("field({}, {name})", $c), size as i128);
        })*
    };
}

pub fn add(table: &mut Table) {
    block(table);
    network(table);
    grants(table);
    events(table);
}

fn block(t: &mut Table) {
    layout!(t, Native, blkif::RawSegment, "struct blkif_request_segment" { gref, first_sect, last_sect });
    layout!(t, Native, blkif::RawRequest, "struct blkif_request" {
        operation, nr_segments, handle, id, sector_number, seg,
    });
    layout!(t, Native, blkif::RawDiscard, "struct blkif_request_discard" {
        operation, flag, handle, id, sector_number, nr_sectors,
    });
    layout!(t, Native, blkif::RawIndirect, "struct blkif_request_indirect" {
        operation, indirect_op, nr_segments, id, sector_number, handle, indirect_grefs,
    });
    layout!(t, Native, blkif::RawResponse, "struct blkif_response" { id, operation, status });

    layout!(t, I386, blkif::RawSegment, "struct blkif_request_segment" { gref, first_sect, last_sect });
    layout!(t, I386, blkif::RawRequest32, "struct blkif_request" {
        operation, nr_segments, handle, id, sector_number, seg,
    });
    layout!(t, I386, blkif::RawResponse32, "struct blkif_response" { id, operation, status });
    // The other forms have no structure of their own here: widening a slot moves all that follows `handle` by four.
    let moved = |native: usize| native as i128 - 4;
    let discard = [
        ("id", offset_of!(blkif::RawDiscard, id)),
        ("sector_number", offset_of!(blkif::RawDiscard, sector_number)),
        ("nr_sectors", offset_of!(blkif::RawDiscard, nr_sectors)),
    ];
    for (name, native) in discard {
        t.row(
            Target::I386,
            format!("offsetof(struct blkif_request_discard, {name})"),
            moved(native),
        );
    }
    let indirect = [
        ("id", offset_of!(blkif::RawIndirect, id)),
        ("sector_number", offset_of!(blkif::RawIndirect, sector_number)),
        ("handle", offset_of!(blkif::RawIndirect, handle)),
        ("indirect_grefs", offset_of!(blkif::RawIndirect, indirect_grefs)),
    ];
    for (name, native) in indirect {
        t.row(
            Target::I386,
            format!("offsetof(struct blkif_request_indirect, {name})"),
            moved(native),
        );
    }
    for (target, slot) in [
        (Target::Native, size_of::<blkif::RawRequest>()),
        (Target::I386, size_of::<blkif::RawRequest32>()),
    ] {
        t.row(target, "sizeof(union blkif_sring_entry)", slot as i128);
        t.row(target, "offsetof(struct blkif_sring, ring)", 64);
    }
}

fn network(t: &mut Table) {
    layout!(t, Native, netif::RawTxRequest, "struct netif_tx_request" { gref, offset, flags, id, size });
    layout!(t, Native, netif::RawTxResponse, "struct netif_tx_response" { id, status });
    layout!(t, Native, netif::RawRxRequest, "struct netif_rx_request" { id, pad, gref });
    layout!(t, Native, netif::RawRxResponse, "struct netif_rx_response" { id, offset, flags, status });
    layout!(t, Native, netif::RawExtra, "struct netif_extra_info" { kind = "type", flags, data = "u" });
    layout!(t, Native, netif::RawCtrlRequest, "struct xen_netif_ctrl_request" { id, kind = "type", data });
    layout!(t, Native, netif::RawCtrlResponse, "struct xen_netif_ctrl_response" {
        id, kind = "type", status, data,
    });
    layout!(t, Native, netif::RawGref, "struct xen_netif_gref" { gref = "ref", flags, status });
    t.row(Target::Native, "sizeof(union netif_tx_sring_entry)", 12);
    t.row(Target::Native, "sizeof(union netif_rx_sring_entry)", 8);
    t.row(Target::Native, "sizeof(union xen_netif_ctrl_sring_entry)", 16);
    // Where `Extra` puts what it knows, from the beginning of the descriptor's data.
    for (field, offset, size) in [
        ("u.gso.size", 0, 2),
        ("u.gso.type", 2, 1),
        ("u.gso.features", 4, 2),
        ("u.mcast.addr", 0, 6),
        ("u.hash.type", 0, 1),
        ("u.hash.algorithm", 1, 1),
        ("u.hash.value", 2, 4),
    ] {
        t.row(Target::Native, format!("offsetof(struct netif_extra_info, {field})"), 2 + offset);
        t.row(Target::Native, format!("field(struct netif_extra_info, {field})"), size);
    }
}

fn grants(t: &mut Table) {
    layout!(t, Native, grant_table::EntryV1, "struct grant_entry_v1" { flags, domid, frame });
    layout!(t, Native, grant_table::EntryV2, "union grant_entry_v2" {
        flags = "hdr.flags", domid = "hdr.domid", page_off = "sub_page.page_off", length = "sub_page.length",
        frame = "full_page.frame",
    });
    layout!(t, Native, grant_table::EntryV2Transitive, "union grant_entry_v2" {
        flags = "hdr.flags", domid = "hdr.domid", trans_domid = "transitive.trans_domid",
        gref = "transitive.gref",
    });
    layout!(t, Native, grant_table::MapGrantRef, "struct gnttab_map_grant_ref" {
        host_addr, flags, gref = "ref", dom, status, handle, dev_bus_addr,
    });
    layout!(t, Native, grant_table::UnmapGrantRef, "struct gnttab_unmap_grant_ref" {
        host_addr, dev_bus_addr, handle, status,
    });
    layout!(t, Native, grant_table::SetupTable, "struct gnttab_setup_table" {
        dom, nr_frames, status, frame_list,
    });
    layout!(t, Native, grant_table::DumpTable, "struct gnttab_dump_table" { dom, status });
    layout!(t, Native, grant_table::Transfer, "struct gnttab_transfer" { mfn, domid, gref = "ref", status });
    layout!(t, Native, grant_table::CopyPtr, "struct gnttab_copy_ptr" { frame = "u", domid, offset });
    layout!(t, Native, grant_table::Copy, "struct gnttab_copy" { source, dest, len, flags, status });
    layout!(t, Native, grant_table::QuerySize, "struct gnttab_query_size" {
        dom, nr_frames, max_nr_frames, status,
    });
    layout!(t, Native, grant_table::UnmapAndReplace, "struct gnttab_unmap_and_replace" {
        host_addr, new_addr, handle, status,
    });
    layout!(t, Native, grant_table::SetVersion, "struct gnttab_set_version" { version });
    layout!(t, Native, grant_table::GetStatusFrames, "struct gnttab_get_status_frames" {
        nr_frames, dom, status, frame_list,
    });
    layout!(t, Native, grant_table::GetVersion, "struct gnttab_get_version" { dom, pad, version });
    layout!(t, Native, grant_table::SwapGrantRef, "struct gnttab_swap_grant_ref" { ref_a, ref_b, status });
    layout!(t, Native, grant_table::CacheFlush, "struct gnttab_cache_flush" { page = "a", offset, length, op });
}

fn events(t: &mut Table) {
    layout!(t, Native, event_channel::AllocUnbound, "struct evtchn_alloc_unbound" { dom, remote_dom, port });
    layout!(t, Native, event_channel::BindInterdomain, "struct evtchn_bind_interdomain" {
        remote_dom, remote_port, local_port,
    });
    layout!(t, Native, event_channel::BindVirq, "struct evtchn_bind_virq" { virq, vcpu, port });
    layout!(t, Native, event_channel::BindPirq, "struct evtchn_bind_pirq" { pirq, flags, port });
    layout!(t, Native, event_channel::BindIpi, "struct evtchn_bind_ipi" { vcpu, port });
    layout!(t, Native, event_channel::PortOnly, "struct evtchn_close" { port });
    layout!(t, Native, event_channel::PortOnly, "struct evtchn_send" { port });
    layout!(t, Native, event_channel::PortOnly, "struct evtchn_unmask" { port });
    layout!(t, Native, event_channel::Status, "struct evtchn_status" {
        dom, port, status, vcpu, bound_to = "u.pirq", remote_port = "u.interdomain.port",
    });
    layout!(t, Native, event_channel::BindVcpu, "struct evtchn_bind_vcpu" { port, vcpu });
    layout!(t, Native, event_channel::Reset, "struct evtchn_reset" { dom });
    layout!(t, Native, event_channel::InitControl, "struct evtchn_init_control" {
        control_gfn, offset, vcpu, link_bits,
    });
    layout!(t, Native, event_channel::ExpandArray, "struct evtchn_expand_array" { array_gfn });
    layout!(t, Native, event_channel::SetPriority, "struct evtchn_set_priority" { port, priority });
    layout!(t, Native, event_channel::FifoControlBlock, "struct evtchn_fifo_control_block" { ready, head });
}
