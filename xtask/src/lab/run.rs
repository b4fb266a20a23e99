// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask lab test`: boots a machine for each scenario, two at a time, and counts what passed.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::{
    Lab,
    machine::{Clock, Dom0, Killed, Machine, Memory, Turns},
    questions,
    scenario::Scenario,
    snapshot::{self, Snapshot, Teller},
};
use crate::command;

/// Seconds that a machine may take to boot, to write its logs and to power off, beside the scenario's own limit.
const AROUND: u64 = 90;

/// How many times longer all takes on the debug kernel.
const CHECKS: u64 = 6;

/// Which scenarios to run.
#[derive(Args)]
pub struct Options {
    /// Only those whose name begins with this or, if there are none, that have a check whose name does
    filter: Option<String>,
    /// How many machines run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// What drives the machines' clocks.
    #[arg(long, value_enum, default_value_t)]
    clock: Clock,
    /// Keep the logs of what passed, too.
    #[arg(long)]
    keep_logs: bool,
    /// Boot the debug kernel: what its checks find fails a scenario, and so do leaks of memory in Dom0. Without
    /// FILTER, the scenarios of hostile peers and faults
    #[arg(long)]
    debug_kernel: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: None,
            jobs: 2,
            clock: Clock::default(),
            keep_logs: false,
            debug_kernel: false,
        }
    }
}

/// Runs them; whether all passed.
///
/// # Errors
///
/// When the lab cannot be made, or there is no such scenario.
pub fn run(options: &Options) -> Result<bool> {
    let here = command::workspace().join("tests/lab");
    let mut scenarios = Scenario::all(&here.join("scenarios"))?;
    if let Some(filter) = &options.filter {
        scenarios = Scenario::choose(scenarios, filter)?;
    } else if options.debug_kernel {
        scenarios.retain(|scenario| scenario.debug_kernel);
    }
    let lab = Lab::ensure_with(options.debug_kernel)?;
    let out = command::workspace().join(format!("target/lab{}", lab.kernel.suffix()));
    fs::create_dir_all(&out)?;
    let initrd = lab.initrd(&out)?;

    let patience = patience();
    if patience > 1 {
        println!("this machine is busy: time limits are {patience} times as long");
    }
    // From where on all but the first go.
    let ready = OnceLock::new();
    let some_go_on = options.clock == Clock::Instructions
        && lab.kernel.debug.is_none()
        && scenarios.iter().filter(|scenario| scenario.dom0 == Dom0::Pv).count() > 2;
    let queue = Mutex::new(scenarios.iter());
    let count = Mutex::new((0, 0));
    thread::scope(|scope| {
        let work = |number: usize| {
            if some_go_on && number == 0 {
                match take_snapshot(&lab, &initrd, &out) {
                    Ok(snapshot) => drop(ready.set(snapshot)),
                    Err(why) => println!("each machine boots, as there is no snapshot: {why:#}"),
                }
            }
            while let Some(scenario) = queue.lock().ok().and_then(|mut queue| queue.next()) {
                let run = Run {
                    lab: &lab,
                    scenario,
                    initrd: &initrd,
                    out: &out,
                    clock: options.clock,
                    patience,
                    ready: ready.get().filter(|_| scenario.dom0 == Dom0::Pv),
                };
                let results = run.judge(options.keep_logs);
                let mut count = count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for (_, why) in &results {
                    *(if why.is_none() { &mut count.0 } else { &mut count.1 }) += 1;
                }
            }
        };
        for number in 0..options.jobs.clamp(1, scenarios.len()) {
            scope.spawn(move || work(number));
        }
    });
    let (passed, failed) = *count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

/// A machine as most scenarios have it.
fn machine(lab: &Lab, initrd: &Path, words: String) -> Machine {
    Machine {
        hypervisor: lab.xen.clone(),
        kernel: lab.kernel.image(),
        initrd: initrd.to_path_buf(),
        turns: Turns::AtOnce,
        dom0: Dom0::Pv,
        memory: Memory::default(),
        words,
    }
}

fn take_snapshot(lab: &Lab, initrd: &Path, out: &Path) -> Result<Snapshot> {
    let machine = machine(lab, initrd, snapshot::WORDS.into());
    Snapshot::take(&machine, Clock::Instructions.arguments(), lab, out)
}

/// How many times longer than on an idle machine all may take: others may be using its processors.
fn patience() -> u64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (1..8).find(|&times| load < (times as f64 + 0.5) * cores as f64).unwrap_or(8)
}

