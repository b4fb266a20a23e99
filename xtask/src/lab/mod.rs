// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lab: virtual machines on the real Xen under emulation, in which drivers are shown to work.
//!
//! `setup` makes everything it needs once, in the cache folder: a Debian 13 ([`root`]), the stock kernel and the kit to
//! build modules for it ([`kernel`]), a kernel with checks when it is asked for ([`debug_kernel`]), the first roots of Dom0
//! and DomU ([`image`]), the emulator ([`emulator`]). `test` boots a machine ([`machine`]) for each scenario of
//! `tests/lab/scenarios` ([`scenario`]) and judges what it reported ([`mod@run`]).

mod bench;
mod cpio;
mod debug_kernel;
mod emulator;
mod image;
mod kernel;
mod machine;
mod modules;
mod programs;
mod questions;
mod root;
mod run;
mod scenario;
mod shell;
mod snapshot;
mod stamp;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::{command, packages, versions};

/// What to do with the lab.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make what the lab needs, once, in the cache folder (`CAUSEWAY_CACHE`).
    Setup(Setup),
    /// Boot machines and run scenarios in them.
    Test(run::Options),
    /// Count what a request costs, in instructions, ours and stock.
    Bench(bench::Options),
    /// Boot a Dom0 with a DomU and get a shell in it.
    Shell(shell::Options),
}

/// What to make.
#[derive(Args)]
struct Setup {
    /// The debug kernel, too: KASAN, lockdep, UBSAN, kmemleak.
    #[arg(long)]
    debug_kernel: bool,
}

/// Does it.
///
/// # Errors
///
/// When a part of the lab cannot be made, or a scenario failed.
pub fn run(options: &Options) -> Result<()> {
    match &options.task {
        Task::Setup(options) => {
            Lab::ensure()?;
            if options.debug_kernel {
                Lab::ensure_with(true)?;
            }
            println!("the lab is ready in {}", folder().display());
            Ok(())
        }
        Task::Test(options) => {
            if run::run(options)? {
                return Ok(());
            }
            std::process::exit(1)
        }
        Task::Bench(options) => bench::run(options),
        Task::Shell(options) => shell::run(options),
    }
}

/// What a lab that is there may take to be found so.
const SECOND_SETUP: Duration = Duration::from_secs(5);

/// Runs all scenarios, as a step of `cargo xtask test`.
///
/// # Errors
///
/// When one failed, or the lab is made once more though it is there.
pub fn test() -> Result<()> {
    Lab::ensure()?;
    let second = Instant::now();
    Lab::ensure()?;
    let took = second.elapsed();
    ensure!(took < SECOND_SETUP, "a second setup of the lab took {took:?}");
    ensure!(run::run(&run::Options::default())?, "a scenario failed");
    Ok(())
}

/// Checks the kernel modules as far as that needs no machine, as a step of `cargo xtask test`.
///
/// # Errors
///
/// When they do not compile, a lint has something to say, or one of them can panic.
pub fn modules() -> Result<()> {
    let lab = Lab::ensure()?;
    modules::check(&lab.root, &lab.kernel)
}

/// All that machines are made of.
pub struct Lab {
    /// The Debian 13 in which everything runs.
    pub root: root::Root,
    /// The stock kernel, or the debug kernel.
    pub kernel: kernel::Kernel,
    /// The first roots.
    pub images: image::Images,
    /// The hypervisor, as an ELF file.
    pub xen: PathBuf,
    /// The program that machines run in.
    pub emulator: emulator::Emulator,
}

impl Lab {
    /// Makes what is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made; the message says what is needed.
    pub fn ensure() -> Result<Self> {
        Self::ensure_with(false)
    }

    /// The same, with the debug kernel.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn ensure_with(debug_kernel: bool) -> Result<Self> {
        packages::ensure()?;
        fs::create_dir_all(folder())?;
        let root = root::Root::ensure()?;
        let mut kernel = kernel::Kernel::ensure(&root)?;
        if debug_kernel {
            kernel = debug_kernel::ensure(&root, &kernel)?;
        }
        let images = image::Images::ensure(&root, &kernel)?;
        let xen = folder().join(format!("images/xen-{}", versions::XEN));
        if !xen.exists() {
            // QEMU boots an ELF file.
            let packed = format!("/boot/xen-{}-amd64.gz", versions::XEN);
            let script = "gzip -dc \"$1\" >\"$2.new\" && mv \"$2.new\" \"$2\"";
            command::prepare(&mut root.script(script, &[&packed, &xen.display().to_string()]))?;
        }
        let emulator = emulator::Emulator::ensure(&root)?;
        Ok(Self { root, kernel, images, xen, emulator })
    }

    /// Writes Dom0's first root with the project's parts in it, DomU's among them.
    ///
    /// # Errors
    ///
    /// When a part is missing.
    pub fn initrd(&self, out: &Path) -> Result<PathBuf> {
        self.initrd_with(out, Vec::new(), Vec::new())
    }

    /// The same, with more in Dom0 and in DomU, which goes before what would be there.
    ///
    /// # Errors
    ///
    /// When a part is missing.
    pub fn initrd_with(
        &self,
        out: &Path,
        mut in_dom0: image::Overlay,
        mut in_domu: image::Overlay,
    ) -> Result<PathBuf> {
        let _lock = command::lock(&out.join("initrd.lock"))?;
        let here = command::workspace().join("tests/lab");
        let modules = out.join("modules");
        modules::build(&self.root, &self.kernel, &modules)?;
        let programs = programs::build(&self.root, out)?;

        let domu = out.join("domu.initrd");
        in_domu.extend([
            ("/init".into(), here.join("domu/init")),
            ("/modules".into(), modules.clone()),
        ]);
        in_domu.extend(programs.iter().cloned());
        self.images.compose("domu", &in_domu, &domu)?;

        let dom0 = out.join("dom0.initrd");
        in_dom0.extend([
            ("/init".into(), here.join("dom0/init")),
            ("/guest/initrd".into(), domu),
            ("/guest/vmlinux".into(), self.kernel.image()),
            ("/modules".into(), modules),
            ("/lab/scenarios".into(), here.join("scenarios")),
            (
                "/etc/xen/scripts/block-causeway".into(),
                command::workspace().join("uring-backend/dom0/block-causeway"),
            ),
        ]);
        in_dom0.extend(programs);
        for name in ["run-scenario", "scenario.sh", "shell.sh", "library"] {
            in_dom0.push((format!("/lab/{name}"), here.join("dom0").join(name)));
        }
        self.images.compose("dom0", &in_dom0, &dom0)?;
        // Xen moves it byte by byte: emulated, that is dearer than to unpack it in the machine.
        let (packed, new) = (out.join("dom0.initrd.zst"), out.join("dom0.initrd.new"));
        let mut zstd = self.root.command("zstd");
        command::prepare(zstd.args(["-q", "-f", "-5", "-T0"]).arg(&dom0).arg("-o").arg(&new))?;
        // A machine of another run may be about to read it.
        fs::rename(&new, &packed)?;
        Ok(packed)
    }
}

/// Where the lab is kept.
pub fn folder() -> PathBuf {
    command::cache().join("lab")
}

/// Whether this program may do what root may.
fn is_root() -> Result<bool> {
    Ok(command::output(Command::new("id").arg("-u"))?.trim() == "0")
}
