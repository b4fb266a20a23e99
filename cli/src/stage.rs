// SPDX-License-Identifier: MIT OR Apache-2.0

//! A hosted hypervisor and a backend domain in processes of their own, with disks for this process to connect to: what
//! the demo and the benchmarks play on. This process is the frontend domain.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hypervisor_client::hosted::{self, HostedClient};
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{self, Vbd, VbdConfig};
use ring_proto::xen::DomId;

use crate::folder::Folder;

/// The domain that the backend runs in.
pub const BACKEND: DomId = DomId(0);
/// The domain that this process is.
pub const FRONTEND: DomId = DomId(1);

/// How long a child may take to get ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// The processes. Dropping it ends them, and removes its folder.
pub struct Stage {
    /// Killed first: a backend outlives its hypervisor only with complaints.
    backend: Option<Process>,
    hypervisor: Process,
    dir: Folder,
}

impl Stage {
    /// Starts the hypervisor and the backend.
    ///
    /// # Errors
    ///
    /// When one of them does not get ready; its own words stand on standard error.
    pub fn new() -> anyhow::Result<Self> {
        let dir = Folder::new("causeway-", &std::env::temp_dir())?;
        let mut command = causeway()?;
        command.arg("hosted").arg("--dir").arg(dir.path());
        // It ends with this process, however that ends, and the backend ends with it.
        command.arg("--until-eof").stdin(Stdio::piped());
        let hypervisor = Process::start(command)?;
        let mut stage = Self { backend: None, hypervisor, dir };
        stage.wait_for_socket("hypervisor.sock")?;
        stage.wait_for_socket("xenstored.sock")?;
        stage.start_backend()?;
        Ok(stage)
    }

    /// Folder of the sockets, for other things too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the backend, again if it was killed.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_backend(&mut self) -> anyhow::Result<()> {
        let mut command = causeway()?;
        command.args(["backend", "--hypervisor", &format!("hosted:{}", self.dir().display())]);
        command.args(["--domid", &BACKEND.to_string()]);
        self.backend = Some(Process::start(command)?);
        Ok(())
    }

    /// Ends the backend with SIGKILL.
    pub fn kill_backend(&mut self) {
        self.backend = None;
    }

    /// Becomes the frontend domain, with room for `pages` granted pages.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses.
    pub fn join(&self, pages: u32) -> anyhow::Result<Arc<HostedClient>> {
        let options =
            hosted::Options { domid: Some(FRONTEND), name: "frontend".into(), pool_pages: pages };
        Ok(Arc::new(hosted::connect(self.dir(), options)?))
    }

    /// Makes a disk for the frontend domain from an image, as a toolstack does.
    ///
    /// # Errors
    ///
    /// When the store refuses.
    pub fn attach(&self, device: u32, image: &Path, read_only: bool) -> anyhow::Result<()> {
        let store = Store::connect(self.dir().join("xenstored.sock"))?;
        let image = image.to_str().context("the image's path is not UTF-8")?;
        let mut config =
            VbdConfig::new(Vbd { frontend: FRONTEND, backend: BACKEND, device }, image);
        config.read_only = read_only;
        Ok(toolstack::create_vbd(&store, &config)?)
    }

    /// Processor time that the backend and the hypervisor have used until now.
    ///
    /// # Errors
    ///
    /// When one of them is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let backend = self.backend.as_ref().context("no backend runs")?;
        Ok(backend.cpu()? + self.hypervisor.cpu()?)
    }

    fn wait_for_socket(&mut self, name: &str) -> anyhow::Result<()> {
        let (path, start) = (self.dir().join(name), Instant::now());
        while !path.exists() {
            if let Some(status) = self.hypervisor.0.try_wait()? {
                bail!("the hosted hypervisor ended with {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("{} did not appear within {PATIENCE:?}", path.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// A child that is killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {name}"))?))
    }

    /// Processor time that it has used until now, in whole clock ticks.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        processor_time(&self.0.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor time of a process, by its name in /proc.
fn processor_time(process: &str) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // After the name in parentheses, which may hold anything: utime and stime are fields 14 and 15 of proc(5).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { bail!("{path} has no times in it") };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

/// Processor time that this process has used until now.
///
/// # Errors
///
/// When /proc is not there.
pub fn own_cpu() -> anyhow::Result<Duration> {
    processor_time("self")
}

/// This program, to be started again.
pub fn causeway() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("where is this program?")?))
}
