mod bounds;
mod dangers;
mod deployments;
mod renamed;

use figment::value::Value;

use super::*;
use crate::{
    secret::Secret,
    store::{StoreKind, cassandra::Config as Cassandra},
    units::ByteSize,
};

const SHIPPED: &str = include_str!("../../../conf/cascor-ingest.toml");
const PASSWORD: &str = "0123hunter2/@#";

/// A directory, and the sources of a test.
struct Case {
    dir: tempfile::TempDir,
    sources: ConfigSources,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = [("HOME".to_owned(), "/home/x".to_owned())].into();
        Self { dir, sources: ConfigSources { env, ..ConfigSources::default() } }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.insert(name.into(), value.into());
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.sources.flags.push((key.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.sources)
    }

    fn settings(&self) -> Settings {
        self.load().unwrap().settings
    }

    /// The problems that prevent the start of a daemon.
    fn problems(&self) -> Vec<String> {
        load_to_listen(&self.sources).expect_err("there are problems").0
    }
}

/// The password that a connection logs in with.
fn password(text: Option<Secret>, file: Option<PathBuf>) -> String {
    let secret = Secret::of("key", file.as_deref(), text.as_ref()).unwrap();
    secret.expect("there is a password").expose().to_owned()
}

#[test]
fn shipped_file_is_the_defaults_and_names_every_key() {
    let settings = Settings::default();
    let Cassandra { contact_points, port, keyspace, request_timeout, .. } = &settings.store.cassandra;
    assert_eq!(settings.redis.url, "redis://127.0.0.1:6379/0");
    assert_eq!(settings.redis.key_prefix, "cascor:");
    assert_eq!(settings.redis.training_channels, ["cascor:training"]);
    assert_eq!(settings.redis.control_channels, ["cascor:control"]);
    assert_eq!(settings.spool.capacity, ByteSize::gib(10));
    assert_eq!(settings.spool.checkpoint_delay, Duration::from_secs(15));
    assert_eq!((settings.writer.batch_rows, settings.writer.batch_bytes), (100, ByteSize::kib(64)));
    assert_eq!(settings.writer.flush_interval, Duration::from_millis(250));
    assert_eq!((settings.store.kind, settings.http.listen.as_str()), (StoreKind::Sqlite, "127.0.0.1:8050"));
    assert_eq!((contact_points.as_slice(), *port, keyspace.as_str()), (&["127.0.0.1".to_owned()][..], 9042, "cascor"));
    assert_eq!((*request_timeout, &settings.store.cassandra.consistency_write), (Duration::from_secs(12), &None));

    let Value::Dict(_, shape) = Value::serialize(Settings::default()).unwrap() else { panic!() };
    let mut keys = Vec::new();
    layers::leaf_keys("", &shape, &mut keys);
    let mut section = String::new();
    let mut named = Vec::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        }
        // A key that is absent by default stands in a comment.
        let line = line.strip_suffix(" = \"\"").and_then(|line| line.strip_prefix("# ")).unwrap_or(line);
        let key = line.split(" = ").next().unwrap_or_default();
        if key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !key.is_empty() {
            named.push(format!("{section}{key}"));
        }
    }
    keys.sort();
    named.sort();
    assert_eq!(named, keys);
}

#[test]
fn a_later_source_wins() {
    let old = ("CASCOR_CASSANDRA_BATCH_SIZE", "3");
    let new = ("CASCOR_INGEST__WRITER__BATCH_ROWS", "4");
    let file = "[writer]\nbatch_rows = 2";
    for (name, case, rows) in [
        ("defaults", Case::new(), 100),
        ("file", Case::new().file("a.toml", file), 2),
        ("old name over file", Case::new().file("a.toml", file).env(old.0, old.1), 3),
        ("new name over old", Case::new().file("a.toml", file).env(old.0, old.1).env(new.0, new.1), 4),
        ("flag over all", Case::new().env(new.0, new.1).flag("writer.batch_rows", "5"), 5),
    ] {
        assert_eq!(case.settings().writer.batch_rows, rows, "{name}");
    }
}

