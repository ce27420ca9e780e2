//! The configuration: what makes it invalid, and what it warns of that no other area looks at.

use super::{Finding, Report};
use crate::config::{Loaded, Problems};

const AREA: &str = "configuration";

/// Warnings of which another area has a finding of its own.
const ELSEWHERE: [&str; 4] =
    ["other users may ", "`http.tokens_file`:", "`http.session_key_file`:", "the password of "];

pub(super) fn examine(loaded: &Loaded) -> Report {
    let mut report = Report::default();
    let warnings = loaded.warnings.iter().filter(|warning| !ELSEWHERE.iter().any(|begin| warning.starts_with(begin)));
    report.extend(warnings.map(|warning| Finding::advice(AREA, warning.clone())));
    report.saw("configuration: valid");
    report
}

/// The report on settings with which nothing else can be looked at.
pub fn invalid(problems: &Problems) -> Report {
    let mut report = Report::default();
    for problem in &problems.0 {
        let what = format!("the configuration is invalid, so no daemon starts: {problem}");
        report.push(
            Finding::stops(AREA, what)
                .fix("correct this key, variable or file; `cascor-ingest check --print` shows every key and its value once the configuration is valid"),
        );
    }
    report.push(Finding::unknown(
        AREA,
        "servers, disk, process and HTTP: they are looked at once the configuration is valid",
    ));
    report
}
