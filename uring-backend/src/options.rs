// SPDX-License-Identifier: MIT OR Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use ring_proto::ring::MAX_ORDER;
use ring_proto::xenbus::vbd::MAX_QUEUES;

/// What a backend offers its frontends, and how it serves them.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Most queues of a disk, each with a thread of its own
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MAX_QUEUES as i64))]
    pub queues: u32,

    /// Largest ring of a queue, in pages, as a power of two
    #[arg(long, value_name = "ORDER", default_value_t = MAX_ORDER, value_parser = clap::value_parser!(u32).range(0..=MAX_ORDER as i64))]
    pub ring_order: u32,

    /// Most segments (of up to 4 KiB) of an indirect request; 0: no indirect requests
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub segments: u16,

    /// Most pages that a queue keeps mapped for a frontend that reuses them; 0: none, all data is copied
    #[arg(long, value_name = "COUNT", default_value_t = 4096, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1 << 20))]
    pub persistent: usize,

    /// Longest time in microseconds that a busy queue looks for work before it sleeps; 0: it always sleeps
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub poll: u64,

    /// Go through the page cache, even where direct I/O is to be had
    #[arg(long)]
    pub buffered: bool,

    /// Logical sector size in bytes of images whose directory in xenstore does not say it
    #[arg(long, value_name = "BYTES")]
    pub sector_size: Option<u32>,

    /// How often to look whether an image changed its size, in seconds; 0: only on SIGHUP
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub check: u64,

    /// Note in this folder what is under way: a backend that is started again, after it was stopped or killed, goes on
    /// where it ended, and no guest notices
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,

    /// Serve statistics on this Unix socket, as HTTP: /metrics (Prometheus), /json, /table
    #[arg(long, value_name = "SOCKET")]
    pub stats: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queues: 4,
            ring_order: MAX_ORDER,
            segments: 256,
            persistent: 4096,
            poll: 50,
            buffered: false,
            sector_size: None,
            check: 2,
            state: None,
            stats: None,
        }
    }
}

impl Options {
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_micros(self.poll)
    }

    pub(crate) fn check(&self) -> Option<Duration> {
        (self.check > 0).then(|| Duration::from_secs(self.check))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let parsed = Command::try_parse_from(["backend"]).unwrap().options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (option, value) in [
            ("--queues", "17"),
            ("--ring-order", "5"),
            ("--segments", "257"),
            ("--persistent", "9223372036854775807"),
            ("--poll", "9223372036854775807"),
            ("--check", "9223372036854775807"),
        ] {
            let error =
                Command::try_parse_from(["backend", option, value]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }
}
