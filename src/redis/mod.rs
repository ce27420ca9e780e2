//! How to reach Redis: settings, TLS, and clients that know when they are cut off.

mod acl;
mod address;
mod cluster;
mod config;
mod connect;
mod connection;
mod keys;
mod link;
mod login;
mod pattern;
mod probe;
mod sentinel;
mod share;
mod subscription;
mod value;

pub use self::{
    acl::{Acl, Refusal, Resource, is_refusal},
    address::redact,
    config::{CHANNEL_BYTES, Config},
    connect::connect,
    connection::{Connected, Watch, moved_away},
    keys::{delete, scan},
    link::{Link, Outages},
    login::{ConnectError, settings},
    pattern::{is_pattern, overlap},
    probe::fault,
    share::{RunShare, Unshared},
    subscription::{Opened, Received, Subscription, open_subscription},
    value::{LATEST_EXTRA, SMALL_VALUE, STATUS_VALUE, Unusable, ValueLookup, read_value, value_length, value_range},
};
pub(crate) use self::{connection::SILENCE_TIMEOUT, link::PING_INTERVAL};
