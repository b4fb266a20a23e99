// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! libxenvchan: the stock library against the crate, from the set-up to the end.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;
use ring_proto::shared::Pages;
use ring_proto::vchan::{Live, Orders, Transfer, Vchan, LARGE_ORDER, SMALL_ORDER};
use ring_proto::xen::GrantRef;

use crate::{assert_same, function, Memory};

/// First grant of a buffer's pages in `vchan.c`.
const FIRST_GRANT: u32 = 100;

/// The stock library in this process counts its doorbells in one place.
static LIBRARY: Mutex<()> = Mutex::new(());

/// Sends or reads: a channel, bytes and their number.
type Move = unsafe extern "C" fn(*mut c_void, *mut u8, usize) -> i32;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Send,
    Write,
    Recv,
    Read,
}

/// What a transfer did: bytes moved, and whether the doorbell rang.
type Done = (usize, bool);

trait End {
    fn transfer(&mut self, kind: Kind, bytes: &mut [u8]) -> Done;
    fn data_ready(&mut self) -> usize;
    fn buffer_space(&mut self) -> usize;
    fn is_open(&self) -> bool;
}

/// An end in C.
struct C(*mut c_void);

impl C {
    fn count(&self, name: &str) -> usize {
        // SAFETY: the type is that of `libxenvchan.h`; the channel was set up.
        let count = unsafe {
            let ask: unsafe extern "C" fn(*mut c_void) -> i32 = function(name);
            ask(self.0)
        };
        usize::try_from(count).expect("no error")
    }
}

/// Whether the doorbell rang since the last time this was asked.
fn rang() -> bool {
    // SAFETY: the type is that of `vchan.c`.
    unsafe {
        let rings: unsafe extern "C" fn() -> u32 = function("vchan_rings");
        rings() > 0
    }
}

impl End for C {
    fn transfer(&mut self, kind: Kind, bytes: &mut [u8]) -> Done {
        let name = match kind {
            Kind::Send => "libxenvchan_send",
            Kind::Write => "libxenvchan_write",
            Kind::Recv => "libxenvchan_recv",
            Kind::Read => "libxenvchan_read",
        };
        rang();
        // SAFETY: the type is that of `libxenvchan.h`; the channel was set up and does not block.
        let count = unsafe {
            let transfer: Move = function(name);
            transfer(self.0, bytes.as_mut_ptr(), bytes.len())
        };
        (usize::try_from(count).expect("no error"), rang())
    }

    fn data_ready(&mut self) -> usize {
        self.count("libxenvchan_data_ready")
    }

    fn buffer_space(&mut self) -> usize {
        self.count("libxenvchan_buffer_space")
    }

    fn is_open(&self) -> bool {
        self.count("libxenvchan_is_open") != 0
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: the type is that of `vchan.c`; the channel is not used again.
        unsafe {
            let free: unsafe extern "C" fn(*mut c_void) = function("vchan_free");
            free(self.0);
        }
    }
}

type Rust<'a> = Vchan<Pages<'a, 1>, Pages<'a, 16>>;

impl End for Rust<'_> {
    fn transfer(&mut self, kind: Kind, bytes: &mut [u8]) -> Done {
        let Transfer { count, notify } = match kind {
            Kind::Send => self.send(bytes),
            Kind::Write => self.write(bytes),
            Kind::Recv => self.recv(bytes),
            Kind::Read => self.read(bytes),
        }
        .expect("the peer is honest");
        (count, notify)
    }

    fn data_ready(&mut self) -> usize {
        Vchan::data_ready(self).expect("the peer is honest")
    }

    fn buffer_space(&mut self) -> usize {
        Vchan::buffer_space(self).expect("the peer is honest")
    }

    fn is_open(&self) -> bool {
        self.peer() != Live::Gone
    }
}

/// A channel's memory as the crate takes it: the control page, and both buffers.
fn memory(
    [control, data]: &[Memory; 2],
    orders: Orders,
) -> (Pages<'_, 1>, Pages<'_, 16>, Pages<'_, 16>) {
    let buffer = |order: u16, first: usize, pages: usize| match order {
        SMALL_ORDER | LARGE_ORDER => Pages::new(&control.parts()),
        _ => Pages::new(&data.parts()[first..first + pages]),
    };
    let left = buffer(orders.left(), 0, orders.left_pages());
    let right = buffer(orders.right(), orders.left_pages(), orders.right_pages());
    let page = Pages::new(&control.parts()).expect("a page");
    (page, left.expect("at most 16 pages"), right.expect("at most 16 pages"))
}

/// A server for buffers of at least so many bytes.
fn server(c: bool, channel: &[Memory; 2], left: usize, right: usize) -> Box<dyn End + '_> {
    let orders = Orders::at_least(left, right).expect("not too large");
    if c {
        // SAFETY: the type is that of `vchan.c`; the memory is as large as the orders say and outlives the end.
        let end = unsafe {
            let server: unsafe extern "C" fn(*mut u8, *mut u8, usize, usize) -> *mut c_void =
                function("vchan_server");
            server(channel[0].base(), channel[1].base(), left, right)
        };
        assert!(!end.is_null(), "the stock library made a server");
        return Box::new(C(end));
    }
    let (page, left, right) = memory(channel, orders);
    let pages = orders.left_pages() + orders.right_pages();
    let grants: Vec<_> = (FIRST_GRANT..).take(pages).map(GrantRef).collect();
    Box::new(Rust::server(page, left, right, orders, &grants).expect("a legal channel"))
}

