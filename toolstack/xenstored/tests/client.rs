// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server as Causeway's own client sees it.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use hypervisor_client::Error;
use hypervisor_client::store::{Store, WatchEvent};
use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{Permission, Rights};
use xenstored::Server;

/// A server, and where domain 0 reaches it.
struct Served {
    server: Server,
    dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("xenstored.sock")).unwrap();
        Self { server: Server::start(listener).unwrap(), dir }
    }

    fn domain_0(&self) -> Store {
        Store::connect(self.dir.path().join("xenstored.sock")).unwrap()
    }

    fn domain(&self, domid: u16) -> Store {
        Store::from_stream(self.server.connect(DomId(domid)).unwrap())
    }
}

/// An event that has to come.
fn event(store: &Store) -> (String, String) {
    let event = store.next_event(Some(Duration::from_secs(20))).unwrap();
    let WatchEvent { path, token } = event.expect("an event within 20 seconds");
    (path, token)
}

/// The store's reason for a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Store { errno, .. }) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

fn list(entries: &[(u16, Rights)]) -> Vec<Permission> {
    entries.iter().map(|&(domid, rights)| Permission::new(DomId(domid), rights)).collect()
}

#[test]
fn values_directories_and_removal() {
    let served = Served::start();
    let store = served.domain_0();
    store.write("/a/b/c", b"x\0y").unwrap();
    assert_eq!(store.read("/a/b/c").unwrap(), b"x\0y");
    assert_eq!(store.read("/a/b").unwrap(), b"");
    store.mkdir("/a/b/c").unwrap();
    store.mkdir("/a/d").unwrap();
    assert_eq!(store.directory("/a").unwrap(), ["b", "d"]);
    store.rm("/a/b").unwrap();
    store.rm("/a/b").unwrap();
    assert_eq!(refused(store.rm("/a/b/c")), Errno::ENOENT);
    assert_eq!(store.try_read("/a/b/c").unwrap(), None);
    assert_eq!(refused(store.read("/a/b/c")), Errno::ENOENT);
    assert_eq!(refused(store.read("/a/")), Errno::EINVAL);
    assert_eq!(refused(store.rm("/")), Errno::EINVAL);
    assert_eq!(refused(store.write("/a", [b'x'; 4096])), Errno::E2BIG);
    store.write("/text", [0xff]).unwrap();
    assert_eq!(refused(store.read_str("/text")), Errno::EILSEQ);
}

#[test]
fn a_long_directory_comes_by_parts() {
    let served = Served::start();
    let store = served.domain_0();
    let names: Vec<_> = (0..1000).map(|n| format!("child-{n:03}")).collect();
    for name in &names {
        store.mkdir(&format!("/a/{name}")).unwrap();
    }
    assert_eq!(store.directory("/a").unwrap(), names);
}

#[test]
fn relative_paths_and_permissions() {
    let served = Served::start();
    let (store, guest, other) = (served.domain_0(), served.domain(3), served.domain(4));
    store.write("/local/domain/3/data", "").unwrap();
    store.set_perms("/local/domain/3/data", &list(&[(3, Rights::None)])).unwrap();

    guest.write("data/key", "value").unwrap();
    assert_eq!(store.read_str("/local/domain/3/data/key").unwrap(), "value");
    assert_eq!(store.get_perms("/local/domain/3/data/key").unwrap(), list(&[(3, Rights::None)]));
    assert_eq!(refused(other.read("/local/domain/3/data/key")), Errno::EACCES);
    assert_eq!(refused(other.read("/local/domain/3/data/none")), Errno::EACCES);
    assert_eq!(refused(guest.read("data/none")), Errno::ENOENT);
    assert_eq!(refused(guest.write("key", "")), Errno::EACCES);

    let shared = list(&[(3, Rights::None), (4, Rights::Read)]);
    guest.set_perms("data/key", &shared).unwrap();
    assert_eq!(other.read("/local/domain/3/data/key").unwrap(), b"value");
    assert_eq!(refused(other.write("/local/domain/3/data/key", "")), Errno::EACCES);
    assert_eq!(refused(other.set_perms("/local/domain/3/data/key", &shared)), Errno::EACCES);
    let given = list(&[(4, Rights::None)]);
    assert_eq!(refused(guest.set_perms("data/key", &given)), Errno::EPERM);
    assert_eq!(refused(guest.set_perms("data/key", &[])), Errno::EINVAL);
}

