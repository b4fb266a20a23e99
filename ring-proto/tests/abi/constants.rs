// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Values of constants, and offsets that the crate has as constants.

use ring_proto::blkif::{self, Operation, Status};
use ring_proto::netif::{
    self, Algorithm, CtrlStatus, CtrlType, Extra, GsoType, HashType, TxStatus,
};
use ring_proto::stream::{flex, Layout};
use ring_proto::xen::grant_table::GrantError;
use ring_proto::xen::{event_channel, grant_table, hypercall, shared_info, DomId, Errno};
use ring_proto::xenbus::State;
use ring_proto::xenstore::{self, interface, MessageType};
use ring_proto::{console, shared, vchan};

use crate::{Table, Target};

/// Constants that no header has as such: limits of this crate, and names for what a header says in words.
pub const OWN: &[&str] = &[
    // The ring's indices: rows of their own below, since the crate keeps the names to itself.
    "REQ_EVENT",
    "RSP_EVENT",
    // What blkif.h says in comments.
    "SECTOR_SIZE",
    "SECTORS_PER_PAGE",
    "MAX_INDIRECT_SEGMENTS",
    // What libxenvchan.h says in comments.
    "SMALL_ORDER",
    "LARGE_ORDER",
    "PAGE_ORDER",
    // Limits of this crate.
    "MAX_ORDER",
    "MAX_FRAGMENTS",
    // Ethernet's.
    "ETH_HLEN",
];

/// Adds constants under their names in C.
macro_rules! values {
    ($table:ident, { $($c:literal = $rust:expr),* $(,)? }) => {
        $($table.row(Target::Native, $c, $rust as i128);)*
    };
}

pub fn add(table: &mut Table) {
    block(table);
    network(table);
    streams(table);
    store(table);
    grants(table);
    events(table);
    hypervisor(table);
}

fn block(t: &mut Table) {
    values!(t, {
        "BLKIF_OP_READ" = Operation::Read,
        "BLKIF_OP_WRITE" = Operation::Write,
        "BLKIF_OP_WRITE_BARRIER" = Operation::WriteBarrier,
        "BLKIF_OP_FLUSH_DISKCACHE" = Operation::FlushDiskcache,
        "BLKIF_OP_DISCARD" = Operation::Discard,
        "BLKIF_OP_INDIRECT" = Operation::Indirect,
        "BLKIF_RSP_OKAY" = Status::Okay,
        "BLKIF_RSP_ERROR" = Status::Error,
        "BLKIF_RSP_EOPNOTSUPP" = Status::NotSupported,
        "BLKIF_DISCARD_SECURE" = blkif::DISCARD_SECURE,
        "BLKIF_MAX_SEGMENTS_PER_REQUEST" = blkif::MAX_SEGMENTS,
        "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST" = blkif::MAX_INDIRECT_PAGES,
        "(1 << XEN_PAGE_SHIFT) / sizeof(struct blkif_request_segment)" = blkif::SEGMENTS_PER_INDIRECT_PAGE,
        "1 << XEN_PAGE_SHIFT" = shared::PAGE_SIZE,
        "VDISK_CDROM" = blkif::info::CDROM,
        "VDISK_REMOVABLE" = blkif::info::REMOVABLE,
        "VDISK_READONLY" = blkif::info::READONLY,
    });
    let native = blkif::Abi::NATIVE.protocol();
    for (c, rust) in [
        ("XEN_IO_PROTO_ABI_X86_32", blkif::Abi::X86_32.protocol()),
        ("XEN_IO_PROTO_ABI_X86_64", blkif::Abi::X86_64.protocol()),
        ("XEN_IO_PROTO_ABI_NATIVE", native),
    ] {
        t.row(Target::Native, format!("__builtin_strcmp({c}, \"{rust}\")"), 0);
    }
}

