//! The C library's allocator, tuned for long-lived processes.
//!
//! glibc returns an allocation above a threshold to the system as soon as it is freed, and raises the threshold to the largest
//! allocation freed so far, up to 32 MiB. After one message of 20 MiB each thread would keep tens of MiB for good: a few such
//! messages leave 186 MiB resident instead of 73. The setting is read only at the start of a program, which therefore starts twice.

use std::{env, os::unix::process::CommandExt, process::Command};

/// See `mallopt(3)`.
const THRESHOLD_VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
/// 1 MiB: only large messages exceed it.
const THRESHOLD_BYTES: &str = "1048576";

/// Replaces the process by itself with a fixed threshold; does nothing where one is set.
pub(super) fn reexec_with_malloc_threshold() {
    if cfg!(not(target_env = "gnu")) || env::var_os(THRESHOLD_VARIABLE).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into());
    // Returns only on failure, such as a program file just replaced; the process then goes on and keeps more memory.
    let _ = Command::new(program).arg0(name).args(arguments).env(THRESHOLD_VARIABLE, THRESHOLD_BYTES).exec();
}
