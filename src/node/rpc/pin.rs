//! `pin/*`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::types::Cid;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::super::pins::{self, Progress};
use super::super::repo::{Pin, PinKind, Repo};
use super::super::source::{Source, blocking};
use super::super::{Core, Error, path};
use super::answer::{Answer, Failure};
use super::call::{Call, Encoder};

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Longest name of a pin. (Go: `cmdutils.MaxPinNameBytes`)
const MAX_NAME_BYTES: usize = 255;
/// Rows on their way to a reader.
const MAX_QUEUED: usize = 256;

#[derive(Serialize, Default)]
struct Added {
    #[serde(rename = "Pins", skip_serializing_if = "Vec::is_empty")]
    pins: Vec<String>,
    #[serde(rename = "Progress", skip_serializing_if = "is_zero")]
    progress: u64,
    #[serde(rename = "Bytes", skip_serializing_if = "is_zero")]
    bytes: u64,
}

#[derive(Serialize)]
struct Pins {
    #[serde(rename = "Pins")]
    pins: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where an argument leads; the first error ends the call.
pub(super) async fn root_of(source: &Source, text: &str) -> Result<Cid, Error> {
    Ok(path::resolve(source, &path::parse(text)?).await?.cid)
}

fn check_name(name: &str) -> Result<(), Failure> {
    if name.len() > MAX_NAME_BYTES {
        let words = format!("pin name is {} bytes (max {MAX_NAME_BYTES} bytes)", name.len());
        return Err(Failure::new(words));
    }
    Ok(())
}

/// `pin/add`.
pub(super) async fn add(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    check_name(call.text("name"))?;
    let args = call.take_args().await?;
    let source = core.source(call.is_offline());
    let kind = if call.is("recursive") { PinKind::Recursive } else { PinKind::Direct };
    let pin = Pin { kind, name: call.text("name").to_owned() };
    let encoder = call.encoder()?;
    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    let work = async move {
        let mut pins = Vec::with_capacity(args.len());
        for arg in &args {
            let cid = root_of(&source, arg).await?;
            pins::pin(&source, cid, pin.clone(), Arc::clone(&progress)).await?;
            core.provide(&[cid]);
            pins.push(encoder.text(&cid));
        }
        Ok::<_, Error>(pins)
    };
    if !call.is("progress") {
        return Ok(Answer::one(&Added { pins: work.await?, ..Added::default() }));
    }
    let work: futures::future::BoxFuture<'static, _> = Box::pin(work);
    let lines = stream::unfold(Some(work), move |work| {
        let shown = Arc::clone(&shown);
        async move {
            let mut work = work?;
            let line = |pins| {
                let (progress, bytes) = shown.get();
                Added { pins, progress, bytes }
            };
            match tokio::time::timeout(PROGRESS_EVERY, &mut work).await {
                Err(_) => Some((vec![Ok(line(Vec::new()))], Some(work))),
                Ok(Err(cause)) => Some((vec![Err(Failure::from(cause))], None)),
                Ok(Ok(pins)) => {
                    let mut lines = Vec::new();
                    if shown.get().0 > 0 {
                        lines.push(Ok(line(Vec::new())));
                    }
                    lines.push(Ok(Added { pins, ..Added::default() }));
                    Some((lines, None))
                }
            }
        }
    });
    Ok(Answer::many(lines.flat_map(stream::iter)))
}

/// `pin/rm`.
pub(super) async fn rm(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let (encoder, recursive) = (call.encoder()?, call.is("recursive"));
    let mut pins = Vec::new();
    for arg in call.take_args().await? {
        let cid = root_of(&source, &arg).await?;
        pins.push(encoder.text(&cid));
        let repo = source.repo().clone();
        blocking(move || repo.remove_pin(cid, recursive)).await?;
    }
    Ok(Answer::one(&Pins { pins }))
}

/// `pin/update`.
pub(super) async fn update(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let encoder = call.encoder()?;
    let from = root_of(&source, &call.args[0]).await?;
    let to = root_of(&source, &call.args[1]).await?;
    pins::update(&source, from, to, call.is("unpin")).await?;
    core.provide(&[to]);
    Ok(Answer::one(&Pins { pins: vec![encoder.text(&from), encoder.text(&to)] }))
}

/// Which pins are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Direct,
    Indirect,
    Recursive,
    All,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "direct" => Ok(Self::Direct),
            "indirect" => Ok(Self::Indirect),
            "recursive" => Ok(Self::Recursive),
            "all" => Ok(Self::All),
            other => Err(Failure::new(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            ))),
        }
    }

    fn takes(self, kind: PinKind) -> bool {
        match kind {
            PinKind::Direct => matches!(self, Self::Direct | Self::All),
            PinKind::Recursive => matches!(self, Self::Recursive | Self::All),
        }
    }
}

