//! The import graph: every `use` and every path of every file, resolved to modules.

use std::collections::{BTreeMap, BTreeSet};

use super::source::is_word;

/// The names from the crate's root to a module.
pub type ModulePath = Vec<String>;

/// The modules of a crate, each a file.
pub struct Modules(BTreeMap<ModulePath, Module>);

#[derive(Default)]
struct Module {
    file: String,
    /// Every path in it.
    references: Vec<Reference>,
    /// Names that its own `use` items import.
    imports: BTreeMap<String, Reference>,
}

/// A path as it is written, and the module in which it stands: a file's, or one inside it.
#[derive(Clone, Debug)]
struct Reference {
    base: ModulePath,
    path: Vec<String>,
}

/// One child of a folder uses another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The module whose children they are; empty: the crate.
    pub folder: ModulePath,
    pub from: String,
    pub to: String,
    /// The files with these imports.
    pub tie: String,
}

impl Modules {
    /// The modules of these files, each with its path below `src/` and its code.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(files.into_iter().map(|(file, code)| (module_path(file), Module::read(file, code))).collect())
    }

    /// Every import between siblings, in every folder; imports of ancestors and descendants do not count.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.0 {
            let targets: BTreeSet<_> =
                module.references.iter().flat_map(|reference| self.targets(reference, 0)).collect();
            for to in targets {
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(child), Some(sibling)) = (from.get(shared), to.get(shared)) {
                    edges.insert(Edge {
                        folder: from[..shared].to_vec(),
                        from: child.clone(),
                        to: sibling.clone(),
                        tie: format!("{} -> {}", module.file, self.0[&to].file),
                    });
                }
            }
        }
        edges
    }

    /// The module that defines a path's item, and the modules that re-export it on the way.
    fn targets(&self, reference: &Reference, depth: usize) -> Vec<ModulePath> {
        let Reference { base, path } = reference;
        let file = self.file_of(base);
        let (mut at, mut rest) = match path[0].as_str() {
            "crate" | "cascor_ingest" => (Vec::new(), &path[1..]),
            "self" => (base.clone(), &path[1..]),
            "super" => (base.clone(), &path[..]),
            first if self.has_child(&file, first) => (file, &path[..]),
            first => {
                let import = self.0[&file].imports.get(first).filter(|import| import.path[0] != first && depth < 8);
                return import.map_or_else(Vec::new, |import| self.targets(&import.extended(&path[1..]), depth + 1));
            }
        };
        while rest.first().is_some_and(|name| name == "super") {
            at.pop();
            rest = &rest[1..];
        }
        while let Some(child) = rest.first().filter(|name| self.has_child(&at, name)) {
            at.push(child.clone());
            rest = &rest[1..];
        }
        let at = self.file_of(&at);
        let mut found = vec![at.clone()];
        let handed_on = rest.first().and_then(|name| self.0[&at].imports.get(name)).filter(|_| depth < 8);
        if let Some(import) = handed_on {
            found.extend(self.targets(&import.extended(&rest[1..]), depth + 1));
        }
        found
    }

    fn has_child(&self, module: &[String], name: &str) -> bool {
        self.0.contains_key(&[module, &[name.to_owned()]].concat())
    }

    /// The module of the file that holds this one.
    fn file_of(&self, module: &[String]) -> ModulePath {
        let mut lengths = (0..=module.len()).rev();
        let length = lengths.find(|length| self.0.contains_key(&module[..*length]));
        module[..length.expect("the crate has a root")].to_vec()
    }
}

impl Reference {
    fn extended(&self, more: &[String]) -> Self {
        Self { base: self.base.clone(), path: [&self.path, more].concat() }
    }
}

