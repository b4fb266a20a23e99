// SPDX-License-Identifier: MIT OR Apache-2.0

//! From the first stage to the answer.

use std::io;

use hypervisor_client::CopyDirection;
use ring_proto::blkif::{Status, Tag};

use super::{Queue, QueueError, system};
use crate::helper::{DiscardJob, Helper};
use crate::image::DiscardBy;
use crate::io::{Direction, ImageFile, Source};
use crate::journal::Entry;
use crate::request::{Job, Kind, Stage};

/// How a discard is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// A command to the device through io_uring.
    Command,
    /// An ioctl on the helper thread: io_uring has none that is secure, and an earlier kernel none at all.
    Helper { secure: bool },
    /// A hole in the file.
    PunchHole,
}

impl Means {
    /// `helper`: there is a helper thread, so what io_uring could do it did not.
    fn of(by: Option<DiscardBy>, secure: bool, helper: bool) -> Self {
        match by {
            Some(DiscardBy::Ioctl { secure: true }) if secure => Self::Helper { secure },
            Some(DiscardBy::Ioctl { .. }) if helper => Self::Helper { secure: false },
            Some(DiscardBy::Ioctl { .. }) => Self::Command,
            Some(DiscardBy::PunchHole) | None => Self::PunchHole,
        }
    }
}

impl Queue {
    /// Begins the first stage of a placed request, or answers it if it failed already.
    pub(super) fn begin(&mut self, slot: u32) -> Result<(), QueueError> {
        match self.slots.get(slot as usize) {
            // A discard of nothing is one that the kernel refuses.
            Some(state)
                if state.status == Status::Okay
                    && (state.job.len > 0 || state.stage != Stage::Discard) =>
            {
                self.begin_stage(slot)
            }
            _ => self.answer(slot),
        }
    }

    /// Queues the operation of a slot's stage.
    fn begin_stage(&mut self, slot: u32) -> Result<(), QueueError> {
        let Some(state) = self.slots.get(slot as usize) else { return Ok(()) };
        let (job, done) = (state.job, state.done);
        match state.stage {
            Stage::SyncBefore | Stage::SyncAfter => self.engine.sync(slot),
            Stage::Transfer => {
                let direction = if job.kind.writes() { Direction::Write } else { Direction::Read };
                let file = self.file_for(slot);
                let fixed = self.engine.transfer(slot, direction, file, job.offset + done);
                self.parts.stats.fixed_ios.add(fixed.into());
                self.parts.stats.buffered_ios.add((file == ImageFile::Buffered).into());
            }
            Stage::Discard => self.discard(slot, &job)?,
        }
        Ok(())
    }

    /// The descriptor for a slot's transfer: past the page cache if all of it is aligned for that.
    fn file_for(&self, slot: u32) -> ImageFile {
        let Some(alignment) = self.parts.disk.image.direct_alignment() else {
            return ImageFile::Buffered;
        };
        let Some(state) = self.slots.get(slot as usize) else { return ImageFile::Buffered };
        let all = u64::from(alignment.offset.max(alignment.memory) - 1);
        let start = state.job.offset + state.done;
        let mut bits = (start | (state.job.len - state.done)) & u64::from(alignment.offset - 1);
        if all >= 512 {
            for placed in &state.placed {
                let (offset, len) = (placed.segment.offset(), placed.segment.byte_len());
                bits |= (offset | len) as u64 & all;
            }
        }
        if bits == 0 { ImageFile::Direct } else { ImageFile::Buffered }
    }

    fn discard(&mut self, slot: u32, job: &Job) -> Result<(), QueueError> {
        let by = self.parts.disk.image.discard().map(|discard| discard.by);
        let secure = job.kind == Kind::Discard { secure: true };
        match Means::of(by, secure, self.helper.is_some()) {
            Means::Helper { secure } => return self.discard_by_helper(slot, secure),
            Means::Command => self.engine.discard(slot, job.offset, job.len),
            Means::PunchHole => self.engine.punch_hole(slot, job.offset, job.len),
        }
        Ok(())
    }

    /// Hands a discard to the helper thread, which is started for the first one.
    fn discard_by_helper(&mut self, slot: u32, secure: bool) -> Result<(), QueueError> {
        let Some(state) = self.slots.get(slot as usize) else { return Ok(()) };
        let job = DiscardJob { slot, offset: state.job.offset, len: state.job.len, secure };
        if self.helper.is_none() {
            let helper = Helper::start(self.parts.disk.image.clone(), self.helper_wake.clone());
            self.helper = Some(helper.map_err(system("starting the thread for discards"))?);
            self.engine.read(Source::Helper);
        }
        if !self.helper.as_ref().is_some_and(|helper| helper.submit(job)) {
            self.fail(slot, &io::Error::other("the thread for discards is gone"));
            return self.answer(slot);
        }
        Ok(())
    }

