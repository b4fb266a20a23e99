// SPDX-License-Identifier: MIT OR Apache-2.0

//! The NBD server with the programs that people use, and with clients that mean no good.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frontend_user::nbd::{Listen, Options as NbdOptions, Server};
use frontend_user::{Disk, Options, SECTOR_SIZE};
use ring_proto::xenbus::vbd::{Discard, Geometry};

use crate::scripted::{Backend, FEATURES, Serving, World};

const SECTORS: u64 = 1 << 14;
const LEN: usize = SECTORS as usize * SECTOR_SIZE;

/// A disk in memory, served over NBD.
struct Export {
    image: Arc<Mutex<Vec<u8>>>,
    socket: PathBuf,
    uri: String,
    /// The first thread of the server, in `/proc`.
    thread: PathBuf,
    // Dropped in this order.
    server: Server,
    _serving: Serving,
    world: World,
}

impl Export {
    fn new(geometry: Geometry, queues: u32) -> Self {
        let world = World::new();
        let image = Arc::new(Mutex::new(vec![0; LEN]));
        let backend = Backend::offer(&world, FEATURES, geometry);
        let serving = Serving::start(backend, image.clone());
        let disk = world.connect(Options { queues, ..Options::default() }).unwrap();
        let socket = world.path("nbd.sock");
        let options =
            NbdOptions { listen: Listen::Unix(socket.clone()), export: "disk".to_owned() };
        let (server, thread) = start(disk, &options);
        let uri = server.listen().to_string();
        Self { image, socket, uri, thread, server, _serving: serving, world }
    }

    fn writable() -> Self {
        let discard = Some(Discard { granularity: 512, alignment: 0, secure: false });
        Self::new(Geometry { discard, ..Geometry::new(SECTORS) }, 1)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// A client that is ready to send requests.
    fn client(&self) -> UnixStream {
        let mut stream = self.connect();
        read(&mut stream, 18);
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream.write_all(b"IHAVEOPT").unwrap();
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
        let reply = read(&mut stream, 10);
        assert_eq!(reply[..8], (LEN as u64).to_be_bytes());
        stream
    }
}

fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn request(command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// Reads a reply without data: the error and the cookie.
fn reply(stream: &mut UnixStream) -> (u32, u64) {
    let bytes = read(stream, 16);
    assert_eq!(bytes[..4], 0x6744_6698u32.to_be_bytes());
    let error = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
    (error, u64::from_be_bytes(bytes[8..].try_into().unwrap()))
}

/// Runs a program that a Debian package brings.
fn run(package: &str, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} is needed for this test (apt-get install {package}): {error}")
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    output
}

fn pattern() -> Vec<u8> {
    (0..LEN).map(|at| (at / 512 * 7 + at % 251) as u8).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn nbdinfo_shows_what_the_disk_is() {
    let export = Export::writable();
    let output = run("libnbd-bin", "nbdinfo", &["--json", &export.uri]);
    let text = String::from_utf8(output.stdout).unwrap();
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], LEN);
    for (key, value) in [
        ("is_read_only", false),
        ("can_flush", true),
        ("can_fua", true),
        ("can_trim", true),
        ("can_zero", true),
        ("can_multi_conn", true),
    ] {
        assert_eq!(export[key], value, "{key} in {text}");
    }
    assert_eq!(export["block_size_minimum"], 512);
    let read_only = Export::new(Geometry { read_only: true, ..Geometry::new(SECTORS) }, 1);
    let output = run("libnbd-bin", "nbdinfo", &["--is", "read-only", &read_only.uri]);
    assert!(output.stdout.is_empty());
}

#[test]
fn qemu_img_copies_there_and_back() {
    let export = Export::writable();
    let (from, to) = (export.world.path("from.raw"), export.world.path("to.raw"));
    std::fs::write(&from, pattern()).unwrap();
    run(
        "qemu-utils",
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", path(&from), &export.uri],
    );
    assert!(*export.image.lock().unwrap() == pattern());
    run("qemu-utils", "qemu-img", &["convert", "-f", "raw", "-O", "raw", &export.uri, path(&to)]);
    assert!(std::fs::read(&to).unwrap() == pattern());
    run("qemu-utils", "qemu-img", &["compare", "-f", "raw", "-F", "raw", path(&from), &export.uri]);
}

#[test]
fn nbdcopy_copies_over_many_connections() {
    let export = Export::new(Geometry::new(SECTORS), 2);
    let to = export.world.path("to.raw");
    *export.image.lock().unwrap() = pattern();
    std::fs::write(&to, []).unwrap();
    run("libnbd-bin", "nbdcopy", &["--connections=4", "--requests=16", &export.uri, path(&to)]);
    assert!(std::fs::read(&to).unwrap() == pattern());
    *export.image.lock().unwrap() = vec![0; LEN];
    run("libnbd-bin", "nbdcopy", &["--connections=4", "--flush", path(&to), &export.uri]);
    assert!(*export.image.lock().unwrap() == pattern());
}

