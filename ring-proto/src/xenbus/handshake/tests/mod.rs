// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

mod interleaved;

use super::*;
use std::collections::BTreeSet;
use std::format;
use std::vec::Vec;

/// Does one step of the frontend; whether anything changed.
fn step_frontend(front: &mut Frontend, back: &Backend, keep: bool) -> Result<bool, PeerError> {
    let before = front.state();
    let step = front.next(back.state(), keep)?;
    if step.to != before {
        front.enter(step.to).expect("only legal moves are proposed");
    }
    Ok(front.state() != before)
}

/// Does one step of the backend; whether anything changed.
fn step_backend(back: &mut Backend, front: &Frontend, online: bool) -> Result<bool, PeerError> {
    let before = back.state();
    let step = back.next(front.state(), online)?;
    if step.to != before {
        back.enter(step.to).expect("only legal moves are proposed");
    }
    Ok(back.state() != before)
}

/// An end whose peer is in an impossible state closes, as a driver does.
fn close_frontend(front: &mut Frontend) {
    front.enter(State::Closing).expect("closing is always legal");
}

fn close_backend(back: &mut Backend) {
    back.enter(State::Closing).expect("closing is always legal");
}

/// Runs both ends until neither has anything to do, the one whose turn is given by `order` first.
fn settle(front: &mut Frontend, back: &mut Backend, keep: bool, mut order: u64) {
    for _ in 0..64 {
        let frontend_first = order & 1 == 0;
        order = order.rotate_right(1);
        let mut moved = false;
        for frontend in [frontend_first, !frontend_first] {
            moved |= if frontend {
                step_frontend(front, back, keep).unwrap_or_else(|_| {
                    close_frontend(front);
                    true
                })
            } else {
                step_backend(back, front, keep).unwrap_or_else(|_| {
                    close_backend(back);
                    true
                })
            };
        }
        if !moved {
            return;
        }
    }
    panic!("{} and {} never settle", front.state(), back.state());
}

fn frontends(state: State) -> [Frontend; 2] {
    [Frontend::found(state), Frontend::found_network(state)]
}

/// Every pair of states that two drivers can find, in every order of their first 8 turns: a device that is wanted
/// connects, and one that is not closes.
#[test]
fn no_pair_is_stuck() {
    for front in State::ALL.into_iter().filter(|state| *state != State::Unknown) {
        for back in State::ALL.into_iter().filter(|state| *state != State::Unknown) {
            for order in 0..=u8::MAX {
                let order = u64::from_ne_bytes([order; 8]);
                for mut frontend in frontends(front) {
                    let mut backend = Backend::found(back);
                    settle(&mut frontend, &mut backend, true, order);
                    let ends = (frontend.state(), backend.state());
                    assert_eq!(ends, (State::Connected, State::Connected), "{front}, {back}");

                    let mut backend = Backend::found(back);
                    let mut frontend = frontends(front)[0];
                    settle(&mut frontend, &mut backend, false, order);
                    let ends = (frontend.state(), backend.state());
                    assert_eq!(ends, (State::Closed, State::Closed), "{front}, {back}");
                }
            }
        }
    }
}

/// Whatever a peer writes, in any order, no illegal move is proposed and no answer is missing.
#[test]
fn any_peer_gets_only_legal_moves() {
    let mut seen = BTreeSet::new();
    for start in State::ALL {
        for peers in 0..9usize.pow(4) {
            let peers: Vec<State> =
                (0..4).map(|digit| State::ALL[peers / 9usize.pow(digit) % 9]).collect();
            for keep in [true, false] {
                for mut front in frontends(start) {
                    for peer in &peers {
                        match front.next(*peer, keep) {
                            Ok(step) if step.to != front.state() => {
                                seen.insert(("frontend", front.state(), step.to));
                                front.enter(step.to).unwrap();
                            }
                            Ok(_) => {}
                            Err(error) => {
                                assert_eq!(error.own_state, front.state());
                                close_frontend(&mut front);
                            }
                        }
                    }
                }
                let mut back = Backend::found(start);
                for peer in &peers {
                    match back.next(*peer, keep) {
                        Ok(step) if step.to != back.state() => {
                            seen.insert(("backend", back.state(), step.to));
                            back.enter(step.to).unwrap();
                        }
                        Ok(_) => {}
                        Err(error) => {
                            assert_eq!(error.own_state, back.state());
                            close_backend(&mut back);
                        }
                    }
                }
            }
        }
    }
    for expected in [
        ("frontend", State::Initialising, State::Initialised),
        ("frontend", State::Initialising, State::Connected),
        ("frontend", State::Closed, State::Initialising),
        ("backend", State::Initialising, State::InitWait),
        ("backend", State::InitWait, State::Connected),
        ("backend", State::Connected, State::Reconfigured),
        ("backend", State::Closed, State::InitWait),
    ] {
        assert!(seen.contains(&expected), "{expected:?} never happened");
    }
}

