// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is refused because there is too much of it.

use hypervisor_client::{Access, Client};
use hypervisor_hosted::{Error, Hosted, Limits};
use ring_proto::xen::{DomId, Errno};

use crate::{errno, hypervisor, join, try_join};

#[test]
fn each_limit_holds_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { domains: 2, pool_pages: 600, ports: 3, maptrack_frames: 1 };
    let _hosted = Hosted::start_with(dir.path(), limits).unwrap();

    assert_eq!(errno(try_join(&dir, 1, 601)), Errno::E2BIG);
    assert_eq!(errno(try_join(&dir, 1, 0)), Errno::EINVAL);
    assert_eq!(errno(try_join(&dir, 0x7ff0, 1)), Errno::EINVAL, "a reserved id");
    let (front, back) = (try_join(&dir, 1, 600).unwrap(), join(&dir, 2));
    assert_eq!(errno(try_join(&dir, 1, 1)), Errno::EEXIST);
    assert_eq!(errno(try_join(&dir, 3, 1)), Errno::ENOSPC);

    // Every page of the pool can be granted, one by one.
    let grants: Vec<_> =
        (0..600).map(|_| front.grant(DomId(2), 1, Access::ReadWrite).unwrap()).collect();
    let refused = front.grant(DomId(2), 1, Access::ReadWrite).err().unwrap().to_string();
    assert!(refused.contains("from a pool of 600 (0 free"), "{refused}");

    let refs: Vec<_> = grants.iter().flat_map(|grant| grant.refs().to_vec()).collect();
    let _mapped = back.map(DomId(1), &refs[..256], Access::ReadWrite).unwrap();
    assert_eq!(errno(back.map(DomId(1), &refs[256..257], Access::ReadWrite)), Errno::ENOSPC);

    let _ports: Vec<_> = (0..3).map(|_| front.alloc_unbound(DomId(2)).unwrap()).collect();
    assert_eq!(errno(front.alloc_unbound(DomId(2))), Errno::ENOSPC);
}

#[test]
fn a_dead_domain_counts_until_its_pages_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { domains: 2, ..Limits::default() };
    let _hosted = Hosted::start_with(dir.path(), limits).unwrap();
    let (front, back) = (join(&dir, 1), join(&dir, 2));
    let grant = front.grant(DomId(2), 1, Access::ReadWrite).unwrap();
    let mapping = back.map(DomId(1), grant.refs(), Access::ReadWrite).unwrap();
    drop((grant, front));
    assert_eq!(errno(try_join(&dir, 3, 1)), Errno::ENOSPC);
    drop(mapping);
    // The unmap is not waited for; this call is answered after it.
    back.alloc_unbound(DomId(0)).unwrap();
    try_join(&dir, 3, 1).unwrap();
}

#[test]
fn a_directory_has_one_hypervisor() {
    let (dir, hosted) = hypervisor();
    assert!(matches!(Hosted::start(dir.path()), Err(Error::Running(at)) if at == dir.path()));
    drop(hosted);
    // What one that was killed left over is in nobody's way.
    std::fs::write(dir.path().join("hypervisor.sock"), "").unwrap();
    let _hosted = Hosted::start(dir.path()).unwrap();
    join(&dir, 1);
}

#[test]
fn only_this_user_may_connect() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _hosted) = hypervisor();
    for socket in ["hypervisor.sock", "xenstored.sock"] {
        let mode = std::fs::metadata(dir.path().join(socket)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{socket}");
    }
}
