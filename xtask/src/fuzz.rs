// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fuzz targets of `ring-proto`, built with the stable compiler.
//!
//! `cargo fuzz` wants nightly for sanitizers. Coverage counters need none: LLVM's pass for them and libFuzzer's own
//! runtime, which `libfuzzer-sys` brings as C++, are all that a target takes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::command::{self, cargo};

/// What makes rustc count which edges run, and report comparisons.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds all targets and runs each for `seconds_per_target`, or only the one named. What it finds stays in
/// `ring-proto/fuzz/corpus`, and an input that fails in `ring-proto/fuzz/artifacts`.
///
/// # Errors
///
/// When a target does not build, no target has that name, or a target fails.
pub fn run(seconds_per_target: u64, only: Option<&str>) -> Result<()> {
    let fuzz = command::workspace().join("ring-proto/fuzz");
    let targets = targets(&fuzz)?;
    let chosen: Vec<&String> =
        targets.iter().filter(|target| only.is_none_or(|only| only == *target)).collect();
    ensure!(!chosen.is_empty(), "no such fuzz target; there are: {}", targets.join(" "));

    // With a target triple, the flags do not reach build scripts.
    let host = command::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    let mut build = cargo();
    build.env("RUSTFLAGS", COVERAGE).env_remove("CARGO_ENCODED_RUSTFLAGS");
    build.args(["build", "--release", "--quiet", "--target", host]).arg("--manifest-path");
    command::run(build.arg(fuzz.join("Cargo.toml")).arg("--target-dir").arg(fuzz.join("target")))?;

    // As many at a time as there are processors: each runs on one.
    let queue = Mutex::new(chosen.into_iter());
    let failures = Mutex::new(Vec::new());
    let next = || locked(&queue).next();
    let work = || {
        while let Some(target) = next() {
            match run_one(&fuzz, host, target, seconds_per_target) {
                Ok(()) => println!("{target}: nothing found in {seconds_per_target} s"),
                Err(why) => locked(&failures).push(format!("{target}: {why:#}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = locked(&failures);
    ensure!(failures.is_empty(), "fuzz targets failed: {}", failures.join("; "));
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a target that is built.
fn run_one(fuzz: &Path, host: &str, target: &str, seconds: u64) -> Result<()> {
    let corpus = fuzz.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut fuzzer = Command::new(program(fuzz, host, target));
    fuzzer.arg(format!("-max_total_time={seconds}"));
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.args(["-max_len=2048", "-timeout=10", "-verbosity=0"]).arg(corpus);
    command::run(&mut fuzzer)
}

/// Names of all targets: their files.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let folder = fuzz.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn program(fuzz: &Path, host: &str, target: &str) -> PathBuf {
    fuzz.join("target").join(host).join("release").join(target)
}
