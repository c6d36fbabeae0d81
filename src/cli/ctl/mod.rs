//! `ipfs-cluster-ctl`: asks a peer over HTTP and prints what it says.
//!
//! ```text
//! arguments ─ app (table) ─ Request ─ commands ─ RestClient ─ Output ─ exit code
//! ```
//!
//! - Answers go to standard output, also when the peer refuses; what ctl itself cannot do goes to standard error.
//! - Exit codes: 0, 1 (ctl could not ask), 2 (the peer refused), 3 (no such command), 62 (waited too long).
//! - Everything typed is read before anything is sent.

mod add;
mod app;
mod files;
mod format;
mod graph;
mod health;
mod libp2p;
mod output;
mod peers;
mod pin;
mod status;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use cluster_compat::client::{Options, RestClient};
use cluster_compat::http::tls;
use cluster_compat::types::{Cid, Multiaddr, multiaddr_peer, parse_cid, parse_multiaddr};

use self::output::{Failure, Output};
use crate::cli::table::{Command, Parsed, Run, Values};
use crate::cli::{complete, exit};
use crate::observe::log;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let run = match app::app().parse(std::env::args_os().skip(1).collect(), &env) {
        Parsed::Done(done) => return exit::done(&done),
        Parsed::Run(run) => run,
    };
    if let Some(answer) = complete::answer(&app::app(), &run) {
        return exit::finish(answer.map(|text| exit::print(&text)));
    }
    let logs = log::LogArgs {
        program: log::Program::Client,
        levels: "",
        debug: run.globals.bool("debug"),
        env: &env,
    };
    // Without a log ctl does as well.
    let _ = log::init(&logs);
    let mut stdout = std::io::stdout().lock();
    let mut output = Output::new(run.globals.string("encoding") == "json", &mut stdout);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(output.finish(Err(Failure::new("starting", error)))),
    };
    let result = runtime.block_on(run_command(&run, &mut output));
    let code = output.finish(result);
    // A look-up of a name or a read may still be on its way; nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// What commands work with.
struct Request<'a> {
    client: RestClient,
    flags: &'a Values,
    args: &'a [OsString],
}

impl Request<'_> {
    /// The n-th argument; `""` if there is none.
    fn arg(&self, n: usize) -> String {
        self.args.get(n).map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// All arguments as CIDs.
    fn cids(&self) -> Result<Vec<Cid>, Failure> {
        (0..self.args.len()).map(|n| cid(&self.arg(n))).collect()
    }

    /// `--local`
    fn local(&self) -> bool {
        self.flags.bool("local")
    }
}

/// A CID argument.
fn cid(text: &str) -> Result<Cid, Failure> {
    parse_cid(text).map_err(|error| Failure::new("parsing cid", error))
}

async fn run_command(run: &Run, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = connect(&run.globals).await?;
    let request = Request { client, flags: &run.flags, args: &run.args };
    match run.path[..] {
        ["id"] => peers::id(&request, output).await,
        ["peers" | "member", "ls"] => peers::ls(&request, output).await,
        ["peers", "rm"] => peers::rm(&request).await,
        ["version"] => peers::version(&request, output).await,
        ["add"] => add::add(&request, output).await,
        ["pin", "add"] => pin::add(&request, output).await,
        ["pin", "rm"] => pin::rm(&request, output).await,
        ["pin", "update"] => pin::update(&request, output).await,
        ["pin", "ls"] => pin::ls(&request, output).await,
        ["status"] => status::status(&request, output).await,
        ["recover"] => status::recover(&request, output).await,
        ["sync"] => status::sync(&request, output).await,
        ["health", "graph"] => health::graph(&request, output).await,
        ["health", "metrics"] => health::metrics(&request, output).await,
        ["health", "alerts"] => health::alerts(&request, output).await,
        ["health", "bandwidth"] => health::bandwidth(&request, output).await,
        ["ipfs", "gc"] => health::gc(&request, output).await,
        ["commands"] => output.raw(&commands()),
        _ => Err(Failure::new("", format!("{} does nothing yet", run.path.join(" ")))),
    }
}

