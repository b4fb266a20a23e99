// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a frontend sees of a backend that works.

mod rig;

use std::os::unix::fs::FileExt;

use rig::{Frontend, Rig, Wanted, pattern};
use ring_proto::blkif::{Abi, Discard, Request, RwOp, Status};
use ring_proto::xenbus::State;
use uring_backend::Options;

const MIB: usize = 1 << 20;

/// Reads, writes and flushes in every way a frontend can be connected.
#[test]
fn data_arrives_however_the_frontend_is_connected() {
    let base = Wanted::default();
    for wanted in [
        base,
        Wanted { persistent: false, ..base },
        Wanted { order: 4, queues: 3, ..base },
        Wanted { order: 2, persistent: false, ..base },
        Wanted { abi: Abi::X86_32, ..base },
    ] {
        for buffered in [false, true] {
            let rig = Rig::new();
            let image = rig.image("disk", 8 * MIB);
            let backend = rig.start(Options { buffered, ..Options::default() });
            rig.plug(&image, &[]);
            let mut front = Frontend::connect(&rig, wanted);
            assert_eq!(front.queues.len(), wanted.queues as usize);
            assert_eq!(front.geometry.sectors, 8 * MIB as u64 / 512);
            let file = std::fs::File::open(&image).unwrap();
            for queue in &mut front.queues {
                for (sector, sectors) in [(0, 1), (3, 5), (8, 88), (100, 2048), (16383, 1)] {
                    let expected = pattern(sector * 512, sectors * 512);
                    let mut bytes = vec![0; sectors * 512];
                    file.read_exact_at(&mut bytes, sector as u64 * 512).unwrap();
                    assert_eq!(queue.read(sector as u64, sectors).unwrap(), bytes, "{wanted:?}");
                    let inverse: Vec<u8> = expected.iter().map(|byte| !byte).collect();
                    assert_eq!(queue.write(RwOp::Write, sector as u64, &inverse), Status::Okay);
                    assert_eq!(queue.read(sector as u64, sectors).unwrap(), inverse);
                    file.read_exact_at(&mut bytes, sector as u64 * 512).unwrap();
                    assert_eq!(bytes, inverse, "{wanted:?}");
                    assert_eq!(queue.write(RwOp::Write, sector as u64, &expected), Status::Okay);
                }
                let id = queue.id();
                assert_eq!(queue.call(&Request::Flush { id, barrier: false }), Status::Okay);
            }
            front.settle(State::Closed, false);
            backend.end().unwrap();
        }
    }
}