fn network(t: &mut Table) {
    use netif::{rx_flags, tx_flags};
    values!(t, {
        "XEN_NETIF_NR_SLOTS_MIN" = netif::NR_SLOTS_MIN,
        "XEN_NETIF_MAX_TX_SIZE" = netif::MAX_TX_SIZE,
        "NETTXF_csum_blank" = tx_flags::CSUM_BLANK,
        "NETTXF_data_validated" = tx_flags::DATA_VALIDATED,
        "NETTXF_more_data" = tx_flags::MORE_DATA,
        "NETTXF_extra_info" = tx_flags::EXTRA_INFO,
        "NETRXF_data_validated" = rx_flags::DATA_VALIDATED,
        "NETRXF_csum_blank" = rx_flags::CSUM_BLANK,
        "NETRXF_more_data" = rx_flags::MORE_DATA,
        "NETRXF_extra_info" = rx_flags::EXTRA_INFO,
        "NETRXF_gso_prefix" = rx_flags::GSO_PREFIX,
        "NETIF_RSP_DROPPED" = TxStatus::Dropped,
        "NETIF_RSP_ERROR" = TxStatus::Error,
        "NETIF_RSP_OKAY" = TxStatus::Okay,
        "NETIF_RSP_NULL" = TxStatus::Null,
        "XEN_NETIF_EXTRA_TYPE_GSO" = Extra::GSO,
        "XEN_NETIF_EXTRA_TYPE_MCAST_ADD" = Extra::MCAST_ADD,
        "XEN_NETIF_EXTRA_TYPE_MCAST_DEL" = Extra::MCAST_DEL,
        "XEN_NETIF_EXTRA_TYPE_HASH" = Extra::HASH,
        "XEN_NETIF_EXTRA_FLAG_MORE" = 1,
        "XEN_NETIF_GSO_TYPE_TCPV4" = GsoType::TcpV4,
        "XEN_NETIF_GSO_TYPE_TCPV6" = GsoType::TcpV6,
        "_XEN_NETIF_CTRL_HASH_TYPE_IPV4" = HashType::Ipv4,
        "_XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP" = HashType::Ipv4Tcp,
        "_XEN_NETIF_CTRL_HASH_TYPE_IPV6" = HashType::Ipv6,
        "_XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP" = HashType::Ipv6Tcp,
        "XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP" = HashType::Ipv6Tcp.bit(),
        "XEN_NETIF_CTRL_HASH_ALGORITHM_NONE" = Algorithm::None,
        "XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ" = Algorithm::Toeplitz,
        "XEN_NETIF_CTRL_STATUS_SUCCESS" = CtrlStatus::Success,
        "XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED" = CtrlStatus::NotSupported,
        "XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER" = CtrlStatus::InvalidParameter,
        "XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW" = CtrlStatus::BufferOverflow,
        "XEN_NETIF_CTRLF_GREF_readonly" = netif::RawGref::READONLY,
    });
    // The number of `Extra::XDP` is not taken by anything else in a header that does not have it.
    t.row(
        Target::Native,
        format!(
            "XEN_NETIF_EXTRA_TYPE_MAX == {0} || XEN_NETIF_EXTRA_TYPE_MAX == {0} + 1",
            Extra::XDP
        ),
        1,
    );
    for kind in (0..=u16::MAX).filter_map(CtrlType::from_raw) {
        t.row(Target::Native, format!("XEN_NETIF_CTRL_TYPE_{}", kind.name()), kind as i128);
    }
}

/// Adds one direction of a stream: C's type, its indices, and its buffer.
fn stream(t: &mut Table, c: &str, prod: &str, cons: &str, data: &str, layout: Layout) {
    let mut offset = |field, value: usize| {
        t.row(Target::Native, format!("offsetof({c}, {field})"), value as i128);
    };
    offset(prod, layout.prod);
    offset(cons, layout.cons);
    offset(data, layout.data);
    t.row(Target::Native, format!("field({c}, {data})"), layout.size);
}

