//! The C library's allocator, tuned for long-lived processes.
//!
//! glibc raises the size from which an allocation is given back to the system at once to that of the largest one freed so far, up
//! to 32 MiB. After one message of 20 MiB each thread would keep tens of MiB for good: measured with a few such messages, 186 MiB
//! stay resident instead of 73. The setting is only read when a program starts, so the program starts itself once more.

use std::{env, os::unix::process::CommandExt, process::Command};

/// See `mallopt(3)`.
const THRESHOLD_VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
/// 1 MiB: what is larger is rare, and large messages are.
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
