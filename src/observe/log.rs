//! Logs as go-log prints them: facilities with levels, tab-separated text or JSON (spec: cli 5).
//!
//! A facility is the target of a `tracing` event. Events of libraries, whose targets are module paths, count for
//! the facility that plays their part in the reference, else for their crate.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use cluster_compat::go::time::Time;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter};
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::Error;

/// Facilities of the cluster itself, `info` unless told otherwise. logging.go:11
pub const FACILITIES: [&str; 23] = [
    "cluster",
    "restapi",
    "restapilog",
    "pinsvcapi",
    "pinsvcapilog",
    "ipfsproxy",
    "ipfsproxylog",
    "ipfshttp",
    "monitor",
    "dsstate",
    "raft",
    "crdt",
    "pintracker",
    "diskinfo",
    "tags",
    "apitypes",
    "config",
    "shardingdags",
    "singledags",
    "adder",
    "optracker",
    "pstoremgr",
    "allocator",
];

/// Facilities of libraries and their levels. logging.go:40
const EXTRA: [(&str, LevelFilter); 7] = [
    ("p2p-gorpc", LevelFilter::ERROR),
    ("swarm2", LevelFilter::ERROR),
    ("libp2p-raft", LevelFilter::OFF),
    ("raftlib", LevelFilter::ERROR),
    ("badger", LevelFilter::INFO),
    ("badger3", LevelFilter::INFO),
    ("pebble", LevelFilter::WARN),
];

/// Whose defaults to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `ipfs-cluster-service`, and `run` of `ipfs-cluster-follow`: the cluster's facilities at `info`.
    Service,
    /// `ipfs-cluster-ctl` and the other commands of `ipfs-cluster-follow`: errors.
    Client,
}

/// What [`init`] needs.
pub struct LogArgs<'a> {
    /// Whose defaults to start from.
    pub program: Program,
    /// `--loglevel` or `IPFS_CLUSTER_LOG_LEVEL`: `level` and `facility:level`, comma separated; may be empty.
    pub levels: &'a str,
    /// `--debug`: everything, libraries included.
    pub debug: bool,
    /// Reads an environment variable, for the `GOLOG_*` ones.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// Sets up logging for the process. The lines it returns belong on stdout, where the reference prints them.
pub fn init(args: &LogArgs<'_>) -> Result<Vec<String>, Error> {
    let set = |name: &str, alias: &str| {
        (args.env)(name).filter(|v| !v.is_empty()).or_else(|| (args.env)(alias)).filter(|v| !v.is_empty())
    };
    let mut complaints = Vec::new();
    let mut levels =
        Levels::from_env(&set("GOLOG_LOG_LEVEL", "IPFS_LOGGING").unwrap_or_default(), &mut complaints);
    let notes = levels.apply(args.program, args.levels, args.debug)?;
    let output = Output::from_env(args.env, &mut complaints)?;
    let format = match set("GOLOG_LOG_FMT", "IPFS_LOGGING_FMT").as_deref() {
        Some("color") => Format::Colour,
        Some("nocolor") => Format::Plain,
        Some("json") => Format::Json,
        other => {
            if let Some(other) = other {
                complaints.push(format!("ignoring unrecognized log format '{other}'"));
            }
            if output.is_terminal() { Format::Colour } else { Format::Plain }
        }
    };
    let labels = labels((args.env)("GOLOG_LOG_LABELS").as_deref().unwrap_or_default(), &mut complaints);
    for complaint in complaints {
        // there is no log yet
        let _ = writeln!(io::stderr(), "{complaint}");
    }
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(DefaultFields::new())
        .event_format(Lines { format, labels })
        .with_writer(output)
        .with_filter(levels);
    tracing::subscriber::set_global_default(Registry::default().with(layer))
        .map_err(|_| Error::AlreadySet)?;
    Ok(notes)
}

/// The level of each facility.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Levels {
    default: LevelFilter,
    facilities: HashMap<String, LevelFilter>,
}

impl Levels {
    /// `level,name=level,…` of `GOLOG_LOG_LEVEL`.
    fn from_env(text: &str, complaints: &mut Vec<String>) -> Self {
        let mut levels = Self { default: LevelFilter::ERROR, facilities: HashMap::new() };
        for item in text.split(',').filter(|_| !text.is_empty()) {
            let (name, level) = match item.split_once('=') {
                Some((name, level)) => (Some(name), level),
                None => (None, item),
            };
            match (parse_level(level), name) {
                (None, _) => {
                    complaints
                        .push(format!("error setting log level {item:?}: unrecognized level: {level:?}"));
                }
                (Some(level), None) => levels.default = level,
                (Some(level), Some(name)) => {
                    levels.facilities.insert(name.to_owned(), level);
                }
            }
        }
        levels
    }

