// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a client chooses an export (fixed newstyle), as pure logic over bytes.

use super::wire::{self, Fields, Limits, greeting, info, option, option_reply};

/// Longest option that a client may send: a name of 4096 bytes and a few numbers.
const LONGEST_OPTION: usize = 4096 + 256;

/// What the server offers.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its name; a client that gives none gets it too.
    pub name: String,
    /// Its size and what it can do.
    pub limits: Limits,
    /// The best length of a request in bytes.
    pub preferred: u32,
}

/// What the bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// This many bytes were used; more may be done with the rest.
    Used(usize),
    /// This many bytes were used, and requests follow.
    Begin(usize),
    /// The client wants to end; what is in the output is for it still.
    End,
}

/// A client that cannot be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Unknown flags after the greeting.
    #[error("the client's flags {0:#x} are not known")]
    Flags(u32),
    /// An option does not begin as one.
    #[error("an option begins with {0:#x}")]
    Magic(u64),
    /// An option is too long.
    #[error("option {option} is {len} bytes long")]
    TooLong {
        /// Its number.
        option: u32,
        /// Its length.
        len: u32,
    },
    /// An export asked for with the option that has no way to refuse.
    #[error("there is no export of the name asked for")]
    UnknownExport,
}

/// Where a client is before its first request.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The flags that the client answered the greeting with.
    flags: Option<u32>,
}

impl Handshake {
    /// What the server says first.
    pub fn greeting() -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&wire::GREETING.to_be_bytes());
        bytes[8..16].copy_from_slice(&wire::OPTION.to_be_bytes());
        bytes[16..]
            .copy_from_slice(&(greeting::FIXED_NEWSTYLE | greeting::NO_ZEROES).to_be_bytes());
        bytes
    }

    /// Takes what begins `input` and appends the answer to `output`, at most a few hundred bytes a step.
    ///
    /// # Errors
    ///
    /// When the connection has to be closed.
    pub fn advance(
        &mut self,
        export: &Export,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        let mut fields = Fields(input);
        let Some(flags) = self.flags else {
            let Some(flags) = fields.u32() else { return Ok(Step::More) };
            if flags & !u32::from(greeting::FIXED_NEWSTYLE | greeting::NO_ZEROES) != 0 {
                return Err(HandshakeError::Flags(flags));
            }
            self.flags = Some(flags);
            return Ok(Step::Used(4));
        };
        let Some(magic) = fields.u64() else { return Ok(Step::More) };
        if magic != wire::OPTION {
            return Err(HandshakeError::Magic(magic));
        }
        let (Some(option), Some(len)) = (fields.u32(), fields.u32()) else { return Ok(Step::More) };
        if len as usize > LONGEST_OPTION {
            return Err(HandshakeError::TooLong { option, len });
        }
        let Some(data) = fields.bytes(len as usize) else { return Ok(Step::More) };
        let used = 16 + data.len();

        let mut answer = |kind, parts: &[&[u8]]| reply(output, option, kind, parts);
        match option {
            option::EXPORT_NAME => {
                if !export.is_called(data) {
                    return Err(HandshakeError::UnknownExport);
                }
                output.extend(export.limits.size.to_be_bytes());
                output.extend(export.limits.flags.to_be_bytes());
                if flags & u32::from(greeting::NO_ZEROES) == 0 {
                    output.extend([0; 124]);
                }
                return Ok(Step::Begin(used));
            }
            option::ABORT => {
                answer(option_reply::ACK, &[]);
                return Ok(Step::End);
            }
            option::LIST if data.is_empty() => {
                let name = export.name.as_bytes();
                answer(option_reply::SERVER, &[&(name.len() as u32).to_be_bytes(), name]);
                answer(option_reply::ACK, &[]);
            }
            option::INFO | option::GO => match chosen_name(data) {
                Some(name) if export.is_called(name) => {
                    let limits = &export.limits;
                    let (size, flags) = (limits.size.to_be_bytes(), limits.flags.to_be_bytes());
                    answer(option_reply::INFO, &[&info::EXPORT.to_be_bytes(), &size, &flags]);
                    let sizes =
                        [limits.unit, export.preferred, limits.longest].map(u32::to_be_bytes);
                    answer(
                        option_reply::INFO,
                        &[&info::BLOCK_SIZE.to_be_bytes(), sizes.as_flattened()],
                    );
                    answer(option_reply::ACK, &[]);
                    if option == option::GO {
                        return Ok(Step::Begin(used));
                    }
                }
                Some(_) => answer(option_reply::UNKNOWN, &[b"there is no such export"]),
                None => answer(option_reply::INVALID, &[b"malformed"]),
            },
            option::LIST => answer(option_reply::INVALID, &[b"malformed"]),
            _ => answer(option_reply::UNSUPPORTED, &[]),
        }
        Ok(Step::Used(used))
    }
}

