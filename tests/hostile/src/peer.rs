// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other end, as xenstore shows it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hypervisor_client::store::Store;
use ring_proto::xenbus::{End, State};

/// How long it may take to do what it should.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait between two looks.
pub const LOOK: Duration = Duration::from_millis(5);

/// The other end.
pub struct Peer {
    /// Which one it is.
    pub end: End,
    /// Its directory.
    pub path: String,
}

impl Peer {
    /// Its state.
    pub fn state(&self, store: &Store) -> anyhow::Result<State> {
        Ok(State::read(&mut store.device(&self.path))?)
    }

    /// Waits until its state satisfies a condition.
    pub fn wait(
        &self,
        store: &Store,
        mut right: impl FnMut(State) -> bool,
    ) -> anyhow::Result<State> {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = self.state(store)?;
            if right(state) {
                return Ok(state);
            }
            ensure!(Instant::now() < end, "the {} stays {state}", self.end);
            std::thread::sleep(LOOK);
        }
    }
}
