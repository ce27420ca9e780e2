//! Mutated configuration files, on the unoptimised library with optimised dependencies.

use cascor_ingest::config::{ConfigSources, load};

use crate::{
    harness::{Budget, Tried, each},
    mutation::{mutated, seeds},
    random::Random,
};

/// Inputs of one target in the short tier.
const INPUTS: u64 = 1_000;

pub fn toml(budget: &Budget) -> Tried {
    files(budget, "toml", &["conf", "tests/faults/corpus/config"])
}

pub fn yaml(budget: &Budget) -> Tried {
    files(budget, "yaml", &["tests/faults/corpus/config"])
}

/// Loads, or is refused with a reason; a loaded configuration is the same after printing and loading again.
fn files(budget: &Budget, kind: &str, folders: &[&str]) -> Tried {
    let mut seeds = seeds(folders, &[kind]);
    // Short ones: a mutation in a long file is mostly one in a comment.
    let parts: Vec<Vec<u8>> =
        seeds.iter().flat_map(|seed| seed.split(|byte| *byte == b'[').map(|part| [b"[", part].concat())).collect();
    if kind == "toml" {
        seeds.extend(parts);
    }
    let dir = tempfile::Builder::new()
        .tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })
        .unwrap();
    let loaded = std::sync::atomic::AtomicU64::new(0);
    let count = each(budget, INPUTS * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ number << 3);
        let bytes = mutated(&seeds, number, &mut random);
        if budget.only.is_some() {
            println!("{}", String::from_utf8_lossy(&bytes));
        }
        let path = dir.path().join(format!("{:?}.{kind}", std::thread::current().id()));
        let env = [("HOME".to_owned(), "/home/x".to_owned()), ("PASSWORD".to_owned(), "p".to_owned())];
        let read = |bytes: &[u8], path: &std::path::Path| {
            std::fs::write(path, bytes).unwrap();
            load(&ConfigSources { file: Some(path.to_owned()), env: env.clone().into(), flags: Vec::new() })
        };
        match read(&bytes, &path) {
            Ok(first) => {
                loaded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let text = first.settings.to_toml().unwrap();
                // Secrets are printed masked.
                if !text.contains("(hidden)") {
                    let again = read(text.as_bytes(), &path.with_extension("toml"));
                    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
                    assert_eq!(again.settings, first.settings);
                }
            }
            Err(problems) => assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.is_empty())),
        }
    });
    Tried { count, notes: format!("; loaded {}", loaded.into_inner()) }
}
