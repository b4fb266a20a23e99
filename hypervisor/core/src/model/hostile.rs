// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guests that write anything anywhere in their pages and make any hypercall with any argument: nothing panics, all
//! counts balance, nothing is left after them.

use std::vec::Vec;

use proptest::prelude::*;
use ring_proto::xen::DomId;
use ring_proto::xen::hypercall::{EVENT_CHANNEL_OP, GRANT_TABLE_OP};

use super::{check, config, domid, end, port};
use crate::hypercall::Buffer;
use crate::machine::{FrameUse, Gfn, Machine, Mfn, PAGE_SIZE};
use crate::ram::Ram;
use crate::{DomainKind, Hypervisor};

#[derive(Clone, Debug)]
enum Op {
    /// Writes a word into one of its frames: memory, tables and shared information alike.
    Write {
        domain: u8,
        frame: prop::sample::Index,
        word: usize,
        value: u32,
    },
    Call {
        domain: u8,
        number: u32,
        command: u32,
        count: u64,
        argument: Vec<u8>,
    },
    Place {
        domain: u8,
        usage: u8,
        gfn: u8,
    },
    Raise {
        domain: u8,
        virq: u32,
    },
    Send(u8, u8),
    Destroy(u8),
    Create(u8, bool),
}

/// Bytes that are more often than not numbers of something: small ones, or few bits.
fn argument() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => Just(0u8), 6 => 0..8u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..96)
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => (0..4u32, 0..4u32).prop_map(|(flags, domain)| flags | domain << 16),
        2 => (0..4u32, 0..16u32, 0..130u32)
            .prop_map(|(high, rest, link)| high << 30 | rest << 26 | link),
        1 => 0..8u32,
        1 => any::<u32>(),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let domain = || 0..3u8;
    let offset = prop_oneof![3 => 0..40usize, 1 => 0..PAGE_SIZE / 4];
    let number = prop_oneof![Just(GRANT_TABLE_OP), Just(EVENT_CHANNEL_OP)];
    let count = prop_oneof![6 => Just(1u64), 1 => 0..4u64, 1 => any::<u64>()];
    prop_oneof![
        12 => (domain(), any::<prop::sample::Index>(), offset, word())
            .prop_map(|(domain, frame, word, value)| Op::Write { domain, frame, word, value }),
        24 => (domain(), number, 0..15u32, count, argument()).prop_map(
            |(domain, number, command, count, argument)| {
                Op::Call { domain, number, command, count, argument }
            }
        ),
        2 => (domain(), 0..4u8, 0..12u8)
            .prop_map(|(domain, usage, gfn)| Op::Place { domain, usage, gfn }),
        1 => (domain(), 0..26u32).prop_map(|(domain, virq)| Op::Raise { domain, virq }),
        4 => (domain(), 0..8u8).prop_map(|(domain, port)| Op::Send(domain, port)),
        1 => domain().prop_map(Op::Destroy),
        1 => (domain(), any::<bool>()).prop_map(|(domain, pvh)| Op::Create(domain, pvh)),
    ]
}

/// The frames that a domain can write: its own, and what it mapped for writing.
fn writable(hv: &Hypervisor<Ram>, id: DomId) -> Vec<Mfn> {
    let own = hv.frames().iter().filter(|(_, frame)| frame.owner() == id).map(|(mfn, _)| mfn);
    let mapped = hv.mappings(id).filter(|(_, _, _, readonly)| !readonly);
    own.chain(mapped.filter_map(|(handle, ..)| hv.mapped_frame(id, handle))).collect()
}

fn run(hv: &mut Hypervisor<Ram>, op: &Op) {
    match op {
        Op::Write { domain, frame, word, value } => {
            let frames = writable(hv, domid(*domain));
            if !frames.is_empty() && !hv.is_dying(domid(*domain)) {
                hv.machine().store(*frame.get(&frames), word * 4, *value);
            }
        }
        Op::Call { domain, number, command, count, argument } => {
            let mut argument = argument.clone();
            let registers = [u64::from(*command), 0, *count, 0, 0];
            let mut memory = Buffer(&mut argument);
            let result = hv.dispatch(domid(*domain), u64::from(*number), &registers, &mut memory);
            assert!((-4095..=0).contains(&result), "{result}");
        }
        Op::Place { domain, usage, gfn } => {
            let usage = match usage {
                0 => FrameUse::SharedInfo,
                1 => FrameUse::GrantStatus(0),
                index => FrameUse::GrantTable(u32::from(index - 2)),
            };
            // Refused or not: what follows from it is what counts.
            let _ = hv.place_frame(domid(*domain), usage, Gfn((*gfn).into()));
        }
        Op::Raise { domain, virq } => {
            hv.raise_virq(domid(*domain), 0, *virq);
        }
        Op::Send(domain, number) => {
            let _ = hv.send(domid(*domain), port(*number));
        }
        Op::Destroy(domain) => {
            let _ = hv.destroy_domain(domid(*domain));
        }
        Op::Create(domain, pvh) => {
            let kind = if *pvh { DomainKind::Pvh } else { DomainKind::Process };
            let _ = hv.create_domain(domid(*domain), &config(kind));
        }
    }
}

proptest! {
    #![proptest_config(super::cases(128))]

    #[test]
    fn nothing_that_guests_do_breaks_the_hypervisor(ops in prop::collection::vec(op(), 1..120)) {
        let mut hv = Hypervisor::new(Ram::new(60));
        for index in 0..3 {
            run(&mut hv, &Op::Create(index, index != 0));
        }
        for op in &ops {
            run(&mut hv, op);
            check(&hv);
        }
        end(&mut hv);
    }
}
