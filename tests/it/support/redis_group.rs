//! Several Redis servers that belong together: a primary and its replica behind sentinels, and a cluster.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    ports::free_port,
    process::Process,
    redis::{Options, Redis},
    resp::{Resp, Value},
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// The name of the service that the sentinels watch.
pub const SERVICE: &str = "mine";
/// The password of the sentinels.
pub const SENTINEL_PASSWORD: &str = "sentinel-pw";

/// Three sentinels that watch one primary with one replica.
pub struct Sentinels {
    /// The first is the primary at the start.
    pub servers: [Redis; 2],
    /// Ports of the sentinels.
    pub ports: Vec<u16>,
    _processes: Vec<Process>,
    _dir: TempDir,
}

impl Sentinels {
    /// Starts them, and waits until the sentinels know the replica and each other.
    #[track_caller]
    pub fn start() -> Self {
        let servers = [Redis::start(), Redis::start()];
        let primary = servers[0].port.to_string();
        servers[1].client().command(&["REPLICAOF", "127.0.0.1", &primary]);
        let dir = TempDir::with_prefix("cascor-sentinel").unwrap();
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let processes = ports
            .iter()
            .map(|port| {
                let file = dir.path().join(format!("{port}.conf"));
                let text = format!(
                    "port {port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
                     sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {SERVICE} 700\n\
                     sentinel failover-timeout {SERVICE} 4000\n"
                );
                fs::write(&file, text).unwrap();
                let mut command = Command::new("redis-server");
                Process::spawn(command.arg(&file).arg("--sentinel"), &dir.path().join(format!("{port}.log")))
            })
            .collect();
        let group = Self { servers, ports, _processes: processes, _dir: dir };
        for port in &group.ports {
            wait_until("the sentinels to know each other", LIMIT, || {
                let Some(fields) = group.about(*port) else { return false };
                let known = |name: &str| fields.iter().position(|field| field == name).map(|at| fields[at + 1].clone());
                known("num-slaves").as_deref() == Some("1") && known("num-other-sentinels").as_deref() == Some("2")
            });
        }
        group
    }

    fn about(&self, port: u16) -> Option<Vec<String>> {
        match self.sentinel(port)?.command(&["SENTINEL", "MASTER", SERVICE]) {
            Value::Array(fields) => Some(fields.iter().filter_map(Value::text).collect()),
            _ => None,
        }
    }

    /// A connection to a sentinel, logged in.
    pub fn sentinel(&self, port: u16) -> Option<Resp> {
        let mut client = Resp::connect(port).ok()?;
        client.command_bytes(&[b"AUTH", SENTINEL_PASSWORD.as_bytes()]).ok()?;
        Some(client)
    }

    /// The address for `redis.url`.
    pub fn url(&self) -> String {
        let [first, second, third] = self.ports[..] else { unreachable!() };
        format!(
            "redis-sentinel://127.0.0.1:{first}/0?node=127.0.0.1:{second}&node=127.0.0.1:{third}\
             &sentinelServiceName={SERVICE}&sentinelPassword={SENTINEL_PASSWORD}"
        )
    }
}

/// How a node of a cluster is started.
const NODE: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];

/// How a node sees its cluster.
fn info(node: &Redis) -> String {
    node.client().command(&["CLUSTER", "INFO"]).text().unwrap()
}

/// What a server says of its replication.
fn replication(server: &Redis) -> String {
    server.client().command(&["INFO", "replication"]).text().unwrap()
}

/// Three primaries that share the slots.
pub struct Cluster {
    pub nodes: [Redis; 3],
    pub ids: Vec<String>,
}

