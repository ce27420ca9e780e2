//! No import cycles between the children of a folder: shared code belongs in a module below them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    modules::{Edge, ModulePath, Modules},
    source,
};

/// An import cycle between children of a folder, and the files that form it.
#[derive(Debug, PartialEq, Eq)]
struct Circle {
    folder: String,
    children: BTreeSet<String>,
    ties: Vec<String>,
}

#[test]
fn no_siblings_import_each_other_in_a_cycle() {
    let circles = circles_of_the_crate();
    assert!(circles.is_empty(), "circles: {circles:#?}");
}

fn circles_of_the_crate() -> Vec<Circle> {
    let sources = source::sources();
    circles(&Modules::new(sources.iter().map(|source| (source.file.as_str(), source.code.as_str()))))
}

fn circles(modules: &Modules) -> Vec<Circle> {
    let mut folders: BTreeMap<ModulePath, Vec<Edge>> = BTreeMap::new();
    for edge in modules.edges() {
        folders.entry(edge.folder.clone()).or_default().push(edge);
    }
    folders.iter().flat_map(|(folder, edges)| circles_of_folder(&folder.join("::"), edges)).collect()
}

fn circles_of_folder(folder: &str, edges: &[Edge]) -> Vec<Circle> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        reached.entry(&edge.from).or_insert_with(|| reachable(&edge.from, edges));
    }
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|found| found.contains(to));
    let mut circles: Vec<Circle> = Vec::new();
    for child in reached.keys().copied().filter(|child| reaches(child, child)) {
        if circles.iter().any(|circle| circle.children.contains(child)) {
            continue;
        }
        let is_inside = |other: &str| reaches(child, other) && reaches(other, child);
        let ties = edges.iter().filter(|edge| is_inside(&edge.from) && is_inside(&edge.to));
        circles.push(Circle {
            folder: folder.to_owned(),
            children: reached.keys().filter(|other| is_inside(other)).map(ToString::to_string).collect(),
            ties: ties.map(|edge| edge.tie.clone()).collect(),
        });
    }
    circles
}

/// Transitive imports of a child.
fn reachable<'a>(from: &str, edges: &'a [Edge]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(child) = open.pop() {
        for edge in edges.iter().filter(|edge| edge.from == child) {
            if found.insert(edge.to.as_str()) {
                open.push(&edge.to);
            }
        }
    }
    found
}

#[test]
fn a_cycle_is_found_in_any_folder() {
    for (name, files, found) in [
        ("two files", &[("a/b.rs", "use super::c::X;"), ("a/c.rs", "fn f() { super::b::g() }")][..], "a: b c"),
        (
            "three files",
            &[("a/b.rs", "use super::c;"), ("a/c.rs", "use crate::a::d;"), ("a/d.rs", "use super::b;")],
            "a: b c d",
        ),
        (
            "a folder and a file",
            &[("a/b/x.rs", "use super::super::c::X;"), ("a/c.rs", "use super::b::y::Y;"), ("a/b/y.rs", "")],
            "a: b c",
        ),
        (
            "behind a test module that stands elsewhere",
            &[("a/b.rs", "#[cfg(test)]\nmod tests;\nuse super::c;"), ("a/c.rs", "use super::b;")],
            "a: b c",
        ),
        (
            "through what the parent hands on",
            &[("a/mod.rs", "mod b; mod c; pub use b::B;"), ("a/b.rs", "use super::c;"), ("a/c.rs", "use super::B;")],
            "a: b c",
        ),
        ("of the crate", &[("b.rs", "use crate::c;"), ("c.rs", "use crate::b;")], ": b c"),
        ("one way", &[("a/b.rs", "use super::c;"), ("a/c.rs", "")], ""),
        ("a child and its parent", &[("a/mod.rs", "mod b; use b::B; pub struct A;"), ("a/b.rs", "use super::A;")], ""),
        (
            "only a test",
            &[("a/b.rs", "use super::c;"), ("a/c.rs", "#[cfg(test)]\nmod tests { use super::super::b; }")],
            "",
        ),
    ] {
        let parents = [("lib.rs", ""), ("a/mod.rs", ""), ("a/b/mod.rs", "")];
        let codes: Vec<_> = files.iter().map(|(file, text)| (*file, source::code_of(text))).collect();
        let files = parents.into_iter().filter(|(parent, _)| *parent != "a/b/mod.rs" || name == "a folder and a file");
        let modules = Modules::new(files.chain(codes.iter().map(|(file, code)| (*file, code.as_str()))));
        let circles = circles(&modules).into_iter();
        let shown = circles
            .map(|circle| format!("{}: {}", circle.folder, circle.children.into_iter().collect::<Vec<_>>().join(" ")));
        assert_eq!(shown.collect::<Vec<_>>().join("; "), found, "{name}");
    }
}
