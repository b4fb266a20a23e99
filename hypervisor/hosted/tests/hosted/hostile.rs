// SPDX-License-Identifier: MIT OR Apache-2.0

//! Domains that break the protocol: they are disconnected, and nobody else notices.

use std::os::fd::{AsFd, OwnedFd};

use hypervisor_client::hosted::protocol::{
    ANY_DOMID, Answer, Join, Joined, MAX_MESSAGE, Pool, PoolFound, QUIET, Request, VERSION, kind,
    message, message_of,
};
use hypervisor_client::hosted::socket;
use hypervisor_client::mapped::Mapped;
use hypervisor_client::{Access, Client};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring_proto::shared::{SharedMemory, Wire, bytes_of, from_bytes};
use ring_proto::xen::grant_table::{GNTMAP_DEVICE_MAP, MapGrantRef, op};
use ring_proto::xen::{DomId, Errno, GrantRef, hypercall};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::TempDir;

use crate::{errno, hypervisor, join};

/// A connection that says what it likes.
struct Raw(OwnedFd);

/// What the daemon made of a message.
#[derive(Debug, PartialEq)]
enum Reaction {
    Answered(i64),
    Disconnected,
}

impl Raw {
    fn open(dir: &TempDir) -> Self {
        let address = SocketAddrUnix::new(dir.path().join("hypervisor.sock")).unwrap();
        let kind = SocketType::SEQPACKET;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Self(socket)
    }

    fn joined(dir: &TempDir) -> Self {
        let raw = Self::open(dir);
        assert_eq!(raw.say(&request(kind::JOIN, bytes_of(&join_body()))), Reaction::Answered(0));
        raw
    }

    /// Sends a message and waits for what comes of it.
    fn say(&self, bytes: &[u8]) -> Reaction {
        self.exchange(bytes)
            .map_or(Reaction::Disconnected, |(result, _, _)| Reaction::Answered(result))
    }

    fn exchange(&self, bytes: &[u8]) -> Option<(i64, Vec<u8>, Vec<OwnedFd>)> {
        // The daemon may have closed before.
        let _ = socket::send(&self.0, bytes, &[], SendFlags::empty());
        self.answer()
    }

    fn answer(&self) -> Option<(i64, Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = socket::buffer();
        let packet = socket::receive(&self.0, &mut buffer, RecvFlags::empty()).ok()??;
        let answer: Answer = from_bytes(packet.bytes).unwrap();
        Some((answer.result as i64, packet.bytes[size_of::<Answer>()..].to_vec(), packet.fds))
    }
}

fn request(kind: u32, body: &[u8]) -> Vec<u8> {
    message(&Request { kind, ..Request::default() }, body)
}

fn hypercall_bytes<T: Wire>(
    number: u32,
    command: u32,
    count: u32,
    flags: u32,
    arguments: &[T],
) -> Vec<u8> {
    message_of(&Request { kind: kind::HYPERCALL, flags, number, command, count, pad: 0 }, arguments)
}

fn join_body() -> Join {
    Join { version: VERSION, domid: ANY_DOMID, pool_pages: 1, ..Join::default() }
}

fn minus(errno: Errno) -> Reaction {
    Reaction::Answered(-i64::from(errno as i32))
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let (dir, _hosted) = hypervisor();
    let body = |change: fn(&mut Join)| {
        let mut join = join_body();
        change(&mut join);
        request(kind::JOIN, bytes_of(&join))
    };
    let before_joining = [
        ("too short", vec![1; size_of::<Request>() - 1]),
        ("too long", vec![1; MAX_MESSAGE + 1]),
        ("no such kind", request(99, &[])),
        ("not joined", request(kind::STORE, &[])),
        ("short body", request(kind::JOIN, &[0; 8])),
        ("version", body(|join| join.version += 1)),
        ("length of the name", body(|join| join.name_len = 65)),
        ("not UTF-8", body(|join| (join.name_len, join.name[0]) = (1, 0xff))),
    ];
    for (what, bytes) in before_joining {
        assert_eq!(Raw::open(&dir).say(&bytes), Reaction::Disconnected, "{what}");
    }
    let joined = [
        ("joins twice", request(kind::JOIN, bytes_of(&join_body()))),
        ("no such kind", request(0, &[])),
        ("short body", request(kind::POOL, &[0; 3])),
    ];
    for (what, bytes) in joined {
        assert_eq!(Raw::joined(&dir).say(&bytes), Reaction::Disconnected, "{what}");
    }
    let with_fd = Raw::joined(&dir);
    let store = request(kind::STORE, &[]);
    socket::send(&with_fd.0, &store, &[with_fd.0.as_fd()], SendFlags::empty()).unwrap();
    assert!(with_fd.answer().is_none(), "a descriptor that nobody asked for");

    join(&dir, 3).alloc_unbound(DomId(2)).unwrap();
}

