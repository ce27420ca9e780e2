//! What an examination finds.

use serde::Serialize;

/// How much a finding matters, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something fails, or will.
    Fault,
    /// Something could not be looked at.
    Unknown,
    /// It works, and could be better.
    Advice,
}

/// What a finding does, from the worst; findings are printed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// The daemon does not start, receives nothing or stores nothing.
    Stops,
    /// Messages or rows are lost, or will be.
    Loses,
    /// Other people may read or change what is not theirs.
    Exposes,
    /// A part of the program does not work, or shows what is wrong.
    Degrades,
    Unknown,
    Advice,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The part that was looked at.
    pub area: &'static str,
    /// What is so, in one sentence, with its consequence.
    pub what: String,
    /// The command or setting that changes it.
    pub fix: Option<String>,
    /// What was seen.
    pub evidence: Option<String>,
    #[serde(skip)]
    harm: Harm,
}

impl Finding {
    fn new(level: Level, harm: Harm, area: &'static str, what: impl Into<String>) -> Self {
        Self { level, area, what: what.into(), fix: None, evidence: None, harm }
    }

    /// The daemon does not start, receives nothing or stores nothing.
    pub(super) fn stops(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Fault, Harm::Stops, area, what)
    }

    /// Messages or rows are lost, or will be.
    pub(super) fn loses(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Fault, Harm::Loses, area, what)
    }

    /// Other people may read or change what is not theirs.
    pub(super) fn exposes(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Fault, Harm::Exposes, area, what)
    }

    /// A part of the program does not work, or shows what is wrong.
    pub(super) fn degrades(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Fault, Harm::Degrades, area, what)
    }

    /// Something that could not be looked at.
    pub(super) fn unknown(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Unknown, Harm::Unknown, area, what)
    }

    /// It works, and could be better.
    pub(super) fn advice(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Advice, Harm::Advice, area, what)
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    pub(super) fn evidence(self, evidence: impl Into<String>) -> Self {
        Self { evidence: Some(evidence.into()), ..self }
    }
}

/// What one or all areas brought.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In order of harm.
    pub findings: Vec<Finding>,
    /// What was looked at, and what is there.
    pub looked_at: Vec<String>,
}

impl Report {
    pub(super) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds findings that may be there.
    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    pub(super) fn saw(&mut self, what: impl Into<String>) {
        self.looked_at.push(what.into());
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.looked_at.extend(other.looked_at);
    }

    /// The worst first; of equal harm in the order in which the areas were looked at.
    pub(super) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| finding.harm);
    }

    /// How many findings are of this level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        let mut report = Report::default();
        let make = [Finding::advice, Finding::unknown, Finding::degrades, Finding::loses, Finding::stops];
        report.extend(make.map(|make| make("x", "y")));
        report.push(Finding::exposes("x", "y"));
        report.sort();
        let harms: Vec<_> = report.findings.iter().map(|finding| finding.harm).collect();
        assert_eq!(harms, [Harm::Stops, Harm::Loses, Harm::Exposes, Harm::Degrades, Harm::Unknown, Harm::Advice]);
        assert_eq!([Level::Fault, Level::Unknown, Level::Advice].map(|level| report.count(level)), [4, 1, 1]);
    }
}
