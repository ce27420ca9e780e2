//! The newest value per key, coalesced and written to Redis with short TTLs.

mod config;
mod flusher;
mod history;
mod large;
mod name_conflict;
mod render;
mod state;

pub use self::{
    config::Config,
    flusher::{FlusherDeps, delete_status, flusher},
    render::{MessageRenderer, Render},
    state::{LatestKind, LatestState, Update},
};
