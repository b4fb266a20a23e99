// SPDX-License-Identifier: MIT OR Apache-2.0

//! A backend that keeps the rules, of a disk that can what no disk at hand can, and that tells what it is asked for.

use std::sync::Arc;

use anyhow::{Context, ensure};
use hypervisor_client::Client;
use ring_proto::blkif::{Discard, Operation, RawRequest, Request, Rw, RwOp, Segments};
use ring_proto::shared::{PAGE_SIZE, SharedMemory};
use ring_proto::xen::DomId;
use ring_proto::xenbus::State;

use crate::back::{Back, legal};
use crate::peer::LOOK;

/// The backend, connected.
pub struct Honest {
    back: Back,
}

impl Honest {
    /// Plugs a disk in that offers `keys` beyond what [`Back::meet`] does, or instead, and connects it.
    ///
    /// # Errors
    ///
    /// When the frontend does not take it up.
    pub fn plug(
        client: Arc<dyn Client>,
        frontend: DomId,
        device: u32,
        keys: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut back = Back::plug(client, frontend, device)?;
        let offer =
            |back: &mut Back| keys.iter().try_for_each(|(key, value)| back.write(key, value));
        ensure!(back.meet(offer)?, "the frontend does not want the disk");
        back.write_state(State::Connected)?;
        Ok(Self { back })
    }

    /// Answers each request, and prints it, and whether the page of a write shows the backend more than that, until a
    /// toolstack wants the disk back: its state is Closing then.
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
            for request in &requests {
                println!("{}{}", line(request)?, self.beside(request)?);
            }
            let served = self.back.served.as_mut().context("connected")?;
            requests.iter().for_each(|request| served.answer(&legal(request)));
            served.publish()?;
        }
        self.back.unplug()
    }

    /// Of a write: whether its pages show more than it writes.
    fn beside(&self, raw: &RawRequest) -> anyhow::Result<&'static str> {
        let Ok(Request::Rw(Rw { op: RwOp::Write, segments: Segments::Direct(segments), .. })) =
            raw.check(0)
        else {
            return Ok("");
        };
        for segment in segments.iter().filter(|segment| segment.byte_len() < PAGE_SIZE) {
            let page = self.back.map(segment.gref().0)?;
            let mut bytes = [0; PAGE_SIZE];
            page.copy_out(0, &mut bytes);
            let (before, rest) = bytes.split_at(segment.offset());
            let after = rest.get(segment.byte_len()..).unwrap_or_default();
            if before.iter().chain(after).any(|byte| *byte != 0) {
                return Ok(", beside other data");
            }
        }
        Ok("")
    }
}

/// A request as one line: its operation, where on the disk, and for a discard how many sectors and whether securely.
fn line(raw: &RawRequest) -> anyhow::Result<String> {
    Ok(match raw.check(0).map_err(|bad| anyhow::anyhow!("{}", bad.problem))? {
        Request::Rw(rw) => format!("{} {}", rw.op.operation(), rw.sector),
        Request::Flush { barrier: false, .. } => Operation::FlushDiskcache.to_string(),
        Request::Flush { barrier: true, .. } => Operation::WriteBarrier.to_string(),
        Request::Discard(Discard { sector, count, secure, .. }) => {
            format!("discard {sector} {count}{}", if secure { " secure" } else { "" })
        }
    })
}

#[cfg(test)]
mod tests {
    use ring_proto::blkif::{RawDiscard, RawSegment};
    use ring_proto::shared::zeroed;

    use super::*;

    #[test]
    fn a_line_tells_a_request() {
        let page = RawSegment { gref: 8, first_sect: 0, last_sect: 7, pad: [0; 2] };
        let told = |operation, nr_segments| {
            let mut raw = RawRequest { operation, nr_segments, sector_number: 16, ..zeroed() };
            raw.seg[0] = page;
            line(&raw).map_err(|error| error.to_string())
        };
        assert_eq!(told(0, 1).unwrap(), "read 16");
        assert_eq!(told(1, 1).unwrap(), "write 16");
        assert_eq!(told(2, 1).unwrap(), "write barrier 16");
        assert_eq!(told(2, 0).unwrap(), "write barrier");
        assert_eq!(told(3, 0).unwrap(), "flush");
        assert_eq!(told(3, 1).unwrap(), "flush 16");
        assert!(told(0, 12).unwrap_err().contains("12"), "{:?}", told(0, 12));
        let raw =
            RawDiscard { operation: 5, flag: 1, sector_number: 8, nr_sectors: 24, ..zeroed() };
        assert_eq!(line(&raw.into()).unwrap(), "discard 8 24 secure");
        let raw = RawDiscard { flag: 0, ..raw };
        assert_eq!(line(&raw.into()).unwrap(), "discard 8 24");
    }
}
