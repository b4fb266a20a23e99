// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! What each end has to do next.
//!
//! A driver holds a [`Frontend`] or a [`Backend`]. Whenever its peer's `state`, or the backend's `online`, may have
//! changed, it reads both and asks [`next`](Frontend::next) until the answer is to wait:
//!
//! ```
//! use ring_proto::xenbus::{Frontend, FrontendWork, State};
//!
//! fn follow(frontend: &mut Frontend, backend: State) -> Result<(), Box<dyn std::error::Error>> {
//!     loop {
//!         let step = frontend.next(backend, true)?;
//!         match step.work {
//!             FrontendWork::Publish => { /* allocate the rings, write a `Connection` */ }
//!             FrontendWork::Connect => { /* read the `Geometry` */ }
//!             _ => { /* … */ }
//!         }
//!         if step.to == frontend.state() {
//!             return Ok(());
//!         }
//!         frontend.enter(step.to)?;
//!         // and write `step.to` to xenstore
//!     }
//! }
//!
//! let mut frontend = Frontend::found(State::Initialising);
//! follow(&mut frontend, State::InitWait)?;
//! assert_eq!(frontend.state(), State::Initialised);
//! follow(&mut frontend, State::Connected)?;
//! assert_eq!(frontend.state(), State::Connected);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Work is done before its state is written. A driver that cannot do it writes `Closing` instead, and so it does when
//! `next` is an error: while closing, nothing that the peer writes is an error any more.
//!
//! # Coming back
//!
//! Closing does not end a device that is to be kept. Once both ends are `Closed`, the frontend goes to `Initialising`,
//! the backend answers with `InitWait`, and everything is negotiated anew. So an end that was killed and started again
//! has only to close what its former life left: [`Frontend::found`] and [`Backend::found`] take the state that stands
//! in xenstore and go to `Closing` first, unless nothing was connected. The other end sees its peer leave `Connected`,
//! gives up its rings, and keeps unanswered requests for the next connection. Linux' block backend does it in another
//! way: bound anew, it goes from `InitWait` to `Connected` by itself and takes over the rings that it finds published, so
//! a block frontend that is `Connected` lets a backend do that. A backend that is `Closed` stays so until
//! it sees `Initialising`: a frontend that is still `Connected` has not noticed yet, and its rings are not to be
//! touched.

mod backend;
mod frontend;

pub use backend::{Backend, BackendWork};
pub use frontend::{Frontend, FrontendWork};

use core::fmt;

use super::state::{End, State};

/// What to do, and which state to write then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<W> {
    /// The work.
    pub work: W,
    /// This end's state afterwards. It is the present one when nothing is to be written.
    pub to: State,
}

/// A peer is in a state that it cannot have come to while this end is in its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// Which end the peer is.
    pub peer: End,
    /// The peer's state.
    pub peer_state: State,
    /// This end's state.
    pub own_state: State,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} cannot be {} while the {} is {}",
            self.peer,
            self.peer_state,
            self.peer.peer(),
            self.own_state
        )
    }
}

impl core::error::Error for PeerError {}

#[cfg(test)]
mod tests;
