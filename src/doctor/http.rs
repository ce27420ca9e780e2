//! HTTP: from where it is reached, with which tokens, and whether their file can be read.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Finding, Report};
use crate::config::Settings;

const AREA: &str = "http";

/// How long a connection to our own port may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn examine(settings: &Settings, holder: Option<&str>) -> Report {
    let mut report = Report::default();
    let http = &settings.http;
    let mut problems = Vec::new();
    http.file_problems(&mut problems);
    if !problems.is_empty() {
        let what = "a file of HTTP cannot be used, so no daemon starts";
        report.push(
            Finding::stops(AREA, what).fix("correct the file or the key that names it").evidence(problems.join("; ")),
        );
    }
    let mut warnings = Vec::new();
    http.warnings(&mut warnings);
    for warning in warnings {
        let what = "a file with tokens or keys is open to other users of this machine, who may sign in with it";
        let path = if warning.contains("session_key") { &http.session_key_file } else { &http.tokens_file };
        let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        report.push(Finding::exposes(AREA, what).fix(format!("`chmod 600 '{path}'`")).evidence(warning));
    }
    let Ok(address) = http.listen.parse::<SocketAddr>() else {
        report.saw("HTTP: off");
        return report;
    };
    let tokens = if http.tokens_file.is_some() { "with tokens" } else { "without tokens" };
    report.saw(format!("HTTP: listens on {address}, {tokens}"));
    report.extend(if address.ip().is_loopback() { on_loopback(settings) } else { on_network(settings, address) });
    if holder.is_none() {
        report.extend(port_in_use(address));
    }
    report
}

fn on_loopback(settings: &Settings) -> Option<Finding> {
    settings.http.tokens_file.is_none().then(|| {
        let what = "HTTP is open to every local user, who may read everything, send commands and delete runs";
        Finding::advice(AREA, what).fix("`cascor-ingest token new NAME admin` makes a line for `http.tokens_file`")
    })
}

fn on_network(settings: &Settings, address: SocketAddr) -> Option<Finding> {
    let http = &settings.http;
    if http.tokens_file.is_none() {
        let what =
            "HTTP listens to the network without tokens: nothing but the probes and /metrics is answered, no dashboard";
        let fix = "`cascor-ingest token new NAME admin` makes a line for `http.tokens_file`; or listen on 127.0.0.1";
        return Some(Finding::advice(AREA, what).fix(fix).evidence(format!("`http.listen` is {address}")));
    }
    // By name: a build without TLS of its own does not know the key.
    let own_tls = serde_json::to_value(http).is_ok_and(|http| http["tls"]["cert"].is_string());
    if own_tls {
        return None;
    }
    let evidence = format!("`http.listen` is {address}, and it does not speak TLS");
    let fix = "listen on 127.0.0.1 behind a proxy with TLS, and name the proxy in `http.trusted_hosts`";
    Some(if http.trusted_hosts.is_empty() {
        let what =
            "HTTP is open to the network without TLS: who is on the way reads tokens and sessions, and may use them";
        Finding::exposes(AREA, what).fix(fix).evidence(evidence)
    } else {
        let what = "HTTP listens to the network without TLS: only the proxies of `http.trusted_hosts` should reach it";
        Finding::advice(AREA, what).fix("permit the port to them alone (firewall, NetworkPolicy)").evidence(evidence)
    })
}

/// Whether something else has the port, while no daemon of these settings runs.
fn port_in_use(address: SocketAddr) -> Option<Finding> {
    let mut reached = address;
    if address.ip().is_unspecified() {
        let local = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        reached.set_ip(local.parse().ok()?);
    }
    TcpStream::connect_timeout(&reached, CONNECT_TIMEOUT).ok()?;
    let what = format!("another program listens on {address}: the daemon gets no HTTP there");
    let fix = format!(
        "set `http.listen` to a free port, or end the other program (`ss -ltnp 'sport = :{}'`)",
        address.port()
    );
    Some(
        Finding::degrades(AREA, what)
            .fix(fix)
            .evidence(format!("{reached} takes connections, and no daemon holds the spool")),
    )
}
