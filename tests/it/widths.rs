//! What commands show on terminals of several widths, in colour or without, and to a reader that does not wait for the end.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{
    support::{daemon::Daemon, redis::Redis, sqlite, wait_until},
    terminals::{on_terminal_of, output_of},
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
pub const WIDTHS: [u16; 5] = [40, 60, 80, 132, 200];
const NOTES: &str = "the second of three runs, with a smaller rate and more candidates; 学習率を下げた実験。";

/// Names that are long, wide, combined, written from the right, or not there.
pub fn names() -> [String; 5] {
    [
        "spiral-".repeat(30),
        "学習率の比較実験👍🏽❤️その二".repeat(3),
        "e\u{301}tude-Ångström".into(),
        "تجربة".into(),
        "short".into(),
    ]
}

fn long_metric() -> String {
    "gradient_norm_of_the_layer_".repeat(4)
}

/// Columns of the terminal that a line takes at most, whichever way the terminal counts emoji. Colours take none.
pub fn columns(line: &str) -> usize {
    let line = without_colours(line);
    line.width().max(line.chars().map(|c| c.width().unwrap_or(0)).sum())
}

/// No line of it is wider than the terminal.
#[track_caller]
pub fn assert_fits(shown: &str, width: u16, words: &[&str]) {
    for line in shown.lines() {
        assert!(columns(line) <= width.into(), "{words:?} at {width}: {line:?} takes {}", columns(line));
    }
}

/// The text without our own escape sequences: colours, and the movements of progress bars.
pub fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    let after = |part: &str| {
        part.split_once(|c: char| c.is_ascii_alphabetic()).map_or(String::new(), |(_, rest)| rest.to_owned())
    };
    parts.fold(first, |plain, part| plain + &after(part))
}

/// The lines of text as a terminal draws them, progress bars included.
///
/// Panics where the terminal has to break a line that is not filled up with blanks: what is drawn next would be in the wrong place.
#[track_caller]
pub fn drawn(text: &str, width: u16) -> Vec<String> {
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0);
    for character in without_colours(text).chars() {
        let wide = character.width().unwrap_or(0);
        let is_full = taken + wide > width.into();
        if matches!(character, '\r' | '\n') || is_full {
            assert!(!is_full || line.ends_with(' ') || character == ' ', "wider than {width}: {line:?}");
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        if !matches!(character, '\r' | '\n') {
            line.push(character);
            taken += wide;
        }
    }
    lines.push(line);
    lines
}

#[test]
fn a_line_that_a_terminal_breaks_is_noticed() {
    assert_eq!(drawn("ab  cd\r\u{1b}[2Kef\n", 4), ["ab  ", "cd", "ef", ""]);
    assert!(std::panic::catch_unwind(|| drawn("abcde", 4)).is_err());
}

#[test]
fn progress_takes_one_line_of_a_narrow_terminal() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    let folder = daemon.prepared(&[]).get_current_dir().unwrap().to_owned();
    let at = jiff::Timestamp::now().as_second() - 40_000;
    let rows: String = (0..30_000).map(|n| format!("{n},0.{n},{}\n", at + n)).collect();
    std::fs::write(folder.join("long.csv"), format!("epoch,loss,timestamp\n{rows}")).unwrap();
    let seen = |words: &[&str], width: u16| {
        drawn(&output_of(on_terminal_of(&daemon.prepared(words), width, "")), width).join("\n")
    };
    for width in [40, 60, 80] {
        let shown = seen(&["import", "long.csv"], width);
        assert!(
            shown.contains("import ") && shown.contains('█') && shown.contains("accepted 30000"),
            "{width}: {shown}"
        );
        let shown = seen(&["demo", "--rate", "300", "--runs", "3", "--for", "1s"], width);
        assert!(
            shown.contains("run 3 epoch") && shown.contains("loss 0.") && shown.contains("published"),
            "{width}: {shown}"
        );
        wait_until("the rows", LIMIT, || daemon.succeed(&["show", "long"]).contains("metrics: 30000"));
        let shown = seen(&["export", "long", "-o", &format!("long-{width}.csv")], width);
        assert!(shown.contains("30000 rows"), "{width}: {shown}");
        let shown = seen(&["deadletter", "replay"], width);
        assert!(shown.contains("0 dead letters stored"), "{width}: {shown}");
    }
}

