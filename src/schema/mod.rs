//! The schema tool (`schema plan|apply|verify|print`) for the compiled-in Cassandra schema or any folder of `.cql` files.
//!
//! Numbered migrations only add. A statement that creates an object or adds a column is sent when it is missing, any other one
//! when its migration is not yet recorded; so `apply` is idempotent and restores dropped objects. All statements go through one
//! coordinator and wait for schema agreement, so that concurrent `apply` runs create one schema.

mod compare;
mod cql;
mod model;
mod server;

use std::{fs, io, path::PathBuf, time::Duration};

pub use self::{compare::Difference, cql::Statement};
use self::{model::Object, server::Server};
use crate::store::cassandra;
pub use crate::store::cassandra::Replication;

/// The compiled-in migrations: number, file name, text.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "001_tables.cql", include_str!("../../schema/cassandra/001_tables.cql")),
    (2, "002_restarts_and_names.cql", include_str!("../../schema/cassandra/002_restarts_and_names.cql")),
    (3, "003_edits_and_deletions.cql", include_str!("../../schema/cassandra/003_edits_and_deletions.cql")),
];

const COMPONENT: &str = "cascor";

/// Arguments of the commands.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Replication of keyspaces that are created; absent: that of the configuration, else `SimpleStrategy:1` on a cluster of one
    /// node, else an error.
    pub replication: Option<Replication>,
    /// Time to wait for the database.
    pub wait: Duration,
    /// A folder of `.cql` files instead of the compiled-in schema.
    pub dir: Option<PathBuf>,
}

/// Errors of the schema tool.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SchemaError {
    #[error("failed to read `{}`", .path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` holds no .cql file", .path.display())]
    NoFiles { path: PathBuf },
    #[error("{place}: {what}")]
    Text { place: String, what: &'static str },
    #[error("{place}: the placeholder `${{{name}}}` has no value")]
    Placeholder { place: String, name: String },
    #[error("{0}")]
    Connect(String),
    #[error("failed to read the schema with `{query}`: {error}")]
    Read { query: String, error: String },
    #[error("{place}: {error}")]
    Execute { place: String, error: String },
    #[error(
        "the cluster has {nodes} nodes in {datacenters}: say how many copies to keep, \
         for example `store.cassandra.replication = \"{example}\"` or `--replication {example}`"
    )]
    NoReplication { nodes: usize, datacenters: String, example: String },
    #[error("the schema in the database is version {found}, this program knows {known}: use a newer program")]
    Newer { found: i64, known: i32 },
    #[error("after applying there are still differences: {}", list(.0))]
    Differs(Vec<Difference>),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

/// The result of `plan` and `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Name, version and size of the cluster, for display.
    pub server: String,
    /// The statements to send, or sent, in order.
    pub steps: Vec<Statement>,
    /// Differences that `apply` cannot repair: columns, types and options.
    pub differences: Vec<Difference>,
}

struct Migration {
    number: Option<i32>,
    statements: Vec<Statement>,
}

/// The schema tool for one cluster.
#[derive(Clone, Debug)]
pub struct CassandraSchema {
    config: cassandra::Config,
    options: Options,
}

impl CassandraSchema {
    /// Creates the tool; reads and connects to nothing yet.
    pub fn new(config: &cassandra::Config, mut options: Options) -> Self {
        options.replication = options.replication.or_else(|| config.replication.clone());
        Self { config: config.clone(), options }
    }

    /// The statements that `apply` would send now.
    ///
    /// # Errors
    /// Unreadable files; a server that is unreachable or refuses.
    pub async fn plan(&self) -> Result<Plan, SchemaError> {
        let server = Server::connect(&self.config, self.options.wait).await?;
        self.plan_on(&server).await
    }

    /// Creates missing objects, records the version and verifies. `step` is called with each statement before it is sent.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); a statement that the server refuses; remaining differences.
    pub async fn apply(&self, step: &(dyn Fn(&Statement) + Sync)) -> Result<Plan, SchemaError> {
        let server = Server::connect(&self.config, self.options.wait).await?;
        let plan = self.plan_on(&server).await?;
        for statement in &plan.steps {
            step(statement);
            server.execute(statement).await?;
        }
        if self.options.dir.is_none() {
            self.record(&server).await?;
        }
        let differences = self.verify_on(&server).await?;
        if differences.is_empty() { Ok(plan) } else { Err(SchemaError::Differs(differences)) }
    }

