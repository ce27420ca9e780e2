//! The integration tests: one binary that drives the real daemon against real servers.
//!
//! `tests/run` prepares what they need and starts the Cassandra node they share. Run by hand, tests whose servers are
//! missing say so and are counted as skipped.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod access;
mod api;
mod browser;
mod client;
mod cors;
mod crash;
mod curves;
mod document;
mod drain;
mod export;
mod fixtures;
mod gaps;
mod hostile;
mod https;
mod layers;
mod live;
mod lost;
mod memory;
mod messages;
mod origin;
mod overlap;
mod pages;
mod panels;
mod parameters;
mod pipeline;
mod private;
mod reading;
mod redis;
mod redis_acl;
mod redis_keys;
mod redis_rig;
mod redis_users;
mod redis_values;
mod refused;
mod restarts;
mod run_names;
mod schema_cassandra;
mod second_source;
mod serve;
mod service_manager;
mod sessions;
mod store_cassandra;
mod store_cassandra_errors;
mod store_contract;
mod supply;
mod support;
#[path = "support/tests.rs"]
mod support_tests;
mod terminals;
mod tokens;
mod tools;
mod trainers;
mod upgrade;
