//! What a person sees of what `--json` has, on terminals of several widths, for every command that there is.
//!
//! The rule: each value in the JSON is shown whole; or rounded to six digits; or as a time to the second; or as the eight characters
//! of an id that every command takes; or its field is named as not shown, with how to get it; or it is cut with an ellipsis, and
//! another command shows it whole. What a case exempts has its reason beside it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    screen::{Leaf, Screen, collect},
    support::{daemon::Daemon, redis::Redis, wait_until},
    terminals::{on_terminal_of, output_of},
    widths::{WIDTHS, columns, dense, filled, names, without_colours},
};

const LIMIT: Duration = Duration::from_secs(30);
/// Commands without a case.
const NO_CASE: [(&str, &str); 7] = [
    ("run", "the daemon writes log lines"),
    ("serve", "the daemon writes log lines"),
    ("completions", "a shell reads it"),
    ("man", "man reads it"),
    ("token-ensure", "it writes a file, and shows where"),
    ("token-new", "its line is copied into a file, and is random"),
    ("demo", "its counts differ from run to run; widths.rs has it"),
];

/// A command, and what is different about it.
#[derive(Default)]
struct Case {
    words: Vec<String>,
    /// Commands that show whole what this one cuts.
    whole: Vec<Vec<String>>,
    /// Paths in the JSON that are not compared, and why; `*` is any one name.
    exempt: Vec<(&'static str, &'static str)>,
    /// The fields that were asked for; empty: all.
    only: Vec<&'static str>,
    /// Prepares the state from which the command starts.
    before: Option<fn(&Daemon)>,
    /// Whether it takes so long that one width is enough.
    is_slow: bool,
    /// Whether it prints no JSON: its output is for programs, or goes to a file.
    is_text: bool,
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(ToString::to_string).collect()
}

fn case(text: &[&str]) -> Case {
    Case { words: words(text), ..Case::default() }
}

impl Case {
    fn whole_in(self, commands: &[&[&str]]) -> Self {
        Self { whole: commands.iter().map(|command| words(command)).collect(), ..self }
    }

    fn exempt(self, path: &'static str, reason: &'static str) -> Self {
        Self { exempt: [self.exempt, vec![(path, reason)]].concat(), ..self }
    }

    fn only(self, fields: &[&'static str]) -> Self {
        Self { only: fields.to_vec(), ..self }
    }

    fn before(self, prepare: fn(&Daemon)) -> Self {
        Self { before: Some(prepare), ..self }
    }

    fn slow(self) -> Self {
        Self { is_slow: true, ..self }
    }

    fn text(self) -> Self {
        Self { is_text: true, ..self }
    }

    fn prepare(&self, daemon: &Daemon) {
        if let Some(prepare) = self.before {
            prepare(daemon);
        }
    }

    /// What is wrong with the command at this width.
    fn faults(&self, daemon: &Daemon, width: u16) -> Vec<String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.prepare(daemon);
        let output = daemon.command(&[&words, &["--json"][..]].concat());
        let printed = String::from_utf8(output.stdout).unwrap();
        self.prepare(daemon);
        let shown = on_terminal(daemon, &words, width);
        let wide = shown.lines().filter(|line| columns(line) > width.into());
        let wide: Vec<_> = wide.map(|line| format!("{words:?} at {width}: wider: {line}")).collect();
        if self.is_text {
            return wide;
        }
        let lines = || {
            printed
                .lines()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}: {line}")))
        };
        let answer = serde_json::from_str(&printed).unwrap_or_else(|_| Value::Array(lines().collect()));
        let mut leaves = Vec::new();
        collect(&answer, &mut Vec::new(), &mut leaves);
        assert!(!printed.is_empty(), "{words:?}");
        let screen = Screen::new(&shown);
        let is_compared = |leaf: &Leaf| {
            let is_asked =
                self.only.is_empty() || leaf.path.last().is_some_and(|name| self.only.contains(&name.as_str()));
            is_asked && !self.exempt.iter().any(|(path, _)| leaf.is_at(path))
        };
        let lacks = |leaf: &&Leaf, whole: &[String]| is_compared(leaf) && !screen.shows(leaf, whole);
        let mut lacking: Vec<&Leaf> = leaves.iter().filter(|leaf| lacks(leaf, &[])).collect();
        if !lacking.is_empty() {
            let whole = self.whole_screens(daemon, width);
            lacking.retain(|leaf| lacks(leaf, &whole));
        }
        let fault = |leaf: &Leaf| format!("{words:?} at {width}: {} = {}", leaf.path.join("."), leaf.value);
        let faults: Vec<_> = lacking.into_iter().map(fault).collect();
        let faults = [wide, faults].concat();
        if faults.is_empty() { faults } else { [faults, vec![shown]].concat() }
    }

    /// What the commands show that do not cut what this one cuts.
    fn whole_screens(&self, daemon: &Daemon, width: u16) -> Vec<String> {
        let screen = |command: &Vec<String>| {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            dense(&on_terminal(daemon, &command, width))
        };
        self.whole.iter().map(screen).collect()
    }
}

