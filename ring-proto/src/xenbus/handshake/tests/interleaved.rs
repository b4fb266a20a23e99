// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Two ends that run at the same time: between reading the peer's state and writing its own, an end does work, and the
//! peer goes on. Every interleaving is walked, also with Linux's drivers at the other end.

use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use super::*;

/// One of Linux's drivers. Its handler of `otherend_changed` runs once for every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stock {
    driver: Linux,
    state: State,
    seen: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Linux {
    Blkfront,
    Netfront,
    Blkback,
    Netback,
}

impl Linux {
    /// Where its handler goes.
    fn goes(self, own: State, peer: State) -> State {
        use State::*;
        match (self, peer, own) {
            (Self::Blkfront, InitWait, Initialising) => Initialised,
            (Self::Blkfront, Connected, _) => Connected,
            (Self::Blkfront, Closing | Closed, _) => Closed,

            (Self::Netfront, InitWait, Initialising) => Connected,
            (Self::Netfront, Closing | Closed, _) => Closed,

            (Self::Blkback, Initialising, Closed) => InitWait,
            (Self::Blkback, Initialised | Connected, _) => Connected,
            (Self::Blkback, Closing, _) => Closing,
            (Self::Blkback, Closed, _) => Closed,

            (Self::Netback, Initialising, _) => InitWait,
            (Self::Netback, Connected, _) => Connected,
            (Self::Netback, Closing, _) => Closing,
            (Self::Netback, Closed, _) => Closed,
            (Self::Netback, Reconfiguring, _) => Reconfigured,
            _ => own,
        }
    }
}

/// A driver at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Driver {
    Front(Frontend),
    Back(Backend),
    Stock(Stock),
}

impl Driver {
    fn linux(driver: Linux, state: State, seen: State) -> Self {
        Self::Stock(Stock { driver, state, seen })
    }

    fn state(&self) -> State {
        match self {
            Self::Front(front) => front.state(),
            Self::Back(back) => back.state(),
            Self::Stock(stock) => stock.state,
        }
    }

    /// Reads the peer's state, and decides what to write when the work is done.
    fn decide(&mut self, peer: State, keep: bool) -> State {
        match self {
            Self::Front(front) => front.next(peer, keep).map_or(State::Closing, |step| step.to),
            Self::Back(back) => back.next(peer, keep).map_or(State::Closing, |step| step.to),
            Self::Stock(stock) if stock.seen == peer => stock.state,
            Self::Stock(stock) => {
                stock.seen = peer;
                stock.driver.goes(stock.state, peer)
            }
        }
    }

    fn enter(&mut self, to: State) {
        match self {
            Self::Front(front) => front.enter(to).expect("only legal moves are proposed"),
            Self::Back(back) => back.enter(to).expect("only legal moves are proposed"),
            Self::Stock(stock) => stock.state = to,
        }
    }
}

/// Both ends, the frontend first, and what each has decided to write but not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    ends: [Driver; 2],
    decided: [Option<State>; 2],
    /// The frontend has rings, and published them itself: they are not those of a former life.
    rings: bool,
}

impl World {
    fn after(mut self, turn: usize, keep: bool) -> Self {
        let peer = self.ends[1 - turn].state();
        let end = &mut self.ends[turn];
        match self.decided[turn].take() {
            Some(to) => {
                end.enter(to);
                if turn == 0 {
                    self.rings = matches!(to, State::Initialised | State::Connected);
                }
            }
            None => {
                let to = end.decide(peer, keep);
                let connects = to == State::Connected && end.state() == State::InitWait;
                if turn == 1 && connects {
                    assert!(self.rings, "{end:?} connects to rings of a former life");
                }
                self.decided[turn] = (to != end.state()).then_some(to);
            }
        }
        self
    }

    /// Both ends are in these states, and connected ones by rings that both know.
    fn is(&self, goal: [State; 2]) -> bool {
        let states = [self.ends[0].state(), self.ends[1].state()];
        states == goal && (goal != CONNECTED || self.rings)
    }
}

/// Walks every interleaving from `ends`, and checks that `goal` stays in reach wherever it has led, and that nothing
/// but the goal is left when neither end has anything to do.
fn always_reaches(ends: [Driver; 2], keep: bool, goal: [State; 2]) {
    let start = World { ends, decided: [None; 2], rings: false };
    let mut from: HashMap<World, Vec<World>> = HashMap::new();
    let mut walked = HashSet::from([start]);
    let mut todo = Vec::from([start]);
    while let Some(world) = todo.pop() {
        for turn in [0, 1] {
            let next = world.after(turn, keep);
            from.entry(next).or_default().push(world);
            if walked.insert(next) {
                todo.push(next);
            }
        }
        if world.after(0, keep) == world && world.after(1, keep) == world {
            assert!(world.is(goal), "{world:?} is stuck, from {ends:?}");
        }
    }
    let mut todo: Vec<_> = walked.iter().filter(|world| world.is(goal)).copied().collect();
    let mut reaching: HashSet<_> = todo.iter().copied().collect();
    while let Some(world) = todo.pop() {
        for before in from.get(&world).into_iter().flatten() {
            if reaching.insert(*before) {
                todo.push(*before);
            }
        }
    }
    if let Some(lost) = walked.iter().find(|world| !reaching.contains(*world)) {
        panic!("{lost:?} never reaches {goal:?}");
    }
}

const CONNECTED: [State; 2] = [State::Connected; 2];
const CLOSED: [State; 2] = [State::Closed; 2];

fn known() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|state| *state != State::Unknown)
}

/// Whatever state each end finds. A new backend's directory with an old frontend's is not among them: the toolstack makes
/// both at once.
#[test]
fn our_own_ends() {
    for front in known() {
        for back in known() {
            if back == State::Initialising && front != State::Initialising {
                continue;
            }
            for frontend in frontends(front) {
                let ends = [Driver::Front(frontend), Driver::Back(Backend::found(back))];
                always_reaches(ends, true, CONNECTED);
                always_reaches(ends, false, CLOSED);
            }
        }
    }
}

/// A frontend of ours that is new, or was restarted and finds a stock backend connected to its former life.
#[test]
fn our_frontends_with_stock_backends() {
    for (new, linux) in [
        (Frontend::found as fn(State) -> Frontend, Linux::Blkback),
        (Frontend::found_network, Linux::Netback),
    ] {
        for (keep, goal) in [(true, CONNECTED), (false, CLOSED)] {
            for (front, back) in [
                (State::Initialising, State::InitWait),
                (State::Initialising, State::Closed),
                (State::Initialising, State::Connected),
                (State::Connected, State::Connected),
            ] {
                let seen = if back == State::Connected { front } else { State::Unknown };
                let ends = [Driver::Front(new(front)), Driver::linux(linux, back, seen)];
                always_reaches(ends, keep, goal);
            }
        }
    }
}

/// A stock frontend does not come back from `Closed` by itself, so it is only connected and unplugged.
#[test]
fn stock_frontends_with_our_backend() {
    for linux in [Linux::Blkfront, Linux::Netfront] {
        let front = Driver::linux(linux, State::Initialising, State::Unknown);
        let back = Backend::found(State::Initialising);
        always_reaches([front, Driver::Back(back)], true, CONNECTED);

        let mut connected = back;
        connected.enter(State::InitWait).unwrap();
        connected.enter(State::Connected).unwrap();
        let front = Driver::linux(linux, State::Connected, State::Connected);
        always_reaches([front, Driver::Back(connected)], false, CLOSED);
        let restarted = Backend::found(State::Connected);
        always_reaches([front, Driver::Back(restarted)], true, CLOSED);
    }
}
