// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The states of `io/xenbus.h` and the moves between them.

use core::fmt;

use super::directory::{Error, ReadDirectory, WriteDirectory};
use super::keys::STATE;

/// How far one end of a device is (`enum xenbus_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// There is no such end: its directory, or its domain, is gone.
    Unknown = 0,
    /// The toolstack made the directory; the driver has not spoken yet.
    Initialising = 1,
    /// A backend has published what it offers, and waits for its frontend.
    InitWait = 2,
    /// A frontend has published its rings, and waits for its backend.
    Initialised = 3,
    /// Requests may flow.
    Connected = 4,
    /// The device is being closed, because of an error or an unplug.
    Closing = 5,
    /// Nothing of the connection is left.
    Closed = 6,
    /// The owner changed some keys during a connection and wants them read.
    Reconfiguring = 7,
    /// The owner has read them.
    Reconfigured = 8,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The state with this number.
    pub const fn from_raw(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Initialising,
            2 => Self::InitWait,
            3 => Self::Initialised,
            4 => Self::Connected,
            5 => Self::Closing,
            6 => Self::Closed,
            7 => Self::Reconfiguring,
            8 => Self::Reconfigured,
            _ => return None,
        })
    }

    /// Its number, as it stands in xenstore.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Its name in `io/xenbus.h`, without `XenbusState`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Initialising => "Initialising",
            Self::InitWait => "InitWait",
            Self::Initialised => "Initialised",
            Self::Connected => "Connected",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
            Self::Reconfiguring => "Reconfiguring",
            Self::Reconfigured => "Reconfigured",
        }
    }

    /// Reads the key `state` of either end's directory; an absent one is [`State::Unknown`].
    ///
    /// # Errors
    ///
    /// When xenstore cannot be read, or the value is no number from 0 to 8.
    pub fn read<D: ReadDirectory>(directory: &mut D) -> Result<Self, Error<D::Error>> {
        let number = STATE.number(directory)?;
        Ok(Self::from_raw(number).unwrap_or(Self::Unknown))
    }

    /// Writes the key `state` of this end's own directory.
    ///
    /// # Errors
    ///
    /// When xenstore cannot be written.
    pub fn write<D: WriteDirectory>(self, directory: &mut D) -> Result<(), D::Error> {
        directory.write(STATE.name, format_args!("{}", self.raw()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the two ends of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The end that uses the device.
    Frontend,
    /// The end that serves it.
    Backend,
}

impl End {
    /// The other one.
    pub const fn peer(self) -> Self {
        match self {
            Self::Frontend => Self::Backend,
            Self::Backend => Self::Frontend,
        }
    }

    /// Whether a driver at this end may write `to` when its own state is `from`.
    pub const fn may_move(self, from: State, to: State) -> bool {
        use State::{
            Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
            Reconfiguring, Unknown,
        };
        match (self, from, to) {
            // Whoever has a directory may give up at any time.
            (_, Unknown, _) | (_, _, Unknown) => false,
            (_, Closing, Closed) => true,
            (_, Closed, _) => {
                matches!((self, to), (Self::Frontend, Initialising) | (Self::Backend, InitWait))
            }
            (_, Closing, _) => false,
            (_, _, Closing) => true,
            (_, Initialising, Closed) => true,
            (Self::Frontend, Initialising, Initialised | Connected) => true,
            (Self::Frontend, Initialised, Connected) => true,
            (Self::Backend, Initialising, InitWait | Initialised) => true,
            (Self::Backend, InitWait | Initialised, Connected) => true,
            (_, Connected, Reconfiguring | Reconfigured) => true,
            (_, Reconfiguring, Connected | Reconfigured) => true,
            (_, Reconfigured, Connected) => true,
            _ => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        })
    }
}

/// A driver was about to write a state that its own does not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalMove {
    /// Which end.
    pub end: End,
    /// Its state.
    pub from: State,
    /// What it was about to write.
    pub to: State,
}

impl fmt::Display for IllegalMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} does not go from {} to {}", self.end, self.from, self.to)
    }
}

impl core::error::Error for IllegalMove {}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    #[test]
    fn numbers_and_names() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(State::from_raw(number as u64), Some(state));
            assert_eq!(usize::from(state.raw()), number);
        }
        assert_eq!(State::from_raw(9), None);
        assert_eq!(std::format!("{}", State::InitWait), "InitWait");
    }

    #[test]
    fn read_and_write() {
        let mut fake = Fake::default();
        assert_eq!(State::read(&mut fake).unwrap(), State::Unknown);
        for state in State::ALL {
            state.write(&mut fake).unwrap();
            assert_eq!(State::read(&mut fake).unwrap(), state);
        }
        for bad in ["9", "-1", "", " 4", "4\n", "four", "99999999999999999999999"] {
            let mut fake = Fake::of(&[("state", bad)]);
            let Err(Error::Key(error)) = State::read(&mut fake) else { panic!("{bad:?} passed") };
            assert_eq!(error.path.as_str(), "state");
        }
    }

    #[test]
    fn moves_of_the_stock_drivers_are_legal() {
        use State::*;
        let block_front = [Initialising, Initialised, Connected, Closing, Closed, Initialising];
        let net_front =
            [Initialising, Connected, Reconfiguring, Connected, Closing, Closed, Initialising];
        let back = [Initialising, InitWait, Connected, Reconfigured, Connected, Closing, Closed];
        for (end, walk) in [
            (End::Frontend, &block_front[..]),
            (End::Frontend, &net_front[..]),
            (End::Backend, &back[..]),
            (End::Backend, &[Closed, InitWait, Closing, Closed][..]),
        ] {
            for pair in walk.windows(2) {
                assert!(end.may_move(pair[0], pair[1]), "{end}: {} to {}", pair[0], pair[1]);
            }
        }
        assert!(!End::Frontend.may_move(Initialising, InitWait));
        assert!(!End::Backend.may_move(Connected, InitWait));
        assert!(!End::Frontend.may_move(Closed, Connected));
        assert!(!End::Backend.may_move(Closing, Connected));
    }
}
