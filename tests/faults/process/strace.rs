//! System calls that fail, wait or kill: strace attached to the daemon, or around it.
