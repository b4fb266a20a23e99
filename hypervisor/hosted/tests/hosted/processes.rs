// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hypervisor and domains as processes of their own (the examples of this crate), and what is left when one is killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypervisor_client::hosted::HostedClient;
use hypervisor_client::store::Store;
use hypervisor_client::{Access, Client, Error, EventChannel, Grant};
use ring_proto::shared::{AsRegion, SharedMemory};
use ring_proto::xen::{DomId, Errno};
use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;

use crate::{errno, join, try_join};

const SOON: Duration = Duration::from_secs(20);
const PONG: DomId = DomId(7);

/// A process that is killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(name: &str, args: &[&str]) -> Process {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run all of `cargo test -p hypervisor-hosted`",
        path.display()
    );
    let child = Command::new(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    Process(child.unwrap())
}

/// A hypervisor, and how to see what it holds.
struct Hypervisor {
    dir: TempDir,
    process: Process,
}

impl Hypervisor {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = example("hypervisor", &[dir.path().to_str().unwrap()]);
        eventually("the sockets are there", || dir.path().join("xenstored.sock").exists());
        eventually("it serves", || try_join(&dir, 1, 1).is_ok());
        Self { dir, process }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn spawn_pong(&self) -> Process {
        example("ping_pong", &[self.path(), "pong", &PONG.to_string()])
    }

    /// How many descriptors it has open, and how many mappings of domains' memory.
    fn holds(&self) -> (usize, usize) {
        let proc = PathBuf::from(format!("/proc/{}", self.process.0.id()));
        let maps = std::fs::read_to_string(proc.join("maps")).unwrap();
        let mapped = maps.lines().filter(|line| line.contains("memfd:causeway")).count();
        (std::fs::read_dir(proc.join("fd")).unwrap().count(), mapped)
    }
}

#[track_caller]
fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !test() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The ping end of `examples/ping_pong.rs`, in this process.
struct Ping {
    grant: Grant,
    channel: EventChannel,
}

impl Ping {
    fn start(client: &HostedClient) -> Self {
        let grant = client.grant(PONG, 1, Access::ReadWrite).unwrap();
        let channel = client.alloc_unbound(PONG).unwrap();
        let store = client.store().unwrap();
        let inbox = format!("/local/domain/{PONG}/data/inbox");
        let letter = format!("{} {} {}", client.domid(), grant.refs()[0], channel.port());
        eventually("the inbox is empty", || {
            store.read(&inbox).is_ok_and(|letter| letter.is_empty())
        });
        store.write(&inbox, letter).unwrap();
        Self { grant, channel }
    }

    fn round(&self, round: u32) {
        self.grant.publish(0, round);
        self.channel.notify().unwrap();
        while self.grant.load_acquire(4) != round {
            assert!(self.channel.wait(Some(SOON)).unwrap(), "no answer");
        }
    }
}

#[test]
fn two_processes_play_without_the_hypervisor() {
    let hypervisor = Hypervisor::start();
    let _pong = hypervisor.spawn_pong();
    let mut ping = example("ping_pong", &[hypervisor.path(), "ping", &PONG.to_string(), "5000"]);
    let mut line = String::new();
    BufReader::new(ping.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "5000 rounds, 0 hypercalls\n");
    assert!(ping.0.wait().unwrap().success());
}

#[test]
fn a_domain_that_is_killed_leaves_nothing_but_word_of_it() {
    let hypervisor = Hypervisor::start();
    let client = join(&hypervisor.dir, 3);
    let store = Store::connect(hypervisor.dir.path().join("xenstored.sock")).unwrap();
    store.watch("@releaseDomain", "went").unwrap();
    store.next_event(Some(SOON)).unwrap().unwrap();
    eventually("the first domains are gone", || hypervisor.holds().1 == 2);
    while store.pending_event().unwrap().is_some() {}
    let before = hypervisor.holds();

    for round in 0..3 {
        let mut pong = hypervisor.spawn_pong();
        let ping = Ping::start(&client);
        ping.round(1);
        ping.round(2);
        assert!(hypervisor.holds().0 > before.0);
        assert_eq!(hypervisor.holds().1, 4, "pool and table of each");

        pong.0.kill().unwrap();
        assert!(ping.channel.wait(Some(SOON)).unwrap(), "the doorbell rings once more");
        assert_eq!(store.next_event(Some(SOON)).unwrap().unwrap().token, "went", "kill {round}");
        // It had the page mapped.
        drop(ping);
        assert_eq!(client.waiting_pages(), 0);
        eventually("what it held is freed", || hypervisor.holds() == before);
    }
}