/// The works of both ends, in the order in which they do them.
fn works(front: &mut Frontend, back: &mut Backend, keep: bool) -> Vec<std::string::String> {
    let mut works = Vec::new();
    loop {
        let before = works.len();
        let step = back.next(front.state(), keep).unwrap();
        if step.to != back.state() {
            works.push(format!("back {:?} {}", step.work, step.to));
            back.enter(step.to).unwrap();
        }
        let step = front.next(back.state(), keep).unwrap();
        if step.to != front.state() {
            works.push(format!("front {:?} {}", step.work, step.to));
            front.enter(step.to).unwrap();
        }
        if works.len() == before {
            return works;
        }
    }
}

#[test]
fn the_documented_flow_and_unplug() {
    let mut front = Frontend::found(State::Initialising);
    let mut back = Backend::found(State::Initialising);
    let up = [
        "back Advertise InitWait",
        "front Publish Initialised",
        "back Connect Connected",
        "front Connect Connected",
    ];
    assert_eq!(works(&mut front, &mut back, true), up);
    let down = [
        "back Disconnect Closing",
        "front Disconnect Closing",
        "front Release Closed",
        "back Release Closed",
    ];
    assert_eq!(works(&mut front, &mut back, false), down);
    assert_eq!(front.next(back.state(), false).unwrap().work, FrontendWork::Done);
    assert_eq!(back.next(front.state(), false).unwrap().work, BackendWork::Done);
}

/// Linux's netfront goes from `Initialising` to `Connected`, and Linux's netback connects only then.
#[test]
fn a_network_frontend_publishes_with_connected() {
    let mut front = Frontend::found_network(State::Initialising);
    let step = front.next(State::InitWait, true).unwrap();
    assert_eq!(step, Step { work: FrontendWork::Publish, to: State::Connected });
    front.enter(step.to).unwrap();
    assert_eq!(front.next(State::InitWait, true).unwrap().work, FrontendWork::Wait);
    assert_eq!(front.next(State::Connected, true).unwrap().work, FrontendWork::Connect);
    assert_eq!(front.next(State::Connected, true).unwrap().work, FrontendWork::Run);
    assert_eq!(front.next(State::InitWait, true).unwrap().work, FrontendWork::Disconnect);
}

/// Linux's blkback, unbound and bound again, finds the rings of a connected frontend and goes on with them.
#[test]
fn a_block_backend_may_take_over_its_rings() {
    let mut front = Frontend::found(State::Initialising);
    for backend in [State::InitWait, State::Connected] {
        let step = front.next(backend, true).unwrap();
        front.enter(step.to).unwrap();
    }
    for backend in [State::Initialising, State::InitWait, State::Initialised] {
        assert_eq!(front.next(backend, true).unwrap().work, FrontendWork::Wait);
    }
    assert_eq!(front.next(State::Connected, true).unwrap().work, FrontendWork::Run);
    assert_eq!(front.next(State::Closing, true).unwrap().work, FrontendWork::Disconnect);
}

#[test]
fn a_restarted_backend_is_found_again() {
    let mut front = Frontend::found(State::Initialising);
    let mut back = Backend::found(State::Initialising);
    works(&mut front, &mut back, true);
    let mut back = Backend::found(State::Connected);
    let again = [
        "back Disconnect Closing",
        "front Disconnect Closing",
        "front Release Closed",
        "back Release Closed",
        "front Restart Initialising",
        "back Advertise InitWait",
        "front Publish Initialised",
        "back Connect Connected",
        "front Connect Connected",
    ];
    assert_eq!(works(&mut front, &mut back, true), again);
}