#[test]
fn qemu_io_does_everything_that_there_is() {
    let export = Export::writable();
    let commands = [
        "write -P 0x5a 64k 1M",
        "write -f -P 0x33 1536 512",
        "write -z 128k 640k",
        "write -z -u 1M 512",
        "discard 4M 64k",
        "flush",
        "read -P 0x5a 64k 64k",
        "read -P 0 128k 640k",
        "read -P 0x33 1536 512",
        "aio_write -P 0x77 2M 1M",
        "aio_write -P 0x78 3M 1M",
        "aio_flush",
        "read -P 0x77 2M 1M",
        "read -P 0x78 3M 1M",
    ];
    let mut arguments = vec!["-f", "raw", &*export.uri];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let output = run("qemu-utils", "qemu-io", &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("failed") && !text.contains("error"), "{text}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let export = Export::new(Geometry::new(SECTORS), 2);
    let uri = format!("--uri={}", export.uri);
    let directory = format!("--aux-path={}", path(&export.world.path("")));
    let arguments = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        &directory,
        "--rw=randrw",
        "--bsrange=512-64k",
        "--iodepth=32",
        "--io_size=8M",
        "--size=8M",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=64",
    ];
    run("fio", "fio", &arguments);
}

#[test]
fn requests_that_do_not_fit_get_an_error_and_the_next_one_is_served() {
    let export = Export::writable();
    let mut client = export.client();
    let end = LEN as u64;
    for (command, flags, offset, len, error) in [
        (0, 0, end, 512, 22),
        (1, 0, end - 512, 1024, 28),
        (0, 0, u64::MAX, 512, 22),
        (0, 0, 1, 512, 22),
        (0, 0, 0, 0, 22),
        (0, 0, 0, 2 << 20, 22),
        (1, 0, 0, 2 << 20, 22),
        (0, 0x8000, 0, 512, 22),
        (5, 0, 0, 512, 95),
        (77, 0, 0, 512, 95),
        (4, 0, end, 512, 28),
        (6, 0, 0, u32::MAX, 28),
        (0, 0, 0, 512, 0),
    ] {
        client.write_all(&request(command, flags, 42, offset, len)).unwrap();
        if command == 1 {
            client.write_all(&vec![7; len as usize]).unwrap();
        }
        assert_eq!(reply(&mut client), (error, 42), "command {command} at {offset} + {len}");
    }
    assert_eq!(read(&mut client, 512), [0; 512]);
    assert!(export.image.lock().unwrap().iter().all(|byte| *byte == 0));
    client.write_all(&request(2, 0, 0, 0, 0)).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let export = Export::new(Geometry { read_only: true, ..Geometry::new(SECTORS) }, 1);
    let mut client = export.client();
    client.write_all(&request(1, 0, 1, 0, 512)).unwrap();
    client.write_all(&[1; 512]).unwrap();
    assert_eq!(reply(&mut client), (1, 1));
}

#[test]
fn clients_that_mean_no_good_are_cut_off_and_harm_nobody() {
    let export = Export::writable();
    let mut good = export.client();
    let long_write = request(1, 0, 1, 0, u32::MAX);
    for nonsense in [
        &[0xff; 64][..],
        &[
            0, 0, 0, 3, b'I', b'H', b'A', b'V', b'E', b'O', b'P', b'T', 0, 0, 0, 7, 0xff, 0xff,
            0xff, 0xff,
        ],
    ] {
        let mut bad = export.connect();
        read(&mut bad, 18);
        bad.write_all(nonsense).unwrap();
        assert_eq!(bad.read(&mut [0; 64]).unwrap(), 0, "{nonsense:?}");
    }
    for nonsense in [&[0xee; 28][..], &long_write] {
        let mut bad = export.client();
        bad.write_all(nonsense).unwrap();
        assert_eq!(bad.read(&mut [0; 64]).unwrap(), 0, "{nonsense:?}");
    }
    // One that goes in the middle of its data, and one that asks for much and reads nothing.
    let mut halting = export.client();
    halting.write_all(&request(1, 0, 1, 0, 1 << 20)).unwrap();
    halting.write_all(&[9; 1000]).unwrap();
    let mut greedy = export.client();
    greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let read_much: Vec<u8> =
        (0..4096).flat_map(|cookie| request(0, 0, cookie, 0, 1 << 19)).collect();
    let _ = greedy.write_all(&read_much);
    drop(halting);

    good.write_all(&request(1, 0, 5, 4096, 4096)).unwrap();
    good.write_all(&[8; 4096]).unwrap();
    drop(greedy);
    assert_eq!(reply(&mut good), (0, 5));
    good.write_all(&request(0, 0, 6, 4096, 4096)).unwrap();
    assert_eq!(reply(&mut good), (0, 6));
    assert_eq!(read(&mut good, 4096), [8; 4096]);
    assert!(export.server.disk().failure().is_none());
}