#[test]
fn the_key_decides_the_type_of_a_value() {
    let settings = Case::new()
        .env("CASCOR_INGEST__INSTANCE", "0123")
        .env("CASCOR_INGEST__REDIS__USERNAME", "true")
        .env("CASCOR_INGEST__REDIS__TRAINING_CHANNELS", "a, b ,c")
        .env("CASCOR_INGEST__SPOOL__CAPACITY", "1073741824")
        .env("CASCOR_INGEST__SPOOL__SYNC_INTERVAL", "7ms")
        .env("CASCOR_INGEST__LATEST__ENABLED", "0")
        .env("CASCOR_INGEST__STORE__CASSANDRA__CONTACT_POINTS", "10")
        .env("CASCOR_INGEST__REDIS__PASSWORD", "0042")
        .settings();
    assert_eq!((settings.instance.as_str(), settings.redis.username.as_deref()), ("0123", Some("true")));
    assert_eq!(settings.redis.training_channels, ["a", "b", "c"]);
    assert_eq!((settings.spool.capacity, settings.spool.sync_interval.as_millis()), (ByteSize::gib(1), 7));
    assert!(!settings.latest.enabled);
    assert_eq!(settings.store.cassandra.contact_points, ["10"]);
    assert_eq!(settings.redis.password.unwrap().expose(), "0042");
}

#[test]
fn every_variable_of_existing_deployments_works() {
    let settings = Case::new()
        .env("CASCOR_CACHE_ENABLED", "1")
        .env("CASCOR_CACHE_TYPE", "redis")
        .env("CASCOR_CACHE_REDIS_URL", "redis://cache:6380/2")
        .env("CASCOR_CACHE_TTL_SECONDS", "300")
        .env("CASCOR_CACHE_MAX_MEMORY_MB", "100")
        .env("REDIS_PASSWORD", "12345")
        .env("CASCOR_CASSANDRA_ENABLED", "true")
        .env("CASCOR_CASSANDRA_CONTACT_POINTS", "c1,c2")
        .env("CASCOR_CASSANDRA_PORT", "9142")
        .env("CASCOR_CASSANDRA_KEYSPACE", "other")
        .env("CASCOR_CASSANDRA_BATCH_SIZE", "50")
        .env("CASCOR_CASSANDRA_FLUSH_INTERVAL", "0.5")
        .env("CASSANDRA_USERNAME", "u")
        .env("CASSANDRA_PASSWORD", "p")
        .settings();
    assert_eq!(settings.redis.url, "redis://cache:6380/2");
    assert_eq!(settings.redis.password, Some(Secret::new("12345")));
    assert!(settings.latest.enabled);
    assert_eq!(settings.store.kind, StoreKind::Cassandra);
    let cluster = &settings.store.cassandra;
    assert_eq!(cluster.contact_points, ["c1", "c2"]);
    assert_eq!((cluster.port, cluster.keyspace.as_str()), (9142, "other"));
    assert_eq!((cluster.username.as_deref(), cluster.password.clone()), (Some("u"), Some(Secret::new("p"))));
    assert_eq!((settings.writer.batch_rows, settings.writer.flush_interval.as_millis()), (50, 500));

    for (name, value) in [("CASCOR_CACHE_ENABLED", "0"), ("CASCOR_CACHE_TYPE", "memory")] {
        assert!(!Case::new().env(name, value).settings().latest.enabled, "{name}");
    }
    let file = Case::new().file("a.toml", "[store]\nkind = \"cassandra\"").env("CASCOR_CASSANDRA_ENABLED", "0");
    assert_eq!(file.settings().store.kind, StoreKind::Sqlite);
    // Compose files set an unknown variable to an empty text.
    assert_eq!(Case::new().env("REDIS_PASSWORD", "").env("CASCOR_CASSANDRA_PORT", "").settings().redis.password, None);
}

