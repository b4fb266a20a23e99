// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `hostile` command.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use hostile::attacks::{ATTACKS, probe};
use hostile::back::{Back, Disk};
use hostile::front::{Front, Outcome};
use hostile::honest::Honest;
use hostile::lies::LIES;
use hostile::random::Random;
use hypervisor_client::{Client, hosted};
use ring_proto::xen::DomId;

/// Be a frontend that breaks the rules, in the domain that this runs in, on a disk that no other driver uses; or a
/// backend that does, with disks of its own; or one that does not, and says what it is asked for.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// `hosted:DIR`, or `dev` for /dev/xen of this machine
    #[arg(long, default_value = "dev")]
    hypervisor: String,
    /// Hosted: the domain to be
    #[arg(long)]
    domid: Option<u16>,
    /// Be a backend, in Dom0, of this domain, which reads and writes each disk that it gets
    #[arg(long)]
    frontend: Option<u16>,
    /// As a backend: break no rule, and print what is asked for, until the disk's state is set to 5 as a toolstack does
    #[arg(long, requires = "frontend", conflicts_with_all = ["attack", "list"])]
    honest: bool,
    /// What a backend offers beside what each one here does, or instead: `feature-persistent=1`
    #[arg(long, value_name = "KEY=VALUE", requires = "frontend", value_parser = key_and_value)]
    offer: Vec<(String, String)>,
    /// What stands besides in the frontend's directory of a backend's disk: `trusted=0`
    #[arg(long, value_name = "KEY=VALUE", requires = "frontend", value_parser = key_and_value)]
    front: Vec<(String, String)>,
    /// A sector of an honest backend's disk that is bad: requests that reach it fail
    #[arg(long, value_name = "SECTOR", requires = "honest")]
    fail: Option<u64>,
    /// Number of the disk: 51712 is xvda. A backend that breaks rules makes four disks in turn, beginning
    /// with this one
    #[arg(long, default_value_t = 51712)]
    device: u32,
    /// Which attacks; without any, all of them
    #[arg(long)]
    attack: Vec<String>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds of each
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// Print what there is
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let names: Vec<_> = match arguments.frontend {
        None => ATTACKS.iter().map(|attack| (attack.name, attack.about)).collect(),
        Some(_) => LIES.iter().map(|lie| (lie.name, lie.about)).collect(),
    };
    if arguments.list {
        names.iter().for_each(|(name, about)| println!("{name:12} {about}"));
        return Ok(());
    }
    for wanted in &arguments.attack {
        anyhow::ensure!(names.iter().any(|(name, _)| name == wanted), "no attack {wanted}");
    }
    let options = hosted::Options {
        domid: arguments.domid.map(DomId),
        name: "hostile".to_owned(),
        pool_pages: 4096,
    };
    let client = hypervisor_client::connect(&arguments.hypervisor, options)?;
    match arguments.frontend {
        None => be_frontend(&arguments, client),
        Some(frontend) => {
            let disk = arguments.disk(DomId(frontend));
            if arguments.honest {
                Honest::plug(client, disk, arguments.fail)?.serve()
            } else {
                be_backend(&arguments, &client, &disk)
            }
        }
    }
}

fn key_and_value(word: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = word.split_once('=').with_context(|| format!("{word} is no KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.attack.is_empty() || self.attack.iter().any(|attack| attack == name)
    }

    /// As a backend: its disk, or the first of them.
    fn disk(&self, frontend: DomId) -> Disk {
        let (offer, front) = (self.offer.clone(), self.front.clone());
        Disk { frontend, device: self.device, offer, front }
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed.saturating_add(self.count)
    }
}

fn be_frontend(arguments: &Arguments, client: Arc<dyn Client>) -> anyhow::Result<()> {
    let mut front = Front::new(client, arguments.device)?;
    for attack in ATTACKS.iter().filter(|attack| arguments.wants(attack.name)) {
        for seed in arguments.seeds() {
            let what = || format!("{} with seed {seed}", attack.name);
            let mut random = Random::new(seed);
            let outcome = attack.run(&mut front, &mut random).with_context(what)?;
            println!("{}: {outcome:?}", what());
            anyhow::ensure!(!matches!(outcome, Outcome::Silent { .. }), "{}: no answer", what());
            probe(&mut front, &mut random).with_context(|| format!("after {}", what()))?;
        }
    }
    Ok(())
}

fn be_backend(arguments: &Arguments, client: &Arc<dyn Client>, disk: &Disk) -> anyhow::Result<()> {
    // A disk that was taken away may still be on its way out in the guest, so the next one has another number.
    let mut devices = (0..4).map(|turn| disk.device + turn * 16).cycle();
    for lie in LIES.iter().filter(|lie| arguments.wants(lie.name)) {
        for (seed, device) in arguments.seeds().zip(&mut devices) {
            let what = || format!("{} with seed {seed}", lie.name);
            let disk = Disk { device, ..disk.clone() };
            let mut back = Back::plug(client.clone(), disk).with_context(what)?;
            let outcome = lie.run(&mut back, &mut Random::new(seed));
            if let Ok(outcome) = &outcome {
                println!("{}: {outcome:?}", what());
            }
            // Also when it failed: whoever reads the disk waits for this.
            let unplugged = back.unplug();
            outcome.with_context(what)?;
            unplugged.with_context(|| format!("after {}", what()))?;
        }
    }
    Ok(())
}
