//! Which request may do what: tokens, sessions, scopes, origins, and the audit of refusals.
//!
//! [`guard`] is the layer of every route. The [`authenticator`] finds the [`Caller`] by its token or session, the [`policy`] decides
//! about requests without either, [`origin`] about pages of other sites; [`recheck`] ends streams and exports whose caller may no
//! longer read.

mod anonymous_body;
mod audit;
mod authenticator;
mod caller;
mod client_address;
mod guard;
mod origin;
mod policy;
mod recheck;
mod scope;
mod session;
mod throttle;
pub mod token;
mod token_file;
mod token_store;

pub use self::{
    audit::Refusal,
    authenticator::Authenticator,
    caller::Caller,
    client_address::{ClientAddress, network},
    guard::guard,
    origin::{
        cors::{self, CorsDecision, preflight},
        target,
    },
    policy::{AccessPolicy, MAKE_A_TOKEN},
    recheck::{CurrentAnswer, OngoingAnswer},
    scope::Scope,
    session::{SessionKey, Sessions, cookie},
    token_file::{TokensError, is_name, loose_permissions, read as read_tokens},
    token_store::{Counts, TokenStore},
};