fn streams(t: &mut Table) {
    for (index, name) in ["req_prod", "req_event", "rsp_prod", "rsp_event"].iter().enumerate() {
        t.row(Target::Native, format!("offsetof(struct blkif_sring, {name})"), 4 * index as i128);
    }
    let c = "struct xencons_interface";
    stream(t, c, "in_prod", "in_cons", "in", console::IN);
    stream(t, c, "out_prod", "out_cons", "out", console::OUT);
    let c = "struct xenstore_domain_interface";
    stream(t, c, "req_prod", "req_cons", "req", xenstore::stream::REQUESTS);
    stream(t, c, "rsp_prod", "rsp_cons", "rsp", xenstore::stream::REPLIES);
    values!(t, {
        "sizeof(struct xencons_interface)" = console::LEN,
        "offsetof(struct vchan_interface, left)" = vchan::LEFT,
        "offsetof(struct vchan_interface, right)" = vchan::RIGHT,
        "offsetof(struct ring_shared, cons)" = 0,
        "offsetof(struct ring_shared, prod)" = 4,
        "offsetof(struct vchan_interface, left_order)" = vchan::LEFT_ORDER,
        "offsetof(struct vchan_interface, right_order)" = vchan::RIGHT_ORDER,
        "offsetof(struct vchan_interface, cli_live)" = vchan::CLI_LIVE,
        "offsetof(struct vchan_interface, srv_live)" = vchan::SRV_LIVE,
        "offsetof(struct vchan_interface, cli_notify)" = vchan::CLI_NOTIFY,
        "offsetof(struct vchan_interface, srv_notify)" = vchan::SRV_NOTIFY,
        "offsetof(struct vchan_interface, grants)" = vchan::GRANTS,
        "VCHAN_NOTIFY_WRITE" = vchan::NOTIFY_WRITE,
        "VCHAN_NOTIFY_READ" = vchan::NOTIFY_READ,
        "offsetof(struct flex_data_intf, in_cons)" = flex::IN_CONS,
        "offsetof(struct flex_data_intf, in_prod)" = flex::IN_PROD,
        "offsetof(struct flex_data_intf, out_cons)" = flex::OUT_CONS,
        "offsetof(struct flex_data_intf, out_prod)" = flex::OUT_PROD,
        "offsetof(struct flex_data_intf, ring_order)" = flex::RING_ORDER,
        "offsetof(struct flex_data_intf, ref)" = flex::REF,
    });
    for order in 0..=flex::MAX_ORDER {
        let size = flex::size(order).expect("the order is legal");
        t.row(Target::Native, format!("XEN_FLEX_RING_SIZE({order})"), size);
    }
}

fn store(t: &mut Table) {
    values!(t, {
        "sizeof(struct xsd_sockmsg)" = xenstore::HEADER_LEN,
        "offsetof(struct xsd_sockmsg, type)" = 0,
        "offsetof(struct xsd_sockmsg, req_id)" = 4,
        "offsetof(struct xsd_sockmsg, tx_id)" = 8,
        "offsetof(struct xsd_sockmsg, len)" = 12,
        "XENSTORE_PAYLOAD_MAX" = xenstore::PAYLOAD_MAX,
        "XENSTORE_ABS_PATH_MAX" = xenstore::ABS_PATH_MAX,
        "XENSTORE_REL_PATH_MAX" = xenstore::REL_PATH_MAX,
        "XENSTORE_RING_SIZE" = interface::RING_LEN,
        "sizeof(struct xenstore_domain_interface)" = interface::LEN,
        "offsetof(struct xenstore_domain_interface, req)" = interface::REQ,
        "offsetof(struct xenstore_domain_interface, rsp)" = interface::RSP,
        "offsetof(struct xenstore_domain_interface, req_cons)" = interface::REQ_CONS,
        "offsetof(struct xenstore_domain_interface, req_prod)" = interface::REQ_PROD,
        "offsetof(struct xenstore_domain_interface, rsp_cons)" = interface::RSP_CONS,
        "offsetof(struct xenstore_domain_interface, rsp_prod)" = interface::RSP_PROD,
        "offsetof(struct xenstore_domain_interface, server_features)" = interface::SERVER_FEATURES,
        "offsetof(struct xenstore_domain_interface, connection)" = interface::CONNECTION,
        "offsetof(struct xenstore_domain_interface, error)" = interface::ERROR,
        "XENSTORE_SERVER_FEATURE_RECONNECTION" = interface::SERVER_FEATURE_RECONNECTION,
        "XENSTORE_SERVER_FEATURE_ERROR" = interface::SERVER_FEATURE_ERROR,
        "XENSTORE_CONNECTED" = interface::CONNECTED,
        "XENSTORE_RECONNECT" = interface::RECONNECT,
        "XENSTORE_ERROR_NONE" = interface::ERROR_NONE,
        "XENSTORE_ERROR_COMM" = interface::ERROR_COMM,
        "XENSTORE_ERROR_RINGIDX" = interface::ERROR_RINGIDX,
        "XENSTORE_ERROR_PROTO" = interface::ERROR_PROTO,
    });
    for kind in MessageType::ALL {
        t.row(Target::Native, format!("XS_{}", kind.name()), *kind as i128);
    }
    t.row(
        Target::Native,
        "XS_TYPE_COUNT",
        MessageType::ALL.iter().map(|kind| *kind as i128).max().unwrap_or(0) + 1,
    );
    for state in State::ALL {
        t.row(Target::Native, format!("XenbusState{}", state.name()), state.raw());
    }
}

