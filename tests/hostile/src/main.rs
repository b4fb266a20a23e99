// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `hostile` command.

use anyhow::Context;
use clap::Parser;
use hostile::attacks::{ATTACKS, probe};
use hostile::front::{Front, Outcome};
use hostile::random::Random;
use hypervisor_client::hosted;
use ring_proto::xen::DomId;

/// Be a frontend that breaks the rules, in the domain that this runs in, on a disk that no other driver uses.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// `hosted:DIR`, or `dev` for /dev/xen of this machine
    #[arg(long, default_value = "dev")]
    hypervisor: String,
    /// Hosted: the domain to be
    #[arg(long)]
    domid: Option<u16>,
    /// Number of the disk: 51712 is xvda
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
    if arguments.list {
        ATTACKS.iter().for_each(|attack| println!("{:10} {}", attack.name, attack.about));
        return Ok(());
    }
    for name in &arguments.attack {
        anyhow::ensure!(ATTACKS.iter().any(|attack| attack.name == name), "no attack {name}");
    }
    let options = hosted::Options {
        domid: arguments.domid.map(DomId),
        name: "hostile".to_owned(),
        pool_pages: 4096,
    };
    let client = hypervisor_client::connect(&arguments.hypervisor, options)?;
    let mut front = Front::new(client, arguments.device)?;
    for attack in &ATTACKS {
        if !arguments.attack.is_empty() && !arguments.attack.iter().any(|it| it == attack.name) {
            continue;
        }
        for seed in arguments.seed..arguments.seed.saturating_add(arguments.count) {
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