impl Cluster {
    /// Starts the nodes, and waits until each sees the cluster whole.
    #[track_caller]
    pub fn start() -> Self {
        let nodes = [(); 3].map(|()| Redis::with(Options { more: NODE.to_vec(), ..Options::default() }));
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (at, (node, (from, to))) in nodes.iter().zip(slots).enumerate() {
            let mut client = node.client();
            client.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            client.command(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
            client.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
        }
        for node in &nodes {
            wait_until("the cluster to be whole", LIMIT, || {
                let info = info(node);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        let ids = nodes.iter().map(|node| node.client().command(&["CLUSTER", "MYID"]).text().unwrap()).collect();
        Self { nodes, ids }
    }

    /// A replica of a node, up to date.
    #[track_caller]
    pub fn replica(&self, of: usize) -> Redis {
        let replica = Redis::with(Options { more: NODE.to_vec(), ..Options::default() });
        let mut client = replica.client();
        client.command(&["CLUSTER", "MEET", "127.0.0.1", &self.nodes[of].port.to_string()]);
        wait_until("the replica to know its node", LIMIT, || {
            client.command(&["CLUSTER", "REPLICATE", &self.ids[of]]) == Value::Simple("OK".into())
        });
        wait_until("the replica to follow its node", LIMIT, || replication(&replica).contains("master_link_status:up"));
        for node in &self.nodes {
            wait_until("the replica to be known", LIMIT, || info(node).contains("cluster_known_nodes:4"));
        }
        replica
    }

    /// Cuts a node off from the others, and lets its replica take over. It lives on and keeps its connections, sees that slots are served
    /// by none, and still counts its own as its own: as a node does behind a broken network. What it has taken its replica has.
    #[track_caller]
    pub fn cut_off(&self, node: usize, replica: &Redis) {
        let others: Vec<_> = (0..3).filter(|other| *other != node).collect();
        let (mut former, mut next) = (self.nodes[node].client(), replica.client());
        let next_id = next.command(&["CLUSTER", "MYID"]).text().unwrap();
        let ids = others.iter().map(|other| &self.ids[*other]).chain([&next_id]);
        ids.for_each(|id| assert_eq!(former.command(&["CLUSTER", "FORGET", id]), Value::Simple("OK".into())));
        wait_until("the node to be cut off", LIMIT, || info(&self.nodes[node]).contains("cluster_state:fail"));
        let offset = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).map(|number| number.trim().to_owned()).unwrap()
        };
        wait_until("the replica to have everything", LIMIT, || {
            let written = offset(&replication(&self.nodes[node]), "master_repl_offset:");
            offset(&replication(replica), "slave_repl_offset:") == written
        });
        assert_eq!(next.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]), Value::Simple("OK".into()));
        wait_until("the replica to take over", LIMIT, || replication(replica).contains("role:master"));
        for left in others.iter().map(|other| &self.nodes[*other]).chain([replica]) {
            left.client().command(&["CLUSTER", "FORGET", &self.ids[node]]);
        }
        for left in others.iter().map(|other| &self.nodes[*other]).chain([replica]) {
            wait_until("the others to go on", LIMIT, || {
                let info = info(left);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
    }

    /// The address for `redis.url`.
    pub fn url(&self) -> String {
        let [first, second, third] = self.nodes.each_ref().map(|node| node.port);
        format!("redis-cluster://127.0.0.1:{first}?node=127.0.0.1:{second}&node=127.0.0.1:{third}")
    }

    /// The slot of a key, and the node that has it.
    pub fn owner(&self, key: &str) -> (i64, usize) {
        let slot = self.nodes[0].client().command(&["CLUSTER", "KEYSLOT", key]).integer().unwrap();
        (slot, if slot <= 5460 { 0 } else { usize::from(slot > 10_922) + 1 })
    }

    /// The value of a key, read from one node.
    pub fn get(&self, node: usize, key: &str) -> Value {
        self.nodes[node].client().command(&["GET", key])
    }

    /// Moves a slot with its keys from one node to another, as `redis-cli --cluster reshard` does.
    #[track_caller]
    pub fn move_slot(&self, slot: i64, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port.to_string());
        let (mut source, mut target) = (self.nodes[from].client(), self.nodes[to].client());
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
        loop {
            let Value::Array(keys) = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]) else { panic!() };
            for key in keys.iter().filter_map(Value::text) {
                source.command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "1000", "REPLACE"]);
            }
            if keys.is_empty() {
                break;
            }
        }
        for client in [&mut target, &mut source] {
            let answer = client.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]);
            assert_eq!(answer, Value::Simple("OK".into()));
        }
    }
}

/// Publishes numbered messages, 500 a second, at the first server of these that is a primary; at the next one when it fails. A message
/// is repeated until a server has taken it. Returns their number.
pub fn publish_until(stop: &Arc<AtomicBool>, ports: Vec<u16>, message: fn(u64) -> String) -> thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut client, mut at, mut sent) = (None, 0, 0);
        while !stop.load(Ordering::Relaxed) {
            let payload = message(sent);
            client = client.or_else(|| primary(ports[at]));
            let taken = client.as_mut().is_some_and(|client: &mut Resp| {
                let answer = client.command_bytes(&[b"PUBLISH", b"cascor:training", payload.as_bytes()]);
                answer.is_ok_and(|answer| answer.integer().is_some())
            });
            if taken {
                sent += 1;
            } else {
                client = None;
                at = (at + 1) % ports.len();
            }
            thread::sleep(Duration::from_millis(2));
        }
        sent
    })
}

/// A connection to a server that is no replica.
fn primary(port: u16) -> Option<Resp> {
    let mut client = Resp::connect(port).ok()?;
    client.set_timeout(Duration::from_secs(1));
    match client.command_bytes(&[b"ROLE"]).ok()? {
        Value::Array(parts) if parts.first().and_then(Value::text).as_deref() == Some("master") => Some(client),
        _ => None,
    }
}