#[test]
fn hypercalls_that_make_no_sense_are_answered_with_xens_reasons() {
    let (dir, _hosted) = hypervisor();
    let raw = Raw::joined(&dir);
    let map = [MapGrantRef::default()];
    let grant_op = hypercall::GRANT_TABLE_OP;
    assert_eq!(raw.say(&hypercall_bytes::<u32>(999, 0, 0, 0, &[])), minus(Errno::ENOSYS));
    assert_eq!(raw.say(&hypercall_bytes(grant_op, 999, 1, 0, &map)), minus(Errno::ENOSYS));
    assert_eq!(
        raw.say(&hypercall_bytes(grant_op, op::MAP_GRANT_REF, 2, 0, &map)),
        minus(Errno::EFAULT)
    );
    assert_eq!(
        raw.say(&hypercall_bytes(grant_op, op::MAP_GRANT_REF, u32::MAX, 0, &map)),
        minus(Errno::EINVAL)
    );
    assert_eq!(
        raw.say(&hypercall_bytes(grant_op, op::MAP_GRANT_REF, 0x7fff_ffff, 0, &map)),
        minus(Errno::EFAULT)
    );
    // A pool of which nothing is mapped, and one that is not there.
    let own = Pool { mfn: 1, writable: 0, pad: 0 };
    assert_eq!(raw.say(&request(kind::POOL, bytes_of(&own))), minus(Errno::EACCES));
    let nowhere = Pool { mfn: u64::MAX, writable: 1, pad: 0 };
    assert_eq!(raw.say(&request(kind::POOL, bytes_of(&nowhere))), minus(Errno::ENOENT));
}

#[test]
fn whoever_does_not_read_answers_is_disconnected() {
    let (dir, _hosted) = hypervisor();
    let raw = Raw::joined(&dir);
    let flood =
        hypercall_bytes(hypercall::GRANT_TABLE_OP, 999, 1, 0, &[MapGrantRef::default(); 1000]);
    // Unanswered answers fill the socket's buffer, and then the daemon closes it.
    let mut sent = 0;
    while socket::send(&raw.0, &flood, &[], SendFlags::empty()).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "the daemon answers without end");
    }
    join(&dir, 3).alloc_unbound(DomId(2)).unwrap();
}

