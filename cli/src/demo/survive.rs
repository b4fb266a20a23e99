// SPDX-License-Identifier: MIT OR Apache-2.0

//! Second act: the backend is killed while blocks are written, and every block that was acknowledged is still there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use frontend_user::load::{self, Job, Progress, QueueTarget};
use hypervisor_client::Client;

use super::{Check, SCRATCH, Say, connect};
use crate::stage::Stage;

/// How long is written.
const TIME: Duration = Duration::from_secs(5);
/// How often the backend is killed in that time.
const KILLS: u32 = 2;
/// How long there is none.
const ABSENCE: Duration = Duration::from_millis(200);
/// How much of the disk is written, in bytes.
const SPAN: u64 = 64 << 20;

/// Writes and reads random blocks on two queues, and kills the backend in the middle.
pub fn writes(stage: &mut Stage, client: &Arc<dyn Client>, say: &Say) -> anyhow::Result<Check> {
    let mut disk = connect(client, SCRATCH, 2)?;
    let mut queues = disk.take_queues();
    let job = Job { reads: 30, verify: true, time: TIME, span: Some(SPAN), ..Job::default() };
    let progress = Progress::default();
    let busy = say.busy("writing and verifying random blocks, killing the backend");
    let report = std::thread::scope(|scope| {
        let (job, progress) = (&job, &progress);
        let mut targets: Vec<_> = queues.iter_mut().map(QueueTarget::new).collect();
        let work = scope.spawn(move || load::run(job, &mut targets, progress));
        let killed = (0..KILLS).try_for_each(|_| {
            std::thread::sleep(TIME / (KILLS + 1));
            stage.kill_backend();
            std::thread::sleep(ABSENCE);
            stage.start_backend()
        });
        if killed.is_err() {
            progress.stop();
        }
        let report = work.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?;
        killed.and(report.context("the verified writes"))
    })?;
    busy.finish_and_clear();

    let reconnects = disk.reconnects();
    let resubmitted: u64 = disk.statistics().iter().map(|queue| queue.resubmitted).sum();
    let passed = report.damaged == 0 && report.verified > 0 && reconnects >= u64::from(KILLS);
    let mut detail = format!(
        "{} writes, {} reads; backend killed {KILLS} times with SIGKILL, {reconnects} reconnections, {resubmitted} requests \
         sent anew; {} blocks verified, {} damaged",
        report.writes, report.reads, report.verified, report.damaged
    );
    for damage in &report.damage {
        detail.push_str("; ");
        detail.push_str(damage);
    }
    Ok(Check { name: "survive", passed, detail })
}
