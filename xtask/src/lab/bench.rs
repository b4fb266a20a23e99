// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask lab bench`: what a request costs, in instructions.
//!
//! The machine's clock counts instructions (`-icount`), so it does not matter what else the host does; a plugin of
//! QEMU counts them by part of the machine, with VM entries and hypercalls (`tests/lab/plugin/count.c`). Each machine
//! boots anew and runs the load in `tests/lab/bench`, ours and stock in turns, in another order than the one before.
//! The files stay in `target/lab/bench`, and `bench --bin lab` makes the report of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::machine::{Clock, Dom0, Machine, Memory, Turns};
use super::{Lab, image};
use crate::{command, versions};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The drivers to measure.
    #[arg(value_enum, default_value = "block")]
    part: Part,
    /// How many machines boot, one after the other.
    #[arg(long, default_value_t = 5)]
    boots: usize,
    /// Only cells whose name begins with this: `randread4k`, `read128k.d8`.
    #[arg(long, default_value = "")]
    only: String,
    /// Numbers of queues, and of the DomU's CPUs. With more than one Xen's scheduler has no rate limit, so their figures
    /// are not to be compared with those of one.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    queues: Vec<usize>,
    /// Frontends.
    #[arg(long, value_delimiter = ',', default_value = "stock,ours")]
    fronts: Vec<String>,
    /// Backends.
    #[arg(long, value_delimiter = ',', default_value = "stock,ours,uring")]
    backs: Vec<String>,
    /// Take modules (`causeway-….ko`) in this folder in place of those built here: to compare two versions.
    #[arg(long)]
    modules: Option<PathBuf>,
    /// Boot one machine and print where its instructions were executed, ours and stock side by side.
    #[arg(long)]
    profile: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// blkfront and the block backends: what a request costs.
    Block,
    /// What an idle disk costs in memory, at either end, and a module: `--boots` machines, each with ours and stock.
    Memory,
}

impl Part {
    /// The scenario in `tests/lab/bench`.
    fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Memory => "memory",
        }
    }
}

/// What the load does; `cell` of `tests/lab/bench/block.sh` knows the details.
const CELLS: &[&str] =
    &["randread4k.d1", "randread4k.d32", "randwrite4k.d1", "randwrite4k.d32", "read128k.d8"];

/// Seconds that a machine may take in all. It needs a sixth of that on two idle CPUs.
const LIMIT: u64 = 2400;

/// Boots the machines and prints the report.
///
/// # Errors
///
/// When something cannot be built, or a machine does not come to its end.
pub fn run(options: &Options) -> Result<()> {
    let lab = Lab::ensure()?;
    let out = command::workspace().join("target/lab/bench");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let (plugin, initrd) = (plugin(&lab, &out)?, initrd(&lab, &out, options.modules.as_deref())?);
    let bench = Bench { lab, out, plugin, initrd, options };
    let boots = if options.profile { 1 } else { options.boots };
    for number in 0..boots {
        bench.boot(number).with_context(|| format!("machine {number} of the benchmark"))?;
    }
    bench.report()
}

/// Builds the plugin with the root's compiler.
fn plugin(lab: &Lab, out: &Path) -> Result<PathBuf> {
    let source = command::workspace().join("tests/lab/plugin/count.c");
    let plugin = out.join("count.so");
    let mut gcc = lab.root.command(versions::CC);
    gcc.args(["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]);
    gcc.args(["-fPIC", "-shared", "-fvisibility=hidden", "-o"]);
    command::prepare(gcc.arg(&plugin).arg(source))?;
    Ok(plugin)
}

/// Dom0's first root, with the load and the scenario.
fn initrd(lab: &Lab, out: &Path, modules: Option<&Path>) -> Result<PathBuf> {
    command::prepare(command::cargo().args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "bench",
        "--bin",
        "blkload",
    ]))?;
    let load = command::workspace().join("target/release/blkload");
    let mut domu: image::Overlay = vec![("/usr/bin/blkload".into(), load)];
    // For the disk that takes a profile's symbols.
    let driver = out.join("virtio_blk.ko");
    let packed = lab.kernel.file("kernel/drivers/block/virtio_blk.ko.xz");
    let unpack = "xz -dc \"$1\" >\"$2\"";
    command::prepare(&mut lab.root.script(unpack, &[&packed, &driver.display().to_string()]))?;
    let mut dom0: image::Overlay = vec![("/lab/virtio_blk.ko".into(), driver)];
    for part in [Part::Block, Part::Memory].map(Part::name) {
        let scenario = command::workspace().join(format!("tests/lab/bench/{part}.sh"));
        dom0.push((format!("/lab/scenarios/bench-{part}.sh"), scenario));
    }
    if let Some(modules) = modules {
        for entry in modules.read_dir().with_context(|| modules.display().to_string())? {
            let module = entry?.path();
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".ko") {
                dom0.push((format!("/modules/{name}"), module.clone()));
                domu.push((format!("/modules/{name}"), module.clone()));
            }
        }
    }
    lab.initrd_with(out, dom0, domu)
}

