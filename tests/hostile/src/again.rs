// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that goes without an answer and comes back. What it was asked, it is asked anew: in the order of before,
//! each request once, none that it has answered, and none while it has memory mapped that was lent to it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ring_proto::blkif::RawRequest;
use ring_proto::xenbus::State;

use crate::back::{Back, Outcome, legal};
use crate::random::Random;

/// How often it goes.
const TIMES: u32 = 4;

/// How often a backend gives up before it is connected. More often than a frontend may fail by itself.
const FICKLE: u64 = 12;

/// How long the other end gets for what nobody tells of.
const PAUSE: Duration = Duration::from_millis(50);

/// How soon it has to be asked for what it had mapped, once it has let go: the frontend looks ten times a second.
const SOON: Duration = Duration::from_secs(3);

/// What a request asks for, whatever its number and its pages are.
fn key(request: &RawRequest) -> (u8, u64, u8) {
    (request.operation, request.sector_number, request.nr_segments)
}

/// Goes and comes back some times, with requests that are not answered.
pub(crate) fn again(back: &mut Back, random: &mut Random) -> anyhow::Result<Outcome> {
    back.connect()?;
    for time in 0..TIMES {
        let requests = back.take()?;
        // It has no more to do with these. Its last one stays.
        let (answered, unanswered) =
            requests.split_at(random.below(requests.len() as u64) as usize);
        answer(back, answered)?;
        std::thread::sleep(PAUSE);
        let held = unanswered.iter().position(|request| request.operation < 2);
        let held = held.filter(|_| random.below(2) == 0 && !back.persistent);
        let page = match held.and_then(|at| unanswered.get(at)) {
            Some(request) => Some(back.map(request.seg[0].gref)?),
            None => None,
        };

        back.leave(random.below(2) == 0)?;
        for _ in 0..random.below(2) * FICKLE {
            ensure!(back.meet(|_| Ok(()))?, "the frontend wants no backend that gave up");
            back.leave(random.below(2) == 0)?;
        }
        // Another one, that can do less, or more.
        let segments = if time % 2 == 0 { "0" } else { "64" };
        let met = back.meet(|back| back.write("feature-max-indirect-segments", segments))?;
        ensure!(met, "the frontend does not want its disk back");
        back.write_state(State::Connected)?;

        let mut wanted: Vec<_> = unanswered.iter().map(key).collect();
        let late = held.map(|at| wanted.remove(at));
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            found.extend(back.take()?);
        }
        std::thread::sleep(PAUSE);
        found.extend(back.served.as_mut().context("connected")?.take());
        let keys: Vec<_> = found.iter().map(key).collect();
        ensure!(keys.starts_with(&wanted), "asked for {wanted:?} before, and for {keys:?} anew");
        if let Some(late) = late {
            ensure!(!keys.contains(&late), "{late:?} came while its memory was mapped");
            drop(page);
            await_request(back, late)?;
        }
        let times = |key| keys.iter().filter(|other| *other == key).count();
        ensure!(
            wanted.iter().all(|key| times(key) == 1),
            "{wanted:?} is more than once in {keys:?}"
        );
        answer(back, &found)?;
        // Meanwhile it tells the block layer what this backend can do.
        for _ in 0..4 {
            ensure!(back.serve(8)? == Outcome::Alive, "the frontend has closed the disk");
            std::thread::sleep(PAUSE);
        }
    }
    back.serve(16)
}

fn answer(back: &mut Back, requests: &[RawRequest]) -> anyhow::Result<()> {
    let served = back.served.as_mut().context("connected")?;
    requests.iter().for_each(|request| served.answer(&legal(request)));
    served.publish()
}

/// Answers requests until a certain one has come, and that as well.
fn await_request(back: &mut Back, wanted: (u8, u64, u8)) -> anyhow::Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let requests = back.take()?;
        answer(back, &requests)?;
        if requests.iter().any(|request| key(request) == wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{wanted:?} does not come again");
    }
}
