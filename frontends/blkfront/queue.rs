// SPDX-License-Identifier: GPL-2.0

//! One hardware queue.
//!
//! A queue outlives its connections: while its backend is away it holds what was not answered, and asks for it anew, in
//! its order, when there is another link.
//!
//! Requests come from any CPU and answers come in an interrupt, so a lock stands before the link. It is held while a
//! request is put into the ring or answers are taken out; not while what was read is copied, nor while requests end.

use core::fmt::{self, Formatter};

use block::mq::{Batch, Refused, Request, Status};
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use ring_proto::blkif::Operation;
use xen::event::{Eoi, Found, Handler};
use xen::work;

use crate::breach::Breach;
use crate::disk::Queues;
use crate::link::{Link, Pushed, Remains, Slot};
use crate::statistics::Statistics;
use crate::task::Task;
use crate::vbd::Vbd;

/// Answers that are taken at once under the lock.
const AT_ONCE: usize = 16;

/// How often that is done at most in one interrupt: other CPUs and a quick backend could keep it busy for ever.
const ROUNDS: usize = 64;

/// How soon what waits is asked for again when there is no answer to come that would cause it, in milliseconds.
const AGAIN: u32 = 20;

/// How a queue stands with its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has none, and may have another one.
    Away,
    /// Requests flow.
    Connected,
    /// What was taken may still be answered; new requests fail.
    Retired,
    /// It has none, and will have none: every request fails.
    Failed,
}

impl Phase {
    /// Whether a link that there is may be used.
    #[inline]
    fn flows(self) -> bool {
        matches!(self, Self::Connected | Self::Retired)
    }
}

/// See the module.
#[pin_data]
pub(crate) struct Queue {
    #[pin]
    inner: SpinLockIrq<Inner>,
}

struct Inner {
    phase: Phase,
    /// What is to be asked for first, the next one last.
    waiting: KVec<(Request<Queues>, Task)>,
    /// Counts the requests taken.
    orders: u64,
    /// There is one while connected, and after a breach until it was taken care of.
    link: Option<Link>,
    /// Asks for somebody who may sleep.
    alarm: Option<Arc<work::Request<Vbd>>>,
    breach: Option<Breach>,
    /// The backend has taken back that it discards, and the block layer was not told.
    discard_revoked: bool,
    /// The same of flushes, and it was not logged.
    flush_revoked: bool,
    /// Of all links but the present one, and what is not of a link.
    statistics: Statistics,
}

/// What happened to the queue that somebody who may sleep has to see to.
pub(crate) struct News {
    pub(crate) breach: Option<Breach>,
    pub(crate) discard_revoked: bool,
    pub(crate) flush_revoked: bool,
}

