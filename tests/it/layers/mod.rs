//! A module uses only modules below it. The table is the architecture; a new edge is a decision, made here first.

mod circles;
mod modules;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use modules::Modules;
use source::{Source, sources};

/// From leaf to assembly. Within a layer no module uses another, unless [`BESIDE`] says so.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "leaves",
        &[
            "units",
            "access",
            "event",
            "files",
            "frame",
            "gaps",
            "host",
            "backoff",
            "cooperative",
            "section",
            "lifecycle",
            "listeners",
            "metrics",
            "logging",
            "memory",
            "service_manager",
            "secret",
            "terminal",
            "reach",
            "tls",
            "words",
        ],
    ),
    ("formats", &["wire", "render", "curve"]),
    ("parts", &["spool", "source", "redis", "latest", "live", "store", "schema", "dead_letter", "runs", "gap_reader"]),
    ("stages", &["intake", "writer", "control", "api"]),
    ("assembly", &["config", "app", "cli", "demo", "doctor", "main"]),
];

/// Edges inside a layer, each with its reason.
const BESIDE: &[(&str, &str, &str)] = &[
    ("event", "units", "times of rows"),
    ("event", "words", "tables have names"),
    ("frame", "event", "what was decided about a message"),
    ("frame", "gaps", "a gap travels like a message"),
    ("frame", "units", "time of receipt"),
    ("frame", "words", "reasons and outcomes have names"),
    ("gaps", "units", "its bounds"),
    ("gaps", "words", "reasons have names"),
    ("metrics", "gaps", "reasons are labels"),
    ("render", "wire", "a time given as a parameter has the forms of one in a message"),
    ("lifecycle", "logging", "how a task's error is written"),
    ("listeners", "access", "the user of a process by name"),
    ("listeners", "terminal", "the name of a process is escaped"),
    ("logging", "section", "the shipped file sets its keys"),
    ("logging", "terminal", "what comes from outside is escaped in a log line, and on a terminal"),
    ("metrics", "frame", "reasons are labels"),
    ("tls", "logging", "how the problem of a file is written"),
    ("tls", "section", "checks its keys"),
    ("service_manager", "lifecycle", "stops with everything else"),
    ("dead_letter", "spool", "a second log of the same format"),
    ("gap_reader", "store", "reads the recorded gaps, and the `seq` of a run"),
    ("source", "redis", "subscribes through its clients"),
    ("latest", "redis", "sets keys through its clients"),
    ("schema", "store", "applies to a store's tables"),
    ("app", "config", "builds from the settings"),
    ("cli", "app", "`run`, `serve`, and the store that is configured"),
    ("cli", "config", "every command reads the settings"),
    ("cli", "demo", "`demo`"),
    ("cli", "doctor", "`doctor`, and `check --connect`"),
    ("doctor", "config", "examines what the settings name"),
    ("main", "cli", "the exit status of the command"),
];

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

