//! The command: decides the exit status, nothing else.

fn main() {}
