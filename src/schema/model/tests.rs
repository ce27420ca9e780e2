use super::*;

#[test]
fn a_table_is_read_with_its_key_types_and_options() {
    let text = "CREATE TABLE IF NOT EXISTS k.\"T\" (Id uuid, at timestamp, n BIGINT, s varchar static, \
                m frozen<map<text,double>>, PRIMARY KEY ((Id, n), at)) \
                WITH comment = 'it''s' AND CLUSTERING ORDER BY (at DESC) AND gc_grace_seconds=864000 \
                AND read_repair_chance = 0.5 AND compaction = {'class': 'X', 'size': 1}";
    let Some(Object::Table(table)) = object(text) else { panic!("not a table") };
    assert_eq!((table.keyspace.as_str(), table.name.as_str()), ("k", "T"));
    let columns: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.role.as_str())).collect();
    assert_eq!(
        columns,
        [
            ("id", "uuid", "partition key 1"),
            ("at", "timestamp", "clustering key 1 desc"),
            ("n", "bigint", "partition key 2"),
            ("s", "text", "static"),
            ("m", "frozen<map<text, double>>", "regular"),
        ]
    );
    assert_eq!(table.options["comment"], OptionValue::One("it's".into()));
    assert_eq!(table.options["gc_grace_seconds"], OptionValue::One("864000".into()));
    assert_eq!(table.options["read_repair_chance"], OptionValue::One("0.5".into()));
    let map = [("class".to_owned(), "X".to_owned()), ("size".into(), "1".into())].into();
    assert_eq!(table.options["compaction"], OptionValue::Map(map));
}

#[test]
fn keyspaces_and_indexes_are_read_and_the_rest_is_not() {
    let replication = [("class".to_owned(), "SimpleStrategy".to_owned()), ("replication_factor".into(), "1".into())];
    assert_eq!(
        object("CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"),
        Some(Object::Keyspace { name: "k".into(), replication: replication.into() })
    );
    assert_eq!(
        object("create custom index if not exists i on k.t (c) using 'sai'"),
        Some(Object::Index { keyspace: "k".into(), table: "t".into(), column: "c".into(), name: Some("i".into()) })
    );
    let column = Column { name: "c".into(), kind: "list<int>".into(), role: "regular".into() };
    let added = Table { keyspace: "k".into(), name: "t".into(), columns: vec![column], ..Table::default() };
    for text in ["ALTER TABLE k.t ADD c list<int>", "alter table k.t add if not exists c list<int>"] {
        assert_eq!(object(text), Some(Object::Column(added.clone())), "{text}");
    }
    for text in [
        "ALTER TABLE k.t ADD c int, d int",
        "ALTER TABLE k.t DROP c",
        "ALTER TABLE k.t WITH comment = 'x'",
        "INSERT INTO k.t (a) VALUES (1)",
        "CREATE TYPE k.t (a int)",
        "",
        "create",
    ] {
        assert_eq!(object(text), None, "{text}");
    }
}

#[test]
fn broken_text_is_no_object_and_ends() {
    for text in ["CREATE TABLE k.t (", "CREATE TABLE k.t (a", "CREATE TABLE t (a int, PRIMARY KEY (a", "CREATE INDEX i"]
    {
        assert_eq!(object(text), None, "{text}");
    }
}
