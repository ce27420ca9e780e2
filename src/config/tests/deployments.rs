//! Values of real deployments: variables in YAML, lists of hosts, secrets with a line end.

use super::{Case, PASSWORD, password};
use crate::{config::Loaded, store::StoreKind};

fn yaml(text: &str) -> Case {
    Case::new().file("conf.yml", text)
}

#[test]
fn a_variable_of_the_yaml_or_its_default_decides() {
    let url = "backend: {cache: {redis_url: \"${CASCOR_REDIS_URL:redis://cache.lab:6390/2}\"}}";
    assert_eq!(yaml(url).settings().redis.url, "redis://cache.lab:6390/2");
    let set = yaml(url).env("CASCOR_REDIS_URL", "redis://:s3cret@other:1/3").settings().redis;
    assert_eq!((set.url.as_str(), set.password.unwrap().expose()), ("redis://other:1/3", "s3cret"));
    assert!(yaml(url).load().unwrap().warnings.is_empty());

    let typed = "
backend:
  cache: {enabled: \"$KEYS\", redis_url: 'redis://${HOST:-${NODE:cache}}:$PORT/0', ssl: '${TLS:-yes}'}
  cassandra:
    enabled: ${ON:true}
    contact_points: '${HOSTS:c1;c2}'
    port: ${CQL_PORT:9043}
    flush_interval: ${FLUSH:0.5}
    auth_provider: {enabled: '${LOGIN:off}', username: '${NOWHERE}'}
";
    let case = yaml(typed).env("KEYS", "false").env("PORT", "6390").env("NODE", "n1");
    let settings = case.settings();
    assert_eq!((settings.redis.url.as_str(), settings.latest.enabled), ("rediss://n1:6390/0", false));
    let cluster = &settings.store.cassandra;
    assert_eq!((settings.store.kind, cluster.port), (StoreKind::Cassandra, 9043));
    assert_eq!(cluster.contact_points, ["c1", "c2"]);
    assert_eq!(settings.writer.flush_interval.as_millis(), 500);
    let set = case.env("HOSTS", "[\"d1\", \"d2:9044\"]").env("CQL_PORT", "9045").env("ON", "0").settings();
    assert_eq!((set.store.kind, set.store.cassandra.port), (StoreKind::Sqlite, 9045));
    assert_eq!(set.store.cassandra.contact_points, ["d1", "d2:9044"]);
    let bad = yaml(typed).env("KEYS", "x").env("PORT", "1").env("CQL_PORT", "many").env("TLS", "perhaps").problems();
    for (key, words) in [("latest.enabled", "`x`"), ("store.cassandra.port", "`many`"), ("redis.url", "cache.ssl in")] {
        assert!(bad.iter().any(|p| p.starts_with(&format!("`{key}`")) && p.contains(words)), "{key}: {bad:?}");
    }
}

#[test]
fn a_variable_without_a_value_is_named_with_its_key() {
    let case = yaml(
        "backend: {cache: {password: \"${NOWHERE}\", type: memory}, cassandra: {enabled: '${ON}', keyspace: $KS}}",
    );
    let problems = case.problems();
    for (key, old, name) in [
        ("redis.password", "backend.cache.password", "`NOWHERE`"),
        ("store.cassandra.keyspace", "backend.cassandra.keyspace", "`KS`"),
        ("store.kind", "backend.cassandra.enabled", "`ON`"),
    ] {
        let named = |problem: &&String| problem.starts_with(&format!("`{key}` ({old} in ")) && problem.contains(name);
        assert_eq!(problems.iter().filter(named).count(), 1, "{problems:?}");
    }
    assert_eq!(problems.len(), 3, "{problems:?}");
    // An empty variable is set: compose files pass on an unknown one so.
    assert!(case.env("NOWHERE", "").env("KS", "ks").env("ON", "").settings().redis.password.is_none());

    // A disabled section needs no variables.
    let off = yaml("backend: {cassandra: {enabled: false, keyspace: ks, auth_provider: {password: \"${NOWHERE}\"}}}");
    let Loaded { settings, warnings } = off.load().unwrap();
    assert_eq!((settings.store.kind, settings.store.cassandra.keyspace.as_str()), (StoreKind::Sqlite, "ks"));
    assert!(warnings.len() == 1 && warnings[0].contains("NOWHERE"), "{warnings:?}");
}

#[test]
fn a_dollar_sign_in_a_password_is_never_shown() {
    for text in ["pa$hunter2", "pa${hunter2", "$hunter2", "${hunter2-${hunter2", "${ hunter2}"] {
        for key in ["password", "redis_url"] {
            let problems = yaml(&format!("backend: {{cache: {{{key}: 'redis://:{text}@h'}}}}")).problems();
            assert!(problems.len() == 1 && problems[0].contains("`$$`"), "{text}: {problems:?}");
            assert!(!problems[0].contains("hunter2"), "{text}: {problems:?}");
        }
    }
    let escaped = yaml("backend: {cache: {password: 'pa$$hunter2$'}}").settings();
    assert_eq!(escaped.redis.password.unwrap().expose(), "pa$hunter2$");
}

#[test]
fn a_part_of_a_password_is_not_taken_for_a_variable_to_be_named() {
    let disabled =
        "backend: {cassandra: {enabled: false, auth_provider: {username: 'u$hunter1', password: 'abc$hunter2'}}}";
    let warnings = yaml(disabled).load().unwrap().warnings.join("\n");
    assert!(warnings.contains("store.cassandra.password") && !warnings.contains("hunter"), "{warnings}");
    let login = "backend: {cassandra: {enabled: true, contact_points: ['cassandra://ann:$hunter2@c1']}}";
    let problems = yaml(login).problems().join("\n");
    assert!(problems.contains("store.cassandra.contact_points") && !problems.contains("hunter"), "{problems}");
}

#[test]
fn a_second_yaml_document_is_named_as_such() {
    for text in ["backend: {cache: {enabled: true}}\n---\nbackend: {}\n", "---\na: 1\n---\n- b\n"] {
        let problems = yaml(text).problems();
        assert!(problems.len() == 1 && problems[0].contains("second YAML document"), "{problems:?}");
    }
    yaml("---\nbackend: {cache: {enabled: true}}\n...\n").settings();
}

#[test]
fn blanks_and_line_ends_around_a_secret_are_cut_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["secret", "redis-password", "cassandra-password"] {
        std::fs::write(dir.path().join(name), format!(" {PASSWORD}\r\n\n")).unwrap();
    }
    let file = format!("{}\n", dir.path().join("secret").display());
    let directory = dir.path().display().to_string();
    let padded = format!("\t{PASSWORD} \n");
    let of_toml = format!("[redis]\npassword = {padded:?}\n[store.cassandra]\nusername = 'u'\npassword = {padded:?}");
    let of_yaml = "backend: {cache: {password: '${P}'}, cassandra: {auth_provider: {username: u, password: '${P}'}}}";
    for (name, case) in [
        ("environment", Case::new().env("REDIS_PASSWORD", &padded).env("CASSANDRA_PASSWORD", &padded)),
        (
            "environment of today",
            Case::new()
                .env("CASCOR_INGEST__REDIS__PASSWORD", &padded)
                .env("CASCOR_INGEST__STORE__CASSANDRA__PASSWORD", &padded),
        ),
        ("file", Case::new().env("REDIS_PASSWORD_FILE", &file).env("CASSANDRA_PASSWORD_FILE", &file)),
        ("credential", Case::new().env("CREDENTIALS_DIRECTORY", &directory)),
        ("toml", Case::new().file("a.toml", &of_toml)),
        ("yaml", yaml(of_yaml).env("P", &padded)),
    ] {
        let settings = case.env("CASSANDRA_USERNAME", "u\n").flag("store.kind", "cassandra").settings();
        let (redis, cluster) = (settings.redis, settings.store.cassandra);
        assert_eq!(password(redis.password, redis.password_file), PASSWORD, "{name}");
        assert_eq!(password(cluster.password, cluster.password_file), PASSWORD, "{name}");
        assert_eq!(cluster.username.as_deref(), Some("u"), "{name}");
    }
    let url = Case::new().env("CASCOR_CACHE_REDIS_URL", " redis://me%0A:s3cret%0A@h:1/0\n").settings().redis;
    assert_eq!((url.url.as_str(), url.username.as_deref()), ("redis://h:1/0", Some("me")));
    assert_eq!(url.password.unwrap().expose(), "s3cret");
    // Blanks alone are no secret.
    assert!(Case::new().env("REDIS_PASSWORD", " \n").settings().redis.password.is_none());
}

