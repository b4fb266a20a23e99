// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stock `xenstore-*` tools against the server: options, output and exit codes as with Xen's own store.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use xenstored::Server;

/// A server with the tools pointed at it.
struct Tools {
    _server: Server,
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Tools {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("xenstored.sock");
        let server = Server::start(UnixListener::bind(&socket).unwrap()).unwrap();
        Self { _server: server, _dir: dir, socket }
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.args(args).env("XENSTORED_PATH", &self.socket).stdin(Stdio::null());
        command
    }

    fn output(&self, tool: &str, args: &[&str]) -> Output {
        let missing = "install the Debian package xenstore-utils";
        self.command(tool, args)
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}: {missing}"))
    }

    /// What a tool prints that has to succeed.
    #[track_caller]
    fn run(&self, tool: &str, args: &[&str]) -> String {
        let output = self.output(tool, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {args:?}: {} {errors}", output.status);
        assert_eq!(errors, "", "{tool} {args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a tool complains of that has to fail.
    #[track_caller]
    fn fail(&self, tool: &str, args: &[&str]) -> String {
        let output = self.output(tool, args);
        assert!(!output.status.success(), "{tool} {args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn write_read_and_list() {
    let tools = Tools::start();
    // Several pairs at once are one transaction.
    assert_eq!(tools.run("xenstore-write", &["/a/b", "one", "/a/c", "two words", "/a/d", ""]), "");
    assert_eq!(tools.run("xenstore-read", &["/a/b"]), "one\n");
    assert_eq!(tools.run("xenstore-read", &["/a/b", "/a/c", "/a/d"]), "one\ntwo words\n\n");
    assert_eq!(tools.run("xenstore-read", &["-p", "/a/b"]), "/a/b: one\n");
    assert_eq!(tools.run("xenstore-list", &["/a"]), "b\nc\nd\n");
    assert_eq!(tools.run("xenstore-list", &["-p", "/a"]), "/a/b\n/a/c\n/a/d\n");
    assert_eq!(tools.run("xenstore-write", &["relative", "x"]), "");
    assert_eq!(tools.run("xenstore-read", &["/local/domain/0/relative"]), "x\n");
    assert_eq!(tools.run("xenstore-write", &["/bytes", r"tab\tnul\000x"]), "");
    assert_eq!(tools.run("xenstore-read", &["/bytes"]), "tab\\tnul\\000x\n");
    assert_eq!(tools.run("xenstore-read", &["-R", "/bytes"]), "tab\tnul\0x");
    let complaint = tools.fail("xenstore-read", &["/none"]);
    assert_eq!(complaint, "xenstore-read: couldn't read path /none\n");
    assert!(tools.fail("xenstore-list", &["/none"]).contains("could not list path /none"));
    assert!(tools.fail("xenstore-write", &["/a//b", "x"]).contains("could not write path /a//b"));
}

#[test]
fn ls_shows_the_tree() {
    let tools = Tools::start();
    tools.run("xenstore-write", &["/tool/x", "1", "/vm/y/z", "2"]);
    tools.run("xenstore-chmod", &["/vm/y", "r3", "b4"]);
    assert_eq!(
        tools.run("xenstore-ls", &[]),
        "tool = \"\"\n x = \"1\"\nvm = \"\"\n y = \"\"\n  z = \"2\"\n"
    );
    assert_eq!(tools.run("xenstore-ls", &["/vm"]), "y = \"\"\n z = \"2\"\n");
    assert_eq!(tools.run("xenstore-ls", &["-f", "/vm"]), "/vm/y = \"\"\n/vm/y/z = \"2\"\n");
    let with_permissions = tools.run("xenstore-ls", &["-f", "-p", "/vm"]);
    let lines: Vec<_> =
        with_permissions.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        lines,
        [vec!["/vm/y", "=", "\"\"", "(r3,b4)"], vec!["/vm/y/z", "=", "\"2\"", "(n0)"]]
    );
    assert!(tools.fail("xenstore-ls", &["/none"]).contains("xs_directory (/none)"));
}

#[test]
fn ls_of_more_children_than_one_message_holds() {
    let tools = Tools::start();
    let paths: Vec<_> = (0..1000).map(|n| format!("/many/child-{n:03}")).collect();
    let args: Vec<_> = paths.iter().flat_map(|path| [&**path, "v"]).collect();
    tools.run("xenstore-write", &args);
    let listed = tools.run("xenstore-ls", &["-f", "/many"]);
    let expected: String = paths.iter().map(|path| format!("{path} = \"v\"\n")).collect();
    assert_eq!(listed, expected);
}

#[test]
fn rm_removes_the_subtree_and_tidies() {
    let tools = Tools::start();
    tools.run("xenstore-write", &["/a/b/c", "1", "/a/b/d", "2", "/e/f/g", "3"]);
    tools.run("xenstore-rm", &["/a/b"]);
    assert_eq!(tools.run("xenstore-list", &["/a"]), "");
    // -t removes parents that are left empty.
    tools.run("xenstore-rm", &["-t", "/e/f/g"]);
    assert_eq!(tools.run("xenstore-list", &["/"]), "a\n");
    assert_eq!(tools.fail("xenstore-rm", &["/x/y"]), "xenstore-rm: could not remove path /x/y\n");
}

#[test]
fn exists_answers_by_its_exit_code() {
    let tools = Tools::start();
    tools.run("xenstore-write", &["/a/b", "1"]);
    assert_eq!(tools.run("xenstore-exists", &["/a/b"]), "");
    assert_eq!(tools.output("xenstore-exists", &["/a/c"]).status.code(), Some(1));
}

#[test]
fn chmod_alone_and_recursively() {
    let tools = Tools::start();
    tools.run("xenstore-write", &["/a/b/c", "1"]);
    let permissions = || {
        let lines = tools.run("xenstore-ls", &["-f", "-p", "/"]);
        lines
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(permissions(), ["(n0)", "(n0)", "(n0)"]);
    tools.run("xenstore-chmod", &["/a/b", "n1", "r2"]);
    assert_eq!(permissions(), ["(n0)", "(n1,r2)", "(n0)"]);
    tools.run("xenstore-chmod", &["-r", "/a/b", "w5"]);
    assert_eq!(permissions(), ["(n0)", "(w5)", "(w5)"]);
    tools.run("xenstore-chmod", &["-u", "/a/b/c", "b7"]);
    assert_eq!(permissions(), ["(b7)", "(b7)", "(b7)"]);
    tools.fail("xenstore-chmod", &["/a/b", "x7"]);
}

#[test]
fn watch_prints_what_changes() {
    let tools = Tools::start();
    let mut watch = tools.command("timeout", &["60", "xenstore-watch", "-n", "3", "/a"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "/a");
    tools.run("xenstore-write", &["/b", "no", "/a/b", "yes"]);
    assert_eq!(lines.next().unwrap(), "/a/b");
    tools.run("xenstore-rm", &["/a"]);
    assert_eq!(lines.next().unwrap(), "/a");
    assert!(watch.wait().unwrap().success());
}