/// `spool/mod.rs` is `spool`, `spool/record.rs` is `spool::record`, and `lib.rs` the crate.
fn module_path(file: &str) -> ModulePath {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

impl Module {
    fn read(file: &str, code: &str) -> Self {
        let tokens = tokens(code);
        let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
        let mut module = Self { file: file.to_owned(), ..Self::default() };
        let (own, mut base) = (module_path(file), module_path(file));
        // Depths of the blocks that are modules inside the file.
        let (mut depth, mut inline) = (0_usize, Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            match token(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        base.pop();
                    }
                }
                "mod" if token(at + 2) == "{" => {
                    inline.push(depth);
                    base.push(token(at + 1).to_owned());
                }
                "use" if token(at + 1) != "<" => {
                    let mut leaves = Vec::new();
                    at += 1;
                    read_use_tree(&tokens, &mut at, &[], &mut leaves);
                    for (name, path) in leaves {
                        let reference = Reference { base: base.clone(), path };
                        if base == own {
                            module.imports.insert(name, reference.clone());
                        }
                        module.references.push(reference);
                    }
                }
                word if is_name(word)
                    && token(at + 1) == "::"
                    && (at == 0 || !["::", "."].contains(&token(at - 1))) =>
                {
                    let mut path = vec![word.to_owned()];
                    while token(at + 1) == "::" && is_name(token(at + 2)) {
                        path.push(token(at + 2).to_owned());
                        at += 2;
                    }
                    module.references.push(Reference { base: base.clone(), path });
                }
                _ => {}
            }
            at += 1;
        }
        module
    }
}

/// The names that a `use` item brings in, each with its whole path.
fn read_use_tree(tokens: &[&str], at: &mut usize, prefix: &[String], leaves: &mut Vec<(String, Vec<String>)>) {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(*at).copied().unwrap_or(";") {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| *token != "}") {
                    read_use_tree(tokens, at, &path, leaves);
                    *at += usize::from(tokens.get(*at) == Some(&","));
                }
                *at += 1;
                return;
            }
            "*" => {
                *at += 1;
                return leaves.push(("*".to_owned(), path));
            }
            "as" => {
                leaves.push((tokens[*at + 1].to_owned(), path));
                *at += 2;
                return;
            }
            "self" if !path.is_empty() => *at += 1,
            word if is_name(word) => {
                path.push(word.to_owned());
                *at += 1;
            }
            "::" => *at += 1,
            _ => return leaves.extend(path.last().cloned().map(|name| (name, path))),
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(is_word)
}

/// Tokens: words, `::`, and single characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = match c {
            _ if rest.starts_with("::") => 2,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn every_form_of_a_path_leads_to_its_module() {
    let edge = |use_: &str| {
        let files = [
            ("lib.rs", ""),
            ("app.rs", ""),
            ("cli/mod.rs", "pub use self::b::Item; use a::A as Renamed; use crate::app; pub struct Own;"),
            ("cli/a.rs", ""),
            ("cli/b.rs", ""),
            ("cli/c.rs", use_),
            ("cli/d/mod.rs", ""),
            ("cli/d/deep.rs", ""),
        ];
        let edges = Modules::new(files).edges().into_iter().filter(|edge| edge.from == "c" || edge.folder.is_empty());
        edges.map(|edge| edge.to).collect::<Vec<_>>().join(" ")
    };
    for (text, to) in [
        ("use super::a;", "app a"),
        ("use super::{a, b::{self, X}, d::deep::Y as Z};", "app a b d"),
        ("use crate::cli::a::*;", "app a"),
        ("fn f() { super::d::deep::g::<super::b::T>() }", "app b d"),
        ("use super::Own;", "app"),
        ("use super::Item;", "app b"),
        ("use super::Renamed;", "app a"),
        ("fn f() { super::Item::new() }", "app b"),
        ("use crate::cli; fn f() { cli::b::g() }", "app b"),
        ("mod inner { use super::super::a; use super::T; } use super::b;", "app a b"),
        ("use std::fmt; fn f() { fmt::b::g(); a::b(); x.super_::b() }", "app"),
        ("fn f() -> impl Fn() + use<'_> { super::a::g }", "app a"),
    ] {
        assert_eq!(edge(text), to, "{text}");
    }
}
