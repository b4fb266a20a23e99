// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Event channels as `event_channel.h` lays them out: operations and their arguments, both ways of delivery.

use crate::wire;

/// Operations of `HYPERVISOR_event_channel_op` (`EVTCHNOP_*`).
pub mod op {
    /// Takes [`BindInterdomain`](super::BindInterdomain).
    pub const BIND_INTERDOMAIN: u32 = 0;
    /// Takes [`BindVirq`](super::BindVirq).
    pub const BIND_VIRQ: u32 = 1;
    /// Takes [`BindPirq`](super::BindPirq).
    pub const BIND_PIRQ: u32 = 2;
    /// Takes [`PortOnly`](super::PortOnly).
    pub const CLOSE: u32 = 3;
    /// Takes [`PortOnly`](super::PortOnly).
    pub const SEND: u32 = 4;
    /// Takes [`Status`](super::Status).
    pub const STATUS: u32 = 5;
    /// Takes [`AllocUnbound`](super::AllocUnbound).
    pub const ALLOC_UNBOUND: u32 = 6;
    /// Takes [`BindIpi`](super::BindIpi).
    pub const BIND_IPI: u32 = 7;
    /// Takes [`BindVcpu`](super::BindVcpu).
    pub const BIND_VCPU: u32 = 8;
    /// Takes [`PortOnly`](super::PortOnly).
    pub const UNMASK: u32 = 9;
    /// Takes [`Reset`](super::Reset).
    pub const RESET: u32 = 10;
    /// Takes [`InitControl`](super::InitControl).
    pub const INIT_CONTROL: u32 = 11;
    /// Takes [`ExpandArray`](super::ExpandArray).
    pub const EXPAND_ARRAY: u32 = 12;
    /// Takes [`SetPriority`](super::SetPriority).
    pub const SET_PRIORITY: u32 = 13;
}

