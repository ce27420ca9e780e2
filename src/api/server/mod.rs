//! The HTTP server: from an accepted connection to the handler of its request, and back.
//!
//! [`listener`] accepts, [`connection_limit`] decides which connections are kept when all slots are taken, [`connection`] serves
//! one of them, [`dispatcher`] puts a request on the right router and thread, [`router`] holds the layers around all routes.

mod body_end;
mod client_stream;
mod compress;
mod connection;
mod connection_limit;
mod dispatcher;
mod listener;
mod listening;
mod router;
mod security_headers;
mod write_timeout;

pub use self::{
    listener::run,
    listening::{Listening, dashboard_url},
    router::router,
};