#[test]
fn contact_points_are_read_or_refused_by_name_from_every_source() {
    let name = "CASCOR_CASSANDRA_CONTACT_POINTS";
    let of_env = |text: &str| Case::new().env(name, text).env("CASCOR_CASSANDRA_ENABLED", "1");
    let of_yaml = |text: &str| yaml(&format!("backend: {{cassandra: {{enabled: true, contact_points: {text}}}}}"));
    let of_toml =
        |text: &str| Case::new().file("a.toml", &format!("store = {{kind = 'cassandra', cassandra = {{{text}}}}}"));
    for (case, addresses) in [
        (of_env("[\"c1\",\"c2\"]"), &["c1:9042", "c2:9042"][..]),
        (of_env("c1;c2"), &["c1:9042", "c2:9042"]),
        (of_env("c1 c2\n"), &["c1:9042", "c2:9042"]),
        (of_env("c1, c2:9043"), &["c1:9042", "c2:9043"]),
        (of_env("cassandra://c1,cassandra://c2:9043/"), &["c1:9042", "c2:9043"]),
        (of_env("::1,[fe80::1]:9043"), &["[::1]:9042", "[fe80::1]:9043"]),
        (of_yaml("[c1, 'c2:9043', '::1']"), &["c1:9042", "c2:9043", "[::1]:9042"]),
        (of_yaml("'c1 c2'"), &["c1:9042", "c2:9042"]),
        (of_yaml("['${NO:c1,c2}', c3]"), &["c1:9042", "c2:9042", "c3:9042"]),
        (of_toml("contact_points = ['c1', 'cassandra://c2']"), &["c1:9042", "c2:9042"]),
        (of_toml("contact_points = 'c1,c2'"), &["c1:9042", "c2:9042"]),
    ] {
        assert_eq!(case.settings().store.cassandra.addresses(), addresses, "{:?}", case.sources);
    }
    for (case, entry) in [
        (of_env("[\"c1\",\"c2\""), "`[\\\"c1\\\"`"),
        (of_env("http://c1"), "`http://c1`"),
        (of_env("c1|c2"), "`c1|c2`"),
        (of_env("cassandra://c1/keyspace"), "`cassandra://c1/keyspace`"),
        (of_env("c1:9042:9043"), "`c1:9042:9043`"),
        (of_env(",;"), "at least one"),
        (of_yaml("[c1, 'c2:port']"), "`c2:port`"),
        (of_toml("contact_points = ['c1;c2']"), "`c1;c2`"),
    ] {
        let problems = case.problems();
        let named = problems.iter().any(|p| p.starts_with("`store.cassandra.contact_points`") && p.contains(entry));
        assert!(named, "{entry}: {problems:?}");
    }
    let login = Case::new().env(name, &format!("cassandra://u:{PASSWORD}@c1")).problems();
    assert!(login.len() == 1 && login[0].contains("login") && !login[0].contains("hunter2"), "{login:?}");
}