wire! {
    /// Argument of `EVTCHNOP_alloc_unbound`.
    pub struct AllocUnbound {
        /// Whose port.
        pub dom: u16,
        /// Who may bind to it.
        pub remote_dom: u16,
        /// Out: the port.
        pub port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_bind_interdomain`.
    pub struct BindInterdomain {
        /// The other domain.
        pub remote_dom: u16,
        /// Nothing.
        pub pad: u16,
        /// Its unbound port.
        pub remote_port: u32,
        /// Out: the caller's port.
        pub local_port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_bind_virq`.
    pub struct BindVirq {
        /// `VIRQ_*`.
        pub virq: u32,
        /// For which virtual CPU; 0 for a global VIRQ.
        pub vcpu: u32,
        /// Out: the port.
        pub port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_bind_pirq`.
    pub struct BindPirq {
        /// The physical interrupt.
        pub pirq: u32,
        /// `BIND_PIRQ__*`.
        pub flags: u32,
        /// Out: the port.
        pub port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_bind_ipi`.
    pub struct BindIpi {
        /// Which virtual CPU is interrupted.
        pub vcpu: u32,
        /// Out: the port.
        pub port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_close`, `EVTCHNOP_send` and `EVTCHNOP_unmask`.
    pub struct PortOnly {
        /// The caller's port.
        pub port: u32,
    }
}

/// Not in use.
pub const EVTCHNSTAT_CLOSED: u32 = 0;
/// Waits for a peer to bind.
pub const EVTCHNSTAT_UNBOUND: u32 = 1;
/// Connected to a port of a domain.
pub const EVTCHNSTAT_INTERDOMAIN: u32 = 2;
/// Bound to a physical interrupt.
pub const EVTCHNSTAT_PIRQ: u32 = 3;
/// Bound to a virtual interrupt.
pub const EVTCHNSTAT_VIRQ: u32 = 4;
/// Bound to an interrupt between virtual CPUs.
pub const EVTCHNSTAT_IPI: u32 = 5;

wire! {
    /// Argument of `EVTCHNOP_status`.
    pub struct Status {
        /// Whose port.
        pub dom: u16,
        /// Nothing.
        pub pad0: u16,
        /// Which port.
        pub port: u32,
        /// Out: `EVTCHNSTAT_*`.
        pub status: u32,
        /// Out: the virtual CPU that it notifies.
        pub vcpu: u32,
        /// Out: the remote domain in the low 16 bits (unbound, interdomain), the PIRQ, or the VIRQ.
        pub bound_to: u32,
        /// Out: the remote port (interdomain).
        pub remote_port: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_bind_vcpu`.
    pub struct BindVcpu {
        /// The caller's port.
        pub port: u32,
        /// Which virtual CPU it notifies from now on.
        pub vcpu: u32,
    }
}

wire! {
    /// Argument of `EVTCHNOP_reset`.
    pub struct Reset {
        /// Whose ports.
        pub dom: u16,
    }
}

wire! {
    /// Argument of `EVTCHNOP_init_control`.
    pub struct InitControl {
        /// Guest frame of the control block.
        pub control_gfn: u64,
        /// Where in the frame, in bytes: a multiple of eight.
        pub offset: u32,
        /// Whose control block.
        pub vcpu: u32,
        /// Out: [`FIFO_LINK_BITS`].
        pub link_bits: u8,
        /// Nothing.
        pub pad: [u8; 7],
    }
}

wire! {
    /// Argument of `EVTCHNOP_expand_array`.
    pub struct ExpandArray {
        /// Guest frame of the next page of event words.
        pub array_gfn: u64,
    }
}

wire! {
    /// Argument of `EVTCHNOP_set_priority`.
    pub struct SetPriority {
        /// The caller's port.
        pub port: u32,
        /// 0 (highest) to 15.
        pub priority: u32,
    }
}

/// Ports of a 64-bit domain that uses the 2-level way (`EVTCHN_2L_NR_CHANNELS`).
pub const TWO_LEVEL_NR_CHANNELS: u32 = 4096;
/// Ports of a domain that uses the FIFO way (`EVTCHN_FIFO_NR_CHANNELS`).
pub const FIFO_NR_CHANNELS: u32 = 1 << FIFO_LINK_BITS;
/// Width of the link in an event word (`EVTCHN_FIFO_LINK_BITS`).
pub const FIFO_LINK_BITS: u32 = 17;
/// The link in an event word.
pub const FIFO_LINK_MASK: u32 = (1 << FIFO_LINK_BITS) - 1;
/// Event word: the event is pending.
pub const FIFO_PENDING: u32 = 1 << 31;
/// Event word: it must not be delivered.
pub const FIFO_MASKED: u32 = 1 << 30;
/// Event word: it is in a queue.
pub const FIFO_LINKED: u32 = 1 << 29;
/// Event word: a virtual CPU is about to change it.
pub const FIFO_BUSY: u32 = 1 << 28;
/// The highest priority.
pub const FIFO_PRIORITY_MAX: u32 = 0;
/// The priority of a new port.
pub const FIFO_PRIORITY_DEFAULT: u32 = 7;
/// The lowest priority.
pub const FIFO_PRIORITY_MIN: u32 = 15;
/// Queues of a virtual CPU, one for each priority.
pub const FIFO_MAX_QUEUES: usize = 16;
/// Event words in a page.
pub const FIFO_WORDS_PER_PAGE: u32 = 1024;

wire! {
    /// What a virtual CPU shares with the hypervisor (`evtchn_fifo_control_block`).
    pub struct FifoControlBlock {
        /// Bit `n`: queue `n` is not empty.
        pub ready: u32,
        /// Nothing.
        pub rsvd: u32,
        /// The first port of each queue.
        pub head: [u32; FIFO_MAX_QUEUES],
    }
}

/// Virtual interrupts (`VIRQ_*` in `xen.h`).
pub mod virq {
    /// Of each virtual CPU: a timer.
    pub const TIMER: u32 = 0;
    /// Of each virtual CPU: dump what you know.
    pub const DEBUG: u32 = 1;
    /// Global: bytes for the emergency console.
    pub const CONSOLE: u32 = 2;
    /// Global: something happened to a domain.
    pub const DOM_EXC: u32 = 3;
    /// Global: the trace buffer has records.
    pub const TBUF: u32 = 4;
    /// Global: a domain waits for its debugger.
    pub const DEBUGGER: u32 = 6;
    /// Of each virtual CPU: a profile sample.
    pub const XENOPROF: u32 = 7;
    /// Global: the console ring has bytes.
    pub const CON_RING: u32 = 8;
    /// Global: a physical CPU came or went.
    pub const PCPU_STATE: u32 = 9;
    /// Global: something happened to memory.
    pub const MEM_EVENT: u32 = 10;
    /// Global: an Argo message.
    pub const ARGO: u32 = 11;
    /// Global: memory is low.
    pub const ENOMEM: u32 = 12;
    /// Of each virtual CPU: a performance counter.
    pub const XENPMU: u32 = 13;
    /// The first of eight that the architecture defines; all of x86's are global.
    pub const ARCH_0: u32 = 16;
    /// How many there are.
    pub const COUNT: u32 = 24;
}
