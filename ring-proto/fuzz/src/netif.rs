// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Packets as chains of slots, and the control ring.

use ring_proto::netif::{
    RawCtrlRequest, RawCtrlResponse, RawRxRequest, RawRxResponse, RawTxRequest, RawTxResponse,
    RxItem, TxItem, TxStatus,
};
use ring_proto::ring::{BackRing, FrontRing};
use ring_proto::shared::{PAGE_SIZE, zeroed};

use crate::memory::Play;

/// A backend takes packets to send, and calls of the control ring.
pub fn back(data: &[u8]) {
    let play = Play::new(data);
    let [kind, fatal_slots, steps @ ..] = play.steps else { return };
    let memory = play.memory(PAGE_SIZE);
    if kind & 1 != 0 {
        let ring = BackRing::<_, RawCtrlRequest, RawCtrlResponse>::attach(memory);
        let Ok(mut ring) = ring else { return };
        for _ in steps {
            let Ok(request) = ring.pop() else { return };
            if let Some(request) = request {
                let _ = request.check();
                ring.push(&zeroed()).expect("a request taken can be answered");
            }
        }
        return;
    }
    let Ok(mut ring) = BackRing::<_, RawTxRequest, RawTxResponse>::attach(memory) else { return };
    for _ in steps {
        let before = ring.unanswered();
        let (item, slots) = match TxItem::gather(*fatal_slots, || ring.pop()) {
            Err(_) => return,
            Ok(None) => continue,
            Ok(Some(item)) => {
                let slots = match &item {
                    TxItem::Packet(packet) => packet.slots(),
                    TxItem::Multicast(_, slots) | TxItem::Dropped(_, slots) => *slots,
                };
                (item, slots)
            }
        };
        if let TxItem::Packet(packet) = item {
            assert!((1..=18).contains(&packet.fragments().len()));
            for fragment in packet.fragments() {
                let end = usize::from(fragment.offset()) + usize::from(fragment.size());
                assert!(end <= PAGE_SIZE, "a fragment beyond its page");
            }
            let sum: u32 = packet.fragments().iter().map(|part| u32::from(part.size())).sum();
            assert_eq!(sum, u32::from(packet.size()));
        }
        let taken = ring.unanswered() - before;
        let responses: Vec<_> = slots.responses(TxStatus::Okay).collect();
        assert_eq!(responses.len(), taken as usize, "a slot is answered more or less than once");
        for response in &responses {
            ring.push(response).expect("a slot taken can be answered");
        }
        let _ = ring.publish();
    }
}

/// A frontend takes packets received.
pub fn front(data: &[u8]) {
    let play = Play::new(data);
    let memory = play.memory(PAGE_SIZE);
    let Ok(mut ring) = FrontRing::<_, RawRxRequest, RawRxResponse>::new(memory) else { return };
    for _ in play.steps {
        while ring.free() > 0 {
            ring.push(&zeroed()).expect("there is room");
        }
        let _ = ring.publish();
        let before = ring.outstanding();
        match RxItem::gather(|| ring.pop()) {
            Err(_) => return,
            Ok(None) => {}
            Ok(Some(RxItem::Failed(slots))) => {
                assert_eq!(u32::from(slots), before - ring.outstanding());
            }
            Ok(Some(RxItem::Packet(packet))) => {
                assert_eq!(u32::from(packet.slots()), before - ring.outstanding());
                for part in packet.fragments() {
                    assert!(usize::from(part.offset()) + usize::from(part.size()) <= PAGE_SIZE);
                }
            }
        }
    }
}
