// SPDX-License-Identifier: MIT OR Apache-2.0

//! First act: the file system is copied through the ring, and compared with its image.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use frontend_user::{Operation, Queue, SECTOR_SIZE};
use hypervisor_client::Client;

use super::{Check, FILE_SYSTEM, Say, connect, image};

/// Sectors of one read.
const CHUNK: u32 = 512;
/// Reads in flight.
const DEPTH: usize = 8;
/// Most that is copied of a large image, in bytes.
const MOST: u64 = 1 << 30;

/// Copies the disk to a file in `folder` and compares it with `image`.
pub fn compare(
    client: &Arc<dyn Client>,
    image: &Path,
    folder: &Path,
    say: &Say,
) -> anyhow::Result<Check> {
    let mut disk = connect(client, FILE_SYSTEM, 1)?;
    let mut queue = disk.take_queues().pop().context("the disk has no queue")?;
    let len = (disk.sectors() * SECTOR_SIZE as u64).min(MOST);
    let copy = folder.join("copy");
    let file = File::create(&copy)?;
    let bar = say.bar("copying the file system through the ring", len);
    pull(&mut queue, len, |offset, data| {
        bar.inc(data.len() as u64);
        Ok(file.write_all_at(data, offset)?)
    })?;
    bar.finish_and_clear();
    let (sent, got) = (image::checksum(image, len)?, image::checksum(&copy, len)?);
    std::fs::remove_file(copy)?;
    Ok(Check {
        name: "copy",
        passed: sent == got,
        detail: if sent == got {
            format!(
                "{} MiB read through the ring, SHA-256 {}… on both sides",
                len >> 20,
                &got[..16]
            )
        } else {
            format!("the image's SHA-256 is {sent}, the copy's {got}")
        },
    })
}

/// Reads the first `len` bytes of the disk and hands them to `sink`, in any order.
fn pull(
    queue: &mut Queue,
    len: u64,
    mut sink: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = len / SECTOR_SIZE as u64;
    let buffers = (0..DEPTH).map(|_| queue.buffer(CHUNK)).collect::<Result<Vec<_>, _>>()?;
    let mut data = vec![0; CHUNK as usize * SECTOR_SIZE];
    // Where the read of each buffer begins, and how many sectors it has.
    let mut reads = [(0, 0); DEPTH];
    let mut free: Vec<usize> = (0..DEPTH).collect();
    let mut next = 0;
    while next < end || free.len() < DEPTH {
        while next < end
            && let Some(slot) = free.pop()
        {
            let count = u64::from(CHUNK).min(end - next);
            let into =
                buffers[slot].part(0, count as u32).context("a read longer than its buffer")?;
            queue.submit(Operation::Read { sector: next, into }, slot as u64)?;
            reads[slot] = (next, count as usize);
            next += count;
        }
        queue.kick();
        let mut done = Vec::with_capacity(DEPTH);
        if queue.complete(&mut |completion| done.push(completion))? == 0 {
            queue.wait(None);
        }
        for completion in done {
            let slot = completion.tag as usize;
            let (sector, count) = reads[slot];
            completion.result.with_context(|| format!("reading {count} sectors at {sector}"))?;
            let data = &mut data[..count * SECTOR_SIZE];
            queue.copy_out(&buffers[slot], 0, data);
            sink(sector * SECTOR_SIZE as u64, data)?;
            free.push(slot);
        }
    }
    buffers.into_iter().for_each(|buffer| queue.release(buffer));
    Ok(())
}