const YAML: &str = r#"
application: {name: cascor, debug: true}
backend:
  training: {enabled: true}
  cache:
    enabled: true
    type: redis
    redis_url: "redis://${REDIS_HOST:-cache.example}:6379/1"
    ttl_seconds: 60
    max_memory_mb: 100
    ssl: true
    password: "${REDIS_SECRET}"
    connection_pool: {max_connections: 50, timeout: 5}
  cassandra:
    enabled: true
    contact_points: ["c1", "${SECOND}"]
    port: "${PORT:-9043}"
    keyspace: juniper
    auth_provider: {enabled: true, username: cassandra, password: "${CASS_SECRET}"}
    pool_size: 4
    connect_timeout: 7
    request_timeout: 20
    batch_size: 25
    flush_interval: 1.5
    consistency: {write: LOCAL_QUORUM, read: ONE}
    replication_factor: 3
"#;

#[test]
fn the_yaml_of_a_deployment_works() {
    let case = Case::new()
        .file("conf.yaml", YAML)
        .env("REDIS_SECRET", PASSWORD)
        .env("SECOND", "c2")
        .env("CASS_SECRET", "a: b\n\"c\"");
    let Loaded { settings, warnings } = case.load().unwrap();
    assert_eq!(settings.redis.url, "rediss://cache.example:6379/1");
    assert_eq!(settings.redis.password.as_ref().unwrap().expose(), PASSWORD);
    assert_eq!(settings.store.kind, StoreKind::Cassandra);
    let cluster = &settings.store.cassandra;
    assert_eq!(cluster.contact_points, ["c1", "c2"]);
    assert_eq!((cluster.port, cluster.pool_size, cluster.keyspace.as_str()), (9043, 4, "juniper"));
    assert_eq!(cluster.password.as_ref().unwrap().expose(), "a: b\n\"c\"");
    assert_eq!((cluster.connect_timeout.as_secs(), cluster.request_timeout.as_secs()), (7, 20));
    assert_eq!(cluster.consistency_write.as_deref(), Some("LOCAL_QUORUM"));
    assert_eq!(cluster.consistency_read.as_deref(), Some("ONE"));
    assert_eq!((settings.writer.batch_rows, settings.writer.flush_interval.as_millis()), (25, 1_500));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].contains("password of Cassandra"), "{warnings:?}");
    for ignored in ["application", "backend.training", "backend.cassandra.replication_factor"] {
        assert!(warnings[0].contains(ignored), "{warnings:?}");
    }
    let over = case.env("CASCOR_CASSANDRA_PORT", "9044").settings();
    assert_eq!(over.store.cassandra.port, 9044, "the environment wins over the file");
}

