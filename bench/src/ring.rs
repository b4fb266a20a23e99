// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ring against Xen's `ring.h`: the same block requests through both, in turn.
//!
//! Two threads on two CPUs, one for each end. The front end fills 112-byte requests of 11 segments and checks the
//! answers; the back end copies each request out, looks at all of it and answers. Neither sleeps, so no doorbell rings:
//! what is measured is the ring itself. Both take what is there, then push what they can, as one batch.

use std::ffi::c_void;
use std::hint::black_box;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossbeam_queue::ArrayQueue;
use libloading::{Library, Symbol};
use ring_proto::blkif::{
    MAX_SEGMENTS as SEGMENTS, Operation, RawRequest as Request, RawResponse as Response,
    RawSegment as Segment, Status,
};
use ring_proto::ring::{BackRing, FrontRing, RingError};
use ring_proto::shared::{PAGE_SIZE, Region};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::report::{Measurement, Report, Unit};

const UNIT: Unit = Unit::Rate("requests/s");
const OP_READ: u8 = Operation::Read as u8;
const OKAY: u16 = Status::Okay as i16 as u16;

/// The request that the front end sends as its `n`-th.
#[inline]
fn request(n: u64) -> Request {
    let first = n as u32;
    Request {
        operation: OP_READ,
        nr_segments: SEGMENTS as u8,
        handle: 51712,
        pad: 0,
        id: n,
        sector_number: n.wrapping_mul(88),
        seg: std::array::from_fn(|i| Segment {
            gref: first.wrapping_add(i as u32),
            first_sect: 0,
            last_sect: 7,
            pad: [0; 2],
        }),
    }
}

/// Everything in a request that a backend has to look at, or `None` if it is malformed.
#[inline]
fn inspect(request: &Request) -> Option<u64> {
    if request.operation != OP_READ {
        return None;
    }
    let segments = request.seg.get(..usize::from(request.nr_segments))?;
    let sum = segments.iter().map(|seg| {
        let len = u32::from(seg.last_sect).wrapping_sub(u32::from(seg.first_sect));
        u64::from(seg.gref.wrapping_add(len))
    });
    Some(request.sector_number.wrapping_add(sum.sum()))
}

#[inline]
fn response(request: &Request) -> Response {
    Response { id: request.id, operation: request.operation, pad0: 0, status: OKAY, pad1: 0 }
}

/// The front end of a queue of requests and a queue of responses.
trait Front {
    /// Responses that can be taken without another look at the peer.
    fn ready(&mut self) -> Result<u32, RingError>;
    fn take(&mut self) -> Result<Option<Response>, RingError>;
    fn send(&mut self, request: &Request) -> Result<(), RingError>;
    /// Shows the peer what was sent; whether it wants the doorbell.
    fn publish(&mut self) -> bool;
}

/// The back end of the same.
trait Back {
    fn ready(&mut self) -> Result<u32, RingError>;
    fn take(&mut self) -> Result<Option<Request>, RingError>;
    fn send(&mut self, response: &Response) -> Result<(), RingError>;
    fn publish(&mut self) -> bool;
}

// The ends are taken by value: each then lives on its own thread's stack, in cache lines of its own.

/// Sends `count` requests, at most `depth` at once, and checks their answers. Returns how many doorbells were wanted.
fn drive_front(mut ring: impl Front, depth: u64, count: u64) -> Result<u64> {
    let (mut sent, mut done, mut doorbells) = (0, 0, 0);
    while done < count {
        for _ in 0..ring.ready()? {
            let Some(response) = ring.take()? else { break };
            let right = response.id == done && response.operation == OP_READ;
            ensure!(right && response.status == OKAY, "request {done} got {response:?}");
            done += 1;
        }
        let until = count.min(done + depth);
        if sent < until {
            while sent < until {
                ring.send(&request(sent))?;
                sent += 1;
            }
            doorbells += u64::from(ring.publish());
        }
    }
    Ok(doorbells)
}