#[test]
fn pages_of_the_dead_live_as_long_as_they_are_mapped() {
    let hypervisor = Hypervisor::start();
    let back = join(&hypervisor.dir, 2);
    let front = join(&hypervisor.dir, 3);
    let grant = front.grant(DomId(2), 2, Access::ReadWrite).unwrap();
    grant.store(0, 7);
    let mapping = back.map(DomId(3), grant.refs(), Access::ReadWrite).unwrap();
    drop((front, grant));
    eventually("its table is freed, its pool is not", || hypervisor.holds().1 == 3);
    assert_eq!(mapping.load(0), 7);
    // Its id is not free before its memory is.
    assert!(matches!(try_join(&hypervisor.dir, 3, 1), Err(Error::Refused { .. })));
    drop(mapping);
    eventually("the id is free", || try_join(&hypervisor.dir, 3, 1).is_ok());
    eventually("the pool is freed", || hypervisor.holds().1 == 2);
}

#[test]
fn a_hypervisor_that_is_killed_is_gone() {
    let mut hypervisor = Hypervisor::start();
    let client = join(&hypervisor.dir, 3);
    let channel = client.alloc_unbound(DomId(2)).unwrap();
    let grant = client.grant(DomId(2), 1, Access::ReadWrite).unwrap();
    hypervisor.process.0.kill().unwrap();
    assert!(matches!(channel.wait(None), Err(Error::Gone(_))));
    assert!(matches!(client.map(DomId(2), grant.refs(), Access::ReadOnly), Err(Error::Gone(_))));
    hypervisor.process.0.wait().unwrap();
    // Another one can take its place.
    hypervisor.process = example("hypervisor", &[hypervisor.path()]);
    eventually("it serves", || try_join(&hypervisor.dir, 3, 1).is_ok());
}

#[test]
fn a_hypervisor_that_is_stopped_ends_well() {
    let mut hypervisor = Hypervisor::start();
    drop(hypervisor.process.0.stdin.take());
    assert!(hypervisor.process.0.wait().unwrap().success());
    let left: Vec<_> = std::fs::read_dir(hypervisor.dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(left, ["hypervisor.lock"]);
}

/// Out of descriptors, it says so to whoever asks for more, at each step on the way to a new domain.
#[test]
fn without_descriptors_only_what_is_new_is_refused() {
    let hypervisor = Hypervisor::start();
    let (front, back) = (join(&hypervisor.dir, 2), join(&hypervisor.dir, 3));
    let grant = front.grant(DomId(3), 1, Access::ReadWrite).unwrap();
    let end = front.alloc_unbound(DomId(3)).unwrap();
    let other_end = back.bind_interdomain(DomId(2), end.port()).unwrap();
    let store = front.store().unwrap();
    let go_on = |round: u32| {
        let mapping = back.map(DomId(2), grant.refs(), Access::ReadWrite).unwrap();
        grant.as_region().store(0, round);
        assert_eq!(mapping.as_region().load(0), round);
        end.notify().unwrap();
        assert!(other_end.wait(Some(SOON)).unwrap());
        other_end.notify().unwrap();
        assert!(end.wait(Some(SOON)).unwrap());
        store.write("data/round", round.to_string()).unwrap();
        assert_eq!(store.read_str("data/round").unwrap(), round.to_string());
    };
    go_on(0);
    eventually("the first domains are gone", || hypervisor.holds().1 == 4);
    let before = hypervisor.holds();
    // The limit is one of descriptors' numbers, and there may be holes.
    let fds = std::fs::read_dir(format!("/proc/{}/fd", hypervisor.process.0.id())).unwrap();
    let used: Vec<u64> =
        fds.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let mut unused = (0..).filter(|fd| !used.contains(fd));
    let pid = rustix::process::Pid::from_child(&hypervisor.process.0);
    let unlimited = rustix::process::getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit { current, maximum: unlimited.maximum };
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    };

    // For the connection, the pool, and the grant table.
    for left in 0..3 {
        limit(unused.next());
        for _ in 0..3 {
            assert_eq!(errno(try_join(&hypervisor.dir, 4, 16)), Errno::EMFILE, "{left} left");
        }
        go_on(left);
        eventually("nothing is left over", || hypervisor.holds() == before);
    }
    // Enough for a domain, not for what else takes descriptors.
    limit(unused.next());
    let domain = join(&hypervisor.dir, 4);
    assert_eq!(errno(domain.store()), Errno::EMFILE);
    assert_eq!(errno(domain.alloc_unbound(DomId(2))), Errno::ENFILE);
    go_on(3);

    limit(unlimited.maximum);
    domain.store().unwrap();
    domain.alloc_unbound(DomId(2)).unwrap();
    join(&hypervisor.dir, 5).store().unwrap();
    go_on(4);
}
