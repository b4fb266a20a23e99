// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers and messages of the NBD protocol (`doc/proto.md` of the NBD project). All numbers are big-endian.

/// Begins the server's greeting (`NBDMAGIC`).
pub const GREETING: u64 = 0x4e42_444d_4147_4943;
/// Follows in the greeting, and begins each option (`IHAVEOPT`).
pub const OPTION: u64 = 0x4948_4156_454f_5054;
/// Begins the reply to an option.
pub const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Begins a request.
pub const REQUEST: u32 = 0x2560_9513;
/// Begins a simple reply.
pub const REPLY: u32 = 0x6744_6698;

/// Flags of the greeting.
pub mod greeting {
    /// The server takes options after one that it refused.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// The server can leave out the zeroes after `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 2;
}

/// Options that a client may send.
pub mod option {
    /// Choose an export and begin.
    pub const EXPORT_NAME: u32 = 1;
    /// End.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and begin.
    pub const GO: u32 = 7;
}

/// Kinds of replies to an option.
pub mod option_reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// Name of an export.
    pub const SERVER: u32 = 2;
    /// Part of a description.
    pub const INFO: u32 = 3;
    /// There is no such option here.
    pub const UNSUPPORTED: u32 = 1 << 31 | 1;
    /// The option is malformed.
    pub const INVALID: u32 = 1 << 31 | 3;
    /// There is no such export.
    pub const UNKNOWN: u32 = 1 << 31 | 6;
}

/// Parts of an export's description.
pub mod info {
    /// Size and flags.
    pub const EXPORT: u16 = 0;
    /// Smallest, best and largest length of a request.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Flags of an export.
pub mod export {
    /// The field of flags means something.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// There is `FLUSH`.
    pub const FLUSH: u16 = 1 << 2;
    /// There is the flag `FUA`.
    pub const FUA: u16 = 1 << 3;
    /// There is `TRIM`.
    pub const TRIM: u16 = 1 << 5;
    /// There is `WRITE_ZEROES`.
    pub const WRITE_ZEROES: u16 = 1 << 6;
    /// A flush on one connection covers the writes of all.
    pub const MULTI_CONN: u16 = 1 << 8;
}

/// Flags of a request.
pub mod request {
    /// Reply when the data is durable.
    pub const FUA: u16 = 1;
    /// Zeroes have to be allocated.
    pub const NO_HOLE: u16 = 1 << 1;
}

/// Error numbers of a reply, which are those of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// The export is read-only.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// The request is malformed.
    Inval = 22,
    /// A write beyond the end.
    NoSpc = 28,
    /// There is no such command here.
    NotSup = 95,
    /// The disk is gone.
    Shutdown = 108,
}

/// Length of a request without its data.
pub const REQUEST_LEN: usize = 28;

/// Length of a simple reply without its data.
pub const REPLY_LEN: usize = 16;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `NBD_CMD_READ`
    Read,
    /// `NBD_CMD_WRITE`, followed by the data.
    Write,
    /// `NBD_CMD_DISC`: the client goes; there is no reply.
    Disconnect,
    /// `NBD_CMD_FLUSH`
    Flush,
    /// `NBD_CMD_TRIM`
    Trim,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes,
}

/// A request as it came, known to begin with the right number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRequest {
    /// Flags.
    pub flags: u16,
    /// Number of the command.
    pub command: u16,
    /// The client's own value, repeated in the reply.
    pub cookie: u64,
    /// Where on the export, in bytes.
    pub offset: u64,
    /// How much of it, in bytes.
    pub len: u32,
}

impl RawRequest {
    /// Reads a request, or `None` when it does not begin as one.
    pub fn parse(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let begins_well = fields.u32()? == REQUEST;
        let request = Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        };
        begins_well.then_some(request)
    }

    /// How many bytes of data follow the request.
    pub fn payload(&self) -> u32 {
        if self.command == 1 { self.len } else { 0 }
    }
}

/// What a request may ask of an export at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the export.
    pub size: u64,
    /// Flags of the export.
    pub flags: u16,
    /// Offsets and lengths are multiples of this power of two.
    pub unit: u32,
    /// Longest read or write.
    pub longest: u32,
}

/// A request that the export can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Where, in bytes; inside the export and aligned.
    pub offset: u64,
    /// How much, in bytes; inside the export and aligned.
    pub len: u32,
    /// Reply when it is durable.
    pub fua: bool,
}