/// The text without blanks and line ends: a value that was wrapped is found in it.
pub fn dense(text: &str) -> String {
    without_colours(text).chars().filter(|character| !character.is_whitespace()).collect()
}

/// A daemon with runs of every kind of name and number, dead letters and missing rows.
pub fn filled(redis: &Redis) -> Daemon {
    let daemon = Daemon::on(redis).set("latest.metrics_ttl", "\"1h\"").start_ready();
    let at = jiff::Timestamp::now().as_second() - 3_000;
    let mut client = redis.client();
    let mut send = |message: Value| assert!(client.publish(TRAINING, message.to_string()) >= 1);
    let config = json!({"optimizer": {"name": "quickprop", "learning_rate": 0.012_345_678_9, "μ": 1.75}, "seeds": [1, 2, 3],
        "k".repeat(60): "v".repeat(90)});
    for (n, name) in names().iter().enumerate() {
        let at = at + 100 * n as i64;
        send(json!({"type": "training_start", "run_id": name, "timestamp": at, "notes": NOTES, "config": config,
            "dataset": {"name": "two-spirals-with-noise-".repeat(4), "num_samples": 194}, "tags": ["sweep", "日本"],
            "created_by": "ann"}));
        for (step, (loss, epoch)) in
            [(0.712_345_678, 1), (1e-4, 70_000), (9_999_999.25, 2_147_483_647)].into_iter().enumerate()
        {
            let data = json!({"epoch": epoch, "step": step, "loss": loss, "accuracy": 0.5, "val_loss": -0.000_123_456_789,
                "val_accuracy": 0.987_654_321, "learning_rate": 0.01, "hidden_units": 12, "phase": "candidate training",
                "grad_norm": 123.456_789, "f1,macro": 0.25, "精度": 0.75, long_metric(): 2.5});
            send(
                json!({"type": "metrics", "run_id": name, "timestamp": at + 1 + step as i64, "seq": 3 * step, "data": data}),
            );
        }
    }
    let (names, at) = (names(), at + 90);
    send(json!({"type": "training_end", "run_id": names[0], "timestamp": at, "status": "completed"}));
    send(json!({"type": "training_end", "run_id": names[1], "timestamp": at + 100, "status": "failed"}));
    client.publish(TRAINING, "no JSON at all, and a long text of words which nobody could decode");
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 15);
    wait_until("the ends", LIMIT, || {
        sqlite::count(&daemon.database(), "SELECT count(*) FROM training_runs WHERE status <> 'running'") == 2
    });
    wait_until("the dead letter", LIMIT, || daemon.metric("cascor_deadletter_stored").is_some_and(|kept| kept >= 1.0));
    daemon
}

/// A command, and what it shows at every width: as it is, or as the name of a column for which there is no room.
struct Case {
    words: Vec<String>,
    /// Numbers that stay whole.
    numbers: &'static [&'static str],
    /// Columns that have values; `shown.rs` looks for what is left out of a narrow terminal.
    headers: &'static [&'static str],
}

fn case(words: &[&str], numbers: &'static [&'static str], headers: &'static [&'static str]) -> Case {
    Case { words: words.iter().map(ToString::to_string).collect(), numbers, headers }
}

const RUN_HEADERS: &[&str] =
    &["RUN", "NAME", "STATUS", "STARTED (UTC)", "EPOCH", "LOSS", "BEST VAL ACC", "UNITS", "DATASET"];
const ROW_HEADERS: &[&str] =
    &["TIME (UTC)", "EPOCH", "STEP", "PHASE", "UNITS", "LOSS", "ACC", "VAL LOSS", "VAL ACC", "LR"];
const ROW_NUMBERS: &[&str] = &["0.712346", "0.0001", "9999999", "70000", "2147483647"];