impl Queue {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let inner = Inner {
            phase: Phase::Away,
            waiting: KVec::new(),
            orders: 0,
            link: None,
            alarm: None,
            breach: None,
            discard_revoked: false,
            flush_revoked: false,
            statistics: Statistics::default(),
        };
        Arc::pin_init(pin_init!(Self { inner <- new_spinlock_irq!(inner) }), GFP_KERNEL)
    }

    /// Takes a request from the block layer.
    #[inline]
    pub(crate) fn submit(
        &self,
        request: Request<Queues>,
        last: bool,
    ) -> Result<(), Refused<Queues>> {
        let mut inner = self.inner.lock();
        let pushed = inner.submit(request);
        if last || !matches!(pushed, Ok(None)) {
            inner.publish();
        }
        drop(inner);
        match pushed {
            Ok(None) => Ok(()),
            Ok(Some((request, status))) => {
                request.end(status);
                Ok(())
            }
            Err(request) => Err(Refused(request)),
        }
    }

    /// Shows the backend all that was taken.
    pub(crate) fn commit(&self) {
        self.inner.lock().publish();
    }

    /// Uses a link from now on, and asks for what waits. `stuck` more requests may come back from an earlier one.
    ///
    /// # Errors
    ///
    /// When memory is short; nothing has changed then.
    pub(crate) fn connect(
        &self,
        link: Link,
        alarm: Arc<work::Request<Vbd>>,
        stuck: usize,
    ) -> Result {
        // Nobody adds to what waits while there is no link.
        let waiting = self.inner.lock().waiting.len();
        let room = waiting.saturating_add(link.size()).saturating_add(stuck);
        let mut kept = KVec::with_capacity(room, GFP_KERNEL)?;
        let mut inner = self.inner.lock();
        core::mem::swap(&mut kept, &mut inner.waiting);
        for entry in kept.drain_all() {
            let _ = inner.waiting.push_within_capacity(entry);
        }
        inner.link = Some(link);
        inner.alarm = Some(alarm);
        inner.phase = Phase::Connected;
        drop(inner);
        self.ask_waiting();
        Ok(())
    }

    /// Gives its link up; the event channel is unbound already. Returns those requests whose pages the backend has not
    /// let go of, and the link's own memory. May sleep.
    pub(crate) fn disconnect(&self, to: Phase) -> (KVec<KBox<Slot>>, Option<Remains>) {
        let link = {
            let mut inner = self.inner.lock();
            if inner.phase != Phase::Failed {
                inner.phase = to;
            }
            inner.alarm = None;
            inner.link.take()
        };
        let stuck = match link {
            Some(link) => {
                self.inner.lock().statistics.add(&link.statistics);
                let (stuck, remains) = link.dissolve(|request, task| self.keep(request, task));
                (stuck, Some(remains))
            }
            None => (KVec::new(), None),
        };
        self.ask_waiting();
        stuck
    }

    /// Takes no more requests. Those that it has may still be answered.
    pub(crate) fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.phase = match inner.phase {
            Phase::Connected | Phase::Retired => Phase::Retired,
            Phase::Away | Phase::Failed => Phase::Failed,
        };
        drop(inner);
        self.ask_waiting();
    }

    /// Whether it has no requests.
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.waiting.is_empty() && inner.link.as_ref().is_none_or(Link::is_idle)
    }

    /// Gives what waits to another queue. Nobody submits meanwhile, and neither has a link.
    ///
    /// # Errors
    ///
    /// When memory is short; nothing has changed then.
    pub(crate) fn move_waiting(&self, to: &Self) -> Result {
        // One lock at a time.
        let here = self.inner.lock().waiting.len();
        let there = to.inner.lock().waiting.len();
        let mut room = KVec::with_capacity(here.saturating_add(there), GFP_KERNEL)?;
        let mut moved = core::mem::take(&mut self.inner.lock().waiting);
        let mut inner = to.inner.lock();
        core::mem::swap(&mut room, &mut inner.waiting);
        while let Some((request, task)) = moved.pop().or_else(|| room.pop()) {
            let _ = inner.insert(request, task);
        }
        Ok(())
    }

    /// Takes a request back that could not be had back when its connection ended.
    pub(crate) fn adopt(&self, request: Request<Queues>, task: Task) {
        self.keep(request, task);
        self.ask_waiting();
    }

    /// What has happened since the last time.
    pub(crate) fn news(&self) -> News {
        let mut inner = self.inner.lock();
        News {
            breach: inner.breach.take(),
            discard_revoked: core::mem::take(&mut inner.discard_revoked),
            flush_revoked: core::mem::take(&mut inner.flush_revoked),
        }
    }

    /// What it has done.
    pub(crate) fn statistics(&self) -> Statistics {
        let inner = self.inner.lock();
        let mut sum = inner.statistics;
        if let Some(link) = &inner.link {
            sum.add(&link.statistics);
            sum.pages = link.pages.count() as u64;
        }
        sum
    }

    /// How it stands, in a line.
    pub(crate) fn view(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (phase, waiting, link) = {
            let inner = self.inner.lock();
            (inner.phase, inner.waiting.len(), inner.link.as_ref().map(Link::view))
        };
        write!(out, "{phase:?}, {waiting} wait")?;
        if let Some((ring, port)) = link {
            write!(out, ", {ring}")?;
            if let Some(port) = port {
                write!(out, ", port {port}")?;
            }
        }
        out.write_str("\n")
    }

    /// Frees pages that are not used.
    pub(crate) fn trim(&self) {
        if let Some(link) = &mut self.inner.lock().link {
            link.pages.trim();
        }
    }

    fn keep(&self, request: Request<Queues>, task: Task) {
        let left = self.inner.lock().keep(request, task);
        // There is room for all; otherwise it ends with an error here, outside of the lock.
        drop(left);
    }

    /// Asks for what waits, or fails it.
    fn ask_waiting(&self) {
        loop {
            let done = {
                let mut inner = self.inner.lock();
                let done = inner.ask_waiting();
                inner.publish();
                done
            };
            match done {
                Some((request, status)) => request.end(status),
                None => return,
            }
        }
    }
}

impl Inner {
    /// Takes a request, returns it when it is done already, and refuses it when it cannot be taken.
    #[inline]
    #[allow(clippy::type_complexity, reason = "a request, and what became of it")]
    fn submit(
        &mut self,
        request: Request<Queues>,
    ) -> Result<Option<(Request<Queues>, Status)>, Request<Queues>> {
        match (self.phase, &mut self.link) {
            (Phase::Connected, Some(link)) if self.waiting.is_empty() => {
                self.orders += 1;
                let Some(task) = Task::of(&request, self.orders) else {
                    return Ok(Some((request, Status::NOT_SUPPORTED)));
                };
                match link.push(request, task) {
                    Pushed::Asked => Ok(None),
                    Pushed::Done(request, status) => Ok(Some((request, status))),
                    Pushed::Busy(request, _) => {
                        self.statistics.refused += 1;
                        Err(request)
                    }
                }
            }
            (Phase::Failed | Phase::Retired, _) => Ok(Some((request, Status::IO_ERROR))),
            _ => Err(request),
        }
    }

    #[inline]
    fn publish(&mut self) {
        if let (true, Some(link)) = (self.phase.flows(), &mut self.link) {
            link.publish();
        }
    }

    /// Keeps a request that was asked for, to ask for it anew. Gives it back if there is no room, which there is.
    fn keep(&mut self, request: Request<Queues>, task: Task) -> Option<(Request<Queues>, Task)> {
        self.statistics.anew += 1;
        self.insert(request, task)
    }

