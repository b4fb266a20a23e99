// SPDX-License-Identifier: MIT OR Apache-2.0

//! `causeway bench …`: a hosted disk against raw io_uring on the same file, and its NBD server against qemu-nbd.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench::block;
use bench::raw::RawDisk;
use bench::report::{Measurement, Report, Unit};
use clap::{Args, ValueEnum};
use frontend_user::load::QueueTarget;
use frontend_user::{Disk, Options as DiskOptions};
use hypervisor_client::Client;
use indicatif::ProgressBar;

use crate::folder::Folder;
use crate::stage::{FRONTEND, Process, Stage, causeway, own_cpu};

/// What to measure, and how long.
#[derive(Args)]
pub struct Options {
    /// The part that is measured
    part: Part,
    /// Print one JSON array of {name, unit, ours, baseline, against, ratio, spread, runs}
    #[arg(long)]
    json: bool,
    /// Measure only what has this in its name, such as `d32.direct`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Interleaved pairs of each measurement
    #[arg(long, value_name = "N", default_value_t = 10)]
    pairs: usize,
    /// Length of one slice in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    slice: f64,
    /// Longest time that the frontend looks for answers before it sleeps, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = DiskOptions::default().poll)]
    poll: u64,
    /// A folder on a disk, for `direct`
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    disk: PathBuf,
    /// A folder on a tmpfs, for `tmpfs`
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tmpfs: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// A disk: `block.LOAD.dDEPTH.{direct,tmpfs}` and `block.randread4k.d32.nbd`
    Block,
}

/// Size of the image in bytes.
const IMAGE: u64 = 256 << 20;
/// Number of the disk.
const DEVICE: u32 = 51712;
/// Pages that the frontend can grant.
const GRANT_PAGES: u32 = 8 << 10;

/// Measures and prints.
///
/// # Errors
///
/// When something is missing, or a disk fails.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let Part::Block = options.part;
    let mut report = Report::default();
    report.extend(against_raw(options, "direct", &options.disk)?);
    report.extend(against_raw(options, "tmpfs", &options.tmpfs)?);
    let nbd = "block.randread4k.d32.nbd";
    if nbd.contains(&options.only) {
        report.push(against_qemu_nbd(options, nbd)?);
    }
    ensure!(!report.measurements().is_empty(), "no measurement has `{}` in its name", options.only);
    report.print(options.json)
}

/// A stage with one writable disk on a new image in a folder.
struct Bench {
    stage: Stage,
    image: PathBuf,
    /// Removed at the end.
    _folder: Folder,
}

impl Bench {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let folder = Folder::new("causeway-bench-", folder)
            .with_context(|| format!("making an image in {}", folder.display()))?;
        let image = folder.path().join("image");
        let mut file = File::create(&image)?;
        for _ in 0..IMAGE >> 20 {
            file.write_all(&[0x5a; 1 << 20])?;
        }
        file.sync_all()?;
        let stage = Stage::new()?;
        stage.attach(DEVICE, &image, false)?;
        Ok(Self { stage, image, _folder: folder })
    }
}

/// All loads on an image in `folder`, against raw io_uring, with `O_DIRECT` where the file system has it.
fn against_raw(options: &Options, place: &str, folder: &Path) -> anyhow::Result<Vec<Measurement>> {
    let slice = Duration::try_from_secs_f64(options.slice).context("--slice")?;
    let cases: Vec<_> = block::cases(slice)
        .map(|case| (format!("block.{}.d{}.{place}", case.name, case.job.depth), case))
        .filter(|(name, _)| name.contains(&options.only))
        .collect();
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let bench = Bench::new(folder)?;
    let client: Arc<dyn Client> = bench.stage.join(GRANT_PAGES)?;
    let disk_options =
        DiskOptions { buffers: 8 << 10, poll: options.poll, ..DiskOptions::default() };
    let mut disk = Disk::connect(client, DEVICE, disk_options)?;
    let mut queue = disk.take_queues().pop().context("the disk has no queue")?;
    let mut ours = QueueTarget::new(&mut queue);
    let mut raw = RawDisk::open(&bench.image, place == "direct")
        .with_context(|| format!("opening {} for the baseline", bench.image.display()))?;

    let bar = ProgressBar::new(cases.len() as u64);
    let mut measurements = Vec::new();
    for (name, case) in cases {
        let our_cpu = || Ok(bench.stage.cpu()? + own_cpu()?);
        let pairs =
            block::pairs(&case.job, options.pairs, (&mut ours, our_cpu), (&mut raw, own_cpu))?;
        let iops: Vec<_> = pairs.iter().map(|pair| (pair.0.iops, pair.1.iops)).collect();
        measurements.push(Measurement::new(name, Unit::Rate("IOPS"), "raw io_uring", &iops)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measurements)
}

/// fio's NBD engine on our server and on qemu-nbd, with the same image on a tmpfs behind both.
fn against_qemu_nbd(options: &Options, name: &str) -> anyhow::Result<Measurement> {
    let bench = Bench::new(&options.tmpfs)?;
    let socket = |name: &str| bench.stage.dir().join(name);

    let mut command = causeway()?;
    let hypervisor = format!("hosted:{}", bench.stage.dir().display());
    command.args(["nbd", "--hypervisor", &hypervisor, "--domid", &FRONTEND.to_string()]);
    command.args(["--poll", &options.poll.to_string()]);
    command.arg("--listen").arg(socket("ours.sock")).stdout(Stdio::null());
    let _ours = Process::start(command)?;
    let mut command = Command::new("qemu-nbd");
    command.args(["--format=raw", "--persistent", "--shared=0", "--socket"]);
    command.arg(socket("qemu.sock")).arg(&bench.image);
    let _theirs = Process::start(command).context("install the package qemu-utils")?;

    let bar = ProgressBar::new(options.pairs as u64);
    let mut pairs = Vec::new();
    for _ in 0..options.pairs {
        pairs.push((
            fio(&socket("ours.sock"), options.slice)?,
            fio(&socket("qemu.sock"), options.slice)?,
        ));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Measurement::new(name, Unit::Rate("IOPS"), "qemu-nbd", &pairs)
}

/// 4 KiB random reads at depth 32 over a server's socket, with fio. Returns IOPS.
fn fio(socket: &Path, seconds: f64) -> anyhow::Result<f64> {
    let start = Instant::now();
    while !socket.exists() {
        ensure!(start.elapsed() < Duration::from_secs(10), "{} did not appear", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut command = Command::new("fio");
    command.args(["--name=randread4k", "--ioengine=nbd", "--rw=randread", "--bs=4k"]);
    command.args(["--iodepth=32", "--time_based", "--output-format=json"]);
    command.arg(format!("--runtime={}ms", (seconds * 1e3) as u64));
    command.arg(format!("--uri=nbd+unix:///?socket={}", socket.display()));
    let output = command.stdin(Stdio::null()).output().context("install the package fio")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    // Notes may stand before the object.
    let text = String::from_utf8_lossy(&output.stdout);
    let object = text.find('{').map_or("", |start| &text[start..]);
    let result: serde_json::Value = serde_json::from_str(object).context("fio's output")?;
    result["jobs"][0]["read"]["iops"].as_f64().context("fio's output has no IOPS")
}