/// A guest that was reset: its toolstack wrote `Initialising` while the backend was closing.
#[test]
fn a_closing_backend_awaits_only_who_was_connected() {
    use State::*;
    for (frontend, to) in [
        (Initialising, Closed),
        (Closed, Closed),
        (Unknown, Closed),
        (Initialised, Closing),
        (Connected, Closing),
        (Closing, Closing),
        (Reconfiguring, Closing),
    ] {
        assert_eq!(Backend::found(Closing).next(frontend, true).unwrap().to, to, "{frontend}");
    }
}

/// Grants end only when the backend has let go of them.
#[test]
fn a_closing_frontend_awaits_a_backend_that_is_connected() {
    use State::*;
    for (backend, to) in [
        (Initialised, Closing),
        (Connected, Closing),
        (Reconfiguring, Closing),
        (Reconfigured, Closing),
        (Closing, Closed),
        (Closed, Closed),
        (InitWait, Closed),
        (Initialising, Closed),
        (Unknown, Closed),
    ] {
        assert_eq!(Frontend::found(Closing).next(backend, true).unwrap().to, to, "{backend}");
    }
}

#[test]
fn a_closed_backend_never_touches_old_rings() {
    let mut back = Backend::found(State::Closed);
    for frontend in State::ALL.into_iter().filter(|state| *state != State::Initialising) {
        assert_eq!(back.next(frontend, true).unwrap().work, BackendWork::Wait, "{frontend}");
    }
    assert_eq!(back.next(State::Initialising, true).unwrap().work, BackendWork::Advertise);
}

#[test]
fn a_backend_whose_domain_died_is_awaited() {
    let mut front = Frontend::found(State::Initialising);
    let mut back = Backend::found(State::Initialising);
    works(&mut front, &mut back, true);
    for expected in [State::Closing, State::Closed, State::Initialising] {
        let step = front.next(State::Unknown, true).unwrap();
        assert_eq!(step.to, expected);
        front.enter(step.to).unwrap();
    }
    assert_eq!(front.next(State::Unknown, true).unwrap().work, FrontendWork::Wait);
    works(&mut front, &mut Backend::found(State::Initialising), true);
    assert_eq!(front.state(), State::Connected);
}

#[test]
fn a_reconfigured_network_device_stays_connected() {
    let mut front = Frontend::found_network(State::Initialising);
    let mut back = Backend::found(State::Initialising);
    works(&mut front, &mut back, true);
    front.enter(State::Reconfiguring).unwrap();
    let done = ["back Reconfigure Reconfigured", "front Run Connected", "back Run Connected"];
    assert_eq!(works(&mut front, &mut back, true), done);
}

#[test]
fn an_impossible_peer_is_named_with_both_states() {
    let mut back = Backend::found(State::Initialising);
    back.enter(State::InitWait).unwrap();
    let error = back.next(State::Reconfiguring, true).unwrap_err();
    assert_eq!(
        format!("{error}"),
        "the frontend cannot be Reconfiguring while the backend is InitWait"
    );
    back.enter(State::Connected).unwrap();
    assert_eq!(back.next(State::Initialised, true).unwrap().work, BackendWork::Confirm);
    assert_eq!(back.next(State::Connected, true).unwrap().work, BackendWork::Confirm);
    assert_eq!(back.next(State::Connected, true).unwrap().work, BackendWork::Run);
    let error = back.next(State::Initialised, true).unwrap_err();
    assert_eq!(error.peer_state, State::Initialised);

    let mut front = Frontend::found(State::Initialising);
    let error = front.next(State::Reconfigured, true).unwrap_err();
    assert_eq!(
        format!("{error}"),
        "the backend cannot be Reconfigured while the frontend is Initialising"
    );
    let error = front.enter(State::InitWait).unwrap_err();
    assert_eq!(format!("{error}"), "a frontend does not go from Initialising to InitWait");
    assert_eq!(front.state(), State::Initialising);
}