fn cases(run: &str, other: &str) -> Vec<Case> {
    vec![
        case(&["runs"], &["2147483647", "9999999"], RUN_HEADERS),
        case(&["runs", "-n", "2"], &["2147483647"], RUN_HEADERS),
        case(
            &["runs", "--fields", "config.optimizer.learning_rate,final_val_loss"],
            &[],
            &["RUN", "NAME", "final_val_loss"],
        ),
        case(&["show", run], &["123.457"], &["METRIC", "LAST", "BEST", "MIN", "MAX", "MEAN", "COUNT"]),
        case(&["show", other], &["123.457"], ROW_HEADERS),
        case(&["metrics", run], ROW_NUMBERS, ROW_HEADERS),
        case(&["metrics", run, "-n", "2"], &["2147483647"], ROW_HEADERS),
        case(
            &["metrics", run, "--fields", "grad_norm,精度", "--fields", "f1,macro"],
            &["123.457"],
            &["grad_norm", "f1,macro"],
        ),
        case(&["metrics", run, "--points", "5"], &["9999999"], &["FIRST", "LAST"]),
        case(&["compare", run, other], &["9999999"], &["RUN", "NAME", "STATUS", "MIN", "MAX", "LAST"]),
        case(&["tail", run, "--for", "50ms"], ROW_NUMBERS, ROW_HEADERS),
        case(&["tail", run, "--for", "50ms", "--fields", "grad_norm"], &["123.457"], &["grad_norm", "EPOCH"]),
        case(&["gaps", "--run", run], &["1"], &["FIRST", "LAST", "MISSING", "AFTER (UTC)", "BEFORE (UTC)"]),
        case(&["gaps"], &[], &[]),
        case(&["deadletter", "list"], &["66"], &["ID", "RECEIVED (UTC)", "REASON", "CHANNEL", "BYTES", "DETAIL"]),
        case(&["deadletter", "show", "0"], &["66"], &["detail", "received at", "hash"]),
        case(&["spool", "status"], &[], &["SEGMENT", "FIRST", "BYTES"]),
        case(&["cache", "get", "metrics:latest"], &["2147483647"], &[]),
        case(&["schema", "plan"], &[], &[]),
        case(&["schema", "print"], &[], &[]),
        case(&["export", run, "-o", "exported-to-a-file-of-a-long-name.csv"], &["3 rows"], &[]),
        case(&["show", "nosuch"], &[], &[]),
        case(&["metrics", run, "--fields", "nosuch"], &[], &[]),
    ]
}

#[test]
fn nothing_is_wider_than_the_terminal_and_no_number_is_broken() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    let names = names();
    for width in WIDTHS {
        cases(&names[0], &names[1]).iter().for_each(|case| case.check(&daemon, width));
    }
    // Last, because it adds runs.
    for width in WIDTHS {
        case(&["demo", "--rate", "200", "--for", "300ms"], &[], &[]).check(&daemon, width);
    }
}

impl Case {
    #[track_caller]
    fn check(&self, daemon: &Daemon, width: u16) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let shown = output_of(on_terminal_of(&daemon.prepared(&words), width, ""));
        let shown = drawn(&shown, width).join("\n");
        assert_fits(&shown, width, &words);
        for number in self.numbers {
            let named = shown.contains("not shown here") && !ROW_NUMBERS.contains(number);
            assert!(named || is_whole_in(&shown, number), "{words:?} at {width}: {number} in\n{shown}");
        }
        // A name that is longer than a line is wrapped.
        for header in self.headers {
            let is_named = width < 200 && shown.contains("not shown here");
            assert!(is_named || dense(&shown).contains(&dense(header)), "{words:?} at {width}: {header} in\n{shown}");
        }
    }
}

/// Whether a line has the number, between blanks or the ends of the line.
fn is_whole_in(shown: &str, number: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let begins = |at: usize| !shown[..at].ends_with(is_digit);
    shown.match_indices(number).any(|(at, _)| begins(at))
}

#[test]
fn show_has_everything_that_the_json_of_a_run_has() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    for name in names() {
        let answer: Value = serde_json::from_str(&daemon.succeed(&["show", &name, "--json"])).unwrap();
        for width in WIDTHS {
            let shown = dense(&output_of(on_terminal_of(&daemon.prepared(&["show", &name]), width, "")));
            for (field, value) in answer["run"].as_object().unwrap() {
                let leaves = match value.as_str() {
                    Some(text) if field == "config_json" => leaves(&serde_json::from_str(text).unwrap()),
                    _ => leaves(value),
                };
                for leaf in leaves {
                    assert!(shown.contains(&dense(&leaf)), "{field} at {width}: {leaf} in {shown}");
                }
            }
            for metric in ["grad_norm", "f1,macro", "精度", "val_accuracy", "learning_rate"] {
                assert!(shown.contains(metric), "{metric} at {width}: {shown}");
            }
        }
        // A program gets each value on a line, uncut.
        let piped = daemon.succeed(&["show", &name]);
        assert!(piped.contains(&name) && piped.contains(NOTES) && piped.contains(&long_metric()), "{piped}");
    }
}

