// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands as a person types them, each a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// This project's command.
fn causeway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(arguments);
    command
}

/// A child that is killed at the end of its test.
struct Daemon(Child);

impl Daemon {
    fn start(arguments: &[&str]) -> Self {
        Self(causeway(arguments).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Asks it to end, and waits until it has.
    fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn output(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn fail(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = output(command);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    String::from_utf8(output.stderr).unwrap()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn xenstore(dir: &Path, tool: &str, path: &str) -> Command {
    let mut command = Command::new(format!("xenstore-{tool}"));
    command.arg(path).env("XENSTORED_PATH", dir.join("xenstored.sock"));
    command
}

#[test]
fn a_disk_from_plugging_in_to_unplugging() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("xen");
    let (dir_text, hypervisor) = (dir.to_str().unwrap(), format!("hosted:{}", dir.display()));
    let mut hosted = Daemon::start(&["hosted", "--dir", dir_text]);
    wait_for(&dir.join("xenstored.sock"));

    let stats = folder.path().join("stats");
    let stats_text = stats.to_str().unwrap();
    let mut backend = Daemon::start(&[
        "backend",
        "--hypervisor",
        &hypervisor,
        "--domid",
        "0",
        "--stats",
        stats_text,
    ]);
    wait_for(&stats);

    let image = folder.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let attach = ["block-attach", "--dir", dir_text, "--image", image.to_str().unwrap()];
    succeed(causeway(&attach));
    assert!(fail(causeway(&attach)).contains("EEXIST"), "a disk can be plugged in twice");

    let frontend = ["--hypervisor", &hypervisor, "--domid", "1"];
    let mut load = causeway(&["load", "--json", "--verify", "--reads", "50", "--count", "500"]);
    load.args(frontend);
    let report: serde_json::Value = serde_json::from_str(&succeed(load)).unwrap();
    assert_eq!(report["damaged"], 0);
    assert!(report["verified"].as_u64().unwrap() > 0);

    let state = "/local/domain/0/backend/vbd/1/51712/state";
    assert!(succeed(xenstore(&dir, "ls", "/local/domain/0/backend")).contains("51712"));
    assert!(["5", "6", "2"].contains(&succeed(xenstore(&dir, "read", state)).trim()));

    let socket = folder.path().join("nbd.sock");
    let serve = || {
        let mut command = causeway(&["nbd", "--listen", socket.to_str().unwrap()]);
        let mut nbd = Daemon(command.args(frontend).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(nbd.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving at "), "{line:?}");
        nbd
    };
    let mut nbd = serve();
    let mut info = Command::new("qemu-img");
    info.args(["info", "--output=json"]).arg(format!("nbd+unix:///?socket={}", socket.display()));
    let info: serde_json::Value = serde_json::from_str(&succeed(info)).unwrap();
    assert_eq!(info["virtual-size"], 8 << 20);

    let reads = |json: &str| -> u64 {
        let disks: serde_json::Value = serde_json::from_str(json).unwrap();
        disks[0]["queues"][0]["reads"].as_u64().unwrap()
    };
    assert!(reads(&succeed(causeway(&["stats", "--json", "--socket", stats_text]))) > 0);
    let metrics = succeed(causeway(&["stats", "--prometheus", "--socket", stats_text]));
    assert!(metrics.contains("# TYPE"), "{metrics}");

    assert!(nbd.terminate().success());
    // A frontend that dies while its disk is unplugged does not hold it.
    drop(serve());
    succeed(causeway(&["block-detach", "--dir", dir_text]));
    let gone = output(xenstore(&dir, "read", state));
    assert!(!gone.status.success(), "the backend's directory is still there");
    assert!(backend.terminate().success());
    assert!(hosted.terminate().success());
}

/// Whether a process has `text` in its arguments.
fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments =
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments.into_iter().any(|line| String::from_utf8_lossy(&line).contains(text))
}

/// Images are large, and a hypervisor without its demo is of no use to anybody.
#[test]
fn a_demo_that_is_ended_leaves_nothing_behind() {
    for killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let mut demo = causeway(&["demo", "--scratch", place]);
        demo.env("TMPDIR", place).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut demo = Daemon(demo.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(demo.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("three processes"), "{line:?}");
        let stage = format!("{place}/causeway-");
        assert!(runs(&format!("hosted:{stage}")), "the backend has its hypervisor as an argument");
        if killed {
            demo.0.kill().unwrap();
            demo.0.wait().unwrap();
        } else {
            assert_eq!(demo.terminate().code(), Some(128 + 15));
        }
        let start = Instant::now();
        while runs(&stage) {
            assert!(start.elapsed() < Duration::from_secs(20), "a process is left behind");
            std::thread::sleep(Duration::from_millis(10));
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(killed || left.is_empty(), "{left:?}");
    }
}

#[test]
fn errors_name_the_thing_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let hypervisor = format!("hosted:{dir}");
    let text = fail(causeway(&["backend", "--hypervisor", &hypervisor]));
    assert!(text.contains("hypervisor.sock") && text.contains("causeway hosted --dir"), "{text}");
    let image = folder.path().join("missing.img");
    let attach = ["block-attach", "--dir", dir, "--image", image.to_str().unwrap()];
    assert!(fail(causeway(&attach)).contains("missing.img"));
    let text = fail(causeway(&["stats", "--socket", &format!("{dir}/none")]));
    assert!(text.contains("--stats"), "{text}");
    let text = fail(causeway(&["demo", "--image", image.to_str().unwrap()]));
    assert!(text.contains("missing.img"), "{text}");
}