impl Export {
    fn is_called(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}

/// The name in the data of `INFO` and `GO`; `None` when the data is malformed.
fn chosen_name(data: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(data);
    let len = fields.u32()?;
    let name = fields.bytes(usize::try_from(len).ok()?)?;
    let wishes = fields.u16()?;
    (fields.0.len() == 2 * usize::from(wishes)).then_some(name)
}

fn reply(output: &mut Vec<u8>, option: u32, kind: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    output.extend(wire::OPTION_REPLY.to_be_bytes());
    output.extend(option.to_be_bytes());
    output.extend(kind.to_be_bytes());
    output.extend((len as u32).to_be_bytes());
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn export() -> Export {
        let limits =
            Limits { size: 1 << 30, flags: wire::export::HAS_FLAGS, unit: 512, longest: 1 << 20 };
        Export { name: "disk".to_owned(), limits, preferred: 4096 }
    }

    fn option(number: u32, data: &[u8]) -> Vec<u8> {
        [
            &wire::OPTION.to_be_bytes()[..],
            &number.to_be_bytes(),
            &(data.len() as u32).to_be_bytes(),
            data,
        ]
        .concat()
    }

    fn go(name: &str, wishes: &[u16]) -> Vec<u8> {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name.as_bytes());
        data.extend((wishes.len() as u16).to_be_bytes());
        wishes.iter().for_each(|wish| data.extend(wish.to_be_bytes()));
        data
    }

    /// Kinds of the replies in `output`, which consists of nothing else.
    fn kinds(mut output: &[u8]) -> Vec<u32> {
        let mut kinds = Vec::new();
        while !output.is_empty() {
            let mut fields = Fields(output);
            assert_eq!(fields.u64(), Some(wire::OPTION_REPLY));
            fields.u32().unwrap();
            kinds.push(fields.u32().unwrap());
            let len = fields.u32().unwrap();
            fields.bytes(len as usize).unwrap();
            output = fields.0;
        }
        kinds
    }

    fn after_flags(flags: u32) -> Handshake {
        Handshake { flags: Some(flags) }
    }

    #[test]
    fn an_export_is_chosen_with_go() {
        let (mut handshake, mut output) = (Handshake::default(), Vec::new());
        assert_eq!(handshake.advance(&export(), &[0, 0, 0], &mut output), Ok(Step::More));
        assert_eq!(
            handshake.advance(&export(), &3u32.to_be_bytes(), &mut output),
            Ok(Step::Used(4))
        );
        let input = option(option::GO, &go("disk", &[info::BLOCK_SIZE]));
        for len in 0..input.len() {
            assert_eq!(
                handshake.advance(&export(), &input[..len], &mut output),
                Ok(Step::More),
                "{len}"
            );
        }
        assert_eq!(handshake.advance(&export(), &input, &mut output), Ok(Step::Begin(input.len())));
        assert_eq!(kinds(&output), [option_reply::INFO, option_reply::INFO, option_reply::ACK]);
    }

    #[test]
    fn options_are_answered() {
        for (input, reply) in [
            (option(option::LIST, b""), vec![option_reply::SERVER, option_reply::ACK]),
            (option(option::LIST, b"x"), vec![option_reply::INVALID]),
            (
                option(option::INFO, &go("", &[])),
                vec![option_reply::INFO, option_reply::INFO, option_reply::ACK],
            ),
            (option(option::GO, &go("other", &[])), vec![option_reply::UNKNOWN]),
            (option(option::GO, &go("disk", &[1, 2])[..8]), vec![option_reply::INVALID]),
            (option(option::GO, &u32::MAX.to_be_bytes()), vec![option_reply::INVALID]),
            (option(8, b""), vec![option_reply::UNSUPPORTED]),
            (option(5, b""), vec![option_reply::UNSUPPORTED]),
            (option(12345, b"xyz"), vec![option_reply::UNSUPPORTED]),
        ] {
            let mut output = Vec::new();
            let step = after_flags(3).advance(&export(), &input, &mut output);
            assert_eq!(step, Ok(Step::Used(input.len())));
            assert_eq!(kinds(&output), reply);
        }
    }

    #[test]
    fn the_old_option_begins_without_a_reply_header() {
        for (flags, len) in [(3, 10), (1, 134)] {
            let mut output = Vec::new();
            let input = option(option::EXPORT_NAME, b"disk");
            let step = after_flags(flags).advance(&export(), &input, &mut output);
            assert_eq!(step, Ok(Step::Begin(20)));
            assert_eq!(output.len(), len);
        }
    }

    #[test]
    fn a_client_that_talks_nonsense_is_refused() {
        let mut output = Vec::new();
        let flags = Handshake::default().advance(&export(), &[0xff; 4], &mut output);
        assert_eq!(flags, Err(HandshakeError::Flags(u32::MAX)));
        let magic = after_flags(3).advance(&export(), &[0; 16], &mut output);
        assert_eq!(magic, Err(HandshakeError::Magic(0)));
        let mut long = option(option::GO, b"");
        long[12..].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
        let long = after_flags(3).advance(&export(), &long, &mut output);
        assert_eq!(long, Err(HandshakeError::TooLong { option: option::GO, len: 0x7fff_ffff }));
        let other =
            after_flags(3).advance(&export(), &option(option::EXPORT_NAME, b"x"), &mut output);
        assert_eq!(other, Err(HandshakeError::UnknownExport));
        assert!(output.is_empty());
        let abort = after_flags(3).advance(&export(), &option(option::ABORT, b""), &mut output);
        assert_eq!((abort, kinds(&output)), (Ok(Step::End), vec![option_reply::ACK]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(number in 0u32..14, data: Vec<u8>, tail: Vec<u8>) {
            let mut handshake = after_flags(3);
            let input = [option(number, &data), tail].concat();
            let (mut at, mut steps, mut output) = (0, 0, Vec::new());
            while let Ok(Step::Used(used) | Step::Begin(used)) = handshake.advance(&export(), &input[at..], &mut output) {
                at += used;
                steps += 1;
                prop_assert!(used >= 16 && at <= input.len());
            }
            prop_assert!(output.len() <= (steps + 1) * 256);
        }
    }
}
