//! The spool and the state as they lie on disk: what waits, what is damaged, and which daemon holds it.

use std::path::Path;

use super::{Finding, Report, bytes};
use crate::{
    config::Settings,
    logging::Chain,
    spool::{self, SpoolError},
    words::counted,
};

const AREA: &str = "spool";

/// The spool, and what it says.
pub(super) struct Inspected {
    found: Option<spool::Report>,
    pub(super) report: Report,
}

impl Inspected {
    /// The process of the daemon that uses the spool.
    pub(super) fn holder(&self) -> Option<&str> {
        self.found.as_ref()?.holder.as_deref()
    }

    /// Bytes that it takes already.
    pub(super) fn bytes(&self) -> u64 {
        self.found.as_ref().map_or(0, |found| found.bytes)
    }
}

/// Reads the spool of these settings, and looks for others beside it.
pub(super) fn inspect(settings: &Settings) -> Inspected {
    let mut report = Report::default();
    let dir = &settings.spool.dir;
    let found = if dir.exists() { read(dir, &mut report) } else { None };
    match &found {
        Some(found) => {
            let holder =
                found.holder.as_ref().map_or("no daemon".to_owned(), |holder| format!("process {}", holder.trim()));
            report.saw(format!(
                "spool `{}`: {}, {}, used by {holder}",
                dir.display(),
                bytes(found.bytes),
                counted(found.pending, "record waits", "records wait")
            ));
            report.extend(damage(dir, found));
        }
        None => report.saw(format!("spool `{}`: the first start makes it", dir.display())),
    }
    orphans(settings, &mut report);
    Inspected { found, report }
}

fn read(dir: &Path, report: &mut Report) -> Option<spool::Report> {
    match spool::inspect(dir) {
        Ok(found) => Some(found),
        Err(error @ SpoolError::Newer { .. }) => {
            let what = "the spool was written by a newer program, which this one cannot read: no daemon starts";
            report.push(Finding::stops(AREA, what).fix("install the newer program").evidence(error.to_string()));
            None
        }
        Err(error) => {
            let what = format!("the spool `{}` could not be read", dir.display());
            report.push(
                Finding::unknown(AREA, what)
                    .fix("run doctor as the user of the daemon")
                    .evidence(Chain(&error).to_string()),
            );
            None
        }
    }
}

fn damage(dir: &Path, found: &spool::Report) -> Vec<Finding> {
    let dir = dir.display();
    let mut findings = Vec::new();
    if found.checkpoint_damaged {
        let what = "the checkpoint of the spool is damaged: the next start stores all of its records again, which changes no row";
        findings.push(Finding::advice(AREA, what).fix("check the disk").evidence(format!("`{dir}/checkpoint`")));
    }
    if found.quarantine_bytes > 0 {
        let what = "damaged bytes of the spool were set aside: records in them are lost unless they can be drained";
        let fix = format!("`cascor-ingest spool verify {dir}`, then `spool drain` what can be read; check the disk");
        let evidence = format!("{} in `{dir}/quarantine`", bytes(found.quarantine_bytes));
        findings.push(Finding::loses(AREA, what).fix(fix).evidence(evidence));
    }
    findings
}

/// Records of other instances that no daemon stores.
fn orphans(settings: &Settings, report: &mut Report) {
    let mut dirs = settings.spool.orphan_search_dirs.clone();
    if dirs.is_empty() {
        dirs.extend(settings.state_dir.parent().map(Path::to_owned));
    }
    for (dir, found) in spool::orphans(&dirs, &settings.spool.dir) {
        let owner = found.owner.unwrap_or_else(|| "unknown".into());
        let what = format!("records wait in a spool that no daemon uses, of instance `{}`", owner.escape_debug());
        let fix = format!("start that daemon, or `cascor-ingest spool drain {}`", dir.display());
        report.push(Finding::advice(AREA, what).fix(fix).evidence(format!(
            "{} in `{}`",
            counted(found.pending, "record", "records"),
            dir.display()
        )));
    }
}
