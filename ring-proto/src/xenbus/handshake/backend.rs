// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

use super::super::state::{End, IllegalMove, State};
use super::{PeerError, Step};

/// What a backend has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendWork {
    /// Nothing, until the frontend's state or `online` changes.
    Wait,
    /// Nothing: requests are served.
    Run,
    /// Requests are served, if what the frontend published is still what was connected. It may have begun anew meanwhile,
    /// so fast that none of its states between was seen: then connect what is published now. If that takes time, it is
    /// [`Run`](Self::Run) from then on.
    Confirm,
    /// Open what is to be served, and publish what it can do.
    Advertise,
    /// Read what the frontend published, map its rings, bind its event channels, and publish the device.
    Connect,
    /// Read what the frontend changed during the connection.
    Reconfigure,
    /// Answer what has been taken from the rings, and let go of them. When a former life of this backend left the
    /// state, there is nothing to let go of.
    Disconnect,
    /// Close what was served.
    Release,
    /// Nothing more: the toolstack wants the device gone, and it is closed.
    Done,
}

/// A backend's part of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    state: State,
    /// The frontend has been connected to these rings.
    used: bool,
    /// A former life of this backend left the state.
    stale: bool,
}

impl Backend {
    /// A backend that found `state` in its own directory. Whatever a former life began is closed first.
    pub const fn found(state: State) -> Self {
        use State::{Closed, Closing, Initialising, Unknown};
        let stale = !matches!(state, Unknown | Initialising | Closing | Closed);
        Self { state, used: false, stale }
    }

    /// A backend that goes on where a former life of it, which left `state`, ended: with the same rings and event
    /// channels, so that the frontend notices nothing. As [`found`](Self::found) in a state that cannot be gone on with.
    pub const fn resumed(state: State) -> Self {
        match state {
            State::InitWait | State::Connected => Self { state, used: false, stale: false },
            _ => Self::found(state),
        }
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
        if !End::Backend.may_move(self.state, to) {
            return Err(IllegalMove { end: End::Backend, from: self.state, to });
        }
        self.state = to;
        if matches!(to, State::Closing | State::Closed) {
            self.used = false;
            self.stale = false;
        }
        Ok(())
    }

    /// What to do while the frontend's state is `frontend`; [`State::Unknown`] when its directory or domain is gone.
    /// `online` is the key of this name in the backend's own directory.
    ///
    /// # Errors
    ///
    /// When the frontend cannot be in that state. The connection has to be closed.
    pub fn next(&mut self, frontend: State, online: bool) -> Result<Step<BackendWork>, PeerError> {
        use BackendWork as Work;
        use State::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
            Reconfiguring, Unknown,
        };
        let own = self.state;
        let step = |work, to| Ok(Step { work, to });
        let stay = |work| Ok(Step { work, to: own });
        let illegal = Err(PeerError { peer: End::Frontend, peer_state: frontend, own_state: own });

        match own {
            Unknown => return stay(Work::Done),
            Closing => {
                return match frontend {
                    // It is told by this end's `Closing`, and goes to `Closed` when it has finished.
                    Initialised | Connected | Closing | Reconfiguring | Reconfigured => {
                        stay(Work::Wait)
                    }
                    Unknown | Initialising | InitWait | Closed => step(Work::Release, Closed),
                };
            }
            Closed => {
                return match frontend {
                    _ if !online => stay(Work::Done),
                    Initialising => step(Work::Advertise, InitWait),
                    _ => stay(Work::Wait),
                }
            }
            Initialising if !online => return step(Work::Release, Closed),
            _ => {}
        }
        if self.stale || !online {
            return step(Work::Disconnect, Closing);
        }
        match (own, frontend) {
            // A frontend never goes there.
            (_, InitWait) => illegal,
            (Initialising | InitWait | Initialised, Reconfiguring | Reconfigured) => illegal,
            (Initialising, _) => step(Work::Advertise, InitWait),

            (InitWait | Initialised, Unknown | Initialising | Closed) => stay(Work::Wait),
            (InitWait | Initialised, Initialised | Connected) => step(Work::Connect, Connected),

            // Connected, or reconfigured.
            (_, Unknown | Initialising | Closing | Closed) => step(Work::Disconnect, Closing),
            (_, Initialised) if self.used => illegal,
            (Connected, Initialised) => stay(Work::Confirm),
            (_, Reconfiguring) if own != Reconfigured => step(Work::Reconfigure, Reconfigured),
            (_, Reconfiguring | Reconfigured) if own != Reconfiguring => stay(Work::Run),
            _ => {
                let first = !core::mem::replace(&mut self.used, true);
                match own {
                    Connected if first => stay(Work::Confirm),
                    Connected => stay(Work::Run),
                    _ => step(Work::Run, Connected),
                }
            }
        }
    }
}
