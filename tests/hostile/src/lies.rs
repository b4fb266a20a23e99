// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be done to a frontend, each with a name.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hypervisor_client::Mapping;
use ring_proto::blkif::{RawRequest, RawResponse};
use ring_proto::ring::header;
use ring_proto::shared::{SharedMemory, from_bytes};
use ring_proto::xenbus::State;

use crate::again::again;
use crate::back::{Back, Outcome, legal};
use crate::front::SLOTS;
use crate::random::Random;
use Expected::{Alive, Closed, ClosedIfLent, Either};

/// An attack.
pub struct Lie {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// How a frontend has to take it.
    pub expected: Expected,
    run: fn(&mut Back, &mut Random) -> anyhow::Result<Outcome>,
}

/// How a frontend has to take a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It closes the connection.
    Closed,
    /// It goes on.
    Alive,
    /// It closes the connection if what the backend has mapped is lent to it for one request. Where pages may stay mapped,
    /// it was no lie.
    ClosedIfLent,
    /// There is more than one way.
    Either,
}

impl Expected {
    /// The one way, if there is but one where pages may stay mapped, or may not.
    fn outcome(self, persistent: bool) -> Option<Outcome> {
        match self {
            Self::ClosedIfLent if persistent => Some(Outcome::Alive),
            Self::Closed | Self::ClosedIfLent => Some(Outcome::Closed),
            Self::Alive => Some(Outcome::Alive),
            Self::Either => None,
        }
    }
}

impl Lie {
    /// Tells it once, to the frontend of a disk that was just plugged in.
    ///
    /// # Errors
    ///
    /// When the frontend does not take it as it has to.
    pub fn run(&self, back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
        let outcome = (self.run)(back, random)?;
        if let Some(expected) = self.expected.outcome(back.persistent) {
            ensure!(outcome == expected, "the frontend is {outcome:?}, not {expected:?}");
        }
        Ok(outcome)
    }
}

const fn lie(
    name: &'static str,
    about: &'static str,
    expected: Expected,
    run: fn(&mut Back, &mut Random) -> anyhow::Result<Outcome>,
) -> Lie {
    Lie { name, about, expected, run }
}

/// All of them.
pub const LIES: [Lie; 20] = [
    lie("id", "an id that was not asked for", Closed, id),
    lie("twice", "the same answer twice", Closed, twice),
    lie("operation", "the answer to another operation", Closed, operation),
    lie("status", "any status", Alive, status),
    lie("unsupported", "nothing of what was offered is supported", Alive, unsupported),
    lie("garbage", "slots of any bytes", Closed, garbage),
    lie("ahead", "a producer index that the ring has no room for", Closed, ahead),
    lie("unasked", "more answers than requests", Closed, unasked),
    lie("behind", "a producer index that goes back", Closed, behind),
    lie("scribble", "any bytes in the requests and in the frontend's indices", Either, scribble),
    lie("events", "the doorbell, all the time, for nothing", Alive, events),
    lie("hold", "an answer while the memory is still mapped", ClosedIfLent, hold),
    lie("keep", "memory that stays mapped when the disk is gone", Closed, keep),
    lie("hoard", "connections without end, whose rings stay mapped", Closed, hoard),
    lie("silence", "no answer, and the disk is taken away", Closed, silence),
    lie("stall", "no answer, and the disk stays when it is wanted no more", Closed, stall),
    lie("again", "no answer, and another backend that has to be asked anew", Alive, again),
    lie("keys", "any bytes in each key of the handshake", Either, keys),
    lie("resize", "any size, all the time", Either, resize),
    lie("states", "states in any order", Either, states),
];

/// What the frontend makes of it: it closes the connection, or goes on for a while.
fn outcome(back: &mut Back) -> anyhow::Result<Outcome> {
    back.serve(16)
}