fn grants(t: &mut Table) {
    use grant_table::op;
    values!(t, {
        "GNTTAB_NR_RESERVED_ENTRIES" = grant_table::NR_RESERVED_ENTRIES,
        "GNTTAB_RESERVED_CONSOLE" = grant_table::RESERVED_CONSOLE,
        "GNTTAB_RESERVED_XENSTORE" = grant_table::RESERVED_XENSTORE,
        "GTF_type_mask" = grant_table::GTF_TYPE_MASK,
        "GTF_invalid" = grant_table::GTF_INVALID,
        "GTF_permit_access" = grant_table::GTF_PERMIT_ACCESS,
        "GTF_accept_transfer" = grant_table::GTF_ACCEPT_TRANSFER,
        "GTF_transitive" = grant_table::GTF_TRANSITIVE,
        "GTF_readonly" = grant_table::GTF_READONLY,
        "GTF_reading" = grant_table::GTF_READING,
        "GTF_writing" = grant_table::GTF_WRITING,
        "GTF_PWT" = grant_table::GTF_PWT,
        "GTF_PCD" = grant_table::GTF_PCD,
        "GTF_PAT" = grant_table::GTF_PAT,
        "GTF_sub_page" = grant_table::GTF_SUB_PAGE,
        "GTF_transfer_committed" = grant_table::GTF_TRANSFER_COMMITTED,
        "GTF_transfer_completed" = grant_table::GTF_TRANSFER_COMPLETED,
        "sizeof(grant_status_t)" = grant_table::STATUS_SIZE,
        "4096 / sizeof(grant_entry_v1_t)" = grant_table::V1_PER_PAGE,
        "4096 / sizeof(grant_entry_v2_t)" = grant_table::V2_PER_PAGE,
        "4096 / sizeof(grant_status_t)" = grant_table::STATUS_PER_PAGE,
        "GNTTABOP_map_grant_ref" = op::MAP_GRANT_REF,
        "GNTTABOP_unmap_grant_ref" = op::UNMAP_GRANT_REF,
        "GNTTABOP_setup_table" = op::SETUP_TABLE,
        "GNTTABOP_dump_table" = op::DUMP_TABLE,
        "GNTTABOP_transfer" = op::TRANSFER,
        "GNTTABOP_copy" = op::COPY,
        "GNTTABOP_query_size" = op::QUERY_SIZE,
        "GNTTABOP_unmap_and_replace" = op::UNMAP_AND_REPLACE,
        "GNTTABOP_set_version" = op::SET_VERSION,
        "GNTTABOP_get_status_frames" = op::GET_STATUS_FRAMES,
        "GNTTABOP_get_version" = op::GET_VERSION,
        "GNTTABOP_swap_grant_ref" = op::SWAP_GRANT_REF,
        "GNTTABOP_cache_flush" = op::CACHE_FLUSH,
        "GNTMAP_device_map" = grant_table::GNTMAP_DEVICE_MAP,
        "GNTMAP_host_map" = grant_table::GNTMAP_HOST_MAP,
        "GNTMAP_readonly" = grant_table::GNTMAP_READONLY,
        "GNTMAP_application_map" = grant_table::GNTMAP_APPLICATION_MAP,
        "GNTMAP_contains_pte" = grant_table::GNTMAP_CONTAINS_PTE,
        "GNTCOPY_source_gref" = grant_table::GNTCOPY_SOURCE_GREF,
        "GNTCOPY_dest_gref" = grant_table::GNTCOPY_DEST_GREF,
        "GNTTAB_CACHE_CLEAN" = grant_table::GNTTAB_CACHE_CLEAN,
        "GNTTAB_CACHE_INVAL" = grant_table::GNTTAB_CACHE_INVAL,
        "GNTTAB_CACHE_SOURCE_GREF" = grant_table::GNTTAB_CACHE_SOURCE_GREF,
    });
    for error in (i16::MIN..=i16::MAX).filter_map(GrantError::from_raw) {
        t.row(Target::Native, error.name(), error as i128);
    }
    t.row(Target::Native, "GNTST_okay", GrantError::status(Ok(())));
}

