//! The newest value per key, coalesced and written to Redis with short TTLs.

mod config;
mod flusher;
mod history;
mod kind;
mod large_values;
mod name_conflict;
mod removal;
mod render;
mod shared;
mod state;
mod status_key;

pub use self::{
    config::Config,
    flusher::{FlusherDeps, flusher},
    kind::LatestKind,
    render::{MessageRenderer, Render},
    state::{LatestState, Update},
    status_key::delete_status,
};