/// Answers the requests that come next, each by `twist`.
fn answer(back: &mut Back, mut twist: impl FnMut(&mut RawResponse)) -> anyhow::Result<Outcome> {
    let requests = back.take()?;
    let served = back.served.as_mut().context("connected")?;
    for request in &requests {
        let mut response = legal(request);
        twist(&mut response);
        served.answer(&response);
    }
    served.publish()?;
    outcome(back)
}

fn id(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    answer(back, |response| {
        response.id = match random.below(4) {
            0 => response.id ^ 1,
            1 => response.id ^ (1 << 16),
            2 => response.id.wrapping_add(1 << 40),
            _ => random.nasty(),
        }
    })
}

fn twice(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    let requests = back.take()?;
    let served = back.served.as_mut().context("connected")?;
    requests.iter().for_each(|request| served.answer(&legal(request)));
    served.publish()?;
    // As many answers as requests, so that only the ids tell.
    let more = back.take()?;
    let first = requests.first().context("a request")?;
    let served = back.served.as_mut().context("connected")?;
    more.iter().for_each(|_| served.answer(&legal(first)));
    served.publish()?;
    outcome(back)
}

fn operation(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    answer(back, |response| {
        response.operation = response.operation.wrapping_add(1 + random.below(255) as u8);
    })
}

fn status(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for _ in 0..16 {
        let requests = back.take()?;
        let served = back.served.as_mut().context("connected")?;
        for request in &requests {
            let mut response = legal(request);
            response.status = random.nasty() as u16;
            served.answer(&response);
        }
        served.publish()?;
    }
    outcome(back)
}

fn unsupported(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for _ in 0..16 {
        answer(back, |response| response.status = -2_i16 as u16)?;
    }
    outcome(back)
}

fn garbage(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    let requests = back.take()?;
    let served = back.served.as_mut().context("connected")?;
    for _ in &requests {
        let bytes = random.bytes(size_of::<RawResponse>());
        served.answer(&from_bytes(&bytes).context("a slot")?);
    }
    served.publish()?;
    outcome(back)
}

fn ahead(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    let served = back.connect()?;
    let far = [SLOTS + 1, 1 << 16, 1 << 31, u32::MAX - SLOTS];
    served.produced = served.produced.wrapping_add(*random.one_of(&far));
    served.publish()?;
    outcome(back)
}

fn unasked(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    let served = back.connect()?;
    for _ in 0..SLOTS / 2 {
        served.answer(&legal(&from_bytes(&random.bytes(size_of::<RawRequest>())).context("one")?));
    }
    served.publish()?;
    outcome(back)
}

fn behind(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    let served = back.connect()?;
    served.produced = served.produced.wrapping_sub(1 + random.below(16) as u32);
    served.publish()?;
    outcome(back)
}

fn scribble(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for _ in 0..64 {
        let served = back.served.as_mut().context("connected")?;
        let at = random.below(1024) as usize * 4;
        if at != header::RSP_PROD {
            served.ring.store(at, random.nasty() as u32);
        }
    }
    outcome(back).or(Ok(Outcome::Alive))
}

fn events(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    let served = back.connect()?;
    for _ in 0..5000 {
        served.notify()?;
    }
    outcome(back)
}

/// Waits for a request with data in its slot, and maps the first page of it. All others have their answer.
fn map_one(back: &mut Back) -> anyhow::Result<(RawRequest, Mapping)> {
    back.connect()?;
    let request = loop {
        let mut requests = back.take()?;
        let direct = |request: &RawRequest| request.operation < 2 && request.nr_segments > 0;
        let found = requests.iter().position(direct).map(|at| requests.remove(at));
        let served = back.served.as_mut().context("connected")?;
        requests.iter().for_each(|request| served.answer(&legal(request)));
        served.publish()?;
        if let Some(request) = found {
            break request;
        }
    };
    Ok((request, back.map(request.seg[0].gref)?))
}

fn hold(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    let (request, page) = map_one(back)?;
    let served = back.served.as_mut().context("connected")?;
    served.answer(&legal(&request));
    served.publish()?;
    let outcome = outcome(back)?;
    std::thread::sleep(Duration::from_secs(1));
    drop(page);
    Ok(outcome)
}

