//! Classifies errors of the driver and the server.
//!
//! Only faults of the rows themselves are `Rejected`. A missing table also arrives as `Invalid`, but must hold the writer and
//! never reject a row, so the text of such an error is checked first. Unknown errors are retried.

use std::fmt;

use scylla::errors::{
    BadQuery, ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

use crate::store::{ErrorWithRemedy, StoreError};

/// The variants of `StoreError` without their cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Transient: retry later.
    Unavailable,
    /// Needs manual repair.
    Misconfigured,
    /// The rows can never be stored.
    Rejected,
}

/// Why there is no usable session. Kept as text, because every call during the outage returns a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectFailure {
    pub(crate) class: ErrorClass,
    pub(crate) text: String,
    /// The command or setting that repairs it.
    pub(crate) remedy: Option<String>,
}

impl ConnectFailure {
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { class: ErrorClass::Unavailable, text: text.into(), remedy: None }
    }

    pub(crate) fn misconfigured(text: impl Into<String>) -> Self {
        Self { class: ErrorClass::Misconfigured, text: text.into(), remedy: None }
    }

    /// A schema that does not match.
    pub(crate) fn schema_mismatch(text: impl fmt::Display) -> Self {
        let text = format!("{text}; {SCHEMA_HINT}");
        Self { class: ErrorClass::Misconfigured, text, remedy: Some(SCHEMA_REMEDY.into()) }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConnectFailure {}

impl From<ConnectFailure> for StoreError {
    fn from(failure: ConnectFailure) -> Self {
        let class = failure.class;
        let cause = match failure.remedy {
            None => failure.into(),
            Some(remedy) => ErrorWithRemedy { what: failure.text, remedy, error: None }.into(),
        };
        match class {
            ErrorClass::Unavailable => Self::Unavailable(cause),
            ErrorClass::Misconfigured => Self::Misconfigured(cause),
            ErrorClass::Rejected => Self::Rejected(cause),
        }
    }
}

/// Remedy for a schema that does not match.
pub(super) const SCHEMA_HINT: &str = "create what is missing with `cascor-ingest schema apply`; \
                                      `cascor-ingest schema verify` names every difference";

/// The command that repairs the schema.
const SCHEMA_REMEDY: &str = "cascor-ingest schema apply";

/// Converts a failed request into a `StoreError`.
pub(super) fn store_error(error: ExecutionError) -> StoreError {
    match classify_execution(&error) {
        ErrorClass::Unavailable => StoreError::Unavailable(error.into()),
        ErrorClass::Rejected => StoreError::Rejected(error.into()),
        ErrorClass::Misconfigured => {
            let (what, remedy) = match refusal(&error) {
                Some(text) => ("the user may not do this; grant it SELECT and MODIFY on the keyspace", grant(text)),
                None => (SCHEMA_HINT, SCHEMA_REMEDY.into()),
            };
            StoreError::Misconfigured(ErrorWithRemedy { what: what.into(), remedy, error: Some(error.into()) }.into())
        }
    }
}

/// The server's message, when it refuses the user rather than the statement.
fn refusal(error: &ExecutionError) -> Option<&str> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Unauthorized | DbError::AuthenticationError,
            text,
        )) => Some(text),
        _ => None,
    }
}

/// The GRANT statement for the missing permission, from "User x has no MODIFY permission on <table k.t> or any of its parents".
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

/// The GRANT statement for a request that the server refused to this user.
pub(crate) fn grant_of(error: &ExecutionError) -> String {
    grant(refusal(error).unwrap_or_default())
}

/// Quotes a CQL identifier unless it is lower case.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Classifies a failed request.
pub(crate) fn classify_execution(error: &ExecutionError) -> ErrorClass {
    match error {
        ExecutionError::BadQuery(BadQuery::SerializationError(_)) => ErrorClass::Rejected,
        ExecutionError::LastAttemptError(error) => classify_attempt(error),
        ExecutionError::PrepareError(error) => classify_prepare(error),
        ExecutionError::ConnectionPoolError(error) => classify_pool(error),
        _ => ErrorClass::Unavailable,
    }
}

fn classify_attempt(error: &RequestAttemptError) -> ErrorClass {
    match error {
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            ErrorClass::Rejected
        }
        RequestAttemptError::DbError(error, text) => classify_server_error(error, text),
        // The table was altered under a prepared statement.
        RequestAttemptError::RepreparedIdChanged { .. } => ErrorClass::Misconfigured,
        _ => ErrorClass::Unavailable,
    }
}

/// Classifies an ERROR response of the server.
pub(super) fn classify_server_error(error: &DbError, text: &str) -> ErrorClass {
    match error {
        DbError::Invalid if is_schema_error(text) => ErrorClass::Misconfigured,
        DbError::Invalid | DbError::FunctionFailure { .. } => ErrorClass::Rejected,
        DbError::SyntaxError | DbError::Unauthorized | DbError::AuthenticationError | DbError::ConfigError => {
            ErrorClass::Misconfigured
        }
        // Overloaded, IsBootstrapping, Unavailable, timeouts, failures, ServerError, Truncate, and unknown codes.
        _ => ErrorClass::Unavailable,
    }
}