    /// Missing or different objects.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn verify(&self) -> Result<Vec<Difference>, SchemaError> {
        let server = Server::connect(&self.config, self.options.wait).await?;
        self.verify_on(&server).await
    }

    /// The statements as text, for a 5.0 server; connects to nothing.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn print(&self) -> Result<String, SchemaError> {
        let replication = self.options.replication.clone().unwrap_or(Replication::Simple(1));
        let migrations = self.migrations(&replication, true)?;
        let statements = migrations.iter().flat_map(|migration| &migration.statements);
        Ok(statements.map(|statement| format!("{};\n", statement.text)).collect::<Vec<_>>().join("\n"))
    }

    async fn plan_on(&self, server: &Server) -> Result<Plan, SchemaError> {
        let recorded = self.recorded(server).await?;
        let migrations = self.migrations(&self.replication(server).await?, server.is_5())?;
        let mut plan = Plan { server: describe(server), ..Plan::default() };
        for migration in migrations {
            let is_new = migration.number.is_none_or(|number| i64::from(number) > recorded);
            for statement in migration.statements {
                let object = model::object(&statement.text);
                let needed = match &object {
                    Some(object) => !compare::exists(server, object).await?,
                    None => is_new,
                };
                if needed {
                    plan.steps.push(statement);
                } else if let Some(object) = &object {
                    plan.differences.extend(self.compare(server, object).await?);
                }
            }
        }
        Ok(plan)
    }

    async fn verify_on(&self, server: &Server) -> Result<Vec<Difference>, SchemaError> {
        let recorded = self.recorded(server).await?;
        let replication = self.options.replication.clone().unwrap_or(Replication::Simple(1));
        let mut all = Vec::new();
        for migration in self.migrations(&replication, server.is_5())? {
            for object in migration.statements.iter().filter_map(|statement| model::object(&statement.text)) {
                all.extend(self.compare(server, &object).await?);
            }
        }
        let known = i64::from(MIGRATIONS[MIGRATIONS.len() - 1].0);
        if self.options.dir.is_none() && recorded < known {
            let found = if recorded == 0 { "not recorded".to_owned() } else { recorded.to_string() };
            all.push(Difference { object: "version".into(), expected: known.to_string(), found: Some(found) });
        }
        Ok(all)
    }

    async fn compare(&self, server: &Server, object: &Object) -> Result<Vec<Difference>, SchemaError> {
        compare::differences(server, object, self.options.replication.is_some()).await
    }

    /// The schema version recorded in the database; 0 if none is recorded, and for folders.
    async fn recorded(&self, server: &Server) -> Result<i64, SchemaError> {
        let keyspace = &self.config.keyspace;
        if self.options.dir.is_some() || server.table(keyspace, "schema_version").await?.is_none() {
            return Ok(0);
        }
        let query = format!("SELECT JSON version FROM \"{keyspace}\".schema_version WHERE component = ?");
        let rows = server.rows(&query, &[COMPONENT]).await?;
        let found = rows.first().and_then(|row| row.get("version")?.as_i64()).unwrap_or(0);
        let known = MIGRATIONS[MIGRATIONS.len() - 1].0;
        if found > i64::from(known) { Err(SchemaError::Newer { found, known }) } else { Ok(found) }
    }

    async fn record(&self, server: &Server) -> Result<(), SchemaError> {
        let known = MIGRATIONS[MIGRATIONS.len() - 1].0;
        if self.recorded(server).await? == i64::from(known) {
            return Ok(());
        }
        let text = format!(
            "INSERT INTO \"{}\".schema_version (component, version, applied_at) \
             VALUES ('{COMPONENT}', {known}, toTimestamp(now()))",
            self.config.keyspace
        );
        server.execute(&Statement { text, place: "schema_version".into() }).await
    }

    /// Replication for missing keyspaces.
    async fn replication(&self, server: &Server) -> Result<Replication, SchemaError> {
        if let Some(given) = &self.options.replication {
            return Ok(given.clone());
        }
        let one = Replication::Simple(1);
        if server.nodes <= 1 {
            return Ok(one);
        }
        for migration in self.migrations(&one, server.is_5())? {
            for object in migration.statements.iter().filter_map(|statement| model::object(&statement.text)) {
                if matches!(object, Object::Keyspace { .. }) && !compare::exists(server, &object).await? {
                    let copies = server.nodes.min(3);
                    let each: Vec<_> = server.datacenters.iter().map(|name| format!("{name}={copies}")).collect();
                    return Err(SchemaError::NoReplication {
                        nodes: server.nodes,
                        datacenters: server.datacenters.join(", "),
                        example: format!("NetworkTopologyStrategy:{}", each.join(",")),
                    });
                }
            }
        }
        Ok(one)
    }

    fn migrations(&self, replication: &Replication, is_5: bool) -> Result<Vec<Migration>, SchemaError> {
        let keyspace = format!("\"{}\"", self.config.keyspace);
        let replication = replication.to_cql();
        let compaction = if is_5 { "UnifiedCompactionStrategy" } else { "LeveledCompactionStrategy" };
        let compaction = format!("{{'class': '{compaction}'}}");
        let values = [
            ("KEYSPACE", keyspace.as_str()),
            ("REPLICATION", &replication),
            ("COMPACTION", &compaction),
            ("INDEX", if is_5 { "USING 'sai'" } else { "" }),
        ];
        let fill = |number, name: &str, text: &str| {
            let statements = cql::split(name, text)?.iter().map(|s| cql::fill(s, &values)).collect::<Result<_, _>>()?;
            Ok(Migration { number, statements })
        };
        match &self.options.dir {
            None => MIGRATIONS.iter().map(|(number, name, text)| fill(Some(*number), name, text)).collect(),
            Some(dir) => files(dir)?.iter().map(|(name, text)| fill(None, name, text)).collect(),
        }
    }
}

