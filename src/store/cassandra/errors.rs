//! What an error of the driver or of the server means for whoever called the store.
//!
//! Only what is wrong with the rows themselves is `Rejected`. A missing table also arrives as `Invalid`; it must hold the writer
//! and never set a row aside, so the text of such an answer is looked at first. What is unknown is tried again.

use std::fmt;

use scylla::errors::{
    BadQuery, ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

use crate::store::{Mendable, StoreError};

/// The three answers of the store, without their cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Again, later.
    Unavailable,
    /// A person must mend something.
    Misconfigured,
    /// The rows can never be stored.
    Rejected,
}

impl Verdict {
    /// The label of the counter.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Rejected => "rejected",
        }
    }
}

/// Why there is no usable session; shared by every call made meanwhile, hence text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    /// The command, or the setting, that mends it.
    pub(crate) remedy: Option<String>,
}

impl Trouble {
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unavailable, text: text.into(), remedy: None }
    }

    pub(crate) fn misconfigured(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Misconfigured, text: text.into(), remedy: None }
    }

    /// The schema does not fit.
    pub(crate) fn of_schema(text: impl fmt::Display) -> Self {
        let text = format!("{text}; {SCHEMA_HINT}");
        Self { verdict: Verdict::Misconfigured, text, remedy: Some(SCHEMA_REMEDY.into()) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Trouble {}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        let verdict = trouble.verdict;
        let cause = match trouble.remedy {
            None => trouble.into(),
            Some(remedy) => Mendable { what: trouble.text, remedy, error: None }.into(),
        };
        match verdict {
            Verdict::Unavailable => Self::Unavailable(cause),
            Verdict::Misconfigured => Self::Misconfigured(cause),
            Verdict::Rejected => Self::Rejected(cause),
        }
    }
}

/// What to do about a schema that does not fit.
pub(super) const SCHEMA_HINT: &str = "create what is missing with `cascor-ingest schema apply`; \
                                      `cascor-ingest schema verify` names every difference";

/// The command that mends it.
const SCHEMA_REMEDY: &str = "cascor-ingest schema apply";

/// The store's answer for a failed request.
pub(super) fn store_error(error: ExecutionError) -> StoreError {
    match of_execution(&error) {
        Verdict::Unavailable => StoreError::Unavailable(error.into()),
        Verdict::Rejected => StoreError::Rejected(error.into()),
        Verdict::Misconfigured => {
            let (what, remedy) = match refusal(&error) {
                Some(text) => ("the user may not do this; grant it SELECT and MODIFY on the keyspace", grant(text)),
                None => (SCHEMA_HINT, SCHEMA_REMEDY.into()),
            };
            StoreError::Misconfigured(Mendable { what: what.into(), remedy, error: Some(error.into()) }.into())
        }
    }
}

/// What the server said, when it refuses the user and not the statement.
fn refusal(error: &ExecutionError) -> Option<&str> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Unauthorized | DbError::AuthenticationError,
            text,
        )) => Some(text),
        _ => None,
    }
}

/// The statement that gives what is missing, from "User x has no MODIFY permission on <table k.t> or any of its parents".
fn grant(text: &str) -> String {
    let parts = || {
        let (user, rest) = text.strip_prefix("User ")?.split_once(" has no ")?;
        let (permission, rest) = rest.split_once(" permission on <")?;
        let (_, name) = rest.split_once('>')?.0.split_once(' ')?;
        let keyspace = name.split('.').next()?;
        Some(format!("GRANT {permission} ON KEYSPACE {} TO {};", quoted(keyspace), quoted(user)))
    };
    parts().unwrap_or_else(|| "GRANT SELECT ON KEYSPACE <keyspace> TO <user>; and the same with MODIFY".into())
}

/// As CQL wants a name: in quotes unless it is in lower case.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The verdict on a failed request.
pub(crate) fn of_execution(error: &ExecutionError) -> Verdict {
    match error {
        ExecutionError::BadQuery(BadQuery::SerializationError(_)) => Verdict::Rejected,
        ExecutionError::LastAttemptError(error) => of_attempt(error),
        ExecutionError::PrepareError(error) => of_prepare(error),
        ExecutionError::ConnectionPoolError(error) => of_pool(error),
        _ => Verdict::Unavailable,
    }
}

fn of_attempt(error: &RequestAttemptError) -> Verdict {
    match error {
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            Verdict::Rejected
        }
        RequestAttemptError::DbError(error, text) => of_server(error, text),
        // The table was altered under a prepared statement.
        RequestAttemptError::RepreparedIdChanged { .. } => Verdict::Misconfigured,
        _ => Verdict::Unavailable,
    }
}

/// The verdict on an ERROR answer of the server.
pub(super) fn of_server(error: &DbError, text: &str) -> Verdict {
    match error {
        DbError::Invalid if speaks_of_the_schema(text) => Verdict::Misconfigured,
        DbError::Invalid | DbError::FunctionFailure { .. } => Verdict::Rejected,
        DbError::SyntaxError | DbError::Unauthorized | DbError::AuthenticationError | DbError::ConfigError => {
            Verdict::Misconfigured
        }
        // Overloaded, IsBootstrapping, Unavailable, time-outs, failures, ServerError, Truncate, and what is unknown.
        _ => Verdict::Unavailable,
    }
}