#[test]
fn every_problem_is_reported_at_once_by_key() {
    let problems = Case::new()
        .file(
            "a.toml",
            "[spool]\ncapacty = \"1GiB\"\nsegment = \"5 parsecs\"\n[writer]\nbatch_rows = 0\n[redis]\nlisten = \"x\"\n\
             [redis.tsl]\nca = \"x\"\n[spol]\ndir = \"x\"",
        )
        .env("CASCOR_INGEST__HTTP__LISTEN", "nowhere")
        .env("CASCOR_INGEST__STORE__CASSANDRA__PORT", "70000")
        .env("CASCOR_INGEST__NOSUCH", "1")
        .env("CASCOR_CASSANDRA_ENABLED", "perhaps")
        .env("CASCOR_CACHE_TYPE", "disk")
        .flag("control.obey", "some")
        .flag("redis", "x")
        .flag("intake.time_zone", "Mars/Olympus")
        .problems();
    for (key, words) in [
        ("redis.tsl", "did you mean `redis.tls`?"),
        ("spol", "did you mean `spool`?"),
        ("spool.capacty", "did you mean `spool.capacity`?"),
        ("spool.segment", "5 parsecs"),
        ("writer.batch_rows", "at least 1"),
        ("redis.listen", "did you mean `http.listen`?"),
        ("http.listen", "address"),
        ("store.cassandra.port", "CASCOR_INGEST__STORE__CASSANDRA__PORT"),
        ("nosuch", "not a key"),
        ("store.kind", "CASCOR_CASSANDRA_ENABLED"),
        ("latest.enabled", "CASCOR_CACHE_TYPE"),
        ("control.obey", "command line"),
        ("redis", "section"),
        ("intake.time_zone", "time zone"),
    ] {
        let named = |problem: &&String| problem.starts_with(&format!("`{key}`")) && problem.contains(words);
        assert_eq!(problems.iter().filter(named).count(), 1, "{key}: {problems:#?}");
    }
    assert_eq!(problems.len(), 14, "{problems:#?}");
    assert!(!problems.iter().any(|problem| problem.contains("``")), "{problems:#?}");
}

#[test]
fn secrets_come_from_files_credentials_and_urls() {
    let case = Case::new();
    let dir = case.dir.path().to_owned();
    for (name, text) in [("p1", "from file\n"), ("redis-password", "from credential"), ("empty", "\n")] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let (p1, dir) = (dir.join("p1").display().to_string(), dir.display().to_string());
    let keys = "[redis]\npassword = \"from toml\"";
    let url = "redis://me:from%20url@h:1/0";
    for (name, case, expected) in [
        ("key", Case::new().file("a.toml", keys), "from toml"),
        (
            "credential over file",
            Case::new().file("a.toml", keys).env("CREDENTIALS_DIRECTORY", &dir),
            "from credential",
        ),
        ("file variable", Case::new().file("a.toml", keys).env("REDIS_PASSWORD_FILE", &p1), "from file"),
        ("file key", Case::new().flag("redis.password_file", &p1), "from file"),
        (
            "new variable",
            Case::new().env("REDIS_PASSWORD", "old").env("CASCOR_INGEST__REDIS__PASSWORD_FILE", &p1),
            "from file",
        ),
        ("url", Case::new().env("CASCOR_CACHE_REDIS_URL", url), "from url"),
        ("url over file", Case::new().file("a.toml", keys).flag("redis.url", url), "from url"),
        (
            "explicit over url",
            Case::new().env("CASCOR_CACHE_REDIS_URL", url).env("REDIS_PASSWORD", "explicit"),
            "explicit",
        ),
    ] {
        let redis = case.settings().redis;
        assert_eq!(password(redis.password, redis.password_file), expected, "{name}");
        assert!(!redis.url.contains('@'), "{name}: {}", redis.url);
    }
    for (case, words) in [
        (
            Case::new().env("REDIS_PASSWORD_FILE", "/nowhere"),
            "`redis.password_file`: `/nowhere` cannot be read: No such",
        ),
        (Case::new().env("REDIS_PASSWORD_FILE", &format!("{dir}/empty")), "empty` is empty"),
        (Case::new().env("REDIS_PASSWORD_FILE", &p1).env("REDIS_PASSWORD", "x"), "both set"),
        (Case::new().flag("redis.password", PASSWORD), "must not be a flag"),
    ] {
        let problems = case.problems();
        assert!(problems.len() == 1 && problems[0].contains(words), "{words}: {problems:?}");
    }
}

