// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Every structure and every constant of the wire against the C headers of Debian's libxen-dev.
//!
//! One table says what each is called in C and what this crate takes it for. It becomes a C file of static assertions,
//! so that the compiler names each row that differs. The 32-bit layouts are checked by the same compiler as for i386.

mod constants;
mod layouts;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The machine whose layout a row is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// The one that the test runs on.
    Native,
    /// 32-bit x86.
    I386,
}

/// A constant expression in C, and its value here.
#[derive(Debug)]
struct Row {
    target: Target,
    c: String,
    value: i128,
}

#[derive(Debug, Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, target: Target, c: impl Into<String>, value: impl TryInto<i128>) {
        let value = value.try_into().unwrap_or_else(|_| panic!("a value fits in 128 bits"));
        self.0.push(Row { target, c: c.into(), value });
    }

    /// Compiles the rows of one machine; the error holds what the compiler said.
    fn check(&self, target: Target) -> Result<(), String> {
        let mut source = String::from(include_str!("headers.h"));
        for row in self.0.iter().filter(|row| row.target == target) {
            let Row { c, value, .. } = row;
            let text = c.replace('\\', "\\\\").replace('"', "\\\"");
            // Values above the signed range are written as unsigned ones; none is wider than 64 bits.
            let literal = if *value > i64::MAX as i128 {
                format!("{value}ULL")
            } else {
                format!("{value}LL")
            };
            let _ = writeln!(
                source,
                "_Static_assert(({c}) == ({literal}), \"{text} is not {value}\");"
            );
        }
        compile(&source, target)
    }
}

/// Lets the compiler judge a C file without making anything of it.
fn compile(source: &str, target: Target) -> Result<(), String> {
    assert!(
        Path::new("/usr/include/xen/io/blkif.h").exists(),
        "Xen's headers are missing: install the package libxen-dev"
    );
    let mut compiler = Command::new("cc");
    if target == Target::I386 {
        compiler.args(["-m32", "-ffreestanding"]);
    }
    let mut compiler = compiler
        .args(["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("no C compiler ({error}): install the package gcc"));
    let mut stdin = compiler.stdin.take().expect("the compiler has a standard input");
    std::io::Write::write_all(&mut stdin, source.as_bytes()).expect("the compiler reads its input");
    drop(stdin);
    let output = compiler.wait_with_output().expect("the compiler ends");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn table() -> Table {
    let mut table = Table::default();
    layouts::add(&mut table);
    constants::add(&mut table);
    table
}

#[test]
fn every_layout_and_value_is_that_of_the_headers() {
    let table = table();
    assert!(table.0.len() > 500, "the table has only {} rows", table.0.len());
    for target in [Target::Native, Target::I386] {
        table.check(target).unwrap_or_else(|said| panic!("{target:?}:\n{said}"));
    }
}

#[test]
fn a_row_that_differs_is_named() {
    for target in [Target::Native, Target::I386] {
        let mut table = Table::default();
        table.row(target, "sizeof(struct blkif_request)", 113);
        table.row(target, "BLKIF_RSP_ERROR", -1);
        let said = table.check(target).unwrap_err();
        assert!(said.contains("sizeof(struct blkif_request) is not 113"), "{said}");
        assert!(!said.contains("BLKIF_RSP_ERROR"), "{said}");
    }
}

/// The sources of the crate, without their tests and without the handshake, which is text in xenstore.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in folder.read_dir().expect("the sources are there") {
        let path = entry.expect("the sources are there").path();
        if path.ends_with("xenbus") {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            into.push(
                text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned(),
            );
        }
    }
}

/// A structure or constant that is added to the crate has to be added here, or to [`OWN`](constants::OWN).
#[test]
fn nothing_of_the_wire_is_left_out() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let known = [include_str!("layouts.rs"), include_str!("constants.rs")].concat();
    let mentions = |name: &str| {
        constants::OWN.contains(&name)
            || known.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
    };
    let mut missing = Vec::new();
    let mut seen = 0;
    for text in &texts {
        for part in text.split("\nwire! {").skip(1) {
            let name = part.split("pub struct ").nth(1).and_then(|rest| rest.split(' ').next());
            let name = name.expect("a wire structure has a name");
            seen += 1;
            if !mentions(name) {
                missing.push(name);
            }
        }
        for part in text.split("pub const ").skip(1) {
            let Some((name, rest)) = part.split_once(": ") else { continue };
            let kind = rest.split(' ').next().unwrap_or_default();
            if ["u8", "u16", "u32", "u64", "usize", "i16", "Layout"].contains(&kind) {
                seen += 1;
                if !mentions(name) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(seen > 150, "only {seen} structures and constants were found in the sources");
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
