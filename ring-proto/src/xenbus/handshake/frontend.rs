// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::state::{End, IllegalMove, State};
use super::{PeerError, Step};

/// What a frontend has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendWork {
    /// Nothing, until the backend's state or `online` changes.
    Wait,
    /// Nothing: requests flow. Whenever the backend's `state` was written again, read what may change during a
    /// connection, as the size of a disk.
    Run,
    /// Read what the backend offers, allocate the rings and event channels, and publish them.
    Publish,
    /// Read what the backend connected, and let requests flow.
    Connect,
    /// Stop using the rings. Requests without an answer may be kept for the next connection.
    Disconnect,
    /// End the grants and event channels of the connection.
    Release,
    /// Nothing: begin anew.
    Restart,
    /// Nothing more: the device is closed on both ends.
    Done,
}

/// A frontend's part of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frontend {
    state: State,
    /// What it goes to once its rings are published.
    published: State,
    /// The backend has been connected to these rings.
    served: bool,
    /// A former life of this frontend left the state.
    stale: bool,
}

impl Frontend {
    /// A block device's frontend that found `state` in its own directory. It publishes with `Initialised`.
    pub const fn found(state: State) -> Self {
        Self::new(state, State::Initialised)
    }

    /// The same for a network device, which publishes with `Connected`: Linux's netback waits for that.
    pub const fn found_network(state: State) -> Self {
        Self::new(state, State::Connected)
    }

    const fn new(state: State, published: State) -> Self {
        use State::{Closed, Closing, Initialising, Unknown};
        let stale = !matches!(state, Unknown | Initialising | Closing | Closed);
        Self { state, published, served: false, stale }
    }

    /// Its state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Takes note that this end's state is now `to`.
    ///
    /// # Errors
    ///
    /// When the present state does not lead there; nothing has changed then.
    pub fn enter(&mut self, to: State) -> Result<(), IllegalMove> {
        if !End::Frontend.may_move(self.state, to) {
            return Err(IllegalMove { end: End::Frontend, from: self.state, to });
        }
        self.state = to;
        if matches!(to, State::Closing | State::Closed) {
            self.served = false;
            self.stale = false;
        }
        Ok(())
    }

    /// What to do while the backend's state is `backend`; [`State::Unknown`] when its directory or domain is gone.
    /// `keep` says that the device is wanted: by its owner, and by the toolstack (the backend's `online` is 1, or its
    /// directory is gone and with it `online`, while this end's own still stands).
    ///
    /// # Errors
    ///
    /// When the backend cannot be in that state. The connection has to be closed.
    pub fn next(&mut self, backend: State, keep: bool) -> Result<Step<FrontendWork>, PeerError> {
        use FrontendWork as Work;
        use State::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
            Reconfiguring, Unknown,
        };
        let own = self.state;
        let step = |work, to| Ok(Step { work, to });
        let stay = |work| Ok(Step { work, to: own });
        let illegal = Err(PeerError { peer: End::Backend, peer_state: backend, own_state: own });

        match own {
            Unknown => return stay(Work::Done),
            Closing => {
                return match backend {
                    // It has not noticed yet, and may still use the grants.
                    Initialised | Connected | Reconfiguring | Reconfigured => stay(Work::Wait),
                    _ => step(Work::Release, Closed),
                };
            }
            Closed => {
                return match (backend, keep) {
                    (Initialised | Connected | Closing | Reconfiguring | Reconfigured, _) => {
                        stay(Work::Wait)
                    }
                    (_, true) => step(Work::Restart, Initialising),
                    (_, false) => stay(Work::Done),
                }
            }
            _ => {}
        }
        if self.stale || !keep {
            return step(Work::Disconnect, Closing);
        }
        match (own, backend) {
            (_, Closing) => step(Work::Disconnect, Closing),

            (Initialising, Unknown | Initialising | Closed) => stay(Work::Wait),
            (Initialising, InitWait | Initialised) => step(Work::Publish, self.published),
            // It serves a connection that this frontend knows nothing of.
            (Initialising, Connected) => step(Work::Disconnect, Closing),
            (Initialising | Initialised, Reconfiguring | Reconfigured) => illegal,

            (_, Unknown | Closed) => step(Work::Disconnect, Closing),

            (Initialised, Connected) => {
                self.served = true;
                step(Work::Connect, Connected)
            }
            (Initialised, _) => stay(Work::Wait),

            (Connected, Connected) if !self.served && self.published == Connected => {
                self.served = true;
                stay(Work::Connect)
            }
            (Reconfiguring, Reconfigured) => step(Work::Run, Connected),
            (Reconfiguring, Connected) => stay(Work::Wait),
            (Reconfigured, Connected | Reconfiguring | Reconfigured) => step(Work::Run, Connected),
            (_, Connected | Reconfiguring | Reconfigured) => stay(Work::Run),
            // It has published with `Connected`, and the backend has not answered yet.
            (Connected, _) if !self.served => stay(Work::Wait),
            // The backend's driver began anew, and finds the rings as they were published: it takes them over with all
            // that is unanswered in them, and goes to `Connected`; or it cannot, and goes to `Closing`.
            (Connected, _) if self.published == Initialised => stay(Work::Wait),
            // The backend left `Connected`.
            _ => step(Work::Disconnect, Closing),
        }
    }
}
