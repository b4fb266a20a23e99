// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `remote` command.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use hypervisor_client::store::Store;
use remote::{ask, serve};

/// Commands in another domain of the lab, through xenstore.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The device of xenstore
    #[arg(long, default_value = "/dev/xen/xenbus")]
    xenbus: String,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// In a DomU: run what Dom0 asks for
    Serve,
    /// In Dom0: run a command in a domain, print its output and end with its code, or with 124 if it takes too long
    Run {
        /// Most seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The domain
        domid: u16,
        /// A command for bash
        command: String,
    },
    /// Wait until a node is there
    Await {
        /// Most seconds
        seconds: u64,
        /// The node
        path: String,
        /// With this value
        value: Option<String>,
    },
}

fn main() -> Result<ExitCode> {
    let Arguments { xenbus, command } = Arguments::parse();
    let connect = move || Store::connect(&xenbus).with_context(|| xenbus.clone());
    match command {
        What::Serve => {
            serve::serve(connect, "", Path::new("/run"))?;
            Ok(ExitCode::SUCCESS)
        }
        What::Run { seconds, domid, command } => {
            let domain = format!("/local/domain/{domid}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            let number = format!("{}-{now}", std::process::id());
            let limit = Duration::from_secs(seconds);
            let Some(outcome) = ask::run(&connect()?, &domain, &number, &command, limit)? else {
                return Ok(ExitCode::from(124));
            };
            std::io::stdout().write_all(&outcome.output)?;
            Ok(ExitCode::from(outcome.code))
        }
        What::Await { seconds, path, value } => {
            let limit = Duration::from_secs(seconds);
            let Err(found) = ask::wait(&connect()?, &path, value.as_deref(), limit)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let found = found.map(|found| String::from_utf8_lossy(&found).into_owned());
            eprintln!(
                "{path} is not {} after {seconds} s, but: {}",
                value.as_deref().unwrap_or("set"),
                found.as_deref().unwrap_or("absent")
            );
            Ok(ExitCode::FAILURE)
        }
    }
}
