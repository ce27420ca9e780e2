//! The supply chain: third-party code of the dashboard, and base images.

use std::{collections::BTreeMap, fs, path::Path};

use cascor_ingest::tls::{hex, sha256};

use crate::support::repository;

const VENDOR: &str = "src/api/dashboard/vendor";

/// The names and checksums that `SHA256SUMS` records, as `sha256sum -c` reads it.
fn recorded() -> BTreeMap<String, String> {
    let text = fs::read_to_string(repository(VENDOR).join("SHA256SUMS")).unwrap();
    text.lines().map(|line| line.split_once("  ").unwrap()).map(|(sum, name)| (name.into(), sum.into())).collect()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn third_party_code_of_the_dashboard_has_its_recorded_checksum() {
    let mut found = files(&repository(VENDOR));
    let page = String::from_utf8(found.remove("README.md").unwrap()).unwrap();
    found.remove("SHA256SUMS").unwrap();
    let found: BTreeMap<_, _> = found.iter().map(|(name, bytes)| (name.clone(), hex(&sha256(bytes)))).collect();
    assert_eq!(found, recorded(), "every file is recorded, and is as recorded");
    // The page names the source of each file and the version that the file itself names.
    let script = fs::read_to_string(repository(VENDOR).join("uplot.js")).unwrap();
    let version = script.split_once("uPlot (v").and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    assert!(page.contains(&format!("uplot@{version}")), "{version}");
    assert!(found.keys().all(|name| page.contains(&format!("`{name}`"))), "{found:?}");
}

#[test]
fn every_image_has_a_tag_and_the_page_says_how_to_pin_it() {
    let (dockerfile, compose) = ("deploy/docker/Dockerfile", "deploy/compose/compose.yaml");
    let page = fs::read_to_string(repository("deploy/docker/README.md")).unwrap();
    let mut images = Vec::new();
    for (file, mark) in [(dockerfile, "FROM "), (compose, "image: ")] {
        let text = fs::read_to_string(repository(file)).unwrap();
        assert!(
            text.contains("Pinning images"),
            "{file} names the part of deploy/docker/README.md that says how to pin"
        );
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix(mark)).map(str::to_owned);
        images.extend(lines.map(|line| line.split(' ').next().unwrap().to_owned()));
    }
    assert!(images.len() >= 4, "{images:?}");
    for image in images.iter().filter(|image| !image.starts_with("cascor-ingest:")) {
        let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(!tag.is_empty() && tag != "latest" && !name.contains('@'), "{image}");
        assert!(page.contains(image.as_str()), "deploy/docker/README.md does not list {image}");
    }
}