    /// The program's own levels and its `--loglevel` on top of the environment.
    fn apply(&mut self, program: Program, text: &str, debug: bool) -> Result<Vec<String>, Error> {
        if debug {
            self.default = LevelFilter::DEBUG;
            self.facilities.clear();
            return Ok(Vec::new());
        }
        if program == Program::Client {
            self.facilities.insert("apiclient".to_owned(), LevelFilter::INFO);
            return Ok(Vec::new());
        }
        let mut notes = Vec::new();
        let mut chosen: HashMap<&str, &str> = HashMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let mut parts = item.split(':');
            let (facility, level) = match (parts.next(), parts.next(), parts.next()) {
                (Some(level), None, _) => ("all", level),
                (Some(facility), Some(level), None) => (facility, level),
                _ => return Err(Error::LevelFormat),
            };
            if chosen.insert(facility, level).is_some() {
                notes.push(format!("overwriting existing {facility} log level"));
            }
        }
        let all = chosen.remove("all").unwrap_or("info");
        for (facility, threshold) in EXTRA {
            self.facilities.insert(facility.to_owned(), threshold);
        }
        for facility in FACILITIES.into_iter().chain(["service"]) {
            self.set(facility, all);
        }
        for (facility, level) in chosen {
            self.set(facility, level);
        }
        Ok(notes)
    }

    /// An unknown level leaves the facility at the default, as in the reference.
    fn set(&mut self, facility: &str, level: &str) {
        match parse_level(level) {
            Some(level) => self.facilities.insert(facility.to_owned(), level),
            None => self.facilities.remove(facility),
        };
    }

    fn is_shown(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.facilities.get(facility(metadata.target())).unwrap_or(&self.default);
        metadata.level() <= level
    }
}

impl<S: Subscriber> Filter<S> for Levels {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.is_shown(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_shown(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.facilities.values().copied().chain([self.default]).max()
    }
}

/// go-log's names, any case; nothing is `info`. What is above `error` shows nothing, since nothing logs there.
fn parse_level(text: &str) -> Option<LevelFilter> {
    Some(match text.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "info" | "" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        "dpanic" | "panic" | "fatal" => LevelFilter::OFF,
        _ => return None,
    })
}

/// The facility of a target.
fn facility(target: &str) -> &str {
    match target.split("::").next().unwrap_or(target) {
        "ipfs_cluster" | "cluster_compat" => "cluster",
        "libp2p_swarm" => "swarm2",
        "libp2p_gossipsub" => "pubsub",
        "libp2p_kad" => "dht",
        krate => krate,
    }
}

/// `k=v,k2=v2` of `GOLOG_LOG_LABELS`.
fn labels(text: &str, complaints: &mut Vec<String>) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    for label in text.split(',').filter(|_| !text.is_empty()) {
        match label.split_once('=') {
            Some((key, value)) if !value.contains('=') => labels.push((key.to_owned(), value.to_owned())),
            _ => complaints.push(format!("invalid label k=v: {label}")),
        }
    }
    labels
}

/// Where lines go.
#[derive(Debug, Clone)]
struct Output {
    is_stdout: bool,
    is_stderr: bool,
    file: Option<Arc<File>>,
}

impl Output {
    /// `GOLOG_FILE` and `GOLOG_OUTPUT`: a file takes the place of stderr unless both are asked for.
    fn from_env(env: &dyn Fn(&str) -> Option<String>, complaints: &mut Vec<String>) -> Result<Self, Error> {
        let path = env("GOLOG_FILE").filter(|path| !path.is_empty());
        let wanted = env("GOLOG_OUTPUT").unwrap_or_default();
        let wants = |name: &str| wanted.split('+').any(|part| part == name);
        if wants("file") && path.is_none() {
            complaints.push("please specify a GOLOG_FILE value to write to".to_owned());
        }
        if let Some(url) = env("GOLOG_URL").filter(|url| !url.is_empty()) {
            complaints.push(format!("GOLOG_URL is not supported: no logs are sent to {url}"));
        }
        let (is_stdout, is_stderr) = match (wants("stdout"), wants("stderr")) {
            (false, false) => (false, path.is_none()),
            both => both,
        };
        let file = match path {
            None => None,
            Some(path) => match File::options().append(true).create(true).open(&path) {
                Ok(file) => Some(Arc::new(file)),
                Err(source) => return Err(Error::File { path, source }),
            },
        };
        Ok(Self { is_stdout, is_stderr, file })
    }

