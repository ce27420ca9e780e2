//! The benchmarks: where the figures of `tests/bench/README.md` come from.
//!
//! `tests/bench/run` starts a Cassandra node and calls this. Every figure of the daemon stands next to that of a bare loop doing only
//! the unavoidable part, measured in the same run against the same servers; quote the ratios, not the absolute values.
//!
//! ```text
//! tests/bench/run [stages] [drain] [load] [flood] [reading] [hostile] [--seconds 60] [--repeat 3] [--rows 200000]
//! tests/bench/run start [--gib 10]              from process start to subscribed, with an empty spool and a large one
//! tests/bench/run outage [--rows 1200000]       drain of the backlog of an outage, and delays meanwhile
//! tests/bench/run peer [--seconds 20]           CPU per event beside Bento
//! tests/bench/run growth [--seconds 20]         what grows with rates, runs, metrics and history; on SQLite
//! tests/bench/run idle [--repeat 3]             processor time and wake-ups without any traffic
//! tests/bench/run scale [--seconds 3]           what sharing costs: up to four daemons on streams, and a pair on Pub/Sub
//! ```

mod attack;
mod bare;
mod daemon;
mod drain;
mod fleet;
mod flood;
mod growth;
mod histogram;
mod hostile;
mod idle;
mod load;
mod outage;
mod peer;
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the attacks, which use more of it")]
#[path = "../faults/process/proxy.rs"]
mod proxy;
mod reading;
mod resp;
mod scale;
mod stages;
mod start;

use std::env;

use scylla::client::{session::Session, session_builder::SessionBuilder};

/// Any error ends a benchmark.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// The measurements and their length.
struct Options {
    parts: Vec<String>,
    seconds: u64,
    repeat: usize,
    rows: Option<u64>,
    gib: u64,
    cassandra: String,
}

impl Options {
    fn read() -> Result<Self, Error> {
        let cassandra = env::var("CASCOR_TEST_CASSANDRA")
            .map_err(|_| "CASCOR_TEST_CASSANDRA (host:port) is not set; call tests/bench/run, which starts a node")?;
        let (mut seconds, mut repeat) = (None, None);
        let mut options = Self { parts: Vec::new(), seconds: 60, repeat: 3, rows: None, gib: 10, cassandra };
        let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut number =
                || arguments.next().and_then(|n| n.parse().ok()).ok_or(format!("{argument} needs a number"));
            match argument.as_str() {
                "--seconds" => seconds = Some(number()?),
                "--repeat" => repeat = Some(number()? as usize),
                "--rows" => options.rows = Some(number()?),
                "--gib" => options.gib = number()?,
                part @ ("stages" | "drain" | "load" | "flood" | "reading" | "hostile" | "start" | "outage" | "peer"
                | "growth" | "idle" | "scale") => options.parts.push(part.into()),
                other => return Err(format!("unknown argument `{other}`").into()),
            }
        }
        // It has so many set-ups that a minute of each would take hours.
        let is_scale = options.parts == ["scale"];
        options.seconds = seconds.unwrap_or(if is_scale { 3 } else { 60 });
        options.repeat = repeat.unwrap_or(if is_scale { 2 } else { 3 });
        if options.parts.is_empty() {
            options.parts = ["stages", "drain", "load", "flood", "reading", "hostile"].map(Into::into).to_vec();
        }
        Ok(options)
    }
}

/// A session like the daemon's own, for the bare loops and for reading back.
async fn session(address: &str) -> Result<Session, Error> {
    Ok(SessionBuilder::new().known_node(address).build().await?)
}

/// The value below which the fraction `q` of the sorted `values` lies.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 * q) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

fn main() -> Result<(), Error> {
    let options = Options::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        for part in &options.parts {
            println!("\n== {part}");
            match part.as_str() {
                "stages" => stages::run(&options)?,
                "drain" => drain::run(&options).await?,
                "load" => load::run(&options).await?,
                "reading" => reading::run(&options).await?,
                "hostile" => hostile::run(&options).await?,
                "start" => start::run(&options)?,
                "outage" => outage::run(&options).await?,
                "peer" => peer::run(&options).await?,
                "growth" => growth::run(&options).await?,
                "idle" => idle::run(&options)?,
                "scale" => scale::run(&options).await?,
                _ => flood::run(&options).await?,
            }
        }
        Ok(())
    })
}