/// A client of what the server left in memory.
fn client(c: bool, channel: &[Memory; 2]) -> Box<dyn End + '_> {
    if c {
        // SAFETY: the type is that of `vchan.c`; the memory is as large as the orders say and outlives the end.
        let end = unsafe {
            let client: unsafe extern "C" fn(*mut u8, *mut u8) -> *mut c_void =
                function("vchan_client");
            client(channel[0].base(), channel[1].base())
        };
        assert!(!end.is_null(), "the stock library made a client");
        return Box::new(C(end));
    }
    let control = channel[0].region();
    let orders = Orders::read(&control).expect("the server is honest");
    for page in 0..orders.left_pages() + orders.right_pages() {
        assert_eq!(orders.grant(&control, page), Some(GrantRef(FIRST_GRANT + page as u32)));
    }
    let (page, left, right) = memory(channel, orders);
    Box::new(Rust::client(page, left, right, orders).expect("the server is honest"))
}

#[derive(Clone, Debug)]
enum Step {
    Transfer(Kind, usize),
    DataReady,
    BufferSpace,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![Kind::Send, Kind::Write, Kind::Recv, Kind::Read]);
    prop_oneof![
        8 => (kind, 1usize..3000).prop_map(|(kind, len)| Step::Transfer(kind, len)),
        1 => Just(Step::DataReady),
        1 => Just(Step::BufferSpace),
    ]
}

fn alone() -> MutexGuard<'static, ()> {
    LIBRARY.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_channel_is_the_same_channel(
        left in prop::sample::select(vec![1usize, 1024, 1025, 2048, 4096, 5000]),
        right in prop::sample::select(vec![1usize, 1024, 1025, 2048, 4096, 5000]),
        steps in prop::collection::vec((any::<bool>(), step()), 1..60),
    ) {
        let _alone = alone();
        let channels: Vec<[Memory; 2]> = (0..4).map(|_| [Memory::new(1), Memory::new(8)]).collect();
        let memories: Vec<&[Memory]> = channels.iter().map(|memory| &memory[..]).collect();
        let mut servers: Vec<_> = (0..).zip(&channels).map(|(kind, channel)| server(kind & 1 == 0, channel, left, right)).collect();
        assert_same(&[()], &memories, &"the server came");
        let mut clients: Vec<_> = (0..).zip(&channels).map(|(kind, channel)| client(kind & 2 == 0, channel)).collect();
        assert_same(&[()], &memories, &"the client came");
        for (round, step) in steps.iter().enumerate() {
            let (is_client, action) = step;
            let results: Vec<(usize, bool, Vec<u8>)> = servers
                .iter_mut()
                .zip(&mut clients)
                .map(|(server, client)| {
                    let end = if *is_client { client } else { server };
                    assert!(end.is_open());
                    match action {
                        Step::Transfer(kind, len) => {
                            let mut bytes: Vec<u8> = (0..*len).map(|at| (at * 5 + round) as u8).collect();
                            let (count, rang) = end.transfer(*kind, &mut bytes);
                            (count, rang, bytes)
                        }
                        Step::DataReady => (end.data_ready(), false, Vec::new()),
                        Step::BufferSpace => (end.buffer_space(), false, Vec::new()),
                    }
                })
                .collect();
            assert_same(&results, &memories, step);
        }
    }
}

/// Both ends in the control page, so that closing unmaps nothing but that page.
#[test]
fn an_end_that_closes_is_seen_to_be_gone_by_the_other() {
    let _alone = alone();
    let channel = [Memory::new(1), Memory::new(1)];
    let stock_server = server(true, &channel, 1024, 2048);
    let orders = Orders::read(&channel[0].region()).expect("the server is honest");
    let (page, left, right) = memory(&channel, orders);
    let client = Rust::client(page, left, right, orders).expect("the server is honest");
    assert!(stock_server.is_open());
    client.close().expect("the server is honest");
    assert!(!stock_server.is_open());
    drop(stock_server);

    let channel = [Memory::new(1), Memory::new(1)];
    let server = server(false, &channel, 1024, 2048);
    // SAFETY: the types are those of `vchan.c` and `libxenvchan.h`; the channel is not used after it was closed.
    unsafe {
        let client: unsafe extern "C" fn(*mut u8, *mut u8) -> *mut c_void =
            function("vchan_client");
        let stock_client = client(channel[0].base(), channel[1].base());
        assert!(server.is_open());
        let close: unsafe extern "C" fn(*mut c_void) = function("libxenvchan_close");
        close(stock_client);
    }
    assert!(!server.is_open());
}