/// Answers `count` requests. Returns the sum over all that was asked for.
fn drive_back(mut ring: impl Back, count: u64) -> Result<u64> {
    let (mut done, mut sum) = (0, 0u64);
    while done < count {
        let ready = ring.ready()?;
        if ready == 0 {
            continue;
        }
        for _ in 0..ready {
            let Some(request) = ring.take()? else { break };
            sum = sum.wrapping_add(inspect(&request).context("a malformed request")?);
            ring.send(&response(&request))?;
            done += 1;
        }
        black_box(ring.publish());
    }
    Ok(sum)
}

impl Front for FrontRing<Region<'_>, Request, Response> {
    #[inline]
    fn ready(&mut self) -> Result<u32, RingError> {
        self.available()
    }
    #[inline]
    fn take(&mut self) -> Result<Option<Response>, RingError> {
        self.pop()
    }
    #[inline]
    fn send(&mut self, request: &Request) -> Result<(), RingError> {
        self.push(request)
    }
    #[inline]
    fn publish(&mut self) -> bool {
        FrontRing::publish(self)
    }
}

impl Back for BackRing<Region<'_>, Request, Response> {
    #[inline]
    fn ready(&mut self) -> Result<u32, RingError> {
        self.available()
    }
    #[inline]
    fn take(&mut self) -> Result<Option<Request>, RingError> {
        self.pop()
    }
    #[inline]
    fn send(&mut self, response: &Response) -> Result<(), RingError> {
        self.push(response)
    }
    #[inline]
    fn publish(&mut self) -> bool {
        BackRing::publish(self)
    }
}

/// One end of two bounded queues of rtrb.
struct Rtrb<In, Out> {
    incoming: rtrb::Consumer<In>,
    outgoing: rtrb::Producer<Out>,
}

/// One end of two bounded queues of crossbeam.
struct Crossbeam<'a, In, Out> {
    incoming: &'a ArrayQueue<In>,
    outgoing: &'a ArrayQueue<Out>,
}

macro_rules! queue_end {
    ($end:ident, $queue:ty, $In:ty, $Out:ty, |$this:ident| $ready:expr, $take:expr, |$value:ident| $send:expr) => {
        impl $end for $queue {
            #[inline]
            fn ready(&mut self) -> Result<u32, RingError> {
                let $this = self;
                Ok($ready as u32)
            }
            #[inline]
            fn take(&mut self) -> Result<Option<$In>, RingError> {
                let $this = self;
                Ok($take)
            }
            #[inline]
            fn send(&mut self, value: &$Out) -> Result<(), RingError> {
                let ($this, $value) = (self, *value);
                $send.map_err(|_| RingError::Full)
            }
            #[inline]
            fn publish(&mut self) -> bool {
                false
            }
        }
    };
}

queue_end!(
    Front,
    Rtrb<Response, Request>,
    Response,
    Request,
    |this| this.incoming.slots(),
    this.incoming.pop().ok(),
    |value| this.outgoing.push(value)
);
queue_end!(
    Back,
    Rtrb<Request, Response>,
    Request,
    Response,
    |this| this.incoming.slots(),
    this.incoming.pop().ok(),
    |value| this.outgoing.push(value)
);
queue_end!(
    Front,
    Crossbeam<'_, Response, Request>,
    Response,
    Request,
    |this| this.incoming.len(),
    this.incoming.pop(),
    |value| this.outgoing.push(value)
);
queue_end!(
    Back,
    Crossbeam<'_, Request, Response>,
    Request,
    Response,
    |this| this.incoming.len(),
    this.incoming.pop(),
    |value| this.outgoing.push(value)
);

/// Pages that both ends share.
struct SharedPages(Box<[Page]>);

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_SIZE]);

impl SharedPages {
    fn new(pages: usize) -> Self {
        Self(vec![Page([0; PAGE_SIZE]); pages].into_boxed_slice())
    }

    /// The memory, for as long as nobody looks at the pages themselves.
    fn region(&mut self) -> Region<'_> {
        let len = self.0.len() * PAGE_SIZE;
        // SAFETY: the pages are mapped, aligned, and reached only through regions while one of them is used: both ends
        // are joined before the pages go.
        unsafe { Region::new(NonNull::from(&mut *self.0).cast(), len) }
    }
}

/// The C half, compiled from `c/ring.c` against the installed Xen headers.
struct RingH {
    library: Library,
    /// The library is mapped from a file in there.
    _dir: tempfile::TempDir,
}