/// A row of the list, in the shape of a stream.
#[derive(Serialize)]
struct Row {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Name", skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "Type")]
    kind: String,
}

/// The same where all are in one document.
#[derive(Serialize)]
struct Typed {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Name")]
    name: String,
}

#[derive(Serialize)]
struct Keys {
    #[serde(rename = "Keys", skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<String, Typed>,
}

/// `pin/ls`.
pub(super) async fn ls(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    check_name(call.text("name"))?;
    let wanted = Wanted::parse(call.text("type"))?;
    let source = core.source(call.is_offline());
    let encoder = call.encoder()?;
    let filter = call.text("name").to_owned();
    let shows_names = call.is("names") || !filter.is_empty();
    let rows = if call.args.is_empty() {
        list(source.repo().clone(), wanted, shows_names, filter, encoder).boxed()
    } else {
        let rows = of_args(&source, &call.args, wanted, shows_names, encoder).await?;
        stream::iter(rows.into_iter().map(Ok)).boxed()
    };
    if call.is("stream") {
        return Ok(Answer::many(rows));
    }
    let mut keys = BTreeMap::new();
    let mut rows = rows;
    while let Some(row) = rows.next().await {
        let row = row?;
        keys.insert(row.cid, Typed { kind: row.kind, name: row.name });
    }
    Ok(Answer::one(&Keys { keys }))
}

/// The rows of named CIDs, each of which must be pinned as wanted.
async fn of_args(
    source: &Source,
    args: &[String],
    wanted: Wanted,
    shows_names: bool,
    encoder: Encoder,
) -> Result<Vec<Row>, Failure> {
    let mut cids = Vec::with_capacity(args.len());
    for arg in args {
        cids.push(root_of(source, arg).await?);
    }
    let repo = source.repo().clone();
    let asked = cids.clone();
    let found = blocking(move || {
        let mut found: Vec<Option<(String, String)>> = Vec::with_capacity(asked.len());
        for cid in &asked {
            let pin = repo.pin_of(cid)?.filter(|pin| wanted.takes(pin.kind));
            found.push(pin.map(|pin| (kind_word(pin.kind).to_owned(), pin.name)));
        }
        if matches!(wanted, Wanted::Indirect | Wanted::All) {
            let missing = asked.iter().zip(&found).filter(|(_, found)| found.is_none());
            let missing: HashSet<Cid> = missing.map(|(cid, _)| *cid).collect();
            if !missing.is_empty() {
                for (cid, root) in pins::above(&repo, &missing)? {
                    for (at, _) in asked.iter().enumerate().filter(|(_, asked)| **asked == cid) {
                        found[at] =
                            Some((format!("indirect through {}", encoder.text(&root)), String::new()));
                    }
                }
            }
        }
        Ok(found)
    });
    let mut rows = Vec::with_capacity(cids.len());
    for ((cid, found), arg) in cids.iter().zip(found.await?).zip(args) {
        let (kind, name) = found.ok_or_else(|| Failure::new(format!("path '{arg}' is not pinned")))?;
        let name = if shows_names { name } else { String::new() };
        rows.push(Row { cid: encoder.text(cid), name, kind });
    }
    Ok(rows)
}

fn kind_word(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Direct => "direct",
        PinKind::Recursive => "recursive",
    }
}