#[test]
fn files_of_secrets_are_read_only_for_a_daemon_that_uses_them() {
    let nowhere = || {
        let case = Case::new().flag("redis.password_file", "/nowhere/redis").flag("redis.tls.ca", "/nowhere/ca");
        let case = case.flag("store.cassandra.username", "u").flag("store.cassandra.tls.ca", "/nowhere/ca");
        case.flag("store.cassandra.password_file", "/nowhere/cassandra").flag("http.tokens_file", "/nowhere/tokens")
    };
    let keys = |kind: &str| {
        let case = nowhere().flag("store.kind", kind);
        case.settings();
        let problems = case.problems();
        let key = |problem: &String| problem.split('`').nth(1).unwrap_or_default().to_owned();
        problems.iter().map(key).collect::<Vec<_>>()
    };
    let (redis, http) = (["redis.password_file", "redis.tls.ca"], ["http.tokens_file"]);
    assert_eq!(keys("sqlite"), [&redis[..], &http].concat());
    let cassandra = ["store.cassandra.password_file", "store.cassandra.tls.ca"];
    assert_eq!(keys("cassandra"), [&redis[..], &cassandra, &http].concat());
}

#[test]
fn secrets_are_never_shown() {
    let url = format!("redis://u:{PASSWORD}@h:1/0");
    let fine = Case::new().file(
        "a.toml",
        &format!("[redis]\nurl = \"{url}\"\n[store.cassandra]\nusername = \"u\"\npassword = \"{PASSWORD}\""),
    );
    let loaded = fine.load().unwrap();
    assert_eq!(loaded.settings.redis.password.as_ref().unwrap().expose(), PASSWORD);
    for shown in
        [loaded.settings.to_toml().unwrap(), serde_json::to_string(&loaded.settings).unwrap(), format!("{loaded:?}")]
    {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("(hidden)"), "{shown}");
    }
    for broken in [
        Case::new().file("a.toml", &format!("[redis]\npassword = {PASSWORD}\n")),
        Case::new().file("a.toml", &format!("[redis]\npassword = [\"{PASSWORD}\"]\n")),
        Case::new().file("a.toml", &format!("redis = \"{url}\"\n")),
        Case::new().file("a.toml", &format!("[redis]\npasswort = \"{PASSWORD}\"\nurl = [\"{url}\"]\n")),
        Case::new().file("a.yaml", &format!("backend:\n  cache:\n   password: '{PASSWORD}\n")),
        Case::new().env("CASCOR_INGEST__REDIS__URL", &format!("http://u:{PASSWORD}@h?password={PASSWORD}")),
        Case::new().env("CASCOR_INGEST__REDIS__URL", &format!("redis://h?password={PASSWORD}")),
        Case::new().env("CASCOR_INGEST__REDIS__PASWORD", PASSWORD),
        Case::new().env("CASCOR_INGEST__STORE__CASSANDRA__PASSWORD", PASSWORD).flag("store.kind", "cassandra"),
        Case::new().flag("redis.password", PASSWORD),
    ] {
        let shown = Problems(broken.problems()).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn directories_follow_the_state_directory() {
    for (name, case, spool) in [
        ("systemd", Case::new().env("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), "/var/lib/a/spool"),
        ("xdg", Case::new().env("XDG_STATE_HOME", "/s"), "/s/cascor-ingest/spool"),
        ("home", Case::new(), "/home/x/.local/state/cascor-ingest/spool"),
        ("set", Case::new().flag("state_dir", "/d"), "/d/spool"),
        ("spool alone", Case::new().flag("state_dir", "/d").flag("spool.dir", "/fast"), "/fast"),
    ] {
        let settings = case.settings();
        assert_eq!(settings.spool.dir, Path::new(spool), "{name}");
        assert!(!settings.instance.is_empty() && settings.store.sqlite.path.ends_with("cascor.db"), "{name}");
    }
    let mut homeless = Case::new();
    homeless.sources.env.clear();
    assert!(homeless.problems()[0].contains("state_dir"));
}

#[test]
fn printed_settings_load_again() {
    let settings = Case::new().file("a.toml", SHIPPED).flag("spool.capacity", "3GiB").settings();
    let again = Case::new().file("b.toml", &settings.to_toml().unwrap()).settings();
    assert_eq!(again, settings);
}
