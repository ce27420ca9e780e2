//! Other users cannot read files, directories or memory of the program, whatever the umask.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    daemon::{Daemon, binary},
    redis::Redis,
    skip, wait_until,
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
/// Starts the program with umask 0.
const OPEN: [&str; 3] = ["sh", "-c", "umask 0; exec \"$0\" \"$@\""];

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Everything under a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], tree(&path)].concat() } else { vec![path] })
        .collect()
}

fn publish(redis: &Redis) {
    for epoch in 0..3 {
        let at = jiff::Timestamp::now().as_second();
        let row =
            json!({"type": "metrics", "run_id": RUN, "timestamp": at, "data": {"epoch": epoch, "train_loss": 0.5}});
        redis.client().publish(TRAINING, row.to_string());
    }
    redis.client().publish(TRAINING, "no JSON");
}

/// A command of the program with umask 0.
fn open_umask(daemon: &Daemon, arguments: &[&str]) -> Output {
    let command = daemon.prepared(arguments);
    let mut shell = Command::new(OPEN[0]);
    shell.args(&OPEN[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap()).output().unwrap()
}

#[test]
fn all_files_of_a_daemon_are_closed_to_other_users() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).under(&OPEN).prepare();
    let state = daemon.state_dir().to_owned();
    daemon.configure("spool.dir", &format!("{:?}", state.join("deep/spool")));
    daemon.launch();
    daemon.wait_ready();
    publish(&redis);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    daemon.succeed(&["control", "pause", "--wait"]);
    wait_until("the checkpoint and the open runs", LIMIT, || {
        ["deep/spool/checkpoint", "runs.json", "pause.json"].iter().all(|name| state.join(name).exists())
    });
    daemon.succeed(&["deadletter", "drop", "--all"]);
    let made = tree(&state);
    for name in ["deep", "deep/spool/lock", "deep/spool/instance", "deadletter/marks.json", "deadletter/marks.lock"] {
        assert!(made.contains(&state.join(name)), "{name}: {made:?}");
    }
    for name in ["cascor.db", "cascor.db-wal", "cascor.db-shm"] {
        assert!(made.contains(&state.join(name)), "{name}: {made:?}");
    }
    for path in &made {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(path), expected, "{}", path.display());
        assert!(path.extension().is_none_or(|extension| extension != "tmp"), "{}", path.display());
    }
    assert!(daemon.terminate().success());
}

#[test]
fn exports_are_closed_to_other_users_unless_asked() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    publish(&redis);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    let dir = tempfile::tempdir().unwrap();
    let export = |words: &[&str], name: &str, more: &[&str], expected: u32| {
        let file = dir.path().join(name);
        let output = ["--output", file.to_str().unwrap()];
        let arguments = [words, &output, more].concat();
        let done = open_umask(&daemon, &arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(mode(&file), expected, "{arguments:?}");
    };
    export(&["export", RUN], "a.csv", &[], 0o600);
    export(&["export", RUN], "b.csv", &["--mode", "0664"], 0o664);
    export(&["export", RUN], "a.csv", &["--resume", "--mode", "0640"], 0o640);
    assert_eq!(["a.csv", "b.csv"].map(|name| mode(&dir.path().join(format!("{name}.meta.json")))), [0o640, 0o664]);
    export(&["deadletter", "export"], "letters", &[], 0o600);
    export(&["deadletter", "export"], "letters.open", &["--mode", "644"], 0o644);
    assert_eq!(daemon.command(&["export", RUN, "-o", "x", "--mode", "0777"]).status.code(), Some(2));
    assert_eq!(daemon.command(&["export", RUN, "--mode", "0644"]).status.code(), Some(2), "it is for a file");
    assert!(daemon.terminate().success());
    let export = |name: &str, more: &[&str]| {
        let file = dir.path().join(name);
        assert!(
            open_umask(&daemon, &[&["spool", "export", "-o", file.to_str().unwrap()], more].concat()).status.success()
        );
        mode(&file)
    };
    assert_eq!((export("records", &[]), export("records.open", &["--mode", "0640"])), (0o600, 0o640));
    assert_eq!(tree(dir.path()).len(), 8, "nothing is left beside them: {:?}", tree(dir.path()));
}

#[test]
fn a_symbolic_link_in_the_place_of_a_file_is_not_followed() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    publish(&redis);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let victim = dir.path().join("victim");
    let theirs = "run_id,timestamp,event_id\n";
    fs::write(&victim, theirs).unwrap();
    let file = dir.path().join("a.csv");
    let out = file.to_str().unwrap();
    for (name, arguments, fine) in [
        ("a.csv.part", &["export", RUN, "-o", out][..], true),
        ("a.csv.part.meta.json", &["export", RUN, "-o", out], true),
        ("a.csv.meta.json", &["export", RUN, "-o", out], true),
        ("a.csv", &["export", RUN, "-o", out], true),
        ("a.csv.part", &["export", RUN, "-o", out, "--resume"], false),
        ("a.csv", &["export", RUN, "-o", out, "--resume"], false),
        ("a.csv", &["deadletter", "export", "-o", out], false),
    ] {
        for path in tree(dir.path()).into_iter().filter(|path| *path != victim) {
            fs::remove_file(path).unwrap();
        }
        symlink(&victim, dir.path().join(name)).unwrap();
        let done = daemon.command(arguments);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.success(), fine, "{name} {arguments:?}: {error}");
        assert!(fine || error.contains("symbolic link"), "{name}: {error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), theirs, "{name} {arguments:?}");
        assert!(!fine || !file.is_symlink(), "{name}");
    }
    assert!(daemon.terminate().success());
    // A database in the same place is not used, and nothing is lost meanwhile.
    let (link, target) = (dir.path().join("cascor.db"), dir.path().join("target.db"));
    symlink(&target, &link).unwrap();
    daemon.configure("store.sqlite.path", &format!("{link:?}"));
    daemon.launch();
    daemon.wait_ready();
    publish(&redis);
    wait_until("the reason", LIMIT, || daemon.get("/api/status").body.contains("symbolic link"));
    let status: Value = daemon.get("/api/status").json();
    assert!(status["spool"]["pending_records"].as_u64().is_some_and(|pending| pending > 0), "{status}");
    assert!(!target.exists());
}

#[test]
fn passwords_in_memory_reach_no_core_dump_and_no_debugger_of_the_same_user() {
    let name = "passwords_in_memory_reach_no_core_dump_and_no_debugger_of_the_same_user";
    let redis = Redis::start();
    let root = rustix::process::geteuid().is_root();
    // Run as an ordinary user: of a process that is not dumpable, the files below /proc belong to root.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let wrapper = if root { &nobody[..] } else { &[] };
    let mut daemon = Daemon::on(&redis).under(wrapper).prepare();
    if root {
        chown(daemon.state_dir(), Some(65_534), Some(65_534)).unwrap();
        fs::set_permissions(daemon.state_dir().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut reaches = Command::new(nobody[0]);
        reaches.args(&nobody[1..]).arg(binary()).arg("--version").current_dir(daemon.state_dir());
        let reaches = reaches.output();
        if !reaches.is_ok_and(|output| output.status.success()) {
            return skip(name, "needs setpriv, and a program that another user can reach");
        }
    }
    daemon.launch();
    daemon.wait_ready();
    let proc = PathBuf::from(format!("/proc/{}", daemon.process().id()));
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!(fs::metadata(proc.join("mem")).unwrap().uid(), 0, "a process that may be dumped owns its memory");
    assert!(daemon.terminate().success());
}