    /// What comes after a stage: more of it, the next one, or the answer. `result` is as of a completion.
    pub(super) fn stage_done(&mut self, slot: u32, result: i32) -> Result<(), QueueError> {
        let Some(state) = self.slots.get_mut(slot as usize) else { return Ok(()) };
        match (state.stage, result) {
            (_, error) if error == -libc::EINTR || error == -libc::EAGAIN => {
                return self.begin_stage(slot);
            }
            (Stage::Discard, error) if error < 0 => {
                // An earlier kernel has no discards in io_uring; its ioctl may.
                if self.helper.is_none() && self.by_ioctl() {
                    return self.discard_by_helper(slot, false);
                }
                let error = io::Error::from_raw_os_error(-error);
                self.fail(slot, &error);
                if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
                    self.set_status(slot, Status::NotSupported);
                }
            }
            (_, error) if error < 0 => self.fail(slot, &io::Error::from_raw_os_error(-error)),
            (Stage::Transfer, 0) => {
                self.fail(slot, &io::Error::other("the image ends before"));
            }
            (Stage::Transfer, bytes) => {
                state.done += u64::from(bytes.unsigned_abs());
                if state.done < state.job.len {
                    self.engine.advance(slot, bytes.unsigned_abs() as usize);
                    return self.begin_stage(slot);
                }
            }
            _ => {}
        }
        let Some(state) = self.slots.get_mut(slot as usize) else { return Ok(()) };
        if state.status == Status::Okay {
            if let Some(next) = state.job.kind.after(state.stage) {
                state.stage = next;
                return self.begin_stage(slot);
            }
            if state.job.kind == Kind::Read && self.queue_copies(slot, CopyDirection::ToPeer) {
                self.finishing.push(slot);
                return Ok(());
            }
        }
        self.answer(slot)
    }

    fn by_ioctl(&self) -> bool {
        let discard = self.parts.disk.image.discard();
        discard.is_some_and(|discard| matches!(discard.by, DiscardBy::Ioctl { .. }))
    }

    fn set_status(&mut self, slot: u32, status: Status) {
        if let Some(state) = self.slots.get_mut(slot as usize) {
            state.status = status;
        }
    }

    /// Notes that the disk failed a request, and says so in the log.
    fn fail(&mut self, slot: u32, error: &io::Error) {
        self.set_status(slot, Status::Error);
        let Some(state) = self.slots.get(slot as usize) else { return };
        let (stats, disk, job) = (&self.parts.stats, &self.parts.disk, &state.job);
        stats.io_errors.add(1);
        if !disk.lines.image.take() {
            return;
        }
        let (path, sector) = (disk.image.path().display(), job.offset / 512);
        let what = match state.stage {
            Stage::SyncBefore | Stage::SyncAfter => "flush",
            Stage::Transfer if job.kind.writes() => "write",
            Stage::Transfer => "read",
            Stage::Discard => "discard",
        };
        log::error!(
            "{}: image {path}: {what} of {} sectors at {sector}: {error}",
            disk.name,
            job.sectors()
        );
    }

    /// Ends a request. The frontend sees the answer when it is published.
    pub(super) fn answer(&mut self, slot: u32) -> Result<(), QueueError> {
        let Some(state) = self.slots.get_mut(slot as usize) else { return Ok(()) };
        let (job, status) = (state.job, state.status);
        for placed in state.placed.drain(..) {
            self.pages.let_go(placed.place);
        }
        self.free.push(slot);
        self.freed = true;
        if job.kind.exclusive() {
            self.exclusive = false;
        }
        let stats = &self.parts.stats;
        match job.kind {
            Kind::Read => stats.reads.add(1),
            Kind::Flush => stats.flushes.add(1),
            Kind::FlushBarrier => stats.barriers.add(1),
            Kind::Discard { .. } => stats.discards.add(1),
            Kind::Write | Kind::FlushWrite => stats.writes.add(1),
            Kind::WriteBarrier => {
                stats.writes.add(1);
                stats.barriers.add(1);
            }
        }
        if status == Status::Okay {
            match job.kind {
                Kind::Read => stats.read_sectors.add(job.sectors()),
                Kind::Discard { .. } => stats.discarded_sectors.add(job.sectors()),
                _ => stats.written_sectors.add(job.sectors()),
            }
        }
        stats.latency.record(self.now.saturating_sub(job.taken_at));
        self.push(job.tag, job.entry, status)
    }

    /// Writes a response. The frontend sees it when it is published.
    pub(super) fn push(
        &mut self,
        tag: Tag,
        entry: Option<Entry>,
        status: Status,
    ) -> Result<(), QueueError> {
        let index = self.ring.next_response();
        self.ring.push(tag, status)?;
        if let (Some(journal), Some(entry)) = (&mut self.journal, entry) {
            journal.answered(entry, index);
        }
        self.unpublished += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discard_goes_the_way_that_keeps_its_promise() {
        let plain = Some(DiscardBy::Ioctl { secure: false });
        let secure = Some(DiscardBy::Ioctl { secure: true });
        let hole = Some(DiscardBy::PunchHole);
        for (by, asked_secure, helper, expected) in [
            (plain, false, false, Means::Command),
            (secure, false, false, Means::Command),
            (plain, false, true, Means::Helper { secure: false }),
            (secure, false, true, Means::Helper { secure: false }),
            (secure, true, false, Means::Helper { secure: true }),
            (secure, true, true, Means::Helper { secure: true }),
            (hole, false, false, Means::PunchHole),
            (hole, false, true, Means::PunchHole),
        ] {
            let means = Means::of(by, asked_secure, helper);
            assert_eq!(means, expected, "{by:?}, secure {asked_secure}, helper {helper}");
        }
    }
}