#[test]
fn a_doorbell_that_blocks_does_not_stop_the_daemon() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    // Full, so that a write waits until somebody reads it; and nobody will.
    rustix::io::write(near.as_fd(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::fs::fcntl_setfl(near.as_fd(), rustix::fs::OFlags::empty()).unwrap();
    drop(far);
    back.alloc_unbound(DomId(3)).unwrap();
    join(&dir, 4).alloc_unbound(DomId(3)).unwrap();
}

#[test]
fn a_grant_entry_cannot_name_what_is_not_its_own() {
    let (dir, _hosted) = hypervisor();
    let back = join(&dir, 2);
    let raw = Raw::open(&dir);
    let (result, body, fds) = raw.exchange(&request(kind::JOIN, bytes_of(&join_body()))).unwrap();
    assert_eq!(result, 0);
    let domid = DomId(from_bytes::<Joined>(&body).unwrap().domid as u16);
    let table = Mapped::file(&fds[1], 1, Access::ReadWrite).unwrap();
    let entry = |frame: u32| {
        table.store(8 * 8 + 4, frame);
        table.store_release(8 * 8, 1 | 2 << 16);
    };
    for frame in [1, 2, 1000, u32::MAX] {
        entry(frame);
        assert_eq!(
            errno(back.map(domid, &[GrantRef(8)], Access::ReadWrite)),
            Errno::EINVAL,
            "frame {frame}"
        );
    }
    entry(0);
    let mapping = back.map(domid, &[GrantRef(8)], Access::ReadWrite).unwrap();
    // Whatever it writes there now, the peer keeps what it has.
    entry(u32::MAX);
    mapping.store(0, 7);
    let pool = Mapped::file(&fds[0], 1, Access::ReadOnly).unwrap();
    assert_eq!(pool.load(0), 7);
    // Neither file can be shrunk under those who map it.
    for fd in &fds {
        assert_eq!(rustix::fs::ftruncate(fd, 0), Err(rustix::io::Errno::PERM));
    }
}

#[test]
fn a_peer_gets_no_more_of_a_pool_than_was_granted() {
    let (dir, _hosted) = hypervisor();
    let front = join(&dir, 3);
    let raw = Raw::open(&dir);
    let (_, body, _) = raw.exchange(&request(kind::JOIN, bytes_of(&join_body()))).unwrap();
    let domid = DomId(from_bytes::<Joined>(&body).unwrap().domid as u16);
    let grant = front.grant(domid, 1, Access::ReadOnly).unwrap();
    let map = MapGrantRef {
        flags: GNTMAP_DEVICE_MAP | ring_proto::xen::grant_table::GNTMAP_READONLY,
        gref: grant.refs()[0].0,
        dom: 3,
        ..MapGrantRef::default()
    };
    let bytes = hypercall_bytes(hypercall::GRANT_TABLE_OP, op::MAP_GRANT_REF, 1, 0, &[map]);
    let (result, body, _) = raw.exchange(&bytes).unwrap();
    let map: MapGrantRef = from_bytes(&body).unwrap();
    assert_eq!((result, map.status), (0, 0));
    let mut wish = Pool { mfn: map.dev_bus_addr / 4096, writable: 1, pad: 0 };
    assert_eq!(raw.say(&request(kind::POOL, bytes_of(&wish))), minus(Errno::EACCES));
    wish.writable = 0;
    let (result, _, fds) = raw.exchange(&request(kind::POOL, bytes_of(&wish))).unwrap();
    assert_eq!(result, 0);
    let (_, found, _) = raw.exchange(&request(kind::POOL, bytes_of(&wish))).unwrap();
    let found: PoolFound = from_bytes(&found).unwrap();
    // The frames after the pool's are those of its domain's grant table: they are not to be had.
    let table = Pool { mfn: found.base_mfn + found.pages, ..wish };
    assert_eq!(raw.say(&request(kind::POOL, bytes_of(&table))), minus(Errno::ENOENT));
    let denied = Mapped::file(&fds[0], 64, Access::ReadWrite).unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);
    Mapped::file(&fds[0], 64, Access::ReadOnly).unwrap();
}

/// Messages that are right in some places and wrong in others.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![0u32..40, any::<u32>()];
    let body =
        prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..8, 1 => any::<u8>()], 0..64);
    let number = prop_oneof![
        Just(hypercall::GRANT_TABLE_OP),
        Just(hypercall::EVENT_CHANNEL_OP),
        word.clone()
    ];
    let kind = prop_oneof![6 => Just(kind::HYPERCALL), 1 => 0u32..6];
    (kind, number, 0u32..16, word, body, any::<bool>()).prop_map(
        |(kind, number, command, count, body, quiet)| {
            let flags = if quiet { QUIET } else { 0 };
            message(&Request { kind, flags, number, command, count, pad: 0 }, &body)
        },
    )
}

#[test]
fn garbage_harms_nobody_else() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 1, Access::ReadWrite).unwrap();
    let near = front.alloc_unbound(DomId(2)).unwrap();
    let far = back.bind_interdomain(DomId(3), near.port()).unwrap();
    let mapping = back.map(DomId(3), grant.refs(), Access::ReadWrite).unwrap();
    far.wait(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(32)
    });
    runner
        .run(&prop::collection::vec(messages(), 1..30), |messages| {
            let raw = Raw::joined(&dir);
            for bytes in messages {
                if socket::send(&raw.0, &bytes, &[], SendFlags::DONTWAIT).is_err() {
                    break;
                }
            }
            grant.store(0, 1);
            prop_assert_eq!(mapping.load(0), 1);
            near.notify().unwrap();
            prop_assert!(far.wait(Some(std::time::Duration::from_secs(20))).unwrap());
            front.alloc_unbound(DomId(2)).unwrap();
            Ok(())
        })
        .unwrap();
}