fn describe(server: &Server) -> String {
    format!("Cassandra {} (cluster `{}`, {} node(s))", server.version, server.cluster, server.nodes)
}

/// The `.cql` files of a folder in the order of their names.
fn files(dir: &PathBuf) -> Result<Vec<(String, String)>, SchemaError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |error| SchemaError::File { path, error }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "cql") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(SchemaError::NoFiles { path: dir.clone() });
    }
    paths
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, fs::read_to_string(path).map_err(failed(path))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(dir: Option<&str>) -> CassandraSchema {
        let dir = dir.map(|dir| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dir));
        CassandraSchema::new(&cassandra::Config::default(), Options { dir, ..Options::default() })
    }

    #[test]
    fn every_compiled_in_statement_is_parsed() {
        for (dir, tables) in [(None, 12), (Some("schema/cassandra"), 12), (Some("schema/pekko"), 7)] {
            for is_5 in [true, false] {
                let mut found = 0;
                for migration in tool(dir).migrations(&Replication::Simple(1), is_5).unwrap() {
                    for statement in migration.statements {
                        let object = model::object(&statement.text);
                        found += usize::from(matches!(object, Some(Object::Table(_))));
                        assert!(object.is_some(), "{}", statement.text);
                    }
                }
                assert_eq!(found, tables);
            }
        }
    }

    #[test]
    fn the_compiled_in_migrations_are_the_files() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/cassandra");
        let files = files(&dir).unwrap();
        let ours: Vec<_> = MIGRATIONS.iter().map(|(_, name, text)| (name.to_string(), text.to_string())).collect();
        assert_eq!(files, ours);
        for (number, name, _) in MIGRATIONS {
            assert!(name.starts_with(&format!("{number:03}_")));
        }
    }

    #[test]
    fn print_shows_statements_that_other_clients_accept() {
        let text = tool(None).print().unwrap();
        assert!(
            text.contains("CREATE KEYSPACE IF NOT EXISTS \"cascor\" WITH replication = {'class': 'SimpleStrategy'")
        );
        assert!(!text.contains("${") && !text.contains("--"), "{text}");
    }
}
