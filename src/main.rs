//! The command: decides the exit status, nothing else.

use std::process::ExitCode;

use cascor_ingest::{cli, terminal};

fn main() -> ExitCode {
    // Two libraries bring TLS; which provider they share must be said before either asks.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        terminal::print_notice(format_args!("cascor-ingest: failed to install the TLS provider"));
        return ExitCode::FAILURE;
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_status())
        }
    }
}
