// SPDX-License-Identifier: MIT OR Apache-2.0

//! `causeway demo`: a disk image served through Xen's block protocol from one process to another, on this machine,
//! without root and without a virtual machine.

mod copy;
mod image;
mod measure;
mod survive;

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use frontend_user::{Disk, Options as DiskOptions};
use hypervisor_client::Client;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::folder::Folder;
use crate::stage::Stage;

/// Options of `causeway demo`.
#[derive(Args)]
pub struct Options {
    /// Serve this image or device, which is only read, instead of a new ext4 image
    #[arg(long, value_name = "FILE|DEVICE")]
    image: Option<PathBuf>,
    /// Where the images are made, a folder on a disk
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The disk with the file system: `xvda`.
const FILE_SYSTEM: u32 = 51712;
/// The disk that is written to: `xvdb`.
const SCRATCH: u32 = 51728;
/// Size of that in bytes.
const SCRATCH_LEN: u64 = 256 << 20;
/// Pages that the frontend can grant: buffers and rings of both disks.
const GRANT_PAGES: u32 = 16 << 10;

/// What the demo found.
#[derive(Serialize)]
struct Outcome {
    checks: Vec<Check>,
    measurements: Vec<measure::Line>,
    seconds: f64,
}

/// One thing that must hold.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    passed: bool,
    detail: String,
}

/// Plays the demo.
///
/// # Errors
///
/// When something could not be done at all, or a check failed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let start = Instant::now();
    let say = Say { quiet: options.json };
    let folder = Folder::new("causeway-demo-", &options.scratch)
        .with_context(|| format!("making images in {}", options.scratch.display()))?;

    let images = say.busy("making the images");
    let file_system = match &options.image {
        Some(image) => image.canonicalize().with_context(|| image.display().to_string())?,
        None => image::file_system(folder.path())?,
    };
    let scratch = image::scratch(folder.path(), SCRATCH_LEN)?;
    images.finish_and_clear();

    let mut stage = Stage::new()?;
    let client: Arc<dyn Client> = stage.join(GRANT_PAGES)?;
    stage.attach(FILE_SYSTEM, &file_system, true)?;
    stage.attach(SCRATCH, &scratch, false)?;
    say.line("a hypervisor, a backend domain and a frontend domain run as three processes");

    let checks = vec![
        say.check(copy::compare(&client, &file_system, folder.path(), &say)?),
        say.check(survive::writes(&mut stage, &client, &say)?),
    ];
    let measurements = measure::against_raw(&stage, &client, &scratch, &say)?;

    let seconds = start.elapsed().as_secs_f64();
    let outcome = Outcome { checks, measurements, seconds };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        println!("\n{}", measure::table(&outcome.measurements));
        println!("\nratio: median over interleaved pairs of slices; done in {seconds:.0} s");
    }
    let failed: Vec<_> = outcome.checks.iter().filter(|check| !check.passed).collect();
    anyhow::ensure!(failed.is_empty(), "failed: {}", names(&failed));
    Ok(())
}

fn names(checks: &[&Check]) -> String {
    checks.iter().map(|check| check.name).collect::<Vec<_>>().join(", ")
}

/// Connects to a disk, whose backend has to come soon.
fn connect(client: &Arc<dyn Client>, device: u32, queues: u32) -> anyhow::Result<Disk> {
    let options = DiskOptions {
        queues,
        buffers: 8 << 10,
        backend_timeout: Some(20),
        ..DiskOptions::default()
    };
    Disk::connect(Arc::clone(client), device, options).context("connecting to the disk")
}

/// Tells a person what goes on, on standard output and, while it lasts, on the terminal.
struct Say {
    quiet: bool,
}

impl Say {
    fn line(&self, text: impl Display) {
        if !self.quiet {
            println!("{text}");
        }
    }

    fn check(&self, check: Check) -> Check {
        self.line(format_args!(
            "{} {}: {}",
            if check.passed { "PASS" } else { "FAIL" },
            check.name,
            check.detail
        ));
        check
    }

    /// A spinner.
    fn busy(&self, what: &'static str) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// A bar over `len` steps, or bytes.
    fn bar(&self, what: &'static str, len: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %");
        let bar = ProgressBar::new(len).with_message(what);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
