// SPDX-License-Identifier: MIT OR Apache-2.0

//! The emulated machine on which the hypervisor boots.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use clap::ValueEnum;

use super::Lab;
use super::emulator::Emulator;

/// How Dom0 runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dom0 {
    /// Paravirtualized, as most are.
    #[default]
    Pv,
    /// In hardware's virtualization, with an emulated IOMMU.
    Pvh,
}

/// Which hypervisor boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Hypervisor {
    /// Debian's Xen.
    #[default]
    Xen,
}

/// The processor; see [`Machine::command`].
const CPU: &str = "EPYC,+svm,+npt,-smap,-monitor,-rdtscp,\
    -xsave,-xsaveopt,-xsavec,-xsaves,-xgetbv1,-avx,-avx2,-f16c,-fma,-sha-ni";

/// Words of Xen's command line. Mitigations against a malicious guest's timing are dear under emulation, and not what
/// is tested.
const XEN: &str = "console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning \
    dom0_max_vcpus=1 cpuidle=0 bootscrub=0 spec-ctrl=no";

/// When Xen's scheduler lets one that woke up have the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// At once. Two processors of a domain share the machine's one: where one waits for the other it spins, and to spin
    /// is dear under emulation, where PAUSE is not intercepted and takes as long as a thousand other instructions.
    #[default]
    AtOnce,
    /// When the one that runs has had its millisecond, as Xen does if nobody says otherwise.
    RateLimited,
}

/// Words of every Linux' command line, for the same reason. `tests/lab/dom0/library/domu.sh` has them for DomUs.
const LINUX: &str = "console=hvc0 loglevel=5 mitigations=off init_on_alloc=0 audit=0 lsm= nokaslr \
    cryptomgr.notests nowatchdog";

/// What drives the clock of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// The host's clock. Boots twice as fast, but then three schedulers tick in it all the time: a whole scenario takes
    /// more of the processor than by the other clock, and on a busy machine it misses time limits.
    Host,
    /// The instructions it runs, each a nanosecond, and no time at all when it waits: what else the host does changes
    /// nothing.
    #[default]
    Instructions,
}

impl Clock {
    /// More arguments for the emulator.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[],
            Self::Instructions => {
                &["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "7"]
            }
        }
    }
}

/// Memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    machine: u32,
    dom0: u32,
    /// What a DomU has if its scenario does not say.
    pub domu: u32,
}

impl Memory {
    /// With a kernel that keeps an account of all its memory.
    pub const CHECKED: Self = Self { machine: 5120, dom0: 2560, domu: 768 };
}

impl Default for Memory {
    fn default() -> Self {
        Self { machine: 3072, dom0: 1536, domu: 256 }
    }
}

/// What boots.
pub struct Machine {
    /// The hypervisor as an ELF file.
    pub hypervisor: PathBuf,
    /// Dom0's kernel.
    pub kernel: PathBuf,
    /// Dom0's first root.
    pub initrd: PathBuf,
    /// How Dom0 runs.
    pub dom0: Dom0,
    /// How domains take turns.
    pub turns: Turns,
    /// How much memory there is.
    pub memory: Memory,
    /// Words for Dom0's command line.
    pub words: String,
}

impl Machine {
    /// The emulator, with the first serial port on its standard input and output, and the second in the file `report`.
    ///
    /// No host virtualization is used. QEMU emulates AMD's, without a virtual interrupt controller or decode assists.
    /// Some features of the processor are hidden: MWAIT panics Xen under emulation, and so does its idle driver; with
    /// XSAVE, programs of Dom0 and DomU see each other's vector registers now and then; and with SHA instructions, which
    /// QEMU runs without the exception for registers that are another's (CR0.TS), so that a checksum of the same file is
    /// another one each time.
    pub fn command(&self, lab: &Lab, report: &Path) -> Command {
        let mut qemu = lab.root.command(&lab.emulator.program);
        qemu.args(Emulator::arguments());
        qemu.args(["-accel", "tcg,thread=single", "-machine", "q35", "-smp", "1"]);
        qemu.arg("-m").arg(self.memory.machine.to_string());
        qemu.args(["-cpu", CPU, "-no-reboot", "-nodefaults"]);
        qemu.args(["-display", "none"]);
        qemu.arg("-serial").arg("mon:stdio");
        qemu.arg("-serial").arg(format!("file:{}", report.display()));
        let dom0 = self.memory.dom0;
        let mut xen = format!("{XEN} dom0_mem={dom0}M,max:{dom0}M");
        if self.turns == Turns::AtOnce {
            xen += " sched_ratelimit_us=0";
        }
        if self.dom0 == Dom0::Pvh {
            qemu.args(["-device", "amd-iommu"]);
            xen += " dom0=pvh";
        }
        qemu.arg("-kernel").arg(&self.hypervisor).args(["-append", &xen]);
        // The hypervisor's modules: each a file, a space and its command line.
        let (kernel, initrd) = (self.kernel.display(), self.initrd.display());
        let words = &self.words;
        qemu.arg("-initrd").arg(format!("{kernel} {LINUX} {words},{initrd}"));
        qemu
    }
}

/// A process that does not outlive its value.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