fn events(t: &mut Table) {
    use event_channel::{op, virq};
    values!(t, {
        "EVTCHNOP_bind_interdomain" = op::BIND_INTERDOMAIN,
        "EVTCHNOP_bind_virq" = op::BIND_VIRQ,
        "EVTCHNOP_bind_pirq" = op::BIND_PIRQ,
        "EVTCHNOP_close" = op::CLOSE,
        "EVTCHNOP_send" = op::SEND,
        "EVTCHNOP_status" = op::STATUS,
        "EVTCHNOP_alloc_unbound" = op::ALLOC_UNBOUND,
        "EVTCHNOP_bind_ipi" = op::BIND_IPI,
        "EVTCHNOP_bind_vcpu" = op::BIND_VCPU,
        "EVTCHNOP_unmask" = op::UNMASK,
        "EVTCHNOP_reset" = op::RESET,
        "EVTCHNOP_init_control" = op::INIT_CONTROL,
        "EVTCHNOP_expand_array" = op::EXPAND_ARRAY,
        "EVTCHNOP_set_priority" = op::SET_PRIORITY,
        "EVTCHNSTAT_closed" = event_channel::EVTCHNSTAT_CLOSED,
        "EVTCHNSTAT_unbound" = event_channel::EVTCHNSTAT_UNBOUND,
        "EVTCHNSTAT_interdomain" = event_channel::EVTCHNSTAT_INTERDOMAIN,
        "EVTCHNSTAT_pirq" = event_channel::EVTCHNSTAT_PIRQ,
        "EVTCHNSTAT_virq" = event_channel::EVTCHNSTAT_VIRQ,
        "EVTCHNSTAT_ipi" = event_channel::EVTCHNSTAT_IPI,
        "EVTCHN_2L_NR_CHANNELS" = event_channel::TWO_LEVEL_NR_CHANNELS,
        "EVTCHN_FIFO_NR_CHANNELS" = event_channel::FIFO_NR_CHANNELS,
        "EVTCHN_FIFO_LINK_BITS" = event_channel::FIFO_LINK_BITS,
        "EVTCHN_FIFO_LINK_MASK" = event_channel::FIFO_LINK_MASK,
        "1U << EVTCHN_FIFO_PENDING" = event_channel::FIFO_PENDING,
        "1U << EVTCHN_FIFO_MASKED" = event_channel::FIFO_MASKED,
        "1U << EVTCHN_FIFO_LINKED" = event_channel::FIFO_LINKED,
        "1U << EVTCHN_FIFO_BUSY" = event_channel::FIFO_BUSY,
        "EVTCHN_FIFO_PRIORITY_MAX" = event_channel::FIFO_PRIORITY_MAX,
        "EVTCHN_FIFO_PRIORITY_DEFAULT" = event_channel::FIFO_PRIORITY_DEFAULT,
        "EVTCHN_FIFO_PRIORITY_MIN" = event_channel::FIFO_PRIORITY_MIN,
        "EVTCHN_FIFO_MAX_QUEUES" = event_channel::FIFO_MAX_QUEUES,
        "4096 / sizeof(event_word_t)" = event_channel::FIFO_WORDS_PER_PAGE,
        "VIRQ_TIMER" = virq::TIMER,
        "VIRQ_DEBUG" = virq::DEBUG,
        "VIRQ_CONSOLE" = virq::CONSOLE,
        "VIRQ_DOM_EXC" = virq::DOM_EXC,
        "VIRQ_TBUF" = virq::TBUF,
        "VIRQ_DEBUGGER" = virq::DEBUGGER,
        "VIRQ_XENOPROF" = virq::XENOPROF,
        "VIRQ_CON_RING" = virq::CON_RING,
        "VIRQ_PCPU_STATE" = virq::PCPU_STATE,
        "VIRQ_MEM_EVENT" = virq::MEM_EVENT,
        "VIRQ_ARGO" = virq::ARGO,
        "VIRQ_ENOMEM" = virq::ENOMEM,
        "VIRQ_XENPMU" = virq::XENPMU,
        "VIRQ_ARCH_0" = virq::ARCH_0,
        "NR_VIRQS" = virq::COUNT,
    });
}