#[test]
fn modules_use_only_modules_below_them() {
    let mut wrong = Vec::new();
    for ((from, to), tie) in edges(&sources()) {
        if let Some(problem) = forbidden(&from, &to) {
            wrong.push(format!("{tie}: `{from}` uses `{to}`: {problem}"));
        }
    }
    assert!(wrong.is_empty(), "edges that the table of layers does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn every_reason_is_for_an_edge_that_exists() {
    let used = edges(&sources());
    let unused: Vec<_> =
        BESIDE.iter().filter(|(from, to, _)| !used.contains_key(&((*from).to_owned(), (*to).to_owned()))).collect();
    assert!(unused.is_empty(), "edges that nothing uses: {unused:?}");
}

#[test]
fn every_module_has_a_layer() {
    let sources = sources();
    let modules: BTreeSet<_> =
        sources.iter().map(|source| source.file.split('/').next().unwrap().trim_end_matches(".rs")).collect();
    let unknown: Vec<_> = modules.into_iter().filter(|module| *module != "lib" && layer(module).is_none()).collect();
    assert!(unknown.is_empty(), "modules without a layer: {unknown:?}");
}

#[test]
fn the_rules_catch_what_they_must() {
    for (text, modules) in [
        ("use crate::units::Micros;", &["units"][..]),
        ("use crate::{\n    event::{Row, Table},\n    units,\n};\n", &["event", "units"]),
        ("fn f() { crate::spool::open() }", &["spool"]),
        ("use cascor_ingest::{cli, logging::Chain};", &["cli", "logging"]),
        ("// use crate::app::run\nuse std::fs;", &[]),
        ("pub(crate) fn f() {}", &[]),
        ("#[cfg(test)]\nmod tests { use crate::cli::x; }", &[]),
        ("#[cfg(test)]\nmod tests;\nuse crate::cli;", &["cli"]),
    ] {
        let code = source::code_of(text);
        let all = LAYERS.iter().flat_map(|(_, modules)| *modules).map(|module| (*module, ""));
        let modules_of_text = Modules::new(all.chain([("lib.rs", ""), ("main.rs", code.as_str())])).edges();
        let used: Vec<_> = modules_of_text.iter().map(|edge| edge.to.as_str()).collect();
        assert_eq!(used, modules, "{text}");
    }
    assert!(forbidden("units", "event").is_some(), "a leaf uses a sibling");
    assert!(forbidden("spool", "writer").is_some(), "a part uses a stage");
    assert!(forbidden("intake", "writer").is_some(), "stages meet only in `app`");
    assert!(forbidden("writer", "store").is_none());
    assert!(forbidden("cli", "app").is_none());
}

/// One module creates files, with closed permissions, and one writes to terminals, escaped.
#[test]
fn files_are_made_and_terminals_written_in_one_place() {
    let places = [
        (
            &["File::create", "create_dir_all", "DirBuilder", "fs::write(", "OpenOptions"][..],
            &["files.rs", "spool/disk.rs"][..],
        ),
        (&["print!(", "println!(", "io::stdout()", "stdout().lock"], &["terminal.rs"]),
    ];
    let mut wrong = Vec::new();
    for Source { file, code, .. } in sources() {
        for (words, places) in places {
            let found = words.iter().filter(|word| !places.contains(&file.as_str()) && code.contains(**word));
            wrong.extend(found.map(|word| format!("{file}: `{word}`; use {}", places[0])));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Long files and functions are printed, and fail no test.
#[test]
fn long_files_and_functions_are_reported() {
    let mut report = Vec::new();
    for Source { file, text, code } in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            report.push(format!("warning: src/{file} has {lines} lines"));
        }
        for (line, name, length) in source::functions(&code) {
            if length > FUNCTION_LINES {
                report.push(format!("warning: src/{file}:{line}: `{name}` has {length} lines"));
            }
        }
    }
    for line in &report {
        println!("{line}");
    }
    if let Ok(path) = std::env::var("CASCOR_TEST_WARNINGS") {
        fs::write(path, report.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

/// Edges between top-level modules, each with the files that make it.
fn edges(sources: &[Source]) -> BTreeMap<(String, String), String> {
    let modules = Modules::new(sources.iter().map(|source| (source.file.as_str(), source.code.as_str())));
    let edges = modules.edges().into_iter().filter(|edge| edge.folder.is_empty());
    edges.map(|edge| ((edge.from, edge.to), edge.tie)).collect()
}

/// Reason why `from` must not use `to`, if any.
fn forbidden(from: &str, to: &str) -> Option<String> {
    let (Some(above), Some(below)) = (layer(from), layer(to)) else {
        return layer(to).is_none().then(|| "it has no layer".into());
    };
    if below < above || BESIDE.iter().any(|(a, b, _)| (*a, *b) == (from, to)) {
        None
    } else if below == above {
        Some(format!("both are {}", LAYERS[above].0))
    } else {
        Some(format!("{} may not use {}", LAYERS[above].0, LAYERS[below].0))
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}
