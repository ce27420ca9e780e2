//! Keys by their former names.

use super::*;
use crate::config::renamed::RENAMED;

#[test]
fn the_former_name_of_a_key_works_in_every_source() {
    let file = "[http]\nheader = \"9KiB\"\nbody = \"2MiB\"\npoints = 300\nruns = 3\n\
                [spool]\nlinger = \"7s\"\norphans_in = [\"/a\", \"/b\"]";
    let expected = || {
        let (mut http, mut spool) = (api::Config::default(), spool::Config::default());
        (http.max_header, http.max_body) = (ByteSize::kib(9), ByteSize::mib(2));
        (http.max_points, http.max_runs) = (300, 3);
        (spool.checkpoint_delay, spool.orphan_search_dirs) = (Duration::from_secs(7), vec!["/a".into(), "/b".into()]);
        (http, spool)
    };
    let texts =
        [("header", "9KiB"), ("body", "2MiB"), ("points", "300"), ("runs", "3")].map(|(key, text)| ("http", key, text));
    let texts = || texts.into_iter().chain([("spool", "linger", "7s"), ("spool", "orphans_in", "/a,/b")]);
    let variable = |section: &str, key: &str| format!("{ENV_PREFIX}{section}__{key}").to_ascii_uppercase();
    let in_env = texts().fold(Case::new(), |case, (section, key, text)| case.env(&variable(section, key), text));
    let in_flags = texts().fold(Case::new(), |case, (section, key, text)| case.flag(&format!("{section}.{key}"), text));
    for (name, case) in [("file", Case::new().file("a.toml", file)), ("environment", in_env), ("flags", in_flags)] {
        let Settings { http, mut spool, .. } = case.settings();
        spool.dir = PathBuf::new();
        assert_eq!((http, spool), expected(), "{name}");
    }
    let inline = Case::new().file("a.toml", "spool.orphans_in = \"/a,/b\"").settings();
    assert_eq!(inline.spool.orphan_search_dirs, expected().1.orphan_search_dirs);
}

#[test]
fn both_names_of_a_key_are_a_problem_of_one_source_and_a_later_source_wins() {
    let former = "http.points = 300";
    for (name, case) in [
        ("file", Case::new().file("a.toml", &format!("{former}\nhttp.max_points = 400"))),
        ("flags", Case::new().flag("http.max_points", "400").flag("http.points", "300")),
        (
            "environment",
            Case::new().env("CASCOR_INGEST__HTTP__POINTS", "300").env("CASCOR_INGEST__HTTP__MAX_POINTS", "400"),
        ),
    ] {
        let problems = case.problems();
        let says =
            |problem: &String| problem.starts_with("`http.max_points` and its former name `http.points` are both set");
        assert!(problems.len() == 1 && says(&problems[0]), "{name}: {problems:?}");
    }
    for (key, points) in [("http.max_points", "500"), ("http.points", "500")] {
        let case = Case::new().file("a.toml", former).env("CASCOR_INGEST__HTTP__MAX_POINTS", "400").flag(key, points);
        assert_eq!(case.settings().http.max_points, 500, "{key}");
    }
    let misspelt = Case::new().flag("http.poinst", "300").problems();
    assert!(misspelt[0].contains("did you mean `http.max_points`?"), "{misspelt:?}");
}

#[test]
fn a_file_with_every_former_name_loads_as_before() {
    let mut former_file = SHIPPED.to_owned();
    for (former, present) in RENAMED {
        let line = |key: &str| format!("\n{} = ", key.split_once('.').unwrap().1);
        assert!(former_file.contains(&line(present)), "{present}");
        former_file = former_file.replace(&line(present), &line(former));
    }
    let settings = |text: &str| Case::new().file("a.toml", text).flag("state_dir", "/s").settings();
    assert_eq!(settings(&former_file), settings(SHIPPED));
}

#[test]
fn a_key_that_is_gone_is_taken_in_every_source_and_named() {
    for (name, case) in [
        ("file", Case::new().file("a.toml", "[redis]\nreceive_buffer = 32768")),
        ("environment", Case::new().env("CASCOR_INGEST__REDIS__RECEIVE_BUFFER", "5")),
        ("flags", Case::new().flag("redis.receive_buffer", "5")),
    ] {
        let warnings = case.load().unwrap().warnings;
        let says = |warning: &String| warning.starts_with("`redis.receive_buffer` (") && warning.contains("no effect");
        assert!(warnings.iter().any(says), "{name}: {warnings:?}");
    }
}
