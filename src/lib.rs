//! Durable ingestion of cascade-correlation training telemetry.
//!
//! ```text
//!             config ── gathers each component's Config ──► app (builds, spawns, supervises, drains)
//!
//!  Redis ──► source ──frames──► intake ──append + fsync──► spool ──records──► writer ──batches──► store ──► api / cli
//!                                 │    │                       ▲                  │  │
//!                                 │    ├──► latest ──► Redis   └───checkpoint─────┘  └──► dead letters
//!                                 │    └──► live ──► streams of the api, dashboard
//!                                 └──► control ──► receipts
//! ```
//!
//! The tour: [`source`] receives, [`intake`] decides, [`spool`] keeps, [`writer`] stores through a [`store`], [`api`] and [`cli`]
//! read. [`wire`] decodes messages into the rows of [`event`]. [`app`] connects all of them. `src/README.md` follows one event file
//! by file, lists threads and queues, and says where to add things.
//!
//! Invariants, each held by one module:
//! * a message is acknowledged only after the fsync of its group; after that it becomes its rows or one dead letter
//!   ([`spool`], [`writer`]);
//! * what is decided about a message (its run, its time) is decided once, at intake, and stored beside its bytes
//!   ([`intake`], [`runs`]), so that a replay writes the same rows under the same keys ([`event`]);
//! * the commit frontier advances over the contiguous prefix only ([`writer`]);
//! * what was not received is counted, with its bounds ([`source`], [`intake`], [`gaps`]);
//! * the latest keys and the live feed are caches: they may skip, and nothing waits for them ([`latest`], [`live`]).
//!
//! # Glossary
//!
//! | word | meaning |
//! | --- | --- |
//! | source | What receives messages, such as Redis Pub/Sub. [`source`] |
//! | frame | One received message: its bytes, its channel, its time of receipt. [`frame`] |
//! | gap | A span of time, or a range of `seq`, in which something was not received, with its reason. [`gaps::Gap`] |
//! | receipt | The answer to a command. [`frame::Receipt`] |
//! | acknowledgement (ack) | Tells the sender of a frame what became of it. [`frame::Ack`] |
//! | group | The frames that intake takes and writes together. One fsync makes several groups durable. |
//! | run hints | What a message says about which run it belongs to. [`runs::RunHints`] |
//! | open run | The run of a channel to which messages without a run id belong. [`runs::OpenRun`] |
//! | watermark | The time through which everything was received; a restart reports a gap from there. |
//! | spool | The durable log between intake and the writer. [`spool`] |
//! | record | One entry of the spool: a message or another event, with what was decided about it. |
//! | offset | The number of a record in its spool. |
//! | segment | One file of the spool. A memory segment takes records while the disk does not. |
//! | checkpoint | The file that holds the committed offset: replay begins there. |
//! | linger | How long the checkpoint trails a store that may forget what it has acknowledged. |
//! | replay | Reading records again after a restart, or dead letters after their cause is mended. |
//! | quarantine | The folder of bytes and segments that cannot be read as records. |
//! | salvage | The search for intact records in a damaged segment. |
//! | batch | Rows of one table and partition that are written together. [`store::Batch`] |
//! | frontier | The first offset of which a part is not confirmed by the store yet. |
//! | pause barrier | The offset at which a paused writer stops. [`lifecycle::PauseBarrier`] |
//! | circuit breaker | Holds calls to a store that is down, and probes it. |
//! | run row | The row of a run in `training_runs`, merged by value from its events. [`event::RunRow`] |
//! | store | Where rows are kept: SQLite or Cassandra. [`store::Store`] |
//! | dead letter | A rejected message, or a row that the store refuses for ever, with the reason. [`dead_letter`] |
//! | latest key | A Redis key with the newest value of its kind. [`latest`] |
//! | live feed | A bounded ring of the newest messages, for clients that watch. [`live::LiveFeed`] |
//! | orphan | A spool with records that no running daemon holds. |

pub mod access;
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
pub mod doctor;
pub mod event;
pub mod files;
pub mod frame;
pub mod gap_reader;
pub mod gaps;
pub mod host;
pub mod intake;
pub mod latest;
pub mod lifecycle;
pub mod listeners;
pub mod live;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod reach;
pub mod redis;
pub mod render;
pub mod runs;
pub mod schema;
pub mod secret;
pub mod section;
pub mod service_manager;
pub mod source;
pub mod spool;
pub mod store;
pub mod terminal;
pub mod tls;
pub mod units;
pub mod wire;
mod words;
pub mod writer;