struct Bench<'a> {
    lab: Lab,
    out: PathBuf,
    plugin: PathBuf,
    initrd: PathBuf,
    options: &'a Options,
}

impl Bench<'_> {
    fn file(&self, number: usize, kind: &str) -> PathBuf {
        self.out.join(format!("{number}.{kind}"))
    }

    /// Boots a machine, and waits for its end.
    fn boot(&self, number: usize) -> Result<()> {
        let start = Instant::now();
        let machine = Machine {
            hypervisor: self.lab.xen.clone(),
            kernel: self.lab.kernel.image(),
            initrd: self.initrd.clone(),
            dom0: Dom0::Pv,
            turns: self.turns(),
            memory: Memory::default(),
            words: self.words(number),
        };
        let (serial, report) = (self.file(number, "serial.log"), self.file(number, "report.log"));
        File::create(&report)?;
        let mut qemu = machine.command(&self.lab, &report);
        qemu.args(Clock::Instructions.arguments()).arg("-plugin").arg(self.plugin_words(number));
        if self.options.profile {
            // Its disk takes the symbols: 10 MB, which a serial port would take minutes for.
            let disk = self.file(number, "symbols");
            File::create(&disk)?.set_len(64 << 20)?;
            let disk = disk.display();
            qemu.arg("-drive").arg(format!("file={disk},format=raw,if=none,id=symbols"));
            qemu.args(["-device", "virtio-blk-pci,drive=symbols"]);
        }
        let log = File::create(&serial)?;
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = qemu.spawn()?;
        while child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(LIMIT) {
                child.kill()?;
                child.wait()?;
                bail!("not done after {LIMIT} s; see {}", serial.display());
            }
            thread::sleep(Duration::from_millis(500));
        }
        let runs = self.take_runs(&report)?;
        fs::write(self.file(number, "runs"), &runs)?;
        eprintln!(
            "machine {number}: {} runs in {} s",
            runs.lines().count(),
            start.elapsed().as_secs()
        );
        Ok(())
    }

    /// As Xen has it, except with a DomU of several processors: they share the machine's one, and where one waits for the
    /// other it would spin for a millisecond each time, so that the DomU does not come to boot.
    fn turns(&self) -> Turns {
        let several = self.options.queues.iter().any(|&queues| queues > 1);
        if several { Turns::AtOnce } else { Turns::RateLimited }
    }

    fn plugin_words(&self, number: usize) -> String {
        let mut words =
            format!("{},out={}", self.plugin.display(), self.file(number, "counts").display());
        if self.options.profile {
            words += &format!(",profile={}", self.file(number, "profile").display());
        }
        words
    }

    /// The scenario's command line; a comma would end it. Each machine begins with another backend and another frontend.
    fn words(&self, number: usize) -> String {
        let turned = |list: &[String]| {
            let mut list = list.to_vec();
            let by = number % list.len().max(1);
            list.rotate_left(by);
            list.join("+")
        };
        let cells = CELLS.iter().filter(|cell| cell.starts_with(&self.options.only)).copied();
        let queues: Vec<_> = self.options.queues.iter().map(usize::to_string).collect();
        let mut words = format!(
            "lab=bench-{} lab_limit={LIMIT} bench_seed={} bench_backs={} bench_fronts={} bench_cells={} bench_queues={}",
            self.options.part.name(),
            number + 1,
            turned(&self.options.backs),
            turned(&self.options.fronts),
            cells.collect::<Vec<_>>().join("+"),
            queues.join("+"),
        );
        if self.options.profile {
            words += " bench_symbols=1";
        }
        words
    }

    /// The lines of the load in a machine's report, unless something failed.
    fn take_runs(&self, report: &Path) -> Result<String> {
        let text = String::from_utf8_lossy(&fs::read(report)?).replace('\r', "");
        let results = text.split("\n== ").next().unwrap_or_default();
        if let Some(line) =
            results.lines().find(|line| line.starts_with("FAIL ") || line.starts_with("ENDED "))
        {
            bail!("{line}; see {}", report.display());
        }
        ensure!(text.contains("\n== end"), "the machine ended early; see {}", report.display());
        let runs = results.lines().filter_map(|line| line.strip_prefix("RUN "));
        Ok(runs.map(|line| format!("{line}\n")).collect())
    }

    fn report(&self) -> Result<()> {
        let mut report = command::cargo();
        report.args(["run", "--quiet", "--release", "-p", "bench", "--bin", "lab", "--"]);
        report.arg(&self.out);
        if self.options.profile {
            let queues = self.options.queues.first().context("no number of queues")?;
            for cell in CELLS.iter().filter(|cell| cell.starts_with(&self.options.only)) {
                println!("## {cell}.q{queues}\n");
                let mut one = command::cargo();
                one.args(report.get_args()).arg("--profile").arg(format!("{cell}.q{queues}"));
                command::run(&mut one)?;
            }
            return Ok(());
        }
        if let Part::Memory = self.options.part {
            report.arg("--memory");
        }
        if self.options.json {
            report.arg("--json");
        }
        command::run(&mut report)
    }
}
