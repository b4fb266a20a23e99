// SPDX-License-Identifier: MIT OR Apache-2.0

//! What domains grant to each other, and what is refused.

use std::sync::Arc;

use hypervisor_client::{Access, Client, CopyDirection, GrantCopy};
use ring_proto::shared::{AsRegion, PAGE_SIZE, SharedMemory};
use ring_proto::xen::{DomId, Errno, GrantRef};

use crate::{errno, hypervisor, join};

#[test]
fn both_see_what_the_other_wrote() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 4, Access::ReadWrite).unwrap();
    let mapping = back.map(DomId(3), grant.refs(), Access::ReadWrite).unwrap();
    assert_eq!(mapping.len(), 4 * PAGE_SIZE);
    assert_eq!(mapping.backing().unwrap().len(), 64 * PAGE_SIZE);
    for page in 0..4 {
        grant.store(page * PAGE_SIZE, 7 + page as u32);
        assert_eq!(mapping.load(page * PAGE_SIZE), 7 + page as u32);
        mapping.store(page * PAGE_SIZE + 4, 70);
        assert_eq!(grant.load(page * PAGE_SIZE + 4), 70);
    }
}

#[test]
fn all_mappings_of_a_peer_lie_in_one() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grants: Vec<_> =
        (0..8).map(|_| front.grant(DomId(2), 1, Access::ReadWrite).unwrap()).collect();
    let map = |access| grants.iter().map(move |grant| (grant, access));
    let mappings: Vec<_> = map(Access::ReadWrite)
        .chain(map(Access::ReadOnly))
        .map(|(grant, access)| back.map(DomId(3), grant.refs(), access).unwrap())
        .collect();
    let (writable, readable) = mappings.split_at(8);
    for same in [writable, readable] {
        let backing = same[0].backing().unwrap();
        for (mapping, grant) in same.iter().zip(&grants) {
            assert!(Arc::ptr_eq(mapping.backing().unwrap(), backing));
            grant.store(8, 70);
            assert_eq!(mapping.load(8), 70);
        }
    }
    assert!(!Arc::ptr_eq(writable[0].backing().unwrap(), readable[0].backing().unwrap()));
}

#[test]
fn pages_that_are_not_adjacent_are_put_side_by_side() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 4, Access::ReadWrite).unwrap();
    let mut refs = grant.refs().to_vec();
    refs.reverse();
    let mapping = back.map(DomId(3), &refs, Access::ReadWrite).unwrap();
    assert!(mapping.backing().is_none());
    for page in 0..4 {
        grant.store(page * PAGE_SIZE, page as u32);
        assert_eq!(mapping.load((3 - page) * PAGE_SIZE), page as u32);
    }
}

#[test]
fn refusals_name_the_reason() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let for_other = front.grant(DomId(9), 1, Access::ReadWrite).unwrap();
    let for_reading = front.grant(DomId(2), 1, Access::ReadOnly).unwrap();
    let map = |peer, gref, access| errno(back.map(DomId(peer), &[gref], access));
    let read_only = for_reading.refs()[0];
    assert_eq!(map(3, for_other.refs()[0], Access::ReadOnly), Errno::EINVAL);
    assert_eq!(map(3, read_only, Access::ReadWrite), Errno::EINVAL);
    assert_eq!(map(3, GrantRef(100), Access::ReadOnly), Errno::EINVAL, "not granted");
    assert_eq!(map(3, GrantRef(512), Access::ReadOnly), Errno::ENOENT, "beyond the table");
    assert_eq!(map(3, GrantRef(u32::MAX), Access::ReadOnly), Errno::ENOENT);
    assert_eq!(map(77, read_only, Access::ReadOnly), Errno::ESRCH);
    // One that is refused leaves nothing mapped.
    assert_eq!(
        errno(back.map(DomId(3), &[read_only, GrantRef(100)], Access::ReadOnly)),
        Errno::EINVAL
    );
    drop(for_reading);
    // The unmap is not waited for; this call is answered after it.
    back.alloc_unbound(DomId(3)).unwrap();
    assert_eq!(front.waiting_pages(), 0);
}

#[test]
fn copies_have_a_status_each() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 1, Access::ReadOnly).unwrap();
    let own = back.grant(DomId(9), 1, Access::ReadOnly).unwrap();
    grant.copy_in(100, b"hello");
    let local = own.as_region().part(0, 5).unwrap();
    let gref = grant.refs()[0];
    let copy =
        |gref, offset, direction| GrantCopy { gref, offset, local, direction, status: Ok(()) };
    let mut copies = [
        copy(gref, 100, CopyDirection::FromPeer),
        copy(gref, 100, CopyDirection::ToPeer),
        copy(GrantRef(99), 0, CopyDirection::FromPeer),
        copy(gref, 4092, CopyDirection::FromPeer),
    ];
    back.copy(DomId(3), &mut copies).unwrap();
    assert_eq!(
        copies.map(|copy| copy.status),
        [Ok(()), Err(Errno::EINVAL), Err(Errno::EINVAL), Err(Errno::EINVAL)]
    );
    let mut bytes = [0; 5];
    own.copy_out(0, &mut bytes);
    assert_eq!(&bytes, b"hello");
}

#[test]
fn mapped_pages_are_not_granted_anew() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grant = front.grant(DomId(2), 60, Access::ReadWrite).unwrap();
    let mapping = back.map(DomId(3), grant.refs(), Access::ReadWrite).unwrap();
    drop(grant);
    assert_eq!(front.waiting_pages(), 60);
    assert_eq!(errno(front.grant(DomId(2), 5, Access::ReadWrite)), Errno::ENOSPC);
    drop(mapping);
    // The unmap is not waited for; this call is answered after it.
    back.alloc_unbound(DomId(3)).unwrap();
    assert_eq!(front.waiting_pages(), 0);
    front.grant(DomId(2), 64, Access::ReadWrite).unwrap();
}

#[test]
fn threads_that_map_at_once_share_one_mapping() {
    let (dir, _hosted) = hypervisor();
    let (front, back) = (join(&dir, 3), join(&dir, 2));
    let grants: Vec<_> =
        (0..8).map(|_| front.grant(DomId(2), 1, Access::ReadWrite).unwrap()).collect();
    for _ in 0..20 {
        let map = |refs| back.map(DomId(3), refs, Access::ReadWrite).unwrap();
        let mappings: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                grants.iter().map(|grant| scope.spawn(|| map(grant.refs()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = mappings[0].backing().unwrap();
        assert!(mappings.iter().all(|mapping| Arc::ptr_eq(mapping.backing().unwrap(), first)));
    }
}
