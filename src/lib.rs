//! Durable ingestion of cascade-correlation training telemetry.
//!
//! ```text
//!             config ── gathers each component's Config ──► app (builds, spawns, supervises, drains)
//!
//!  Redis ──► source ──frames──► intake ──append + fsync──► spool ──records──► writer ──batches──► store ──► api / cli
//!                                 │    │                       ▲                  │  │
//!                                 │    ├──► latest ──► Redis   └─────commit───────┘  └──► dead letters
//!                                 │    └──► live ──► streams of the api, dashboard
//!                                 └──► control ──► receipts
//! ```
//!
//! Invariants, each held by one module:
//! * a message is acknowledged to nobody before the fsync of its group; after it, it becomes its rows or one dead letter
//!   ([`spool`], [`writer`]);
//! * what is decided about a message (its run, its time) is decided once, at intake, and stored beside its bytes
//!   ([`intake`], [`runs`]), so that a replay writes the same rows under the same keys ([`event`]);
//! * the commit frontier advances over the contiguous prefix only ([`writer`]);
//! * what was not received is counted, with its bounds ([`source`], [`intake`]);
//! * the latest keys are a cache: they may skip, and nothing waits for them ([`latest`]); nor for those who watch ([`live`]).

pub mod api;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod control;
pub mod cooperative;
pub mod curve;
pub mod dead_letter;
pub mod demo;
pub mod event;
pub mod files;
pub mod frame;
pub mod gap_reader;
pub mod gaps;
pub mod host;
pub mod intake;
pub mod latest;
pub mod lifecycle;
pub mod live;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod redis;
pub mod render;
pub mod runs;
pub mod schema;
pub mod secret;
pub mod source;
pub mod spool;
pub mod store;
pub mod terminal;
pub mod tls;
pub mod units;
pub mod wire;
pub mod writer;
