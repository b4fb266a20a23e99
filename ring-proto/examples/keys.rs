// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! Prints every key in xenstore that Causeway knows as Markdown: `cargo run -p ring-proto --example keys`.

use ring_proto::xenbus::{keys, vbd, vif, Key, Place, Writer};

fn row(key: &Key) -> String {
    let (place, driver) = match key.place {
        Place::Frontend => ("frontend", "frontend"),
        Place::Backend => ("backend", "backend"),
        Place::Both => ("both", "each end"),
    };
    let place = if key.per_queue { format!("{place}, per queue") } else { place.to_owned() };
    let writer = match key.writer {
        Writer::Driver => driver,
        Writer::Toolstack => "toolstack",
    };
    let name = key.name.replace("%u", "N");
    let (kind, absent, source, about) = (key.kind, key.absent, key.source, key.about);
    format!("| `{name}` | {place} | {writer} | {kind} | {absent} | {about} | {source} |")
}

fn main() {
    for (title, keys) in [
        ("Every device", keys::KEYS),
        ("Block devices: `vbd`", vbd::keys::KEYS),
        ("Network interfaces: `vif`", vif::keys::KEYS),
    ] {
        println!("## {title}\n");
        println!("| key | directory | written by | value | absent | meaning | specified by |");
        println!("|---|---|---|---|---|---|---|");
        for key in keys {
            println!("{}", row(key));
        }
        println!();
    }
}
