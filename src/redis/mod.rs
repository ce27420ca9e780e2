//! How to reach Redis: settings, TLS, and clients that know when they are cut off.

mod acl;
mod address;
mod config;
mod link;
mod login;
mod pattern;
mod probe;
mod share;
mod subscribe;
mod value;

pub(crate) use self::link::{PING_INTERVAL, SILENCE_TIMEOUT, answers};
pub use self::{
    acl::{Acl, Refusal, Resource, is_refusal},
    address::redact,
    config::{CHANNEL_BYTES, Config},
    link::{Connected, Link, Outages, Role, connect},
    login::{ConnectError, settings},
    pattern::{is_pattern, overlap},
    probe::probe,
    share::RunShare,
    subscribe::{SubscribeError, subscribe},
    value::{LATEST_EXTRA, SMALL_VALUE, STATUS_VALUE, Unusable, ValueLookup, read_value, value_length, value_range},
};
