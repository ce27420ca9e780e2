//! The newest value per key, coalesced and written to Redis with short TTLs.

mod config;
mod flusher;
mod history;
mod kind;
mod large_values;
mod name_conflict;
mod removal;
mod render;
mod state;

pub use self::{
    config::Config,
    flusher::{FlusherDeps, delete_status, flusher},
    kind::LatestKind,
    render::{MessageRenderer, Render},
    state::{LatestState, Update},
};