fn speaks_of_the_schema(text: &str) -> bool {
    const SIGNS: [&str; 14] = [
        "unconfigured table",
        "unconfigured columnfamily",
        "unknown table",
        "unknown keyspace",
        "undefined column",
        "undefined name",
        "unknown identifier",
        "unknown column",
        "does not exist",
        "no keyspace has been specified",
        "consistency level",
        "consistencylevel",
        "cannot be used as partition key",
        "primary key",
    ];
    let text = text.to_ascii_lowercase();
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The verdict on a statement that cannot be prepared. The text of our statements is fixed, so what the server finds invalid
/// about one is the schema.
pub(super) fn of_prepare(error: &PrepareError) -> Verdict {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => match of_attempt(first_attempt) {
            Verdict::Rejected => Verdict::Misconfigured,
            verdict => verdict,
        },
        PrepareError::ConnectionPoolError(error) => of_pool(error),
        _ => Verdict::Unavailable,
    }
}

fn of_pool(error: &ConnectionPoolError) -> Verdict {
    match error {
        ConnectionPoolError::Broken { last_connection_error, .. } => of_connection(last_connection_error),
        _ => Verdict::Unavailable,
    }
}

fn of_connection(error: &ConnectionError) -> Verdict {
    match error {
        // What rustls says about a certificate or about a server that does not speak TLS.
        ConnectionError::IoError(error) if error.kind() == std::io::ErrorKind::InvalidData => Verdict::Misconfigured,
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            ConnectionSetupRequestErrorKind::DbError(error, text) => of_server(error, text),
            ConnectionSetupRequestErrorKind::MissingAuthentication => Verdict::Misconfigured,
            _ => Verdict::Unavailable,
        },
        _ => Verdict::Unavailable,
    }
}

/// Why no session could be made, in the words of an operator.
pub(super) fn of_session(error: &NewSessionError) -> Trouble {
    let verdict = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(error)) => of_pool(error),
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => Verdict::Misconfigured,
        _ => Verdict::Unavailable,
    };
    let hint = if verdict == Verdict::Misconfigured {
        "; check `store.cassandra.username`, the password and `store.cassandra.tls`"
    } else {
        ""
    };
    let remedy = (verdict == Verdict::Misconfigured).then(|| {
        "set `store.cassandra.username` and `store.cassandra.password_file` to a login that works (or `store.cassandra.tls`), \
         and restart"
            .to_owned()
    });
    Trouble { verdict, text: format!("no session with Cassandra: {error}{hint}"), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_server_says_what_to_do_next() {
        for (error, text, verdict) in [
            (DbError::Invalid, "Batch too large", Verdict::Rejected),
            (DbError::Invalid, "Request is too big: length 20971520 exceeds maximum allowed length", Verdict::Rejected),
            (DbError::Invalid, "Invalid null value in condition for column x", Verdict::Rejected),
            (DbError::Invalid, "unconfigured table training_metrics", Verdict::Misconfigured),
            (DbError::Invalid, "table cascor.training_metrics does not exist", Verdict::Misconfigured),
            (DbError::Invalid, "Keyspace cascor does not exist", Verdict::Misconfigured),
            (DbError::Invalid, "Undefined column name seq in table cascor.training_metrics", Verdict::Misconfigured),
            (DbError::Invalid, "EACH_QUORUM ConsistencyLevel is only supported for writes", Verdict::Misconfigured),
            (DbError::SyntaxError, "line 1:0", Verdict::Misconfigured),
            (DbError::Unauthorized, "User x has no MODIFY permission", Verdict::Misconfigured),
            (DbError::Overloaded, "", Verdict::Unavailable),
            (DbError::IsBootstrapping, "", Verdict::Unavailable),
            (DbError::ServerError, "java.lang.NullPointerException", Verdict::Unavailable),
            (DbError::TruncateError, "", Verdict::Unavailable),
            (DbError::Other(0x7777), "", Verdict::Unavailable),
        ] {
            assert_eq!(of_server(&error, text), verdict, "{error:?} {text}");
        }
    }

    #[test]
    fn a_missing_permission_is_named_with_the_statement_that_grants_it() {
        for (text, statement) in [
            (
                "User writer has no MODIFY permission on <table cascor.training_metrics> or any of its parents",
                "GRANT MODIFY ON KEYSPACE cascor TO writer;",
            ),
            (
                "User Lab 2 has no SELECT permission on <keyspace Lab> or any of its parents",
                "GRANT SELECT ON KEYSPACE \"Lab\" TO \"Lab 2\";",
            ),
            ("You have not logged in", "GRANT SELECT ON KEYSPACE <keyspace> TO <user>; and the same with MODIFY"),
        ] {
            assert_eq!(grant(text), statement);
        }
    }

    #[test]
    fn what_is_not_about_the_rows_never_sets_one_aside() {
        for error in [
            ExecutionError::EmptyPlan,
            ExecutionError::RequestTimeout(std::time::Duration::from_secs(12)),
            ExecutionError::ConnectionPoolError(ConnectionPoolError::Initializing),
            ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId),
        ] {
            assert_eq!(of_execution(&error), Verdict::Unavailable, "{error}");
        }
        let invalid = RequestAttemptError::DbError(DbError::Invalid, "whatever".into());
        assert_eq!(
            of_prepare(&PrepareError::AllAttemptsFailed { first_attempt: invalid }),
            Verdict::Misconfigured,
            "a statement of ours that cannot be prepared is a matter of the schema"
        );
    }
}