/// Everything that is pinned as wanted.
fn list(
    repo: Repo,
    wanted: Wanted,
    shows_names: bool,
    filter: String,
    encoder: Encoder,
) -> impl Stream<Item = Result<Row, Failure>> + Send + 'static {
    let (rows, received) = mpsc::channel(MAX_QUEUED);
    let work = tokio::task::spawn_blocking(move || {
        let send = |cid: &Cid, pin: Option<&Pin>, kind: &str| {
            let name = pin.map(|pin| pin.name.as_str()).unwrap_or_default();
            if !filter.is_empty() && !name.contains(&filter) {
                return true;
            }
            let name = if shows_names { name.to_owned() } else { String::new() };
            rows.blocking_send(Ok(Row { cid: encoder.text(cid), name, kind: kind.to_owned() })).is_ok()
        };
        if let Err(cause) = visit(&repo, wanted, &send) {
            let _ = rows.blocking_send(Err(Failure::from(cause)));
        }
    });
    // the work ends when its reader goes
    drop(work);
    stream::unfold(received, |mut received| async move { received.recv().await.map(|row| (row, received)) })
}

/// Tells every pin, then what is pinned through others; stops when nobody listens.
fn visit(repo: &Repo, wanted: Wanted, send: &dyn Fn(&Cid, Option<&Pin>, &str) -> bool) -> Result<(), Error> {
    // Kubo tells recursive pins first
    for kind in [PinKind::Recursive, PinKind::Direct] {
        let mut after = None;
        while wanted.takes(kind) {
            let page = repo.pins_after(after.as_ref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (cid, pin) in page.iter().filter(|(_, pin)| pin.kind == kind) {
                if !send(cid, Some(pin), kind_word(kind)) {
                    return Ok(());
                }
            }
        }
    }
    if !matches!(wanted, Wanted::Indirect | Wanted::All) {
        return Ok(());
    }
    let mut seen = HashSet::new();
    let mut roots = Vec::new();
    let mut after = None;
    loop {
        let page = repo.pins_after(after.as_ref())?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (cid, pin) in page {
            seen.insert(cid);
            if pin.kind == PinKind::Recursive {
                roots.push(cid);
            }
        }
    }
    let mut is_heard = true;
    for root in roots {
        pins::below(repo, root, &mut seen, &mut |cid| is_heard = is_heard && send(&cid, None, "indirect"))?;
        if !is_heard {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "Cid", skip_serializing_if = "String::is_empty")]
    cid: String,
    #[serde(rename = "Err", skip_serializing_if = "String::is_empty")]
    err: String,
    #[serde(rename = "Ok")]
    ok: bool,
    #[serde(rename = "BadNodes", skip_serializing_if = "Vec::is_empty")]
    bad_nodes: Vec<BadNode>,
}

#[derive(Serialize)]
struct BadNode {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Err")]
    err: String,
}

/// `pin/verify`: walks every recursive pin.
pub(super) async fn verify(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (is_verbose, is_quiet) = (call.is("verbose"), call.is("quiet"));
    if is_verbose && is_quiet {
        return Err(Failure::new("the --verbose and --quiet options can not be used at the same time"));
    }
    let encoder = call.encoder()?;
    let repo = core.source(true).repo().clone();
    let (rows, received) = mpsc::channel(MAX_QUEUED);
    let work = tokio::task::spawn_blocking(move || {
        let mut after = None;
        while let Ok(page) = repo.pins_after(after.as_ref()) {
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (root, _) in page.into_iter().filter(|(_, pin)| pin.kind == PinKind::Recursive) {
                let checked = pins::below(&repo, root, &mut HashSet::new(), &mut |_| {});
                let bad_nodes: Vec<BadNode> = match &checked {
                    Err(Error::NotFound(cid)) => {
                        vec![BadNode { cid: encoder.text(cid), err: format!("ipld: could not find {cid}") }]
                    }
                    Err(cause) => vec![BadNode { cid: encoder.text(&root), err: cause.to_string() }],
                    Ok(()) => Vec::new(),
                };
                let ok = bad_nodes.is_empty();
                if ok && !is_verbose {
                    continue;
                }
                let row = Verified { cid: encoder.text(&root), err: String::new(), ok, bad_nodes };
                if rows.blocking_send(Ok(row)).is_err() {
                    return;
                }
            }
        }
    });
    drop(work);
    Ok(Answer::many(stream::unfold(received, |mut received| async move {
        received.recv().await.map(|row| (row, received))
    })))
}
