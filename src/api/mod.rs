//! The HTTP API: stored rows, latest values, the state of the daemon, and the few requests that change something.
//!
//! | folder | duty |
//! | --- | --- |
//! | `server/` | listener, connection limit, time-outs, compression, headers of every answer, the router |
//! | `auth/` | tokens, sessions, scopes, origins, audit: which request may do what |
//! | `routes/` | the table of routes, and one file a resource |
//! | `export/`, `stream/` | the two routes whose answers have no fixed length |
//! | `memory_budget/` | the memory that answers share, and bodies that keep their part of it until they are sent |
//! | `submit/` | the way of a change into intake, or onto a Redis channel |
//! | `dashboard/` | the page and its scripts, compiled in |
//!
//! Below them: `state` (what handlers share), `params` (query parameters), `paging` (pages of rows), `run_lookup`, `edit_log`,
//! `config` and `error`. The API reads the store and Redis, writes what people change of runs into the store, and hands other changes
//! to intake's queue; it knows nothing else of the pipeline. The server has threads of its own. The command line asks the same router from within the process.

mod auth;
mod certificate;
mod config;
mod config_check;
mod dashboard;
mod edit_log;
mod error;
mod export;
mod fields;
mod memory_budget;
mod paging;
mod params;
mod remembered;
mod routes;
mod run_lookup;
mod server;
mod shared_pages;
mod state;
mod stream;
mod submit;

pub use self::{
    auth::{AccessPolicy, Counts, Scope, Sessions, TokenStore, TokensError, is_name, read_tokens},
    certificate::Certificate,
    config::Config,
    error::{ApiError, ApiResult},
    export::{BOM, HeadId, fixed_head, is_formula, metric_columns},
    memory_budget::MemoryBudget,
    routes::{Route, messages::PATH as MESSAGES_PATH, routes},
    server::{Listening, dashboard_url, router, run},
    shared_pages::SharedPages,
    state::{ApiState, Latest, MissingFn, ProcessAuthor, Reserved, StatusFn},
    submit::{IntakeHandle, IntakeSenders, SubmitTargets, Submitter},
};
