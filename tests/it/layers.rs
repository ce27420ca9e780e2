//! A module uses only modules below it. The table is the architecture; a new edge is a decision, made here first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From leaf to assembly. Within a layer no module uses another, unless [`BESIDE`] says so.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "leaves",
        &[
            "units",
            "event",
            "files",
            "frame",
            "gaps",
            "host",
            "backoff",
            "cooperative",
            "lifecycle",
            "metrics",
            "logging",
            "memory",
            "notify",
            "secret",
            "terminal",
            "tls",
        ],
    ),
    ("formats", &["wire", "render", "curve"]),
    ("parts", &["spool", "source", "redis", "latest", "live", "store", "schema", "dead_letter", "runs", "gap_reader"]),
    ("stages", &["intake", "writer", "control", "api"]),
    ("assembly", &["config", "app", "cli", "demo", "main"]),
];

/// Edges inside a layer, each with its reason.
const BESIDE: &[(&str, &str, &str)] = &[
    ("event", "units", "times of rows"),
    ("frame", "event", "what was decided about a message"),
    ("frame", "gaps", "a gap travels like a message"),
    ("frame", "units", "time of receipt"),
    ("gaps", "units", "its bounds"),
    ("render", "wire", "a time given as a parameter has the forms of one in a message"),
    ("lifecycle", "logging", "how a task's error is written"),
    ("logging", "terminal", "what comes from outside is escaped in a log line, and on a terminal"),
    ("metrics", "frame", "reasons are labels"),
    ("metrics", "gaps", "reasons are labels"),
    ("notify", "lifecycle", "stops with everything else"),
    ("dead_letter", "spool", "a second log of the same format"),
    ("gap_reader", "store", "reads the recorded gaps, and the `seq` of a run"),
    ("source", "redis", "subscribes through its clients"),
    ("latest", "redis", "sets keys through its clients"),
    ("schema", "store", "applies to a store's tables"),
    ("app", "config", "builds from the settings"),
    ("cli", "app", "`run`, `serve`, and the store that is configured"),
    ("cli", "config", "every command reads the settings"),
    ("cli", "demo", "`demo`"),
    ("main", "cli", "the exit status of the command"),
];

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

#[test]
fn modules_use_only_modules_below_them() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let from = module_of(&file);
        for to in used_modules(&text) {
            if to != from
                && let Some(problem) = forbidden(&from, &to)
            {
                wrong.push(format!("{}: `{from}` uses `{to}`: {problem}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the table of layers does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn every_reason_is_for_an_edge_that_exists() {
    let used: BTreeSet<_> = sources()
        .iter()
        .flat_map(|(file, text)| used_modules(text).into_iter().map(move |to| (module_of(file), to)))
        .collect();
    let unused: Vec<_> =
        BESIDE.iter().filter(|(from, to, _)| !used.contains(&((*from).to_owned(), (*to).to_owned()))).collect();
    assert!(unused.is_empty(), "edges that nothing uses: {unused:?}");
}

#[test]
fn every_module_has_a_layer() {
    let known: BTreeSet<_> = LAYERS.iter().flat_map(|(_, modules)| *modules).copied().collect();
    let unknown: BTreeSet<_> = sources()
        .iter()
        .map(|(file, _)| module_of(file))
        .filter(|module| module != "lib" && !known.contains(module.as_str()))
        .collect();
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
    ] {
        let expected: BTreeSet<_> = modules.iter().map(ToString::to_string).collect();
        assert_eq!(used_modules(text), expected, "{text}");
    }
    assert!(forbidden("units", "event").is_some(), "a leaf uses a sibling");
    assert!(forbidden("spool", "writer").is_some(), "a part uses a stage");
    assert!(forbidden("intake", "writer").is_some(), "stages meet only in `app`");
    assert!(forbidden("writer", "store").is_none());
    assert!(forbidden("cli", "app").is_none());
}

/// What is made is closed to others, and what is printed is escaped on a terminal, because there is one place that does it.
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
    for (file, text) in sources() {
        let code = without_comments(without_tests(&text));
        for (words, places) in places {
            let own = places.iter().any(|place| file.ends_with(Path::new("src").join(place)));
            let found = words.iter().filter(|word| !own && code.contains(**word));
            wrong.extend(found.map(|word| format!("{}: `{word}`; use {}", file.display(), places[0])));
        }
    }
    wrong.retain(|line| !line.contains("/tests.rs"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Long files and functions are seams to look for, not faults: they are printed, and fail nothing.
#[test]
fn long_files_and_functions_are_reported() {
    let mut report = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            report.push(format!("warning: {} has {lines} lines", file.display()));
        }
        for (line, name, length) in functions(&text) {
            if length > FUNCTION_LINES {
                report.push(format!("warning: {}:{line}: `{name}` has {length} lines", file.display()));
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

/// Why `from` may not use `to`, if it may not.
fn forbidden(from: &str, to: &str) -> Option<String> {
    if from == "lib" {
        return None;
    }
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

/// Top-level modules of this crate that the text names, outside comments and inline test modules.
fn used_modules(text: &str) -> BTreeSet<String> {
    let text = without_comments(without_tests(text));
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let part_of_a_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if !part_of_a_word {
            found.extend(named(&text[at + "crate::".len()..]));
        }
    }
    // The binary names the library by its own name; so do the targets of the log.
    for (at, path) in text.match_indices("cascor_ingest::") {
        found.extend(named(&text[at + path.len()..]).into_iter().filter(|name| layer(name).is_some()));
    }
    found
}

/// The modules that follow `crate::`: one, or a group of them.
fn named(path: &str) -> Vec<String> {
    match path.strip_prefix('{') {
        Some(group) => heads(group),
        None => word(path).into_iter().collect(),
    }
}

/// The first word of each entry of a `use` group whose opening brace has been read.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut at_start, mut found) = (0_u32, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                found.extend(word(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    // A capital is an item of the crate root, not a module.
    text[..end].starts_with(|c: char| c.is_lowercase()).then(|| text[..end].to_owned())
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Test modules stand last in a file and may use anything.
fn without_tests(text: &str) -> &str {
    let mut starts = text.match_indices("#[cfg(test)]\n").map(|(start, _)| start);
    let is_module = |start: &usize| {
        let item = text[*start..].lines().nth(1).unwrap_or_default();
        item.starts_with("mod ") || (item.starts_with("pub") && item.contains(" mod "))
    };
    starts.find(is_module).map_or(text, |start| &text[..start])
}

/// Line, name and length of each function that rustfmt has laid out over several lines.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let mut open: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, line) in without_tests(text).lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        let starts =
            code.starts_with("fn ") || (code.contains(" fn ") && !code.starts_with("//") && code.contains('('));
        if starts && !code.ends_with(';') && !code.ends_with('}') {
            let name = code.split_once("fn ").and_then(|(_, rest)| word(rest)).unwrap_or_default();
            open.insert(indent, (number, name));
        } else if code == "}"
            && let Some((start, name)) = open.remove(&indent)
        {
            found.push((start + 1, name, number - start + 1));
        }
    }
    found
}

/// `src/spool/record.rs` belongs to `spool`, `src/units.rs` to `units`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every source file that is not a test.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files.sort();
    assert!(files.len() > 10, "found only {} source files", files.len());
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