/// One scenario on one machine.
struct Run<'a> {
    lab: &'a Lab,
    scenario: &'a Scenario,
    initrd: &'a Path,
    out: &'a Path,
    clock: Clock,
    patience: u64,
    /// Where it goes on from, in place of a boot.
    ready: Option<&'a Snapshot>,
}

impl Run<'_> {
    /// Runs it and prints its lines. Logs of what failed stay.
    fn judge(&self, keep_logs: bool) -> Vec<(String, Option<String>)> {
        let name = &self.scenario.name;
        let file = |kind: &str| self.out.join(format!("{name}.{kind}"));
        let (serial, report) = (file("serial.log"), file("report.log"));
        let start = Instant::now();
        let (mut shown, mut asked) = (Vec::new(), None);
        let ended = match self.boot(&serial, &report, &mut shown, &mut asked) {
            Ok(ended) => ended,
            Err(why) => format!("{why:#}"),
        };
        let text = |path: &Path, most: Option<usize>| {
            let mut text = fs::read(path).unwrap_or_default();
            text.truncate(most.unwrap_or(usize::MAX));
            String::from_utf8_lossy(&text).replace('\r', "")
        };
        // What Xen was asked for looks like its oopses.
        let story = text(&serial, asked);
        let results = self.scenario.judge(&story, &text(&report, None), &ended);
        let seconds = start.elapsed().as_secs();
        for (name, why) in &results {
            let line = match why {
                None => format!("PASS {name}"),
                Some(why) => format!("FAIL {name}: {why}"),
            };
            if !shown.iter().any(|shown| shown.trim_end() == line) {
                println!("{line}");
            }
        }
        let failed: Vec<_> = results
            .iter()
            .filter_map(|(check, why)| why.as_ref().map(|_| check.as_str()))
            .collect();
        if !failed.is_empty() {
            // Where the machine was asked, the end stands before the answers.
            for line in tell(&story, &failed, asked.is_none()) {
                println!("{name} | {}", line.trim_end());
            }
            println!("     {name}: {seconds} s; logs: {} {}", serial.display(), report.display());
        } else {
            println!("     {name}: {seconds} s");
            if !keep_logs {
                let _ = fs::remove_file(serial);
                let _ = fs::remove_file(report);
            }
        }
        results
    }

    /// Runs the machine until it ends, or its time is up; says which. Prints results as they come, and lists them. `asked`
    /// is where in its log answers to questions begin, if there were any.
    fn boot(
        &self,
        serial: &Path,
        report: &Path,
        shown: &mut Vec<String>,
        asked: &mut Option<usize>,
    ) -> Result<String> {
        let Scenario { name, limit, dom0, .. } = self.scenario;
        let checked = self.lab.kernel.debug.is_some();
        let checks = if checked { CHECKS } else { 1 };
        // The machine's own limits are in its own time.
        let patience = checks * if self.clock == Clock::Host { self.patience } else { 1 };
        let memory = if checked { Memory::CHECKED } else { Memory::default() };
        let words = format!(
            "lab={name} lab_limit={limit} lab_patience={patience} lab_memory={}",
            memory.domu
        );
        let mut teller = self.ready.map(|_| Teller::new(words.clone(), serial));
        let words = if self.ready.is_some() { snapshot::WORDS.into() } else { words };
        let machine = Machine {
            // With KASAN a PV domain does not boot.
            dom0: if checked { Dom0::Pvh } else { *dom0 },
            memory,
            ..machine(self.lab, self.initrd, words)
        };
        File::create(report)?;
        let mut qemu = machine.command(self.lab, report);
        qemu.args(self.clock.arguments());
        qemu.args(self.ready.map(Snapshot::arguments).into_iter().flatten());
        let log = File::create(serial)?;
        qemu.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut qemu = Killed(qemu.spawn()?);
        if let Some(stdin) = &qemu.0.stdin {
            // Nobody waits here for a machine that does not listen.
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        let slower = if self.clock == Clock::Host { 1 } else { 4 };
        let limit = (limit + AROUND) * self.patience * slower * checks;
        let end = Instant::now() + Duration::from_secs(limit);
        loop {
            let text = fs::read(report).unwrap_or_default();
            for line in results(&String::from_utf8_lossy(&text)).skip(shown.len()) {
                println!("{line}");
                shown.push(line.to_owned());
            }
            if let Some(status) = qemu.0.try_wait()? {
                return Ok(status.to_string());
            }
            if let (Some(teller), Some(stdin)) = (&mut teller, &mut qemu.0.stdin) {
                teller.tell(stdin)?;
            }
            if Instant::now() > end {
                if let Some(stdin) = &mut qemu.0.stdin {
                    *asked = Some(questions::ask(name, stdin, serial));
                }
                return Ok(format!("killed after {limit} s"));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Most lines of a story that are printed for a failure.
const TOLD: usize = 40;

/// The lines of a story that tell why these checks failed, for whoever has no more of a run than what it printed: the last
/// of each check and, if one of them is not in it and `to_end` says so, the last of all.
fn tell<'a>(story: &'a str, failed: &[&str], to_end: bool) -> Vec<&'a str> {
    let lines: Vec<_> = story.lines().collect();
    let last = |from: usize, to: usize| &lines[from.max(to.saturating_sub(TOLD))..to];
    let begins = |text: String| lines.iter().position(|line| line.starts_with(&text));
    let (mut told, mut all_there) = (Vec::new(), true);
    for name in failed {
        match (begins(format!("lab: ---- {name} ")), begins(format!("lab: FAIL {name}:"))) {
            (Some(from), Some(to)) if from < to => told.extend(last(from, to + 1)),
            _ => all_there = false,
        }
    }
    if to_end && !all_there {
        told.extend(last(0, lines.len()));
    }
    told
}

/// The lines of a report's first part that are complete and tell a result.
fn results(report: &str) -> impl Iterator<Item = &str> {
    let first = report.split("\n== ").next().unwrap_or_default();
    let lines = first.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.map(str::trim_end).filter(|line| line.starts_with("PASS ") || line.starts_with("FAIL "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_own_part_of_the_story() {
        let story = "boot\nlab: ---- block-a (1 s)\none\nlab: PASS block-a\n\
                     lab: ---- block-a-b (2 s)\ntwo\nlab: FAIL block-a-b: line 3\n\
                     lab: ---- block-c (3 s)\nthree\n";
        let tell = |failed: &[&str], to_end| tell(story, failed, to_end);
        let part = ["lab: ---- block-a-b (2 s)", "two", "lab: FAIL block-a-b: line 3"];
        assert_eq!(tell(&["block-a-b"], true), part);
        // Died in the next.
        let whole: Vec<_> = story.lines().collect();
        assert_eq!(tell(&["block-a-b", "block-c", "block"], true), [&part, &whole[..]].concat());
        assert_eq!(tell(&["block-a-b", "block-c", "block"], false), part);
    }

    #[test]
    fn of_a_long_story_the_end_is_told() {
        let words: String = (0..100).map(|number| format!("{number}\n")).collect();
        let story = format!("lab: ---- block-a (1 s)\n{words}lab: FAIL block-a: x\n{words}");
        let told = |name| tell(&story, &[name], true);
        assert_eq!(told("block-a").len(), TOLD);
        assert_eq!(told("block-a")[TOLD - 2..], ["99", "lab: FAIL block-a: x"]);
        assert_eq!(told("block-b").len(), TOLD);
        assert_eq!(told("block-b")[TOLD - 2..], ["98", "99"]);
        assert!(tell("", &["block-a"], true).is_empty());
    }
}