impl Limits {
    /// Judges a request.
    ///
    /// # Errors
    ///
    /// What to reply.
    pub fn check(&self, raw: &RawRequest) -> Result<Request, Errno> {
        let offered =
            |flag, command| if self.flags & flag != 0 { Ok(command) } else { Err(Errno::NotSup) };
        let command = match raw.command {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => offered(export::FLUSH, Command::Flush)?,
            4 => offered(export::TRIM, Command::Trim)?,
            6 => offered(export::WRITE_ZEROES, Command::WriteZeroes)?,
            _ => return Err(Errno::NotSup),
        };
        let changes = matches!(command, Command::Write | Command::Trim | Command::WriteZeroes);
        if changes && self.flags & export::READ_ONLY != 0 {
            return Err(Errno::Perm);
        }
        let fua = raw.flags & request::FUA != 0;
        let known =
            request::FUA | if command == Command::WriteZeroes { request::NO_HOLE } else { 0 };
        if raw.flags & !known != 0 || (fua && self.flags & export::FUA == 0) {
            return Err(Errno::Inval);
        }
        let request = Request { command, offset: raw.offset, len: raw.len, fua: fua && changes };
        if matches!(command, Command::Flush | Command::Disconnect) {
            return Ok(Request { offset: 0, len: 0, ..request });
        }
        let inside = raw.offset.checked_add(u64::from(raw.len)).is_some_and(|end| end <= self.size);
        if !inside {
            return Err(if changes { Errno::NoSpc } else { Errno::Inval });
        }
        let aligned = (raw.offset | u64::from(raw.len)) & u64::from(self.unit - 1) == 0;
        let too_long = matches!(command, Command::Read | Command::Write) && raw.len > self.longest;
        if raw.len == 0 || !aligned || too_long {
            return Err(Errno::Inval);
        }
        Ok(request)
    }
}

/// A simple reply without its data.
pub fn reply(error: Option<Errno>, cookie: u64) -> [u8; REPLY_LEN] {
    let mut bytes = [0; REPLY_LEN];
    bytes[..4].copy_from_slice(&REPLY.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, |error| error as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// Numbers that follow each other.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next bytes, or `None` when there are fewer.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// The next number of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        size: 1 << 20,
        flags: export::HAS_FLAGS | export::FLUSH | export::FUA | export::WRITE_ZEROES,
        unit: 512,
        longest: 64 << 10,
    };

    fn raw(command: u16, offset: u64, len: u32) -> RawRequest {
        RawRequest { flags: 0, command, cookie: 0, offset, len }
    }

    #[test]
    fn requests_are_judged() {
        let end = LIMITS.size;
        for (request, verdict) in [
            (raw(0, 0, 512), None),
            (raw(0, end - 512, 512), None),
            (raw(0, end, 512), Some(Errno::Inval)),
            (raw(1, end, 512), Some(Errno::NoSpc)),
            (raw(0, u64::MAX - 511, 512), Some(Errno::Inval)),
            (raw(0, 1, 512), Some(Errno::Inval)),
            (raw(0, 0, 513), Some(Errno::Inval)),
            (raw(0, 0, 0), Some(Errno::Inval)),
            (raw(1, 0, 128 << 10), Some(Errno::Inval)),
            (raw(6, 0, 128 << 10), None),
            (raw(3, 77, 77), None),
            (raw(4, 0, 512), Some(Errno::NotSup)),
            (raw(5, 0, 512), Some(Errno::NotSup)),
            (raw(99, 0, 512), Some(Errno::NotSup)),
            (RawRequest { flags: 4, ..raw(0, 0, 512) }, Some(Errno::Inval)),
            (RawRequest { flags: request::NO_HOLE, ..raw(6, 0, 512) }, None),
        ] {
            assert_eq!(LIMITS.check(&request).err(), verdict, "{request:?}");
        }
        let read_only = Limits { flags: LIMITS.flags | export::READ_ONLY, ..LIMITS };
        assert_eq!(read_only.check(&raw(1, 0, 512)), Err(Errno::Perm));
        assert!(read_only.check(&raw(0, 0, 512)).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_passes_lies_inside(command in 0u16..8, flags in 0u16..4, offset: u64, near in 0u64..4096, len: u32) {
            for offset in [offset, LIMITS.size.wrapping_sub(near)] {
                let raw = RawRequest { flags, command, cookie: 1, offset, len };
                if let Ok(request) = LIMITS.check(&raw) {
                    prop_assert!(request.offset + u64::from(request.len) <= LIMITS.size);
                    prop_assert_eq!(request.offset % 512, 0);
                    prop_assert_eq!(request.len % 512, 0);
                }
            }
        }

        #[test]
        fn a_request_is_read_as_written(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) {
            let mut bytes = REQUEST.to_be_bytes().to_vec();
            bytes.extend(flags.to_be_bytes());
            bytes.extend(command.to_be_bytes());
            bytes.extend(cookie.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes.extend(len.to_be_bytes());
            let mut bytes: [u8; REQUEST_LEN] = bytes.try_into().unwrap();
            let parsed = RawRequest::parse(&bytes);
            prop_assert_eq!(parsed, Some(RawRequest { flags, command, cookie, offset, len }));
            bytes[0] ^= 1;
            prop_assert_eq!(RawRequest::parse(&bytes), None);
        }
    }
}