#[test]
fn channels_are_read_or_refused_by_name() {
    let of = |text: &str| Case::new().env("CASCOR_INGEST__REDIS__TRAINING_CHANNELS", text);
    for (text, channels) in
        [("a, lab:*:b", &["a", "lab:*:b"][..]), ("[\"a\", \"b c\"]", &["a", "b c"]), ("[ab]:x", &["[ab]:x"])]
    {
        assert_eq!(of(text).settings().redis.training_channels, channels, "{text}");
    }
    for (text, entry) in [("a;b", "`a;b`"), ("a b", "`a b`"), ("[\"a\",", "a"), ("['a']", "a")] {
        let problems = of(text).problems();
        assert!(problems.len() == 1 && problems[0].contains(entry), "{text}: {problems:?}");
    }
}

#[test]
fn old_names_of_both_sources_make_one_setting() {
    // The kind of cache in the environment overrides that in the file.
    let memory = "backend: {cache: {type: memory}}";
    assert!(!yaml(memory).settings().latest.enabled);
    assert!(yaml(memory).env("CASCOR_CACHE_TYPE", "redis").settings().latest.enabled);
    let off = yaml("backend: {cache: {enabled: false, type: redis}}").env("CASCOR_CACHE_TYPE", "redis");
    assert!(!off.settings().latest.enabled);
    // Requested encryption is never dropped.
    assert_eq!(yaml("backend: {cache: {ssl: true}}").settings().redis.url, "rediss://127.0.0.1:6379/0");
    assert_eq!(yaml("backend: {cache: {ssl: {enabled: false}}}").settings().redis.url, "redis://127.0.0.1:6379/0");
    // Every key of connection_pool is accepted without effect.
    let pool =
        yaml("backend: {cache: {connection_pool: {max_connections: '${NOWHERE}', a: {b: 1}}, ttl_seconds: $NO}}");
    assert!(pool.load().unwrap().warnings.is_empty());
}

#[test]
fn text_that_looks_like_a_number_stays_as_it_is_written() {
    for text in ["0123", "1_000", "1e5", "0x10", "12345678901234567890123", "yes", "'0123'"] {
        let case = yaml(&format!(
            "a: 1\nbackend: {{x: , cache: {{password: {text}}}, cassandra: {{auth_provider: {{username: {text}, password: {text}}}}}}}"
        ));
        let (settings, text) = (case.settings(), text.trim_matches('\''));
        assert_eq!(settings.redis.password.unwrap().expose(), text);
        let cluster = settings.store.cassandra;
        assert_eq!((cluster.username.as_deref(), cluster.password.unwrap().expose()), (Some(text), text));
    }
}