fn on_terminal(daemon: &Daemon, words: &[&str], width: u16) -> String {
    without_colours(&output_of(on_terminal_of(&daemon.prepared(words), width, ""))).replace('\r', "\n")
}

/// The commands that only read.
fn reading(run: &str, other: &str) -> Vec<Case> {
    let shows: Vec<Vec<String>> = names().iter().map(|name| words(&["show", name])).collect();
    let in_show = |case: Case| Case { whole: shows.clone(), ..case };
    let runs = |text: &[&str]| in_show(case(text)).exempt("runs.*.archived", "archived runs are listed on request");
    let rows = |text: &[&str]| {
        let named = case(text).exempt("metrics.*.run_id", "the run was named");
        let named = named.whole_in(&[&["metrics", run, "--fields", "phase"]]);
        named.exempt("exact", "true of rows; curves name it")
    };
    let curve = "points of a curve, which is drawn";
    vec![
        runs(&["runs"]),
        runs(&["runs", "-n", "2"]).exempt("next", "a cursor, which `more with` names"),
        runs(&["runs", "--fields", "config.optimizer.learning_rate,final_val_loss"]).only(&[
            "run_id",
            "run_name",
            "learning_rate",
            "final_val_loss",
        ]),
        rows(&["show", run, "-n", "3"]),
        rows(&["show", other, "-n", "3"]),
        rows(&["metrics", run]),
        rows(&["metrics", run, "-n", "2"]).exempt("next", "a cursor, which `more with` names"),
        rows(&["metrics", run, "--fields", "grad_norm,精度", "--fields", "f1,macro"]).only(&[
            "grad_norm",
            "精度",
            "f1,macro",
            "epoch",
            "step",
        ]),
        rows(&["metrics", run, "--points", "5"]).exempt("metrics.**", curve),
        in_show(case(&["compare", run, other]))
            .exempt("by", "the curve is named after it, where there is room")
            .exempt("x.*", curve)
            .exempt("curves.*.non_finite", "a column where it is above 0")
            .exempt("curves.*.last.*", curve)
            .exempt("curves.*.min.*", curve)
            .exempt("curves.*.max.*", curve),
        rows(&["tail", run, "--for", "50ms"]),
        case(&["tail", run, "--for", "50ms", "--fields", "grad_norm"]).only(&["run_id", "epoch", "step", "grad_norm"]),
        case(&["gaps", "--run", run]).exempt("missing.exact", "`at least` stands before a count that is not"),
        case(&["gaps"]),
        case(&["deadletter", "list"]).whole_in(&[&["deadletter", "show", "0"]]),
        case(&["deadletter", "show", "0"]).exempt("hex", "the text is shown, and --raw writes the bytes"),
        case(&["spool", "status"]).exempt("segments.*.header_valid", "another header is an error"),
        case(&["cache", "get", "metrics:latest"]).exempt("ttl_ms", "counts down, and is shown as a duration"),
        case(&["status", "frozen", "-v"]).exempt("frozen.verdict.ok", "the state says it, and the exit status"),
        case(&["schema", "plan"]).exempt("differences", "there are none"),
        case(&["schema", "verify"]),
        case(&["schema", "print"]).text(),
        case(&["check"]).exempt("valid", "the line says it"),
        case(&["check", "--print"]).exempt("valid", "an invalid one is not printed"),
        case(&["check", "--connect"]).exempt("valid", "the line says it"),
        case(&["doctor", "--listen", "0s"])
            .exempt("looked_at.*", "times differ from run to run")
            .exempt("findings.*.evidence", "figures of the machine differ from run to run"),
        case(&["export", run, "-o", "exported.csv"]).text(),
        case(&["deadletter", "export", "-o", "letters.ndjson"]).before(remove_files).text(),
    ]
}

/// The commands that change something; the prepared state is the same for JSON and for the terminal.
fn changing(run: &str) -> Vec<Case> {
    let edit = |text: &[&str]| {
        let case = case(&[&["runs"], text].concat());
        case.exempt("runs.**", "`show` has the run").before(tag_to_remove)
    };
    let receipt = |text: &[&str]| case(text).exempt("*.took_ms", "differs each time");
    vec![
        edit(&["rename", run, "by people"]),
        edit(&["rename", "by people", "by people"]),
        edit(&["note", run, "a note"]),
        edit(&["archive", run]),
        edit(&["unarchive", run]),
        edit(&["tag", run, "a tag"]),
        edit(&["untag", "short", "to-remove"]),
        edit(&["delete", "doomed", "--yes"]).before(import_doomed).slow(),
        case(&["import", "of-a-long-name-with-a-problem-in-it.csv"]).before(write_table),
        receipt(&["control", "resume", "--wait", "--target", "test"]),
        case(&["control", "resume"]).exempt("id", "random, for programs that look for the receipt"),
        case(&["cache", "invalidate", "nosuch*"]),
        case(&["cache", "clear"]).before(|daemon| _ = daemon.succeed(&["cache", "clear"])),
        case(&["deadletter", "replay"])
            .whole_in(&[&["deadletter", "show", "0"]])
            .exempt("not_replayable", "said where there are any"),
        case(&["deadletter", "drop", "--channel", "nosuch"]),
        case(&["schema", "apply"]),
        case(&["spool", "verify", "copy/spool"])
            .before(copy_spool)
            .exempt("segments.*.header_valid", "damage is shown"),
        case(&["spool", "export", "copy/spool", "-o", "records.ndjson"]).before(copy_spool).text(),
        case(&["spool", "drain", "copy/spool"])
            .before(copy_spool)
            .slow()
            .exempt("unreadable", "an error, where there are any")
            .exempt("elsewhere", "said where there are any")
            .exempt("dead_letters", "said where there are any")
            .exempt("dead_letters_in", "said where there are any"),
        case(&["backup", "shown.backup", "--overwrite"]).exempt("bytes", "grows with each command that is recorded"),
        case(&["restore", "shown.backup", "--state-dir", "restored"])
            .before(backup_to_restore)
            .slow()
            .exempt("left_in_spool", "said where there are any"),
    ]
}

