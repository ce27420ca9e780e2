//! System calls that fail, wait or kill: strace around the daemon, or attached to it.
//!
//! The program has no hooks for these tests: a point in its work is named by its system call and the file it is made on.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{skip, wait_until};

/// Whether strace is installed and permitted; otherwise reports the test as skipped.
pub fn usable(test: &str) -> bool {
    let traced = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=none", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match traced {
        Ok(status) if status.success() => true,
        Ok(_) => {
            skip(test, "strace may not trace here");
            false
        }
        Err(_) => {
            skip(test, "strace is not installed");
            false
        }
    }
}

/// The wrapper that kills the program before its `nth` call of `call`, counted per thread, on `path` if one is named. The last line of `log` says where
/// that was. `-D`: the program stays our child, and its process id the one we know.
pub fn killer(call: &str, path: Option<&Path>, nth: u32, log: &Path) -> Vec<String> {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let trace = format!("trace={call}");
    let words = ["strace", "-D", "-f", "-y", "-qq", "-s", "0", "-e", &trace, "-e", &inject, "-o"];
    let log = [log.display().to_string()];
    let path = path.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]).collect::<Vec<_>>();
    words.iter().map(ToString::to_string).chain(log).chain(path).collect()
}

/// Names the point at which a killed program was, from the log of [`killer`] or [`Attached::killer`].
pub fn point(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| line.contains('(') && !line.contains("resumed")).unwrap_or_default();
    let call = line.split('(').next().and_then(|head| head.rsplit(' ').next()).unwrap_or_default();
    // A small file is replaced by one that has its name with something random behind it until it is renamed.
    let file = [
        (".seg", "segment"),
        ("/spool/checkpoint.", "checkpoint"),
        ("/spool/checkpoint", "old checkpoint"),
        ("/spool/lock", "lock"),
        ("/spool>", "spool directory"),
        ("/spool\"", "spool directory"),
        ("cascor.db", "database"),
        ("/runs.json.", "open runs"),
        ("/runs.json", "old open runs"),
        ("deadletter", "dead letters"),
        ("TCP:", "socket"),
        ("socket:", "socket"),
        ("/state", "state directory"),
    ];
    let name = file.iter().find(|(part, _)| line.contains(part)).map_or("elsewhere", |(_, name)| name);
    format!("{call} {name}")
}

/// How often each point was hit.
pub type Points = BTreeMap<String, u32>;

/// An strace attached to a running process; what it injects ends when it is dropped.
#[derive(Debug)]
pub struct Attached {
    child: Child,
}

impl Attached {
    /// Injects into every thread of `pid`: `["inject=fdatasync:error=EIO"]`, only on `paths` if any are given.
    pub fn to(pid: u32, call: &str, inject: &str, paths: &[&Path]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
        command.arg(format!("inject={call}:{inject}"));
        for path in paths {
            command.arg("-P").arg(path);
        }
        command.args(["-p", &pid.to_string()]);
        let attached = Self::spawn(command);
        let tracer = format!("TracerPid:\t{}", attached.child.id());
        wait_until("strace to attach", Duration::from_secs(10), || {
            // Every thread, or a fault would begin with a part of the program only.
            fs::read_dir(format!("/proc/{pid}/task"))
                .unwrap()
                .flatten()
                .all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(|status| status.contains(&tracer)))
        });
        attached
    }

    /// Kills the program before the `nth` call of `call` from now on in one of its threads: for files whose names are not known
    /// before. The last line of `log` says where that was.
    pub fn killer(pid: u32, thread: &str, call: &str, nth: u32, log: &Path) -> Self {
        let named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread);
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| task.path());
        let task =
            tasks.into_iter().find(|task| named(task)).unwrap_or_else(|| panic!("there is no thread `{thread}`"));
        let mut command = Command::new("strace");
        command.args(["-y", "-qq", "-s", "0", "-e", &format!("trace={call}"), "-e"]);
        command
            .arg(format!("inject={call}:signal=SIGKILL:when={nth}"))
            .arg("-o")
            .arg(log)
            .arg("-p")
            .arg(task.file_name().unwrap());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        Self { child: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SIGINT: it detaches and leaves the program running; SIGKILL would do the same, less surely.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
