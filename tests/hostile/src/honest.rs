// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that keeps the rules, of a disk that can what no disk at hand can, or that has a bad sector, and that tells
//! what it is asked for.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, ensure};
use hypervisor_client::Client;
use ring_proto::blkif::{
    Discard, MAX_INDIRECT_SEGMENTS, Operation, RawRequest, RawResponse, RawSegment, Request, Rw,
    RwOp, Segment, Segments, Status, descriptors,
};
use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xenbus::State;
use ring_proto::xenbus::vbd::BackendFeatures;

use crate::back::{Back, Disk};
use crate::peer::LOOK;

/// The backend, connected.
pub struct Honest {
    back: Back,
    /// Segments of an indirect request that it offers.
    segments: u16,
    /// Requests that reach this sector fail.
    bad: Option<u64>,
}

impl Honest {
    /// Plugs a disk in, one of whose sectors is `bad` perhaps, and connects it.
    ///
    /// # Errors
    ///
    /// When the frontend does not take it up.
    pub fn plug(client: Arc<dyn Client>, disk: Disk, bad: Option<u64>) -> anyhow::Result<Self> {
        let mut back = Back::plug(client, disk)?;
        ensure!(back.meet(|_| Ok(()))?, "the frontend does not want the disk");
        back.write_state(State::Connected)?;
        let offered = BackendFeatures::read(&mut back.store.device(&back.path))?;
        let segments = offered.indirect_segments(MAX_INDIRECT_SEGMENTS).unwrap_or(0);
        Ok(Self { back, segments, bad })
    }

    /// Answers each request, and prints it, whether the pages of a write show the backend more than that, and whether it
    /// fails; until a toolstack wants the disk back: its state is Closing then.
    ///
    /// # Errors
    ///
    /// When the frontend writes what is no request, or does not let go of the disk.
    pub fn serve(mut self) -> anyhow::Result<()> {
        while self.back.own_state()? != State::Closing {
            let served = self.back.served.as_mut().context("connected")?;
            let requests = served.take();
            if requests.is_empty() {
                std::thread::sleep(LOOK);
                continue;
            }
            let answers = requests.iter().map(|request| self.answer(request));
            let answers: Vec<_> = answers.collect::<anyhow::Result<_>>()?;
            let served = self.back.served.as_mut().context("connected")?;
            answers.iter().for_each(|answer| served.answer(answer));
            served.publish()?;
        }
        self.back.unplug()
    }

    /// Prints a request, and returns the answer to it.
    fn answer(&self, raw: &RawRequest) -> anyhow::Result<RawResponse> {
        let request = raw.check(self.segments).map_err(|bad| anyhow::anyhow!("{}", bad.problem))?;
        let segments = self.segments_of(&request)?;
        let beside = if self.shows_more(&request, &segments)? { ", beside other data" } else { "" };
        let fails = self.bad.is_some_and(|bad| extent(&request, &segments).contains(&bad));
        println!("{}{beside}{}", line(&request), if fails { ", fails" } else { "" });
        let status = if fails { Status::Error } else { Status::Okay };
        Ok(RawResponse::new(request.tag(), status))
    }

    /// Where the data of a request lie, if it moves any.
    fn segments_of(&self, request: &Request) -> anyhow::Result<Vec<Segment>> {
        let Request::Rw(rw) = request else { return Ok(Vec::new()) };
        let indirect = match &rw.segments {
            Segments::Direct(segments) => return Ok(segments.to_vec()),
            Segments::Indirect(indirect) => indirect,
        };
        let mut segments = Vec::new();
        for (number, gref) in indirect.pages().iter().enumerate() {
            let mut bytes = vec![0; indirect.in_page(number) * size_of::<RawSegment>()];
            self.back.map(gref.0)?.copy_out(0, &mut bytes);
            for segment in descriptors(&bytes) {
                segments.push(segment?);
            }
        }
        Ok(segments)
    }

    /// Of a write: whether its pages show more than it writes.
    fn shows_more(&self, request: &Request, segments: &[Segment]) -> anyhow::Result<bool> {
        if !matches!(request, Request::Rw(Rw { op: RwOp::Write, .. })) {
            return Ok(false);
        }
        for segment in segments.iter().filter(|segment| segment.byte_len() < PAGE_SIZE) {
            let page = self.back.map(segment.gref().0)?;
            let mut bytes = [0; PAGE_SIZE];
            page.copy_out(0, &mut bytes);
            let (before, rest) = bytes.split_at(segment.offset());
            let after = rest.get(segment.byte_len()..).unwrap_or_default();
            if before.iter().chain(after).any(|byte| *byte != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The sectors that a request reaches.
fn extent(request: &Request, segments: &[Segment]) -> Range<u64> {
    let (sector, count) = match request {
        Request::Rw(rw) => (rw.sector, segments.iter().map(|part| u64::from(part.sectors())).sum()),
        Request::Flush { .. } => (0, 0),
        Request::Discard(discard) => (discard.sector, discard.count),
    };
    sector..sector.saturating_add(count)
}

/// A request as one line: its operation, where on the disk, and for a discard how many sectors and whether securely.
fn line(request: &Request) -> String {
    match request {
        Request::Rw(rw) => format!("{} {}", rw.op.operation(), rw.sector),
        Request::Flush { barrier: false, .. } => Operation::FlushDiskcache.to_string(),
        Request::Flush { barrier: true, .. } => Operation::WriteBarrier.to_string(),
        Request::Discard(Discard { sector, count, secure, .. }) => {
            format!("discard {sector} {count}{}", if *secure { " secure" } else { "" })
        }
    }
}

#[cfg(test)]
mod tests {
    use ring_proto::blkif::{MAX_SEGMENTS, RawDiscard};
    use ring_proto::shared::zeroed;
    use ring_proto::xen::GrantRef;

    use super::*;

    fn direct(operation: u8, nr_segments: u8) -> Request {
        let page = RawSegment { gref: 8, first_sect: 0, last_sect: 7, pad: [0; 2] };
        let seg = [page; MAX_SEGMENTS];
        RawRequest { operation, nr_segments, sector_number: 16, seg, ..zeroed() }.check(0).unwrap()
    }

    fn discard(flag: u8) -> Request {
        let raw = RawDiscard { operation: 5, flag, sector_number: 8, nr_sectors: 24, ..zeroed() };
        RawRequest::from(raw).check(0).unwrap()
    }

    #[test]
    fn a_line_tells_a_request() {
        for (operation, segments, told) in [
            (0, 1, "read 16"),
            (1, 1, "write 16"),
            (2, 1, "write barrier 16"),
            (2, 0, "write barrier"),
            (3, 0, "flush"),
            (3, 1, "flush 16"),
        ] {
            assert_eq!(line(&direct(operation, segments)), told);
        }
        assert_eq!(line(&discard(1)), "discard 8 24 secure");
        assert_eq!(line(&discard(0)), "discard 8 24");
    }

    #[test]
    fn a_request_reaches_the_sectors_of_its_segments() {
        let segments =
            [Segment::new(GrantRef(8), 0, 7).unwrap(), Segment::new(GrantRef(9), 2, 2).unwrap()];
        assert_eq!(extent(&direct(0, 2), &segments), 16..25);
        assert!(extent(&direct(3, 0), &[]).is_empty());
        assert_eq!(extent(&discard(0), &[]), 8..32);
    }
}
