// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! A peer's directory in xenstore.

use std::convert::Infallible;

use ring_proto::ring::MAX_ORDER;
use ring_proto::xenbus::{ReadDirectory, vbd, vif};

/// A directory whose values come from the fuzzer, and differ each time that a key is read.
struct Directory<'a>(&'a [u8]);

impl Directory<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }
}

impl ReadDirectory for Directory<'_> {
    type Error = Infallible;

    fn read(&mut self, _key: &str, into: &mut [u8]) -> Result<Option<usize>, Infallible> {
        let value = match self.byte() {
            0..0x30 => return Ok(None),
            0x30..0x80 => (self.byte() % 20).to_string().into_bytes(),
            0x80..0xb0 => {
                let bytes: [u8; 4] = std::array::from_fn(|_| self.byte());
                u32::from_le_bytes(bytes).to_string().into_bytes()
            }
            0xb0..0xd0 => {
                let words: [&[u8]; 6] =
                    [b"x86_64-abi", b"x86_32-abi", b"w", b"r", b"cdrom", b"00:16:3e:01:02:03"];
                words[usize::from(self.byte()) % words.len()].to_vec()
            }
            _ => {
                let len = usize::from(self.byte() % 64).min(self.0.len());
                let (value, rest) = self.0.split_at(len);
                self.0 = rest;
                value.to_vec()
            }
        };
        let fits = value.len().min(into.len());
        into[..fits].copy_from_slice(&value[..fits]);
        Ok(Some(value.len()))
    }
}

/// Everything that either end of a vbd or vif reads from the other or from the toolstack.
pub fn run(data: &[u8]) {
    let (kind, data) = data.split_first().unwrap_or((&0, &[]));
    let directory = &mut Directory(data);
    match kind % 6 {
        0 => {
            let Ok(offered) = vbd::BackendFeatures::read(directory) else { return };
            let Ok(connection) = vbd::Connection::read(directory, &offered) else { return };
            let settings = connection.settings();
            assert_eq!(connection.queues().len(), settings.queues as usize);
            assert!(settings.queues >= 1 && settings.queues <= offered.max_queues);
            assert!(settings.ring_page_order <= MAX_ORDER.min(offered.max_ring_page_order));
            for queue in connection.queues() {
                assert_eq!(queue.refs().len(), 1 << settings.ring_page_order);
            }
        }
        1 => {
            let Ok(geometry) = vbd::Geometry::read(directory) else { return };
            assert_eq!(geometry.check(), Ok(()));
        }
        2 => drop((vbd::BackendConfig::read(directory), vbd::FrontendConfig::read(directory))),
        3 => {
            let Ok(offered) = vif::BackendFeatures::read(directory) else { return };
            let Ok(connection) = vif::Connection::read(directory, &offered) else { return };
            let settings = connection.settings();
            assert_eq!(connection.queues().len(), settings.queues as usize);
            assert!(settings.queues >= 1 && settings.queues <= offered.max_queues);
        }
        4 => drop((vif::BackendConfig::read(directory), vif::FrontendConfig::read(directory))),
        _ => drop(ring_proto::xenbus::State::read(directory)),
    }
}
