// SPDX-License-Identifier: MIT OR Apache-2.0

//! The same requests to Xen's own store and to this one: the same answers, errors and events.
//!
//! Xen's runs without Xen with a little help (`without_xen.c`). It serves a socket then and no rings, so all requests are
//! domain 0's. Needs the Debian package xen-utils-4.17, and a C compiler:
//! `cargo test -p xenstored --features stock-xenstored`.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use proptest::prelude::*;
use ring_proto::xen::Errno;
use ring_proto::xenstore::MessageType as M;
use xenstored::Server;

use crate::wire::Wire;

/// Xen's store as a child process.
struct Stock {
    child: Child,
    dir: tempfile::TempDir,
}

/// Where Debian has it, or where `STOCK_XENSTORED` says.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("STOCK_XENSTORED") {
        return path.into();
    }
    let folders = std::fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("bin/xenstored"));
    folders
        .filter(|path| path.exists())
        .max()
        .expect("no /usr/lib/xen-*/bin/xenstored: install the Debian package xen-utils-4.17, or set STOCK_XENSTORED")
}

impl Stock {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, library) =
            (dir.path().join("without_xen.c"), dir.path().join("without_xen.so"));
        std::fs::write(&source, include_str!("without_xen.c")).unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .status();
        assert!(compiled.expect("cc: install the Debian package gcc").success());
        let child = Command::new(program())
            .args(["-N", "-R", "--internal-db=on"])
            .env("XENSTORED_PATH", dir.path().join("socket"))
            .env("XENSTORED_RUNDIR", dir.path())
            .env("LD_PRELOAD", library)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn connect(&self) -> Wire {
        // It tells nobody when it listens.
        for _ in 0..500 {
            if let Ok(stream) = UnixStream::connect(self.dir.path().join("socket")) {
                return Wire::new(stream);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("Xen's store did not listen within 5 seconds");
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn ours(dir: &Path) -> (Server, Vec<Wire>) {
    let path = dir.join("ours");
    let server = Server::start(UnixListener::bind(&path).unwrap()).unwrap();
    (server, (0..2).map(|_| Wire::new(UnixStream::connect(&path).unwrap())).collect())
}

/// Children come in no particular order.
fn sorted(kind: M, answer: Result<Vec<u8>, Errno>) -> Result<Vec<Vec<u8>>, Errno> {
    answer.map(|payload| match kind {
        M::Directory => {
            let mut names: Vec<_> =
                payload.split(|byte| *byte == 0).map(<[u8]>::to_owned).collect();
            names.sort();
            names
        }
        _ => vec![payload],
    })
}

/// A request of one of two clients: which, its type, whether in a transaction, and the payload.
type Request = (usize, M, u32, Vec<u8>);

fn request() -> impl Strategy<Value = Request> {
    let path = || {
        let paths = &["/", "/a", "/a/b", "/a/b/c", "/a-b", "/d/e", "a", "/local/domain/0/a"][..];
        let odd =
            &["", "//", "/a/", "/a//b", "/a b", "@releaseDomain", "@introduceDomain", "T", "F"][..];
        prop_oneof![8 => prop::sample::select(paths), 2 => prop::sample::select(odd)]
            .prop_map(str::to_owned)
    };
    let permission = "[nrwb][0-3]|x1|r";
    let with = |kind: M| move |text: String| (kind, text.into_bytes());
    let call = prop_oneof![
        4 => path().prop_map(|path| path + "\0").prop_map(with(M::Read)),
        3 => path().prop_map(|path| path + "\0").prop_map(with(M::Directory)),
        2 => path().prop_map(|path| path + "\0").prop_map(with(M::GetPerms)),
        3 => path().prop_map(|path| path + "\0").prop_map(with(M::Mkdir)),
        3 => path().prop_map(|path| path + "\0").prop_map(with(M::Rm)),
        6 => (path(), "[a-z]{0,3}").prop_map(|(path, value)| path + "\0" + &value).prop_map(with(M::Write)),
        3 => (path(), prop::collection::vec(permission, 0..4)).prop_map(|(path, list)| {
            list.into_iter().fold(path + "\0", |all, entry| all + &entry + "\0")
        }).prop_map(with(M::SetPerms)),
        2 => (path(), "[s-u]").prop_map(|(path, token)| path + "\0" + &token + "\0").prop_map(with(M::Watch)),
        1 => (path(), "[s-u]").prop_map(|(path, token)| path + "\0" + &token + "\0").prop_map(with(M::Unwatch)),
        3 => Just((M::TransactionStart, b"\0".to_vec())),
        3 => prop::sample::select(&["T\0", "T\0", "T\0", "F\0", "X\0", "T", ""][..])
            .prop_map(|end| (M::TransactionEnd, end.into())),
        1 => Just((M::ResetWatches, b"\0".to_vec())),
        1 => "0|7|[1-9]{3}".prop_map(|domid| domid + "\0").prop_map(with(M::GetDomainPath)),
        1 => (prop::sample::select(&[M::Write, M::Watch, M::SetPerms][..]), ".{1,3}")
            .prop_map(|(kind, text)| (kind, text.into_bytes())),
    ];
    // Xen's store takes an empty payload on a socket for the end of the connection.
    let call = call.prop_filter("no payload", |call| !call.1.is_empty());
    (0usize..2, call, prop::bool::weighted(0.6), 0u32..3).prop_map(
        |(client, (kind, payload), inside, id)| {
            (client, kind, if inside { 0 } else { id }, payload)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_answer_the_same(requests in prop::collection::vec(request(), 1..120)) {
        let stock = Stock::start();
        let mut theirs = [stock.connect(), stock.connect()];
        let (_server, mut ours) = ours(stock.dir.path());
        // Xen's store begins with a few nodes, this one with none.
        for name in theirs[0].ask_on(M::Directory, "/").unwrap().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            theirs[0].ask_on(M::Rm, &format!("/{}", std::str::from_utf8(name).unwrap())).unwrap();
        }
        // Which transactions are open, by both stores' names for them.
        let mut open: [Vec<(u32, u32)>; 2] = Default::default();
        for (client, kind, slot, payload) in requests {
            // Xen's store takes its snapshot of a node when a transaction first looks at it, this one of all nodes at
            // the start. So that it makes no difference, nobody interferes with a transaction here.
            let busy = open.iter().position(|open| !open.is_empty());
            let (client, slot) = busy.map_or((client, slot), |client| (client, slot.max(1)));
            // A transaction that there is not goes by 77.
            let (their_id, our_id) = match slot {
                0 => (0, 0),
                slot => open[client].get(slot as usize - 1).copied().unwrap_or((77, 77)),
            };
            let expected = sorted(kind, theirs[client].ask(kind, their_id, &payload));
            let answer = sorted(kind, ours[client].ask(kind, our_id, &payload));
            let id = |answer: &Vec<Vec<u8>>| {
                std::str::from_utf8(&answer[0]).unwrap().trim_end_matches('\0').parse::<u32>().unwrap()
            };
            match (kind, &expected, &answer) {
                (M::TransactionStart, Ok(theirs), Ok(ours)) => open[client].push((id(theirs), id(ours))),
                // Xen's store sees conflicts where this one sees none. From here on they differ.
                (M::TransactionEnd, Err(Errno::EAGAIN), Ok(_)) => return Ok(()),
                // Xen 4.17 does not check the path, and has no permissions of special paths to show; later ones do.
                (M::Unwatch, Err(Errno::ENOENT), Err(Errno::EINVAL)) => {}
                (M::GetPerms, Err(Errno::EINVAL), _) if payload.starts_with(b"@") => {}
                _ => prop_assert_eq!(&expected, &answer, "{:?} {:?}", kind, payload.escape_ascii().to_string()),
            }
            let ended = kind == M::TransactionEnd && !matches!(answer, Err(Errno::EINVAL));
            match kind {
                M::TransactionEnd if ended => open[client].retain(|ids| ids.1 != our_id),
                M::ResetWatches => open[client].clear(),
                _ => {}
            }
            for (theirs, ours) in theirs.iter_mut().zip(&mut ours) {
                let (mut expected, mut events) = (theirs.take_events(), ours.take_events());
                // Of one step, any order will do, and more than once is once.
                for events in [&mut expected, &mut events] {
                    events.sort();
                    events.dedup();
                }
                prop_assert_eq!(expected, events, "events of {:?} {:?}", kind, payload.escape_ascii().to_string());
            }
        }
    }
}