fn keep(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    let (_, page) = map_one(back)?;
    back.kept = Some(page);
    Ok(Outcome::Closed)
}

/// Comes back again and again, and lets go of nothing. The frontend may give it some connections' memory, not all there is.
fn hoard(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    const MOST: usize = 8;
    back.connect()?;
    let mut rings = Vec::new();
    while rings.len() < MOST {
        rings.extend(back.served.take());
        back.leave(true)?;
        if !back.meet(|_| Ok(()))? {
            let complaint = back.complaint()?.context("the frontend does not say why")?;
            ensure!(complaint.starts_with("16 "), "the frontend says: {complaint}");
            return Ok(Outcome::Closed);
        }
        back.write_state(State::Connected)?;
        back.serve(2)?;
    }
    anyhow::bail!("the frontend gave {MOST} rings, and had none back")
}

fn silence(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    back.take()?;
    back.write("online", "0")?;
    back.write_state(State::Closing)?;
    back.await_peer(|state| state == State::Closed)?;
    Ok(Outcome::Closed)
}

fn stall(back: &mut Back, _random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    back.take()?;
    back.write("online", "0")?;
    back.write_state(State::Connected)?;
    back.await_peer(|state| state == State::Closing)?;
    let end = Instant::now() + Duration::from_secs(60);
    while back.complaint()?.is_none() {
        ensure!(Instant::now() < end, "the frontend waits for ever");
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(Outcome::Closed)
}

/// The keys that a backend writes.
const KEYS: [&str; 14] = [
    "sectors",
    "sector-size",
    "physical-sector-size",
    "info",
    "feature-max-indirect-segments",
    "multi-queue-max-queues",
    "max-ring-page-order",
    "feature-persistent",
    "feature-flush-cache",
    "feature-barrier",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "discard-secure",
];

/// Numbers that some of them may be, though few of them all.
const PLAUSIBLE: [u64; 12] = [0, 1, 2, 9, 11, 12, 255, 512, 4096, 65535, 1 << 20, 1 << 31];

fn keys(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    let met = back.meet(|back| {
        for _ in 0..=random.below(4) {
            let key = random.one_of(&KEYS);
            match random.below(8) {
                0..4 => back.write(key, random.one_of(&PLAUSIBLE).to_string())?,
                4 | 5 => back.write(key, random.nasty().to_string())?,
                6 => back.write(key, format!("-{}", random.nasty()))?,
                _ => {
                    let len = random.below(64) as usize;
                    back.write(key, random.bytes(len))?;
                }
            }
        }
        Ok(())
    })?;
    if !met {
        return Ok(Outcome::Closed);
    }
    back.write_state(State::Connected)?;
    // Some of it is legal all the same. A disk of no sectors is asked for nothing.
    back.await_peer(|state| state != State::Initialised)?;
    back.serve(1).or(Ok(Outcome::Alive))
}

fn resize(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for _ in 0..64 {
        back.write("sectors", random.nasty().to_string())?;
        back.write_state(State::Connected)?;
    }
    back.write("sectors", "65536")?;
    back.write_state(State::Connected)?;
    back.serve(1).or(Ok(Outcome::Alive))
}

fn states(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for _ in 0..16 {
        back.write("state", random.below(10).to_string())?;
        std::thread::sleep(Duration::from_millis(random.below(20)));
    }
    Ok(Outcome::Alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_while_a_page_is_mapped_is_a_lie_where_it_was_lent() {
        let hold = LIES.iter().find(|lie| lie.name == "hold").unwrap().expected;
        assert_eq!(hold.outcome(false), Some(Outcome::Closed));
        assert_eq!(hold.outcome(true), Some(Outcome::Alive));
        for lie in LIES.iter().filter(|lie| lie.name != "hold") {
            assert_eq!(lie.expected.outcome(false), lie.expected.outcome(true), "{}", lie.name);
        }
    }
}
