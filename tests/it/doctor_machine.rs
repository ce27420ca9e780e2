//! `doctor` on broken settings, files, disks and limits of this machine.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    doctor::{Expected, QUICK, TOKENS, advice, fault, file, good_redis, on, prepared, text},
    support::{
        daemon::{Builder, Daemon},
        skip,
    },
};

/// Settings, files or limits on this machine that are broken.
type Broken = (&'static str, fn(Builder, &Path) -> Daemon, Expected);

const BROKEN: &[Broken] = &[
    (
        "an unknown key",
        |builder, _| builder.set("spol.capacity", "1").prepare(),
        fault("configuration is invalid", "correct this key"),
    ),
    (
        "a capacity beyond the disk",
        |builder, _| builder.set("spool.capacity", "\"100000GiB\"").prepare(),
        fault("disk is full before the spool", "lower `spool.capacity`"),
    ),
    (
        "a file in the place of a directory",
        |builder, dir| {
            let path = file(dir, "plain", "", 0o600);
            builder.set("spool.dir", path.replace("plain", "plain/spool")).prepare()
        },
        fault("is no directory", "spool.dir"),
    ),
    (
        "a spool that all may write",
        |builder, dir| {
            let spool = dir.join("spool");
            fs::create_dir(&spool).unwrap();
            fs::set_permissions(&spool, fs::Permissions::from_mode(0o777)).unwrap();
            builder.set("spool.dir", text(&spool)).prepare()
        },
        fault("other users may write", "chmod go-w"),
    ),
    (
        "a password that all may read",
        |builder, dir| builder.set("redis.password_file", file(dir, "password", "pw", 0o644)).prepare(),
        fault("other users may read", "chmod go="),
    ),
    (
        "tokens that all may read",
        |builder, dir| builder.set("http.tokens_file", file(dir, "tokens", TOKENS, 0o644)).prepare(),
        fault("open to other users", "chmod 600"),
    ),
    (
        "a file without tokens",
        |builder, dir| builder.set("http.tokens_file", file(dir, "tokens", "", 0o600)).prepare(),
        fault("file of HTTP cannot be used", "correct the file"),
    ),
    (
        "HTTP on all addresses without TLS",
        |builder, dir| {
            builder.listen_on("0.0.0.0").set("http.tokens_file", file(dir, "tokens", TOKENS, 0o600)).prepare()
        },
        fault("without TLS", "127.0.0.1 behind a proxy"),
    ),
    (
        "no database",
        |builder, dir| {
            builder.set("store.sqlite.path", file(dir, "cascor.db", "no database at all, but text\n", 0o600)).prepare()
        },
        fault("database", ""),
    ),
    (
        "HTTP on loopback without tokens",
        |builder, _| builder.prepare(),
        advice("open to every local user", "token new"),
    ),
];

#[test]
fn what_is_wrong_on_this_machine_is_named_first() {
    let redis = good_redis();
    for (name, build, expected) in BROKEN {
        let dir = tempfile::tempdir().unwrap();
        // A password in a file replaces that of the environment, and two of them would be an error.
        let builder = if name.contains("password") { Daemon::on(&redis) } else { on(&redis) };
        expected.check(name, &build(builder, dir.path()).command(&QUICK));
    }
    let taken = on(&redis).prepare();
    let _listener = TcpListener::bind(("127.0.0.1", taken.http_port())).unwrap();
    fault("another program listens", "http.listen").check("a port in use", &taken.command(&QUICK));
}

#[test]
fn limits_of_the_process_and_clocks_are_named_first() {
    let redis = good_redis();
    let daemon = on(&redis).prepare();
    let slow = "inject=fdatasync:delay_enter=150000";
    for (wrapper, expected) in [
        (&["prlimit", "--nofile=100:100"][..], fault("fewer files", "LimitNOFILE")),
        (&["prlimit", "--fsize=1000000"], fault("segment of the spool", "LimitFSIZE")),
        (&["prlimit", "--as=1900000000"], fault("address space", "ulimit -v")),
        (&["strace", "-f", "-qq", "-o", "/dev/null", "-e", slow], fault("syncs so slowly", "spool.dir")),
        (
            &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO"],
            fault("takes no write", "repair the disk"),
        ),
    ] {
        expected.check(&format!("{wrapper:?}"), &under(&daemon, wrapper));
    }
    let Some(library) = faketime() else {
        return skip("limits_of_the_process_and_clocks", "libfaketime is not installed");
    };
    let clock = on(&redis).env("LD_PRELOAD", library.to_str().unwrap()).env("FAKETIME", "+600");
    let clock = clock.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").prepare();
    fault("differ by more than five minutes", "synchronise").check("a clock", &clock.command(&QUICK));
}

fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders.flatten().map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
}

/// A file system in memory; unmounted when dropped.
struct Memory(tempfile::TempDir);

impl Memory {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_spool_in_memory_or_on_a_read_only_disk_is_named_first() {
    let redis = good_redis();
    for (options, expected) in [
        ("size=16m", fault("tmpfs, in memory", "on a local disk")),
        ("size=16m,ro", fault("mounted read-only", "remount,rw")),
    ] {
        let Some(memory) = Memory::mount(options) else {
            return skip(
                "a_spool_in_memory_or_on_a_read_only_disk_is_named_first",
                "needs root, to mount a file system",
            );
        };
        let dir = text(&memory.0.path().join("spool"));
        let daemon =
            prepared(on(&redis), &[("spool.dir", &dir), ("spool.capacity", "\"8MiB\""), ("spool.segment", "\"1MiB\"")]);
        expected.check(options, &daemon.command(&QUICK));
    }
}

/// A cgroup with little memory; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn make(bytes: &str) -> Option<Self> {
        let name = format!("cascor-doctor-{}", std::process::id());
        for (root, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(Path::new(root).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(file), bytes).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_below_the_bounds_is_named_first() {
    let Some(group) = Group::make("150000000") else {
        return skip(
            "a_cgroup_below_the_bounds_is_named_first",
            "needs root and a cgroup of memory that can be changed",
        );
    };
    let redis = good_redis();
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let output = under(&on(&redis).prepare(), &["sh", "-c", &script, "sh"]);
    fault("the kernel kills the daemon", "MemoryMax").check("a cgroup", &output);
}

/// The examination started by another program.
fn under(daemon: &Daemon, wrapper: &[&str]) -> Output {
    let doctor = daemon.prepared(&QUICK);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(doctor.get_program()).args(doctor.get_args()).env_clear();
    command.envs(doctor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(doctor.get_current_dir().unwrap()).output().unwrap()
}