#[test]
fn watches_tell_of_changes_below() {
    let served = Served::start();
    let (store, writer) = (served.domain_0(), served.domain_0());
    store.watch("/a", "t").unwrap();
    assert_eq!(event(&store), ("/a".into(), "t".into()));
    assert_eq!(refused(store.watch("/a", "t")), Errno::EEXIST);
    writer.write("/a/b", "1").unwrap();
    assert_eq!(event(&store), ("/a/b".into(), "t".into()));
    writer.write("/b", "1").unwrap();
    writer.rm("/a").unwrap();
    assert_eq!(event(&store), ("/a".into(), "t".into()));
    store.unwatch("/a", "t").unwrap();
    assert_eq!(refused(store.unwatch("/a", "t")), Errno::ENOENT);
    writer.write("/a/b", "2").unwrap();
    // What the writer did is done, so an event would be on its way before this reply.
    store.read("/a/b").unwrap();
    assert_eq!(store.pending_event().unwrap(), None);
}

#[test]
fn a_relative_watch_and_a_change_unseen() {
    let served = Served::start();
    let (store, guest) = (served.domain_0(), served.domain(3));
    store.write("/local/domain/3/device", "").unwrap();
    store.set_perms("/local/domain/3/device", &list(&[(3, Rights::None)])).unwrap();
    guest.watch("device", "mine").unwrap();
    guest.watch("/secret", "not mine").unwrap();
    assert_eq!(event(&guest), ("device".into(), "mine".into()));
    assert_eq!(event(&guest), ("/secret".into(), "not mine".into()));
    store.write("/secret", "").unwrap();
    store.write("/local/domain/3/device/vbd", "").unwrap();
    assert_eq!(event(&guest), ("device/vbd".into(), "mine".into()));
}

#[test]
fn transactions_are_all_or_nothing() {
    let served = Served::start();
    let (store, other) = (served.domain_0(), served.domain_0());
    store.watch("/a", "t").unwrap();
    event(&store);

    let mut runs = 0;
    let sum = store.transaction(|tx| {
        runs += 1;
        let number: u32 =
            tx.try_read("/n")?.map_or(0, |n| String::from_utf8(n).unwrap().parse().unwrap());
        tx.write("/a/1", "")?;
        tx.write("/a/2", "")?;
        if runs == 1 {
            other.write("/n", "40").unwrap();
            assert_eq!(refused(other.read("/a/1")), Errno::ENOENT);
        }
        tx.write("/n", (number + 2).to_string())?;
        Ok(number + 2)
    });
    assert_eq!((sum.unwrap(), runs), (42, 2));
    assert_eq!(store.read_str("/n").unwrap(), "42");
    assert_eq!(event(&store).0, "/a/1");
    assert_eq!(event(&store).0, "/a/2");

    let failed = store.transaction(|tx| {
        tx.rm("/a")?;
        tx.read("/none")
    });
    assert_eq!(refused(failed), Errno::ENOENT);
    assert_eq!(store.directory("/a").unwrap(), ["1", "2"]);
    assert_eq!(store.pending_event().unwrap(), None);

    let hopeless = store.transaction(|tx| {
        tx.read("/n")?;
        other.write("/n", "again")
    });
    assert_eq!(refused(hopeless), Errno::EAGAIN);
}

#[test]
fn domains_come_and_go() {
    let served = Served::start();
    let store = served.domain_0();
    store.watch("@introduceDomain", "in").unwrap();
    store.watch("@releaseDomain", "out").unwrap();
    assert_eq!((event(&store).1, event(&store).1), ("in".into(), "out".into()));
    let guest = served.domain(5);
    served.server.introduce(DomId(5)).unwrap();
    assert_eq!(event(&store).1, "in");
    store.write("/local/domain/5/name", "five").unwrap();
    served.server.release(DomId(5)).unwrap();
    assert_eq!(event(&store).1, "out");
    assert!(matches!(guest.read("name"), Err(Error::Gone(_))));
    assert_eq!(store.read("/local/domain/5/name").unwrap(), b"five");
}

#[test]
fn the_end_of_the_server_is_told() {
    let served = Served::start();
    let (store, guest) = (served.domain_0(), served.domain(1));
    store.mkdir("/a").unwrap();
    let Served { server, dir } = served;
    drop(server);
    assert!(matches!(store.read("/a"), Err(Error::Gone(_))));
    assert!(matches!(guest.next_event(None), Err(Error::Gone(_))));
    assert!(dir.path().join("xenstored.sock").exists());
    assert!(matches!(Store::connect(dir.path().join("xenstored.sock")), Err(Error::Io { .. })));
}
