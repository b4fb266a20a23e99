// SPDX-License-Identifier: MIT OR Apache-2.0

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use ring_proto::blkif::Abi;
use ring_proto::xenbus::vbd::FrontendSettings;

/// What a frontend wants of its backend, at most, and how it works.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Queues, each with its own ring and thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub queues: u32,
    /// Pages of each ring, as a power of two
    #[arg(long, value_name = "ORDER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=4))]
    pub ring_page_order: u32,
    /// Segments of an indirect request; 0 to use none
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(0..=512))]
    pub indirect_segments: u16,
    /// Do not let the backend keep pages mapped
    #[arg(long)]
    pub no_persistent: bool,
    /// Lay requests out as a 32-bit frontend does
    #[arg(long)]
    pub x86_32: bool,
    /// Memory for buffers of each queue, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 4096, value_parser = RangedU64ValueParser::<usize>::new().range(16..=4 << 20))]
    pub buffers: usize,
    /// How long to look for answers at most before sleeping, in microseconds; 0 to sleep at once
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub poll: u64,
    /// Give up when no backend was there for so many seconds; otherwise wait for ever
    #[arg(long, value_name = "SECONDS")]
    pub backend_timeout: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queues: 1,
            ring_page_order: 2,
            indirect_segments: 256,
            no_persistent: false,
            x86_32: false,
            buffers: 4096,
            poll: 50,
            backend_timeout: None,
        }
    }
}

impl Options {
    /// The part that is negotiated.
    pub(crate) fn wanted(&self) -> FrontendSettings {
        FrontendSettings {
            queues: self.queues,
            ring_page_order: self.ring_page_order,
            persistent: !self.no_persistent,
            abi: if self.x86_32 { Abi::X86_32 } else { Abi::NATIVE },
        }
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_micros(self.poll)
    }

    pub(crate) fn time_limit(&self) -> Option<Duration> {
        self.backend_timeout.map(Duration::from_secs)
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
        let parsed = Command::try_parse_from(["disk"]).unwrap().options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }

    /// Without memory for buffers, all would wait for it for ever.
    #[test]
    fn what_is_out_of_range_is_named() {
        for (option, value) in [
            ("--queues", "0"),
            ("--ring-page-order", "5"),
            ("--indirect-segments", "513"),
            ("--buffers", "0"),
            ("--buffers", "18446744073709551615"),
            ("--poll", "9223372036854775807"),
        ] {
            let error = Command::try_parse_from(["disk", option, value]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }
}
