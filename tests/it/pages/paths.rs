//! The pages of documentation name files and tests that exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::page::{prose, quoted, read};
use crate::support::repository;

/// The pages that are checked.
const PAGES: [&str; 22] = [
    "README.md",
    "schema/README.md",
    "src/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    "tests/faults/README.md",
    "tests/fixtures/README.md",
    "deploy/README.md",
    "deploy/access.md",
    "deploy/limits.md",
    "deploy/streams.md",
    "deploy/docker/README.md",
    "deploy/systemd/README.md",
    "deploy/backup.md",
    "deploy/upgrades.md",
    "deploy/commands.md",
    "deploy/doctor.md",
    "deploy/http.md",
    "deploy/monitoring/README.md",
    "deploy/monitoring/runbook.md",
    "deploy/python/README.md",
    "deploy/redis/README.md",
];
const TOP: [&str; 6] = ["src/", "tests/", "schema/", "deploy/", "conf/", ".ci/"];

fn exists(path: &str) -> bool {
    match path.split_once('*') {
        None => repository(path).exists(),
        // A pattern: a file in the folder matches.
        Some((head, tail)) => {
            let path = repository(head);
            let folder = if head.ends_with('/') { path.as_path() } else { path.parent().unwrap() };
            let mut names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
            names.any(|name| name.to_string_lossy().ends_with(tail))
        }
    }
}

#[test]
fn every_path_on_a_page_exists() {
    let mut wrong = Vec::new();
    for page in PAGES {
        // Commands in fences name paths, too.
        for word in read(page).split(|c: char| c.is_whitespace() || "`()[]|,;\"<>".contains(c)) {
            let path = word.split('#').next().unwrap().trim_start_matches("./").trim_end_matches([':', '.']);
            if TOP.iter().any(|top| path.starts_with(top)) && !exists(path) {
                wrong.push(format!("{page}: `{path}`"));
            }
        }
        let folder = repository(page).parent().unwrap().to_owned();
        let text = prose(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { repository(page) } else { folder.join(path) };
            if !target.exists() || (!anchor.is_empty() && !anchors(&target).contains(&anchor.to_owned())) {
                wrong.push(format!("{page}: link `{link}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Anchors of the headings of a page.
fn anchors(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// The names of all tests, as `cargo test` shows them: module by module.
fn tests() -> Vec<String> {
    let mut folders: Vec<PathBuf> =
        ["src", "tests/it", "tests/faults/process", "tests/faults/hostile"].map(repository).into();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(tests_of(&path));
            }
        }
    }
    found
}

fn tests_of(file: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let root = repository("");
    let path = file.strip_prefix(&root).unwrap().with_extension("");
    let mut module: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let from = if module[0] == "src" {
        1
    } else if module[1] == "it" {
        2
    } else {
        3
    };
    module.drain(..from);
    module.retain(|part| part != "mod" && part != "main");
    let (mut names, mut is_test, mut inner) = (Vec::new(), false, false);
    for line in text.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        inner |= line == "mod tests {";
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let inner = if inner { "::tests" } else { "" };
            names.push(format!("{}{inner}::{name}", module.join("::")));
            is_test = false;
        }
    }
    names
}

#[test]
fn every_test_on_a_page_exists() {
    let tests = tests();
    assert!(tests.len() > 300, "only {} tests", tests.len());
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = read(page);
        let spans = quoted(&text).into_iter().chain(text.lines());
        for span in spans {
            // `tests/run rust -- FILTER`, `cargo test --test it FILTER`, `module::the_name_of_a_test`.
            let words: Vec<_> = span.split_whitespace().collect();
            let named = match words.as_slice() {
                [run, "rust", "--", filters @ ..] if run.ends_with("tests/run") => filters,
                ["cargo", "test", "--test", "it", filters @ ..] | ["cargo", "test", "--lib", filters @ ..] => filters,
                [one] if is_test_name(one) => std::slice::from_ref(one),
                _ => continue,
            };
            let filters = named.iter().take_while(|word| !word.starts_with(['#', '-', '[']));
            for filter in filters.filter(|word| word.chars().any(char::is_lowercase)) {
                if !tests.iter().any(|test| test.contains(filter)) {
                    wrong.push(format!("{page}: `{filter}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Two or more names in lower case, the last of several words.
fn is_test_name(word: &str) -> bool {
    let parts: Vec<_> = word.split("::").collect();
    let lower = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    };
    parts.len() > 1 && parts.iter().all(|part| lower(part)) && parts.last().unwrap().matches('_').count() > 1
}
