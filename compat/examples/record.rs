//! Takes new fixtures from a running daemon or cluster, or holds one against fixtures.
//!
//! ```text
//! record --rest 127.0.0.1:9094 --proxy 127.0.0.1:9095 --pinsvc 127.0.0.1:9097 requests.json > fixture.json
//! record --check --rest 127.0.0.1:9094 fixture.json …
//! ```
//!
//! `--port 9096=cluster` writes `{cluster}` for a port that differs from run to run. `--whole` replays the steps too
//! that a fake cluster cannot answer.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use cluster_compat::testing::golden::record::{Ports, record};
use cluster_compat::testing::golden::replay::Faces;
use cluster_compat::testing::golden::{Face, Recording, Replay};

const USAGE: &str = "usage: record [--check] [--whole] [--rest ADDR] [--proxy ADDR] [--pinsvc ADDR] \
                     [--port NUMBER=NAME]... FILE...";

/// What was typed.
#[derive(Default)]
struct Args {
    checks: bool,
    is_whole: bool,
    faces: Faces,
    ports: Ports,
    files: Vec<String>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let face = match word.as_str() {
            "--rest" => Face::Rest,
            "--proxy" => Face::Proxy,
            "--pinsvc" => Face::Pinsvc,
            "--check" => {
                args.checks = true;
                continue;
            }
            "--whole" => {
                args.is_whole = true;
                continue;
            }
            "--port" => {
                let value = words.next().unwrap_or_default();
                let pair = value.split_once('=').and_then(|(port, name)| Some((port.parse().ok()?, name)));
                let (port, name) = pair.ok_or_else(|| format!("--port {value}: NUMBER=NAME is wanted"))?;
                args.ports.insert(port, name.to_owned());
                continue;
            }
            other if other.starts_with('-') => return Err(format!("{other} is not known\n{USAGE}")),
            file => {
                args.files.push(file.to_owned());
                continue;
            }
        };
        let value = words.next().unwrap_or_default();
        let addr: SocketAddr = value.parse().map_err(|error| format!("{word} {value}: {error}"))?;
        args.faces.insert(face, addr);
    }
    let is_enough =
        !args.faces.is_empty() && (args.checks && !args.files.is_empty() || args.files.len() == 1);
    if is_enough { Ok(args) } else { Err(USAGE.to_owned()) }
}

async fn run(args: Args, command: &str) -> Result<bool, String> {
    let mut is_same = true;
    for file in &args.files {
        let failed = |error: std::io::Error| format!("{file}: {error}");
        if args.checks {
            let replay = Replay::load(Path::new(file), args.faces.clone()).map_err(failed)?;
            let replay = if args.is_whole { replay.whole() } else { replay };
            let outcome = replay.with_ports(args.ports.clone()).run(None).await;
            is_same &= outcome.differences.is_empty();
            println!("{file}: {} of {} steps differ", outcome.differences.len(), outcome.n_compared);
            for difference in outcome.differences {
                println!("{difference}");
            }
        } else {
            let requests = Recording::load(Path::new(file)).map_err(failed)?;
            let recording = record(requests, &args.faces, &args.ports, command).await.map_err(failed)?;
            std::io::stdout().write_all(recording.to_text().as_bytes()).map_err(failed)?;
        }
    }
    Ok(is_same)
}

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("record {}", words.join(" "));
    let outcome = match parse(words.into_iter()) {
        Ok(args) => run(args, &command).await,
        Err(message) => Err(message),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