/// The directory in which commands run.
fn folder(daemon: &Daemon) -> PathBuf {
    daemon.prepared(&[]).get_current_dir().unwrap().to_owned()
}

fn remove_files(daemon: &Daemon) {
    for name in ["letters.ndjson", "records.ndjson"] {
        let _ = fs::remove_file(folder(daemon).join(name));
    }
}

fn tag_to_remove(daemon: &Daemon) {
    daemon.succeed(&["runs", "tag", "short", "to-remove"]);
}

/// A run that is stored and has ended.
fn import_doomed(daemon: &Daemon) {
    fs::write(folder(daemon).join("doomed.csv"), "epoch,loss\n1,0.5\n").unwrap();
    wait_until("the run to delete", LIMIT, || {
        daemon.succeed(&["import", "doomed.csv"]);
        daemon.get("/api/runs/doomed").json()["run"]["status"] == "completed"
    });
}

/// A table of which one row is refused.
fn write_table(daemon: &Daemon) {
    let at = jiff::Timestamp::now().as_second() - 3_600;
    let table = format!("epoch,loss,timestamp\n1,0.5,{at}\n2,0.25\n3,0.125,{}\n", at + 1);
    fs::write(folder(daemon).join("of-a-long-name-with-a-problem-in-it.csv"), table).unwrap();
}

/// A copy of the spool, which no daemon uses.
fn copy_spool(daemon: &Daemon) {
    remove_files(daemon);
    let (from, to) = (daemon.state_dir().join("spool"), folder(daemon).join("copy"));
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(to.join("spool")).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        fs::copy(file.path(), to.join("spool").join(file.file_name())).unwrap();
    }
}

/// A backup, and no directory where it is restored.
fn backup_to_restore(daemon: &Daemon) {
    let _ = fs::remove_dir_all(folder(daemon).join("restored"));
    if !folder(daemon).join("shown.backup").exists() {
        daemon.succeed(&["backup", "shown.backup"]);
    }
}

/// A status that does not change from call to call, of a daemon called `frozen`.
fn freeze_status(redis: &Redis, daemon: &Daemon) {
    let mut status = daemon.get("/api/status").json();
    status["instance"] = "frozen".into();
    redis.client().command(&["SET", "cascor:ingest:frozen", &status.to_string()]);
}

#[test]
fn what_json_has_is_on_the_terminal_or_is_named() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    freeze_status(&redis, &daemon);
    let names = names();
    let mut faults = Vec::new();
    for cases in [reading(&names[0], &names[1]), changing(&names[0])] {
        for width in WIDTHS {
            let cases = cases.iter().filter(|case| !case.is_slow || width == WIDTHS[0]);
            cases.for_each(|case| faults.extend(case.faults(&daemon, width)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_command_has_a_case() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    let pages = daemon.state_dir().join("man");
    daemon.succeed(&["man", pages.to_str().unwrap()]);
    let commands = commands(&pages);
    assert!(commands.len() > 30, "{commands:?}");
    let cases: Vec<_> = reading("a", "b").into_iter().chain(changing("a")).map(|case| case.words).collect();
    for command in &commands {
        let name = |words: &Vec<String>, n: usize| words.iter().take(n).cloned().collect::<Vec<_>>().join("-");
        let has_case = cases.iter().any(|words| (1..=2).any(|n| name(words, n) == *command));
        // `schema` is only the name of several.
        let is_group = commands.iter().any(|other| other.starts_with(&format!("{command}-")));
        let is_exempt = NO_CASE.iter().any(|(exempt, _)| exempt == command);
        assert!(is_exempt != (is_group || has_case), "`{command}` needs a case, or a reason to have none");
    }
    let stale = NO_CASE.iter().find(|(exempt, _)| !commands.contains(*exempt));
    assert_eq!(stale, None, "there is no such command");
}

/// The commands of the program, from its own definition: `runs-rename`, `schema-plan`.
fn commands(pages: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(pages).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    files.filter_map(|file| Some(file.strip_suffix(".1")?.strip_prefix("cascor-ingest-")?.to_owned())).collect()
}