type InitFn = unsafe extern "C" fn(*mut c_void);
type FrontFn = unsafe extern "C" fn(*mut c_void, usize, u32, u64) -> u64;
type BackFn = unsafe extern "C" fn(*mut c_void, usize, u64, *mut u64) -> u64;

impl RingH {
    fn compile() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (source, object) = (dir.path().join("ring.c"), dir.path().join("ring.so"));
        std::fs::write(&source, include_str!("../c/ring.c"))?;
        let output = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&object, &source])
            .output()
            .context("no C compiler: install gcc")?;
        ensure!(
            output.status.success(),
            "ring.c does not compile (are Xen's headers installed? libxen-dev has them):\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // SAFETY: the library is the one just compiled; it has no initialiser.
        let library = unsafe { Library::new(&object) }?;
        Ok(Self { library, _dir: dir })
    }

    fn run(&self, depth: u32, pages: usize, count: u64) -> Result<Duration> {
        let mut memory = SharedPages::new(pages);
        let region = memory.region();
        // SAFETY: the types are those of the functions in ring.c.
        let (init, front, back): (Symbol<InitFn>, Symbol<FrontFn>, Symbol<BackFn>) = unsafe {
            (
                self.library.get(b"ring_init")?,
                self.library.get(b"ring_front")?,
                self.library.get(b"ring_back")?,
            )
        };
        let len = pages * PAGE_SIZE;
        let base = || region.base().as_ptr().cast::<c_void>();
        // SAFETY: the pages live until both ends returned, and only the C code reaches them (here and below).
        unsafe { init(base()) };
        race(
            count,
            || {
                // SAFETY: as above.
                let doorbells = unsafe { front(base(), len, depth, count) };
                ensure!(doorbells != u64::MAX, "the C front end got a wrong answer");
                Ok(doorbells)
            },
            || {
                let mut doorbells = 0;
                // SAFETY: as above.
                let sum = unsafe { back(base(), len, count, &raw mut doorbells) };
                ensure!(sum != u64::MAX, "the C back end got a wrong request");
                Ok(sum)
            },
        )
    }
}

/// The same through ring-proto.
fn ring_proto(depth: u32, pages: usize, count: u64) -> Result<Duration> {
    let mut memory = SharedPages::new(pages);
    let region = memory.region();
    let front = FrontRing::new(region)?;
    let back = BackRing::attach(region)?;
    race(count, move || drive_front(front, depth.into(), count), move || drive_back(back, count))
}

fn rtrb(depth: u32, count: u64) -> Result<Duration> {
    let (to_back, from_front) = rtrb::RingBuffer::new(depth as usize);
    let (to_front, from_back) = rtrb::RingBuffer::new(depth as usize);
    let front = Rtrb { incoming: from_back, outgoing: to_back };
    let back = Rtrb { incoming: from_front, outgoing: to_front };
    race(count, move || drive_front(front, depth.into(), count), move || drive_back(back, count))
}

fn crossbeam(depth: u32, count: u64) -> Result<Duration> {
    let requests = ArrayQueue::new(depth as usize);
    let responses = ArrayQueue::new(depth as usize);
    let front = Crossbeam { incoming: &responses, outgoing: &requests };
    let back = Crossbeam { incoming: &requests, outgoing: &responses };
    race(count, move || drive_front(front, depth.into(), count), move || drive_back(back, count))
}

/// Runs both ends, each on a CPU of its own, and returns how long the front end took. The back end has to have seen
/// what the front end sends as its first `count` requests.
fn race(
    count: u64,
    front: impl FnOnce() -> Result<u64> + Send,
    back: impl FnOnce() -> Result<u64> + Send,
) -> Result<Duration> {
    let cpus = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| cpus.is_set(cpu));
    let (Some(first), Some(second)) = (allowed.next(), allowed.next()) else {
        anyhow::bail!("the ring benchmark needs two CPUs");
    };
    let barrier = &Barrier::new(2);
    let (took, sum) = std::thread::scope(|scope| {
        let back = scope.spawn(move || {
            start_on(second, barrier);
            or_exit(back())
        });
        let front = scope.spawn(move || {
            let start = start_on(first, barrier);
            or_exit(front());
            start.elapsed()
        });
        (front.join(), back.join())
    });
    let (Ok(took), Ok(sum)) = (took, sum) else { anyhow::bail!("an end panicked") };
    ensure!(sum == expected_sum(count), "the back end saw other requests than were sent");
    Ok(took)
}