/// The values in a value, as text; numbers have all their digits.
fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::Object(object) => {
            object.iter().flat_map(|(name, value)| [vec![name.clone()], leaves(value)].concat()).collect()
        }
        Value::String(text) => vec![text.clone()],
        number => vec![number.to_string().trim_end_matches(".0").to_owned()],
    }
}

#[test]
fn a_status_is_coloured_for_people_alone() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    let on_terminal = |words: &[&str], variable: Option<&str>| {
        let mut script = on_terminal_of(&daemon.prepared(words), 100, "");
        script.envs(variable.map(|name| (name, "1")));
        output_of(script)
    };
    let colours = |text: &str| ["\u{1b}[32mcompleted", "\u{1b}[31mfailed"].map(|status| text.contains(status));
    assert_eq!(colours(&on_terminal(&["runs"], None)), [true, true]);
    assert_eq!(colours(&on_terminal(&["runs", "--color", "always"], Some("NO_COLOR"))), [true, true]);
    assert_eq!(colours(&daemon.succeed(&["runs", "--color", "always"])), [true, true]);
    for plain in [
        on_terminal(&["runs"], Some("NO_COLOR")),
        on_terminal(&["runs", "--color", "never"], None),
        on_terminal(&["runs", "--color", "always", "--json"], None),
        daemon.succeed(&["runs"]),
        daemon.succeed(&["runs", "--json", "--color", "always"]),
    ] {
        assert!(!plain.contains('\u{1b}') && plain.contains("completed"), "{plain:?}");
    }
}

#[test]
fn a_field_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    let (names, long) = (names(), long_metric());
    for (words, listed) in [
        (&["metrics", &names[0], "--fields", "grad_norm,nosuch"][..], "'f1,macro', grad_norm"),
        (&["metrics", &names[0], "--field", "nosuch", "--json"], "train_loss"),
        (&["tail", &names[0], "--fields", "nosuch"], &long),
        (&["compare", &names[0], &names[1], "--field", "nosuch"], "val_accuracy"),
        (&["runs", "--fields", "nosuch"], "config.optimizer.name"),
    ] {
        let output = daemon.command(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {error}");
        assert!(error.contains("there is no field `nosuch`") && error.contains(listed), "{words:?}: {error}");
    }
    let shown = daemon.succeed(&["metrics", &names[0], "--fields", "f1,macro"]);
    assert!(shown.contains("f1,macro") && shown.contains("0.25"), "{shown}");
    let shown = daemon.succeed(&["metrics", &names[0], "--fields", "loss,grad_norm"]);
    assert!(shown.contains("train_loss") && shown.contains("123.457"), "{shown}");
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let redis = Redis::start();
    let daemon = filled(&redis);
    let names = names();
    for words in [
        &["runs"][..],
        &["runs", "--json"],
        &["show", &names[0]],
        &["show", &names[0], "--json"],
        &["metrics", &names[0]],
        &["compare", &names[0], &names[1]],
        &["tail", &names[0], "--for", "60s"],
        &["tail", &names[0], "--for", "60s", "--json"],
        &["export", &names[0]],
        &["export", &names[0], "--format", "ndjson"],
        &["gaps", "--run", &names[0]],
        &["deadletter", "list"],
        &["deadletter", "show", "0"],
        &["deadletter", "show", "0", "--raw"],
        &["deadletter", "export"],
        &["spool", "status"],
        &["cache", "get", "metrics:latest"],
        &["schema", "print"],
        &["status"],
        &["check", "--print"],
        &["--help"],
    ] {
        let began = Instant::now();
        let mut command: Command = daemon.prepared(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{words:?}: {} {error}", output.status);
        assert!(began.elapsed() < LIMIT, "{words:?} did not end");
    }
}