/// A client for the endpoints of the global flags, which are checked in the order of the reference.
async fn connect(globals: &Values) -> Result<RestClient, Failure> {
    let secret =
        hex_secret(globals.string("secret")).map_err(|error| Failure::new("parsing secret", error))?;
    let (username, password) = match globals.string("basic-auth").split_once(':') {
        Some((username, password)) => (username, password),
        None => (globals.string("basic-auth"), ""),
    };
    let implies_https = !username.is_empty() && !globals.bool("force-http");
    let https = globals.bool("https") || implies_https;
    if !matches!(globals.string("encoding"), "text" | "json") {
        return Err(Failure::new("", "unsupported encoding"));
    }
    let mut hosts = Vec::new();
    for text in globals.string("host").split(',') {
        hosts.push(parse_multiaddr(text).map_err(|error| Failure::new("parsing host multiaddress", error))?);
    }
    for host in &hosts {
        if let Some(cause) = libp2p_fault(host, secret.len()) {
            return Err(Failure::new("creating API client", cause));
        }
    }
    let tls = match (https, globals.bool("no-check-certificate")) {
        (false, _) => None,
        (true, false) => Some(tls::Client::checking()),
        (true, true) => Some(tls::Client::unchecking()),
    };
    let tls = tls.transpose().map_err(|error| Failure::new("creating API client", error))?;
    let timeout = u64::try_from(globals.int("timeout")).unwrap_or(0);
    let options = Options {
        hosts,
        username: username.into(),
        password: password.into(),
        tls,
        dialer: Some(libp2p::dialer(<[u8; 32]>::try_from(&secret[..]).ok())),
        timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
    };
    RestClient::new(options).await.map_err(|error| Failure::new("creating configs", error))
}

/// Why a libp2p endpoint cannot be used; `None` for the others.
fn libp2p_fault(host: &Multiaddr, secret_len: usize) -> Option<String> {
    let text = host.to_string();
    if multiaddr_peer(host).is_none() && !text.starts_with("/dnsaddr/") {
        return None;
    }
    if multiaddr_peer(host).is_none() {
        Some(format!("{host}: a /dnsaddr has to end in /p2p/ and a peer id"))
    } else if text.matches('/').count() == 2 {
        Some("APIAddr only includes a Peer ID".into())
    } else if secret_len != 0 && secret_len != 32 {
        Some("length of ProtectorKey should be 32".into())
    } else {
        None
    }
}

/// A secret in hexadecimal; the error is that of Go's `encoding/hex`.
fn hex_secret(text: &str) -> Result<Vec<u8>, String> {
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("encoding/hex: invalid byte: U+{:04X} '{bad}'", u32::from(bad)));
    }
    hex::decode(text).map_err(|_| "encoding/hex: odd length hex string".into())
}

/// The paths of all commands of the reference, a line each.
fn commands() -> String {
    fn walk(parent: &str, commands: &[Command], out: &mut String) {
        let is_ours = |name| matches!(name, "sync" | "member" | "completion" | "man");
        for command in commands.iter().filter(|command| !is_ours(command.name)) {
            let path = format!("{parent} {}", command.name);
            out.push_str(&path);
            out.push('\n');
            walk(&path, &command.commands, out);
        }
    }
    let app = app::app();
    let mut out = String::new();
    walk(&app.name, &app.commands, &mut out);
    out.push_str(&app.name);
    out.push_str(" help\n");
    out
}

/// Writes a file, created or truncated.
fn write_file(path: &str, content: &[u8]) -> Result<(), Failure> {
    std::fs::File::create(path).and_then(|mut file| file.write_all(content)).map_err(|error| {
        let cause = error.to_string();
        let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
        Failure::new("creating output file", format!("open {path}: {cause}"))
    })
}