/// Takes all memory of the server's queue with requests that go no further, and returns the clients that hold it.
fn take_all_memory(export: &Export, command: u16) -> Vec<UnixStream> {
    // 256 KiB are the server's own, for zeroes. Each reply is more than fits the buffers on its way.
    [1 << 20, 1 << 20, 1 << 20, 768 << 10]
        .map(|len| {
            let mut client = export.client();
            client.write_all(&request(command, 0, 1, 0, len)).unwrap();
            client
        })
        .into()
}

/// A client whose request waits for memory, which others hold and do not give back.
fn gets_its_turn(command: u16) {
    let export = Export::writable();
    let _halting = take_all_memory(&export, command);
    let mut good = export.client();
    good.write_all(&request(1, 0, 5, 4096, 4096)).unwrap();
    good.write_all(&[8; 4096]).unwrap();
    assert_eq!(reply(&mut good), (0, 5));
    assert_eq!(export.image.lock().unwrap()[4096..8192], [8; 4096]);
}

#[test]
fn clients_that_announce_data_and_halt_do_not_keep_memory_from_others() {
    gets_its_turn(1);
}

#[test]
fn clients_that_read_much_and_halt_do_not_keep_memory_from_others() {
    gets_its_turn(0);
}

/// The threads of this process that serve the first queue of an export.
fn servers() -> HashSet<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    // One may be gone by now.
    let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks.filter(|task| name(task).trim() == "nbd-0").collect()
}

/// Starts a server, and finds its first thread.
fn start(disk: Disk, options: &NbdOptions) -> (Server, PathBuf) {
    // One at a time, so that the thread that is new is this server's.
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    let others = servers();
    let server = Server::start(disk, options).unwrap();
    loop {
        // A thread names itself when it begins.
        if let Some(new) = servers().difference(&others).next() {
            return (server, new.clone());
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_goes_while_it_waits_for_memory_costs_nothing() {
    let export = Export::writable();
    let spent = || -> u64 {
        let times = std::fs::read_to_string(export.thread.join("schedstat")).unwrap();
        times.split(' ').next().unwrap().parse().unwrap()
    };
    let _halting = take_all_memory(&export, 1);
    let mut waiting = export.client();
    waiting.write_all(&request(0, 0, 1, 0, 4096)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(waiting);
    std::thread::sleep(Duration::from_millis(50));
    let before = spent();
    std::thread::sleep(Duration::from_millis(400));
    let spent = spent() - before;
    assert!(spent < 20_000_000, "{spent} ns of 400 ms");
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let export = Export::writable();
    let mut client = export.client();
    let writer = {
        let mut client = client.try_clone().unwrap();
        std::thread::spawn(move || {
            for cookie in 0..2000 {
                client.write_all(&request(1, 0, cookie, cookie % 512 * 4096, 4096)).unwrap();
                client.write_all(&[cookie as u8; 4096]).unwrap();
            }
        })
    };
    let mut seen = vec![false; 2000];
    for _ in 0..2000 {
        let (error, cookie) = reply(&mut client);
        assert_eq!(error, 0);
        assert!(!std::mem::replace(&mut seen[cookie as usize], true), "{cookie} twice");
    }
    writer.join().unwrap();
}

#[test]
fn the_socket_of_a_server_that_is_gone_is_used_again_and_a_living_one_is_not() {
    let export = Export::writable();
    let options =
        NbdOptions { listen: Listen::Unix(export.socket.clone()), export: "disk".to_owned() };
    let world = World::new();
    let _serving = Serving::start(
        Backend::offer(&world, FEATURES, Geometry::new(SECTORS)),
        Arc::new(Mutex::new(vec![0; LEN])),
    );
    let disk = world.connect(Options::default()).unwrap();
    let error = Server::start(disk, &options).unwrap_err().to_string();
    assert!(error.contains("nbd.sock") && error.contains("in use"), "{error}");

    let stale = world.path("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let world = World::new();
    let _serving = Serving::start(
        Backend::offer(&world, FEATURES, Geometry::new(SECTORS)),
        Arc::new(Mutex::new(vec![0; LEN])),
    );
    let disk = world.connect(Options::default()).unwrap();
    let options = NbdOptions { listen: Listen::Unix(stale.clone()), export: "disk".to_owned() };
    let (server, _) = start(disk, &options);
    drop(UnixStream::connect(&stale).unwrap());
    drop(server);
    assert!(!stale.exists());
}

#[test]
fn only_the_loopback_interface_is_listened_on() {
    assert!("10.0.0.1:10809".parse::<Listen>().is_err());
    assert!("nonsense".parse::<Listen>().is_err());
    assert!("127.0.0.1:0".parse::<Listen>().is_ok());
    assert_eq!("./x".parse::<Listen>(), Ok(Listen::Unix("./x".into())));
}