    /// Has a request wait, in its order.
    fn insert(&mut self, request: Request<Queues>, task: Task) -> Option<(Request<Queues>, Task)> {
        let before = |(_, other): &(Request<Queues>, Task)| other.order < task.order;
        let at = self.waiting.iter().position(before).unwrap_or(self.waiting.len());
        if self.waiting.len() < self.waiting.capacity() {
            let _ = self.waiting.insert_within_capacity(at, (request, task));
            return None;
        }
        Some((request, task))
    }

    /// Asks for what waits, until it has to go on waiting or something is done.
    fn ask_waiting(&mut self) -> Option<(Request<Queues>, Status)> {
        if self.phase == Phase::Failed {
            return self.waiting.pop().map(|(request, _)| (request, Status::IO_ERROR));
        }
        while let (true, Some(link)) = (self.phase.flows(), &mut self.link) {
            let (request, task) = self.waiting.pop()?;
            match link.push(request, task) {
                Pushed::Asked => {}
                Pushed::Done(request, status) => return Some((request, status)),
                Pushed::Busy(request, task) => {
                    // Pages or grants are short in the whole domain, and no answer comes that would be the next time
                    // to look.
                    if let (true, Some(alarm)) = (link.is_idle(), &self.alarm) {
                        alarm.after(AGAIN);
                    }
                    let _ = self.waiting.push_within_capacity((request, task));
                    return None;
                }
            }
        }
        None
    }

    /// Takes slots back that were finished with.
    fn give_back(&mut self, landed: &mut [Option<KBox<Slot>>]) {
        for place in landed {
            let Some(slot) = place.take() else { return };
            let revoked = slot.revoked();
            let Some(link) = &mut self.link else { return };
            match revoked {
                Some(Operation::Discard) => {
                    link.agreement.discard = false;
                    self.discard_revoked = true;
                    if let Some(alarm) = &self.alarm {
                        alarm.now();
                    }
                }
                Some(Operation::FlushDiskcache | Operation::WriteBarrier) => {
                    link.agreement.flush = None;
                    self.flush_revoked = true;
                    if let Some(alarm) = &self.alarm {
                        alarm.now();
                    }
                }
                _ => {}
            }
            if let Some((request, task)) = link.give_back(slot) {
                // There is room: a request that has a slot waits for nothing.
                let _ = self.keep(request, task);
            }
        }
    }

    /// Takes answers. Returns whether there may be more.
    fn harvest(&mut self, landed: &mut [Option<KBox<Slot>>]) -> bool {
        let (true, Some(link)) = (self.phase.flows(), &mut self.link) else { return false };
        for place in landed {
            match link.answer() {
                Ok(Some(slot)) => *place = Some(slot),
                Ok(None) => return false,
                Err(breach) => {
                    self.phase = Phase::Failed;
                    self.breach = Some(breach);
                    if let Some(alarm) = &self.alarm {
                        alarm.now();
                    }
                    return false;
                }
            }
        }
        true
    }
}

impl Queue {
    /// Takes what was answered, and asks for what waits. For somebody who was asked for, outside of an interrupt.
    pub(crate) fn poll(&self) {
        let _ = self.serve(false);
    }

    /// Takes answers until there are none and the backend is to ring for the next one; or for so long that somebody
    /// else has to go on.
    fn serve(&self, rung: bool) -> (Found, Phase) {
        let mut landed = [const { None }; AT_ONCE];
        let mut batch = Batch::new();
        let (mut found, mut more, mut rounds) = (Found::Nothing, true, 0);
        let phase = loop {
            let (done, phase) = {
                let mut inner = self.inner.lock();
                inner.give_back(&mut landed);
                if rounds == ROUNDS {
                    if let Some(alarm) = &inner.alarm {
                        alarm.now();
                    }
                    inner.publish();
                    break inner.phase;
                }
                inner.statistics.events += u64::from(rung && rounds == 0);
                let done = if inner.waiting.is_empty() { None } else { inner.ask_waiting() };
                if more {
                    more = inner.harvest(&mut landed);
                    let nothing =
                        found == Found::Nothing && landed.first().is_none_or(Option::is_none);
                    inner.statistics.spurious += u64::from(rung && nothing);
                }
                inner.publish();
                (done, inner.phase)
            };
            rounds += 1;
            let mut idle = done.is_none();
            if let Some((request, status)) = done {
                batch.end(request, status);
            }
            for slot in landed.iter_mut().map_while(Option::as_mut) {
                found = Found::Work;
                idle = false;
                if let Some((request, status)) = slot.finish() {
                    batch.end(request, status);
                }
            }
            if idle {
                break phase;
            }
        };
        batch.flush();
        (found, phase)
    }
}

impl Handler for Queue {
    fn event(&self, eoi: Eoi<'_>) {
        match self.serve(true) {
            // The channel stays masked: there is nothing that this backend could ring for.
            (_, Phase::Failed) => eoi.withhold(),
            (found, _) => eoi.give(found),
        }
    }
}
