//! Dangerous settings that work: a warning at each start and in `check`.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{Case, PASSWORD};
use crate::config::load_to_listen;

fn warnings(case: &Case) -> Vec<String> {
    case.load().unwrap().warnings
}

#[test]
fn a_secret_that_others_may_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, PASSWORD).unwrap();
    let path = file.display().to_string();
    for (mode, warned) in [(0o600, false), (0o440, false), (0o644, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        for case in [
            Case::new().flag("redis.password_file", &path),
            Case::new().flag("redis.tls.key", &path).flag("redis.tls.cert", &path),
            Case::new().env("CASSANDRA_PASSWORD_FILE", &path),
        ] {
            let found = warnings(&case);
            assert_eq!(found.len(), usize::from(warned), "{mode:o}: {found:?}");
            assert!(found.iter().all(|warning| warning.contains(&path) && warning.contains("chmod go=")), "{found:?}");
        }
    }
}

#[test]
fn a_password_in_clear_to_another_machine_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, PASSWORD).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.display().to_string();
    let redis = |url: &str| Case::new().flag("redis.url", url);
    for (case, warned) in [
        (redis("redis://cache.lab:6379/0").env("REDIS_PASSWORD", PASSWORD), true),
        (redis("redis://cache.lab:6379/0").env("REDIS_PASSWORD_FILE", &file), true),
        (redis(&format!("redis://me:{PASSWORD}@10.0.0.7/0")), true),
        (redis(&format!("redis://me:{PASSWORD}@[2001:db8::1]/0")), true),
        (redis(&format!("redis://me:{PASSWORD}@localhost.lab/0")), true),
        (redis(&format!("redis://me:{PASSWORD}@127.0.0.1/0")), false),
        (redis(&format!("redis://me:{PASSWORD}@127.3.4.5/0")), false),
        (redis(&format!("redis://me:{PASSWORD}@localhost/0")), false),
        (redis(&format!("redis://me:{PASSWORD}@[::1]/0")), false),
        (redis(&format!("redis://me:{PASSWORD}@[::ffff:127.0.0.1]/0")), false),
        (redis(&format!("rediss://me:{PASSWORD}@cache.lab/0")), false),
        (redis(&format!("redis://me:{PASSWORD}@cache.lab/0")).flag("redis.tls.enabled", "true"), false),
        (redis(&format!("redis://me:{PASSWORD}@cache.lab/0")).flag("redis.tls.ca", &file), false),
        (redis("redis://cache.lab:6379/0"), false),
    ] {
        let found = warnings(&case);
        assert_eq!(found.len(), usize::from(warned), "{:?}: {found:?}", case.sources);
        let named = |warning: &String| warning.contains("password of Redis") && warning.contains("rediss://");
        assert!(found.iter().all(named) && !format!("{found:?}").contains("hunter2"), "{found:?}");
    }
    let cluster = |hosts: &str| {
        let case = Case::new().flag("store.kind", "cassandra").flag("store.cassandra.contact_points", hosts);
        case.flag("store.cassandra.username", "me").env("CASSANDRA_PASSWORD", PASSWORD)
    };
    for (case, host) in [
        (cluster("127.0.0.1,db2.lab"), Some("`db2.lab`")),
        (cluster("[2001:db8::1]:9042"), Some("`2001:db8::1`")),
        (cluster("127.0.0.1,localhost,[::1]:9042"), None),
        (cluster("db1.lab").env("CASCOR_INGEST__STORE__CASSANDRA__TLS__ENABLED", "yes"), None),
        (cluster("db1.lab").flag("store.cassandra.tls.ca", &file), None),
        // An unused store sends nothing.
        (cluster("db1.lab").flag("store.kind", "sqlite"), None),
    ] {
        let found = warnings(&case);
        assert_eq!(found.len(), usize::from(host.is_some()), "{found:?}");
        let said = |warning: &String| warning.contains(host.unwrap_or("-")) && warning.contains("tls.enabled");
        assert!(found.iter().all(said), "{found:?}");
    }
}

#[test]
fn files_that_other_users_may_write_or_read_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let case = Case::new().flag("state_dir", &state.display().to_string());
    assert_eq!(warnings(&case), Vec::<String>::new(), "there is nothing yet");
    fs::create_dir_all(state.join("spool")).unwrap();
    fs::write(state.join("cascor.db"), "").unwrap();
    for (name, mode, warned) in [
        ("", 0o755, false),
        ("", 0o1777, true),
        ("spool", 0o757, true),
        ("spool", 0o700, false),
        ("cascor.db", 0o644, true),
        ("cascor.db", 0o600, false),
    ] {
        let path = state.join(name);
        for (path, mode) in [(state.join("spool"), 0o700), (state.join("cascor.db"), 0o600), (state.clone(), 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let found = warnings(&case);
        assert_eq!(found.len(), usize::from(warned), "{name} {mode:o}: {found:?}");
        assert!(found.iter().all(|warning| warning.contains("chmod")), "{found:?}");
    }
}

#[test]
fn an_address_beyond_this_machine_without_tokens_is_a_warning_to_what_listens() {
    let open = Case::new().flag("http.listen", "0.0.0.0:8050");
    let found = load_to_listen(&open.sources).unwrap().warnings;
    assert!(found.len() == 1 && found[0].contains("`cascor-ingest token new NAME admin`"), "{found:?}");
    assert!(warnings(&open).is_empty(), "a command that reads serves nobody");
    for listen in ["127.0.0.1:8050", ""] {
        let case = Case::new().flag("http.listen", listen);
        assert_eq!(load_to_listen(&case.sources).unwrap().warnings, [""; 0], "{listen}");
    }
}

#[test]
fn a_memory_segment_that_messages_have_no_part_of_is_a_warning() {
    for (memory, warned) in [("1MiB", true), ("2MiB", false), ("32MiB", false)] {
        let found = warnings(&Case::new().flag("spool.memory", memory));
        assert_eq!(found.len(), usize::from(warned), "{memory}: {found:?}");
        assert!(found.iter().all(|warning| warning.contains("`spool.memory` is below 2MiB")), "{found:?}");
    }
}