fn hypervisor(t: &mut Table) {
    values!(t, {
        "DOMID_SELF" = DomId::SELF.0,
        "DOMID_FIRST_RESERVED" = DomId::FIRST_RESERVED.0,
        "__HYPERVISOR_memory_op" = hypercall::MEMORY_OP,
        "__HYPERVISOR_multicall" = hypercall::MULTICALL,
        "__HYPERVISOR_set_timer_op" = hypercall::SET_TIMER_OP,
        "__HYPERVISOR_xen_version" = hypercall::XEN_VERSION,
        "__HYPERVISOR_console_io" = hypercall::CONSOLE_IO,
        "__HYPERVISOR_grant_table_op" = hypercall::GRANT_TABLE_OP,
        "__HYPERVISOR_vm_assist" = hypercall::VM_ASSIST,
        "__HYPERVISOR_vcpu_op" = hypercall::VCPU_OP,
        "__HYPERVISOR_xsm_op" = hypercall::XSM_OP,
        "__HYPERVISOR_sched_op" = hypercall::SCHED_OP,
        "__HYPERVISOR_event_channel_op" = hypercall::EVENT_CHANNEL_OP,
        "__HYPERVISOR_physdev_op" = hypercall::PHYSDEV_OP,
        "__HYPERVISOR_hvm_op" = hypercall::HVM_OP,
        "__HYPERVISOR_sysctl" = hypercall::SYSCTL,
        "__HYPERVISOR_domctl" = hypercall::DOMCTL,
        "XEN_LEGACY_MAX_VCPUS" = shared_info::LEGACY_MAX_VCPUS,
        "sizeof(struct vcpu_info)" = shared_info::VCPU_INFO_SIZE,
        "offsetof(struct vcpu_info, evtchn_upcall_pending)" = shared_info::EVTCHN_UPCALL_PENDING,
        "offsetof(struct vcpu_info, evtchn_pending_sel)" = shared_info::EVTCHN_PENDING_SEL,
        "offsetof(struct shared_info, evtchn_pending)" = shared_info::EVTCHN_PENDING,
        "offsetof(struct shared_info, evtchn_mask)" = shared_info::EVTCHN_MASK,
    });
    for errno in (0..4096).filter_map(Errno::from_raw) {
        t.row(Target::Native, format!("XEN_{}", errno.name()), errno as i128);
    }
}
