//! The command line of a user who is not the daemon's: a member of the group of the state directory, and one who is not.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::support::{
    daemon::{Daemon, binary},
    redis::Redis,
    skip, wait_until,
};

/// A user, the group that may read the state, and another group.
const USER: u32 = 65_533;
const GROUP: u32 = 65_534;
const OTHERS: u32 = 65_533;

/// A daemon of root whose state the group may read, and the program where other users reach it.
fn shared(redis: &Redis) -> (Daemon, PathBuf) {
    let mut daemon = Daemon::on(redis).prepare();
    let home = daemon.state_dir().parent().unwrap().to_owned();
    chown(daemon.state_dir(), Some(0), Some(GROUP)).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.state_dir(), Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(daemon.config_file(), Permissions::from_mode(0o644)).unwrap();
    let program = home.join("program");
    fs::copy(binary(), &program).unwrap();
    daemon.launch();
    daemon.wait_ready();
    (daemon, program)
}

fn run_as(group: u32, program: &Path, daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("CASCOR_INGEST_CONFIG", daemon.config_file());
    let Output { status, stdout, stderr } = command.uid(USER).gid(group).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn a_member_of_the_group_reads_all_and_another_user_is_told_what_to_do() {
    let test = "a_member_of_the_group_reads_all_and_another_user_is_told_what_to_do";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root runs as other users");
    }
    let redis = Redis::start();
    let (mut daemon, program) = shared(&redis);
    redis.client().publish("cascor:training", r#"{"epoch": 1, "loss": 0.5}"#);
    redis.client().publish("cascor:training", "{");
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let of_redis = ["status", "--redis-url", &redis.url()];
    wait_until("its status", Duration::from_secs(30), || daemon.command(&of_redis).status.success());
    let member = |arguments: &[&str]| run_as(GROUP, &program, &daemon, arguments);
    let stranger = |arguments: &[&str]| run_as(OTHERS, &program, &daemon, arguments);
    for (arguments, said) in [
        (&["status"][..], "test: OK"),
        (&["deadletter", "list"], "malformed_json"),
        (&["spool", "status"], "waiting for the store"),
        (&["gaps"], "no gaps"),
        (&["runs"], "running"),
    ] {
        let (status, text) = member(arguments);
        assert!(status == Some(0) && text.contains(said), "{arguments:?}: {text}");
        let (status, text) = stranger(arguments);
        let is_file = matches!(arguments[0], "deadletter" | "spool");
        let said = if is_file { "run this as root (sudo), or as a member of the group" } else { said };
        assert!(status == Some(i32::from(is_file)) && text.contains(said), "{arguments:?}: {text}");
    }
    assert_eq!(fs::metadata(daemon.state_dir().join("session.key")).map_or(0o600, |key| key.mode() & 0o777), 0o600);
    daemon.terminate();
    for arguments in [&["runs"][..], &["deadletter", "list"]] {
        let (status, text) = run_as(OTHERS, &program, &daemon, arguments);
        assert!(status == Some(1) && text.contains("cannot be read by"), "without the daemon, {arguments:?}: {text}");
    }
}
