// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets and descriptors over a Unix socket, for both ends of [`protocol`](super::protocol).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::protocol::{MAX_FDS, MAX_MESSAGE};

/// One message as it came.
#[derive(Debug)]
pub struct Packet<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Space for any message that may come.
pub fn buffer() -> Vec<u8> {
    vec![0; MAX_MESSAGE]
}

/// Sends one packet.
///
/// # Errors
///
/// What `sendmsg` says; `BrokenPipe` when the other end is closed.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors in a message", fds.len()),
        ));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    let sent =
        retry(|| rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one packet into `buffer`, or `None` when the other end is closed.
///
/// # Errors
///
/// What `recvmsg` says; `InvalidData` for a packet that is longer than `buffer` or has more than [`MAX_FDS`]
/// descriptors.
pub fn receive<'a>(
    socket: impl AsFd,
    buffer: &'a mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<Packet<'a>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = retry(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a packet with too many bytes or descriptors",
        ));
    }
    Ok(match buffer.get(..received.bytes) {
        None | Some([]) => None,
        Some(bytes) => Some(Packet { bytes, fds }),
    })
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
