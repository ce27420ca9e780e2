//! Attacks on the spool's core and on the decoders, in one process and in memory; `tests/faults/run` builds and starts it.
//!
//! The sources of the spool and of the decoders are compiled into this program, so that they alone are optimised while everything
//! else comes from the development build as it is: hundreds of thousands of images and histories in seconds. The spool runs on
//! [`sim`], through the same seam that carries it to real files; nothing of it is replaced.
//!
//! Every case is a function from a [`Budget`] to what it tried. A failing case prints the seed and number that repeat it.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::explicit_auto_deref, reason = "without the dereference the type of what is picked is not inferred")]
#![allow(missing_docs, reason = "nobody links this")]

mod blocks;
mod flips;
mod fuzz;
mod harness;
mod image;
mod model;
mod mutation;
mod random;
mod settings;
mod sim;
mod touched_files;
mod tree;

macro_rules! sources {
    ($($path:literal $name:ident),* $(,)?) => {$(
        #[allow(dead_code, unused_imports, unreachable_pub, reason = "the part that is attacked uses some of it")]
        #[path = $path]
        mod $name;
    )*};
}

sources! {
    "../../../src/backoff.rs" backoff,
    "../../../src/section.rs" section,
    "../../../src/event/mod.rs" event,
    "../../../src/files.rs" files,
    "../../../src/frame.rs" frame,
    "../../../src/gaps/mod.rs" gaps,
    "../../../src/logging.rs" logging,
    "../../../src/memory.rs" memory,
    "../../../src/metrics/mod.rs" metrics,
    "../../../src/spool/mod.rs" spool,
    "../../../src/terminal.rs" terminal,
    "../../../src/units.rs" units,
    "../../../src/wire/mod.rs" wire,
    "../../../src/words.rs" words,
}

use harness::{Case, main_of};

const CASES: &[Case] = &[
    ("spool.flips", "every bit of a 64 KiB segment flipped", flips::every_bit),
    ("spool.cuts", "the segment cut at every byte", flips::every_length),
    ("spool.small", "every bit of headers, checkpoint and lock; cut at every byte", flips::small_files),
    ("spool.blocks", "blocks zeroed, doubled, swapped, stale, random", blocks::random_blocks),
    (
        "spool.files",
        "segments deleted, renamed, linked, copied; foreign and random files beside them",
        touched_files::touched,
    ),
    ("spool.newer", "a newer format in checkpoint, first or last segment", touched_files::newer),
    ("spool.model", "random histories with crashes, power cuts and failing disks", model::histories),
    ("fuzz.record", "mutated records, half of them with a checksum that matches", fuzz::records),
    ("fuzz.json", "mutated JSON messages: decoded, to rows, to the latest JSON, replayed", fuzz::json),
    ("fuzz.msgpack", "mutated MessagePack messages, likewise", fuzz::msgpack),
    ("fuzz.deep", "nested as deep as no limit forbids", fuzz::deep),
    ("fuzz.control", "mutated commands", fuzz::control),
    ("fuzz.toml", "mutated configuration: refused, or loaded, printed and loaded again", settings::toml),
    ("fuzz.yaml", "the same for the YAML of existing deployments", settings::yaml),
];

fn main() -> std::process::ExitCode {
    main_of(CASES)
}