    fn is_terminal(&self) -> bool {
        (self.is_stdout && io::stdout().is_terminal())
            || (self.is_stderr && io::stderr().is_terminal())
            || self.file.as_ref().is_some_and(|file| file.is_terminal())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Output {
    /// One call per line. A closed stderr must not stop the peer, so failures are dropped.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_stderr {
            let _ = io::stderr().write_all(line);
        }
        if self.is_stdout {
            let _ = io::stdout().write_all(line);
        }
        if let Some(file) = &self.file {
            let _ = (&**file).write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Colour,
    Json,
}

/// Turns events into lines.
struct Lines {
    format: Format,
    labels: Vec<(String, String)>,
}

impl<S> FormatEvent<S, DefaultFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, DefaultFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut parts = Parts::default();
        event.record(&mut parts);
        let mut line = String::with_capacity(160 + parts.message.len() + parts.fields.len());
        self.line(&mut line, Time::now(), metadata, &parts)?;
        out.write_str(&line)
    }
}

impl Lines {
    fn line(&self, out: &mut String, now: Time, metadata: &Metadata<'_>, parts: &Parts) -> fmt::Result {
        let facility = facility(metadata.target());
        let caller = caller(metadata.file().unwrap_or("unknown"), metadata.line().unwrap_or(0));
        if self.format == Format::Json {
            let level = level_name(*metadata.level()).to_ascii_lowercase();
            write!(out, "{{\"level\":\"{level}\",\"ts\":\"{}\",\"logger\":", iso8601(now))?;
            json_text(out, facility)?;
            out.push_str(",\"caller\":");
            json_text(out, &caller)?;
            out.push_str(",\"msg\":");
            json_text(out, &parts.message)?;
            for (key, value) in &self.labels {
                out.push(',');
                json_text(out, key)?;
                out.push(':');
                json_text(out, value)?;
            }
            for (key, value) in &parts.fields {
                out.push(',');
                json_text(out, key)?;
                write!(out, ":{value}")?;
            }
            out.push_str("}\n");
            return Ok(());
        }
        let level = level_name(*metadata.level());
        let now = iso8601(now);
        match self.format {
            Format::Colour => write!(out, "{now}\t\x1b[{}m{level}\x1b[0m", colour(*metadata.level()))?,
            _ => write!(out, "{now}\t{level}")?,
        }
        write!(out, "\t{facility}\t{caller}\t{}", harmless(&parts.message))?;
        let mut separator = "\t{";
        for (key, value) in &self.labels {
            out.push_str(separator);
            json_text(out, key)?;
            out.push_str(": ");
            json_text(out, value)?;
            separator = ", ";
        }
        for (key, value) in &parts.fields {
            out.push_str(separator);
            json_text(out, key)?;
            write!(out, ": {value}")?;
            separator = ", ";
        }
        out.push_str(if separator == ", " { "}\n" } else { "\n" });
        Ok(())
    }
}

/// The message of an event, and its fields as JSON values.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Parts {
    fn quoted(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let mut text = String::with_capacity(value.len() + 2);
            // writing into a String cannot fail
            let _ = json_text(&mut text, value);
            self.fields.push((field.name(), text));
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.quoted(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.quoted(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.quoted(field, &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.fields.push((field.name(), value.to_string()));
        } else {
            self.quoted(field, &value.to_string());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.to_string()));
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// zap's colours: red, yellow, blue, magenta.
const fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 34,
        _ => 35,
    }
}

/// The last folder, the file, the line.
fn caller(file: &str, line: u32) -> String {
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{line}", &file[start..])
}

/// Local time with milliseconds: `2026-05-11T10:20:30.123Z`, or `+0200` for the `Z`.
fn iso8601(time: Time) -> String {
    let offset = i64::from(time.offset_secs());
    let local = time.unix().saturating_add(offset);
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    // civil date from a day count: eras of 400 years that start on the first of March
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let zone = if offset == 0 {
        Cow::Borrowed("Z")
    } else {
        let sign = if offset < 0 { '-' } else { '+' };
        let minutes = offset.abs() / 60;
        Cow::Owned(format!("{sign}{:02}{:02}", minutes / 60, minutes % 60))
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}{zone}",
        second / 3600,
        second / 60 % 60,
        second % 60,
        time.subsec_nanos() / 1_000_000
    )
}

/// A JSON string.
fn json_text(out: &mut String, text: &str) -> fmt::Result {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\x7f' => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}

/// A message may quote what peers sent: no control character but tab and line feed reaches a terminal.
fn harmless(message: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !message.contains(is_harmful) {
        return Cow::Borrowed(message);
    }
    Cow::Owned(message.chars().fold(String::with_capacity(message.len() + 8), |mut text, c| {
        if is_harmful(c) {
            text.extend(c.escape_default())
        } else {
            text.push(c)
        }
        text
    }))
}

#[cfg(test)]
mod tests;