fn is_schema_error(text: &str) -> bool {
    const SCHEMA_ERROR_TEXTS: [&str; 14] = [
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
    SCHEMA_ERROR_TEXTS.iter().any(|sign| text.contains(sign))
}

/// Classifies a failed prepare. The statement texts are fixed, so an invalid one means that the schema does not match.
pub(super) fn classify_prepare(error: &PrepareError) -> ErrorClass {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => match classify_attempt(first_attempt) {
            ErrorClass::Rejected => ErrorClass::Misconfigured,
            verdict => verdict,
        },
        PrepareError::ConnectionPoolError(error) => classify_pool(error),
        _ => ErrorClass::Unavailable,
    }
}

fn classify_pool(error: &ConnectionPoolError) -> ErrorClass {
    match error {
        ConnectionPoolError::Broken { last_connection_error, .. } => classify_connection(last_connection_error),
        _ => ErrorClass::Unavailable,
    }
}

fn classify_connection(error: &ConnectionError) -> ErrorClass {
    match error {
        // rustls errors: certificate problems, or a server without TLS.
        ConnectionError::IoError(error) if error.kind() == std::io::ErrorKind::InvalidData => ErrorClass::Misconfigured,
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            ConnectionSetupRequestErrorKind::DbError(error, text) => classify_server_error(error, text),
            ConnectionSetupRequestErrorKind::MissingAuthentication => ErrorClass::Misconfigured,
            _ => ErrorClass::Unavailable,
        },
        _ => ErrorClass::Unavailable,
    }
}

/// Explains a failed connect to the operator.
pub(super) fn session_failure(error: &NewSessionError) -> ConnectFailure {
    let verdict = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(error)) => classify_pool(error),
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => ErrorClass::Misconfigured,
        _ => ErrorClass::Unavailable,
    };
    let hint = if verdict == ErrorClass::Misconfigured {
        "; check `store.cassandra.username`, the password and `store.cassandra.tls`"
    } else {
        ""
    };
    let remedy = (verdict == ErrorClass::Misconfigured).then(|| {
        "set `store.cassandra.username` and `store.cassandra.password_file` to a login that works (or `store.cassandra.tls`), \
         and restart"
            .to_owned()
    });
    ConnectFailure { class: verdict, text: format!("no session with Cassandra: {error}{hint}"), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_errors_are_classified() {
        for (error, text, verdict) in [
            (DbError::Invalid, "Batch too large", ErrorClass::Rejected),
            (
                DbError::Invalid,
                "Request is too big: length 20971520 exceeds maximum allowed length",
                ErrorClass::Rejected,
            ),
            (DbError::Invalid, "Invalid null value in condition for column x", ErrorClass::Rejected),
            (DbError::Invalid, "unconfigured table training_metrics", ErrorClass::Misconfigured),
            (DbError::Invalid, "table cascor.training_metrics does not exist", ErrorClass::Misconfigured),
            (DbError::Invalid, "Keyspace cascor does not exist", ErrorClass::Misconfigured),
            (DbError::Invalid, "Undefined column name seq in table cascor.training_metrics", ErrorClass::Misconfigured),
            (DbError::Invalid, "EACH_QUORUM ConsistencyLevel is only supported for writes", ErrorClass::Misconfigured),
            (DbError::SyntaxError, "line 1:0", ErrorClass::Misconfigured),
            (DbError::Unauthorized, "User x has no MODIFY permission", ErrorClass::Misconfigured),
            (DbError::Overloaded, "", ErrorClass::Unavailable),
            (DbError::IsBootstrapping, "", ErrorClass::Unavailable),
            (DbError::ServerError, "java.lang.NullPointerException", ErrorClass::Unavailable),
            (DbError::TruncateError, "", ErrorClass::Unavailable),
            (DbError::Other(0x7777), "", ErrorClass::Unavailable),
        ] {
            assert_eq!(classify_server_error(&error, text), verdict, "{error:?} {text}");
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
    fn errors_that_are_not_about_rows_never_reject_a_row() {
        for error in [
            ExecutionError::EmptyPlan,
            ExecutionError::RequestTimeout(std::time::Duration::from_secs(12)),
            ExecutionError::ConnectionPoolError(ConnectionPoolError::Initializing),
            ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId),
        ] {
            assert_eq!(classify_execution(&error), ErrorClass::Unavailable, "{error}");
        }
        let invalid = RequestAttemptError::DbError(DbError::Invalid, "whatever".into());
        assert_eq!(
            classify_prepare(&PrepareError::AllAttemptsFailed { first_attempt: invalid }),
            ErrorClass::Misconfigured,
            "a statement of ours that cannot be prepared is a matter of the schema"
        );
    }
}
