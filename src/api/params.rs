//! Query parameters. An unknown, repeated or invalid parameter is answered with a 400 that names it.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use uuid::Uuid;

use super::error::ApiError;
use crate::{render, units::Micros};

/// The parameters of a request, decoded. An empty value is the same as none.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Refuses unknown names, and repeated ones unless listed in `many`. Names that begin with `_` (cache busters) are ignored.
    pub fn allow_only(self, names: &[&str], many: &[&str]) -> Result<Self, ApiError> {
        for (n, (name, _)) in self.0.iter().enumerate() {
            if many.contains(&name.as_str()) || name.starts_with('_') {
                continue;
            }
            if !names.contains(&name.as_str()) {
                let known: Vec<_> = names.iter().chain(many).copied().collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(ApiError::bad_request(format!("unknown parameter `{name}`; known: {known}")));
            }
            if self.0[..n].iter().any(|(earlier, _)| earlier == name) && self.exact(name).nth(1).is_some() {
                return Err(ApiError::bad_request(format!("`{name}` is given twice")));
            }
        }
        Ok(self)
    }

    /// The text of a parameter.
    pub fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.exact(name).next().map(str::trim)
    }

    /// Every value of a repeatable parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.exact(name).map(str::trim)
    }

    /// Every value of a repeatable parameter, untrimmed: the name of a metric may begin or end with blanks.
    pub fn exact<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let given = self.0.iter().filter(move |(given, value)| given == name && !value.trim().is_empty());
        given.map(|(_, value)| value.as_str())
    }

    /// The names in comma-separated lists, as in `fields=a,b`.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|list| list.split(',')).map(str::trim).filter(|one| !one.is_empty())
    }

    /// The runs in a repeatable parameter. A value is split at its commas if every part is a UUID; otherwise it is one name, which
    /// may contain commas, and begin or end with blanks.
    pub fn runs<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let parts = |value: &'a str| value.split(',').map(str::trim).filter(|part| !part.is_empty());
        let is_list = |value| parts(value).all(|part| Uuid::try_parse(part).is_ok());
        self.exact(name).flat_map(|value| if is_list(value) { parts(value).collect() } else { vec![value] }).collect()
    }

    /// A whole number from `least` to `most`.
    pub fn number(&self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default.min(most)) };
        let wrong =
            || ApiError::bad_request(format!("`{name}` must be a whole number from {least} to {most}, not `{text}`"));
        text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
    }

    /// One of `words`; the first by default.
    pub fn word<'a>(&self, name: &str, words: &[&'a str]) -> Result<&'a str, ApiError> {
        let Some(text) = self.text(name) else { return Ok(words[0]) };
        let wrong = || ApiError::bad_request(format!("`{name}` must be one of {}, not `{text}`", words.join(", ")));
        words.iter().find(|word| **word == text).copied().ok_or_else(wrong)
    }

    /// A time, in any form of [`render::parse_time`].
    pub fn time(&self, name: &str) -> Result<Option<Micros>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // An unescaped `+` of the time zone, at the end, arrives as a space.
        let with_plus =
            || text.rsplit_once(' ').and_then(|(time, zone)| render::parse_time(&format!("{time}+{zone}")).ok());
        let read = render::parse_time(text).or_else(|error| with_plus().ok_or(error));
        read.map(Some).map_err(|error| ApiError::bad_request(format!("`{name}`: {error}")))
    }

    /// A cursor, parsed.
    pub fn cursor<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || ApiError::bad_request(format!("`{name}` must be the `next` of an earlier answer, not `{text}`"));
        parse(text).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_and_without_a_value() {
        let allowed = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let params = Params(owned).allow_only(&["limit", "cursor"], &["field"]);
            params.map(|params| params.text("limit").map(str::to_owned)).map_err(|error| error.status().as_u16())
        };
        assert_eq!(
            allowed(&[("limit", " 7 "), ("cursor", ""), ("field", "a"), ("field", "b"), ("_", "1")]),
            Ok(Some("7".into()))
        );
        assert_eq!(allowed(&[("limit", ""), ("limit", "7")]), Ok(Some("7".into())), "an empty one is none");
        for pairs in [&[("limt", "7")][..], &[("limt", "")], &[("limit", "1"), ("limit", "2")]] {
            assert_eq!(allowed(pairs), Err(400), "{pairs:?}");
        }
    }

    #[test]
    fn a_list_of_runs_is_one_of_uuids_only() {
        let (one, two) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).simple().to_string());
        let named = |values: &[&str]| {
            let params = Params(values.iter().map(|value| ("run_id".to_owned(), (*value).to_owned())).collect());
            params.runs("run_id").into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(named(&[&format!("{one}, {two},"), &one]), [&*one, &*two, &*one]);
        for name in ["lr=0.1,units=4", &*format!("{one},second half")] {
            assert_eq!(named(&[name]), [name]);
        }
    }
}