/// Moves this thread to `cpu`, waits for the other end, and returns the time of the start.
fn start_on(cpu: usize, barrier: &Barrier) -> Instant {
    let mut set = CpuSet::new();
    set.set(cpu);
    or_exit(sched_setaffinity(None, &set).context("pinning a thread"));
    barrier.wait();
    Instant::now()
}

/// Ends the process on an error: the other end would poll for ever.
fn or_exit<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("bench ring: {error:#}");
        std::process::exit(1)
    })
}

/// What `drive_back` sums up over the first `count` requests.
fn expected_sum(count: u64) -> u64 {
    (0..count).fold(0, |sum, n| sum.wrapping_add(inspect(&request(n)).unwrap_or(0)))
}

/// Requests in one run: about a fifth of a second.
const fn count(depth: u32) -> u64 {
    if depth == 1 { 1 << 20 } else { 1 << 23 }
}

/// Takes `pairs` pairs for every line of the report.
///
/// # Errors
///
/// Fewer than two CPUs, no C compiler, no Xen headers, or an end that saw something else than the other sent.
pub fn run(pairs: usize) -> Result<Report> {
    let ring_h = RingH::compile()?;
    let mut report = Report::default();
    for pages in [1, 16] {
        for depth in [1, 8, 32] {
            let name = format!("ring.d{depth}.p{pages}");
            let baseline = || ring_h.run(depth, pages, count(depth));
            report.push(compare(name, "ring.h", pairs, depth, pages, baseline)?);
        }
    }
    let depth = 32;
    let baseline = || rtrb(depth, count(depth));
    report.push(compare("ring.d32.rtrb".into(), "rtrb", pairs, depth, 1, baseline)?);
    let baseline = || crossbeam(depth, count(depth));
    report.push(compare("ring.d32.arrayqueue".into(), "ArrayQueue", pairs, depth, 1, baseline)?);
    Ok(report)
}

/// Runs ours and the baseline in turn, each first in every other pair.
fn compare(
    name: String,
    against: &str,
    pairs: usize,
    depth: u32,
    pages: usize,
    baseline: impl Fn() -> Result<Duration>,
) -> Result<Measurement> {
    let rate = |took: Duration| count(depth) as f64 / took.as_secs_f64();
    let ours = || ring_proto(depth, pages, count(depth));
    let mut figures = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        let (ours, baseline) = if pair % 2 == 0 {
            let ours = ours()?;
            (ours, baseline()?)
        } else {
            let baseline = baseline()?;
            (ours()?, baseline)
        };
        figures.push((rate(ours), rate(baseline)));
    }
    Measurement::new(name, UNIT, against, &figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_does_the_whole_work() {
        let ring_h = RingH::compile().unwrap();
        for (depth, pages) in [(1, 1), (8, 16), (32, 1), (32, 16)] {
            ring_h.run(depth, pages, 1000).unwrap();
            ring_proto(depth, pages, 1000).unwrap();
        }
        rtrb(32, 1000).unwrap();
        crossbeam(32, 1000).unwrap();
    }

    #[test]
    fn structures_are_those_of_blkif() {
        assert_eq!(size_of::<Request>(), 112);
        assert_eq!(size_of::<Response>(), 16);
        assert_eq!(ring_proto::ring::slots::<Request, Response>(PAGE_SIZE), Some(32));
        assert_eq!(ring_proto::ring::slots::<Request, Response>(16 * PAGE_SIZE), Some(512));
    }

    #[test]
    fn a_malformed_request_is_seen() {
        let good = request(7);
        assert!(inspect(&good).is_some());
        assert_eq!(inspect(&Request { nr_segments: 12, ..good }), None);
        assert_eq!(inspect(&Request { operation: 9, ..good }), None);
        assert_ne!(inspect(&good), inspect(&request(8)));
    }
}
