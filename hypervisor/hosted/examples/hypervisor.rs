// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hypervisor as a process of its own: `hypervisor DIR`. It ends when its standard input does.

use std::io::Read;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: hypervisor DIR")?;
    let stop = hypervisor_hosted::Stop::new()?;
    let stopper = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopper.stop();
    });
    Ok(hypervisor_hosted::run(Path::new(&dir), &stop)?)
}
