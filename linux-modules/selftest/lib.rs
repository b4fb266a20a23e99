// SPDX-License-Identifier: GPL-2.0

//! Tries in a domain, under a real hypervisor, what of the crate `xen` no driver uses yet: a module that is declared by
//! `module_xenbus_driver!`, and copies that Xen makes; and how fast the clock goes by which drivers wait. It is built for
//! the lab and not installed.
//!
//! A shell makes a device of the type `selftest` whose other end is this domain itself. What came of it, `passed` or what
//! failed, is then in the device's key `result`.

use kernel::device::Core;
use kernel::page::Page;
use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta, Instant, Monotonic};
use ring_proto::shared::{AsRegion, SharedMemory};
use ring_proto::xen::grant_table::GrantError;
use ring_proto::xenbus::{End, State, WriteDirectory};
use xen::copy::{CopyBatch, Span};
use xen::grant::{GrantPool, GrantedPage};
use xen::map::Access;
use xen::thread::{ticks, HZ};
use xen::xenbus::{self, Device, Next};
use xen::{DomId, GrantRef};

xen::module_xenbus_driver! {
    type: Selftest,
    name: "causeway_selftest",
    authors: ["Causeway"],
    description: "Tests of Causeway's crate xen",
    license: "GPL",
    alias: ["xen:selftest"],
}

struct Selftest;

impl xenbus::Driver for Selftest {
    type Data<'bound> = Self;

    const END: End = End::Frontend;
    const NAME: &'static CStr = c"causeway-selftest";
    const DEVICE_TYPE: &'static CStr = c"selftest";

    fn probe<'bound>(
        device: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let tested = || {
            let own = device.directory()?;
            match clock().and_then(|()| copies(device.otherend_id())) {
                Ok(()) => (&own).write("result", fmt!("passed"))?,
                Err(Failed(what)) => (&own).write("result", fmt!("{what}"))?,
            }
            // Nobody waits for a device that is closed; for one that may connect yet, whoever loads its driver does.
            device.switch_state(State::Closed)?;
            Ok(Self)
        };
        tested()
    }

    fn otherend_changed<'bound>(
        _device: &'bound Device<Core<'_>>,
        _this: Pin<&Self::Data<'bound>>,
        _state: State,
    ) -> Next {
        Next::Stay
    }
}

/// What did not hold.
struct Failed(&'static str);

impl From<Error> for Failed {
    fn from(_: Error) -> Self {
        Self("there is no memory, or no grant")
    }
}

impl From<kernel::alloc::AllocError> for Failed {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Self::from(ENOMEM)
    }
}

/// Fails unless `right`.
fn check(right: bool, what: &'static str) -> Result<(), Failed> {
    if right {
        Ok(())
    } else {
        Err(Failed(what))
    }
}

/// A second has as many ticks as it should. This domain may sleep for longer than it wants to, never for less.
fn clock() -> Result<(), Failed> {
    let before = (ticks(), Instant::<Monotonic>::now());
    fsleep(Delta::from_secs(1));
    let (ticks, slept) = (ticks().saturating_sub(before.0), before.1.elapsed().as_millis());
    let expected = HZ.saturating_mul(slept as u64) / 1000;
    check(ticks.saturating_add(HZ / 10) >= expected, "there are too few ticks in a second")?;
    check(ticks <= expected.saturating_add(HZ / 10), "there are too many ticks in a second")
}

/// Bytes that are copied, from byte [`FROM`] of one page to [`AT`] of another.
const LEN: u16 = 1000;
const FROM: u16 = 96;
const AT: u16 = 3000;

/// Copies bytes from a granted page into one of our own, and from there into another granted page. What else is in a
/// batch, and wrong, fails for itself.
fn copies(peer: DomId) -> Result<(), Failed> {
    let mut pool = GrantPool::new();
    pool.refill(2)?;
    let source = GrantedPage::new(&mut pool, peer, Access::ReadOnly, GFP_KERNEL)?;
    let target = GrantedPage::new(&mut pool, peer, Access::ReadWrite, GFP_KERNEL)?;
    let mut bytes = KVec::with_capacity(LEN.into(), GFP_KERNEL)?;
    for number in 0..LEN {
        bytes.push((number % 251) as u8, GFP_KERNEL)?;
    }
    source.as_region().copy_in(FROM.into(), &bytes);

    let span = Span { offset: FROM, len: LEN };
    let mut batch = CopyBatch::with_room(2)?;
    let page = || Page::alloc_page(GFP_KERNEL);
    let added = batch.from_foreign(peer, source.gref(), span, page()?, 0);
    check(added.is_ok(), "a copy does not fit into an empty batch")?;
    let added = batch.from_foreign(peer, GrantRef(u32::MAX), span, page()?, 0);
    check(added.is_ok(), "a second copy does not fit into a batch of two")?;
    let added = batch.from_foreign(peer, source.gref(), span, page()?, 0);
    check(added.is_err(), "a third copy fits into a batch of two")?;
    let mut copied = batch.copy();
    let Some((page, Ok(()))) = copied.next() else {
        return Err(Failed("a granted page was not copied"));
    };
    let bad = copied.next().and_then(|(_, outcome)| outcome.err());
    check(bad == Some(GrantError::BadGntref), "what is not granted was copied, or not for that")?;
    check(copied.next().is_none(), "a batch of two has three outcomes")?;
    drop(copied);

    let wide = Span { offset: 0, len: 4096 };
    let unfit = batch.to_foreign(page, wide, peer, target.gref(), 1);
    let Err(page) = unfit else { return Err(Failed("a copy beyond its page is taken")) };
    let span = Span { offset: 0, len: LEN };
    let added = batch.to_foreign(page, span, peer, target.gref(), AT);
    check(added.is_ok(), "a batch that was made has no room again")?;
    let Some((page, Ok(()))) = batch.copy_nowait().next() else {
        return Err(Failed("nothing was copied to a granted page"));
    };
    // A page that is granted to be read.
    let added = batch.to_foreign(page, span, peer, source.gref(), AT);
    check(added.is_ok(), "a batch has no room the third time")?;
    let refused = matches!(batch.copy_nowait().next(), Some((_, Err(_))));
    check(refused, "a page that is granted to be read was written")?;

    let mut found = KVec::from_elem(0, LEN.into(), GFP_KERNEL)?;
    target.as_region().copy_out(AT.into(), &mut found);
    check(*found == *bytes, "other bytes came than were copied")?;
    for at in [AT - 8, AT + LEN] {
        let mut beside = [0xff; 8];
        target.as_region().copy_out(at.into(), &mut beside);
        check(beside == [0; 8], "bytes beside those that were copied changed")?;
    }
    Ok(())
}
