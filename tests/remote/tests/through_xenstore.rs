// SPDX-License-Identifier: MIT OR Apache-2.0

//! Both ends, with a xenstored between them.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use hypervisor_client::store::Store;
use remote::{DIRECTORY, ask, serve};
use ring_proto::xen::DomId;
use ring_proto::xenstore::{Permission, Rights};
use xenstored::Server;

const LONG: Duration = Duration::from_secs(30);

/// A xenstored with a domain 5 that serves. The folder goes last.
struct Lab {
    store: Store,
    _server: Server,
    dir: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("xenstored.sock");
        let server = Server::start(UnixListener::bind(&socket).unwrap()).unwrap();
        let store = Store::connect(&socket).unwrap();
        let home = "/local/domain/5";
        store.mkdir(&format!("{home}/{DIRECTORY}")).unwrap();
        let owned = [Permission::new(DomId(5), Rights::None)];
        store.set_perms(&format!("{home}/{DIRECTORY}"), &owned).unwrap();
        let scratch = dir.path().to_path_buf();
        let connect = move || Ok(Store::connect(&socket)?);
        std::thread::spawn(move || serve::serve(connect, "/local/domain/5/", &scratch));
        let ready = format!("{home}/{DIRECTORY}/ready");
        ask::wait(&store, &ready, Some("1"), LONG).unwrap().expect("the domain takes commands");
        Self { store, _server: server, dir }
    }

    fn run(&self, number: &str, command: &str, limit: Duration) -> Option<(u8, String)> {
        let outcome = ask::run(&self.store, "/local/domain/5", number, command, limit).unwrap()?;
        Some((outcome.code, String::from_utf8(outcome.output).unwrap()))
    }
}

#[test]
fn output_and_code_come_back() {
    let lab = Lab::start();
    assert_eq!(
        lab.run("a", "echo one; echo two >&2; exit 3", LONG),
        Some((3, "one\ntwo\n".into()))
    );
    assert_eq!(lab.run("b", "true", LONG), Some((0, String::new())));
    assert_eq!(lab.run("c", "kill -9 $$", LONG), Some((137, String::new())));
    let (code, long) = lab.run("d", "seq 20000", LONG).unwrap();
    assert_eq!((code, long.len()), (0, 60_000), "the end of what is too long");
    assert!(long.ends_with("\n19999\n20000\n"));
    let left = lab.store.directory("/local/domain/5/data/lab/command").unwrap();
    assert_eq!(left, [""; 0], "nothing of it stays");
}

#[test]
fn one_that_hangs_does_not_keep_the_next_from_running() {
    let lab = Lab::start();
    assert_eq!(lab.run("a", "sleep 60", Duration::from_millis(200)), None);
    assert_eq!(lab.run("b", "echo still here", LONG), Some((0, "still here\n".into())));
    // What goes on in the background does not keep a command from ending.
    assert_eq!(lab.run("c", "sleep 60 & echo begun", LONG), Some((0, "begun\n".into())));
}

#[test]
fn values_are_awaited() {
    let lab = Lab::start();
    lab.store.write("/x", "1").unwrap();
    let wait = |value| ask::wait(&lab.store, "/x", value, Duration::from_millis(100)).unwrap();
    assert_eq!(wait(None), Ok(b"1".to_vec()));
    assert_eq!(wait(Some("2")), Err(Some(b"1".to_vec())));
    assert_eq!(wait(Some("1")), Ok(b"1".to_vec()), "once more, after it was in vain");
    assert_eq!(ask::wait(&lab.store, "/y", None, Duration::from_millis(100)).unwrap(), Err(None));
    let socket = lab.dir.path().join("xenstored.sock");
    let waiting = std::thread::spawn(move || {
        ask::wait(&Store::connect(socket).unwrap(), "/x", Some("2"), LONG).unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    lab.store.write("/x", "2").unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(b"2".to_vec()));
}
