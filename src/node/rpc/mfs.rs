//! `files/*`: the mutable files. Every change is written before it is answered, whatever `flush` says.
//! (Go: `core/commands/files.go`, its words)

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cluster_compat::api::{EntryKind as PartKind, Upload as _};
use cluster_compat::types::{AddParams, Block, Cid, Layout};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::super::ipld::{DAG_PB, RAW, pb::Node};
use super::super::mfs::{self, Edit, Form};
use super::super::source::{Source, blocking};
use super::super::unixfs::{self, EntryKind};
use super::super::{Core, Error, path};
use super::add::NodeHost;
use super::answer::{Answer, Failure};
use super::call::Call;
use super::patch::{Content, Patched};
use super::text;
use crate::adder::import;

/// Directories of one listing whose entries are looked at together.
const AHEAD: usize = 16;

/// A path of the tree: cleaned, a slash at its end kept.
fn checked(path: &str) -> Result<String, Failure> {
    if path.is_empty() {
        return Err(Failure::new("paths must not be empty"));
    }
    if !path.starts_with('/') {
        return Err(Failure::new("paths must start with a leading slash"));
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    let is_folder = path.ends_with('/') && path != "/";
    Ok(format!("/{}{}", names.join("/"), if is_folder { "/" } else { "" }))
}

/// The answer of a command that has nothing to say.
fn nothing() -> Answer {
    Answer::Many(stream::empty().boxed())
}

/// The form that the options ask for.
fn form(call: &Call) -> Result<Option<Form>, Failure> {
    if !call.has("cid-version") && !call.has("hash") {
        return Ok(None);
    }
    let hash = if call.has("hash") { call.text("hash").to_lowercase() } else { "sha2-256".to_owned() };
    let version = match call.number("cid-version").unwrap_or(0) {
        0 if call.has("hash") => 1,
        version => version,
    };
    if !(0..=1).contains(&version) {
        return Err(Failure::new(format!("unknown CID version: {version}")));
    }
    if text::hash_code(&hash).is_none() {
        return Err(Failure::new(format!("unrecognized hash function: {:?}", call.text("hash"))));
    }
    Ok(Some(Form { version, hash }))
}

/// A block at a path: of the network under `/ipfs/`, of the tree elsewhere.
async fn node_at(source: &Source, text: &str) -> Result<Cid, Error> {
    if !text.starts_with("/ipfs/") {
        return mfs::lookup(source, text).await;
    }
    let resolved = path::resolve(source, &path::parse(text)?).await?;
    match resolved.remainder.is_empty() {
        true => Ok(resolved.cid),
        false => Err(Error::message("got unixfs node with remaining path")),
    }
}

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "CumulativeSize")]
    cumulative: u64,
    #[serde(rename = "Blocks")]
    n_blocks: usize,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "WithLocality", skip_serializing_if = "std::ops::Not::not")]
    with_locality: bool,
    #[serde(rename = "Local", skip_serializing_if = "std::ops::Not::not")]
    local: bool,
    #[serde(rename = "SizeLocal", skip_serializing_if = "is_zero")]
    size_local: u64,
    #[serde(rename = "Mtime", skip_serializing_if = "Option::is_none")]
    mtime: Option<i64>,
    #[serde(rename = "MtimeNsecs", skip_serializing_if = "Option::is_none")]
    mtime_nanos: Option<u32>,
    #[serde(rename = "Mode", skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `files/stat`.
pub(super) async fn stat(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let formats = [call.is("hash"), call.is("size"), !call.text("format").is_empty()];
    if formats.into_iter().filter(|asked| *asked).count() > 1 {
        return Err(Failure::client(
            "invalid parameters: format was set by multiple options. Only one format option is allowed",
        ));
    }
    let source = core.source(call.is_offline());
    let cid = node_at(&source, &checked(&call.args[0])?).await?;
    if cid.codec() != RAW && cid.codec() != DAG_PB {
        return Err(Failure::new("not unixfs node (proto or raw)"));
    }
    let (item, entry) = (mfs::item(&source, cid).await?, unixfs::stat(&source, cid).await?);
    let n_blocks = match cid.codec() {
        RAW => 0,
        _ => Node::decode(&source.block(cid).await?).map_err(Failure::new)?.links.len(),
    };
    let is_link = matches!(entry.kind, EntryKind::Symlink(_));
    // (Go: `os.ModeSymlink | 0777`)
    let mode = entry.mode.filter(|mode| *mode != 0).or_else(|| is_link.then_some(0o1_000_000_777));
    let mtime = entry.mtime.filter(|(seconds, nanos)| (*seconds, *nanos) != (0, 0));
    let mut stat = Stat {
        hash: call.encoder()?.text(&cid),
        size: entry.size,
        cumulative: item.tsize,
        n_blocks,
        kind: if entry.kind == EntryKind::Directory { "directory" } else { "file" },
        with_locality: call.is("with-local"),
        local: false,
        size_local: 0,
        mtime: mtime.map(|(seconds, _)| seconds),
        mtime_nanos: mtime.map(|(_, nanos)| nanos).filter(|nanos| *nanos > 0),
        mode: mode.map(|mode| format!("{mode:04o}")),
    };
    if stat.with_locality {
        (stat.local, stat.size_local) = locality(&source, cid).await?;
    }
    Ok(Answer::one(&stat))
}

/// Whether a whole DAG is here, and how many bytes of it; what is linked twice counts twice, as the size of a DAG does.
async fn locality(source: &Source, root: Cid) -> Result<(bool, u64), Failure> {
    let repo = source.repo().clone();
    let walk = move || {
        let (mut is_whole, mut n_bytes, mut todo) = (true, 0u64, vec![root]);
        while let Some(cid) = todo.pop() {
            match repo.get(&cid)? {
                Some(block) => {
                    n_bytes = n_bytes.saturating_add(block.len() as u64);
                    let links = super::super::ipld::links(&cid, &block).map_err(Error::message)?;
                    todo.extend(links.into_iter().map(|link| link.cid));
                }
                None => is_whole = false,
            }
        }
        Ok((is_whole, n_bytes))
    };
    Ok(blocking(walk).await?)
}

#[derive(Serialize)]
struct Listing {
    #[serde(rename = "Entries")]
    entries: Option<Vec<Row>>,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "Name")]
    name: String,
    /// 0 file, 1 directory. (Go: mfs `NodeType`)
    #[serde(rename = "Type")]
    kind: i32,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Hash")]
    hash: String,
}

/// `files/ls`.
pub(super) async fn ls(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let text = checked(call.args.first().map_or("/", String::as_str))?;
    let (cid, is_long, encoder) = (mfs::lookup(&source, &text).await?, call.is("long"), call.encoder()?);
    let look = |name: String, cid: Cid| {
        let source = &source;
        async move {
            let mut row = Row { name, kind: 0, size: 0, hash: String::new() };
            if is_long {
                let entry = unixfs::stat(source, cid).await?;
                row.hash = encoder.text(&cid);
                match entry.kind {
                    EntryKind::Directory => row.kind = 1,
                    _ => row.size = entry.size,
                }
            }
            Ok::<_, Error>(row)
        }
    };
    let entries = match unixfs::list(&source, cid).await? {
        None => vec![look(text.rsplit('/').next().unwrap_or_default().to_owned(), cid).await?],
        Some(links) => {
            let rows =
                links.into_iter().map(|link| look(String::from_utf8_lossy(&link.name).into(), link.cid));
            let mut rows = stream::iter(rows).buffered(AHEAD);
            let mut entries = Vec::new();
            while let Some(row) = rows.next().await {
                entries.push(row?);
            }
            drop(rows);
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            entries
        }
    };
    Ok(Answer::one(&Listing { entries: Some(entries).filter(|entries| !entries.is_empty()) }))
}

/// `files/read`.
pub(super) async fn read(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let text = checked(&call.args[0])?;
    let cid = mfs::lookup(&source, &text).await.map_err(|cause| Failure::new(format!("{text}: {cause}")))?;
    let entry = unixfs::stat(&source, cid).await?;
    if entry.kind != EntryKind::File {
        return Err(Failure::new(format!("{text} was not a file")));
    }
    let Ok(offset) = u64::try_from(call.number("offset").unwrap_or(0)) else {
        return Err(Failure::new("cannot specify negative offset"));
    };
    if offset > entry.size {
        return Err(Failure::new(format!("offset was past end of file ({offset} > {})", entry.size)));
    }
    let Ok(count) = call.number("count").map_or(Ok(u64::MAX), u64::try_from) else {
        return Err(Failure::new("cannot specify negative 'count'"));
    };
    let end = entry.size.min(offset.saturating_add(count));
    let pieces = unixfs::bytes(source, cid, offset..end).map(|piece| piece.map_err(Failure::from));
    Ok(Answer::Bytes("text/plain", None, pieces.boxed()))
}

/// `files/mkdir`.
pub(super) async fn mkdir(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (text, form) = (checked(&call.args[0])?, form(&call)?);
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    edit.mkdir(&text, call.is("parents"), form).await?;
    Ok(nothing())
}

/// The directory of a path, as Go's `path.Dir`.
fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above })
}

/// `files/cp`.
pub(super) async fn cp(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let form = form(&call)?;
    let from = checked(&call.args[0])?;
    let from = from.trim_end_matches('/');
    let mut to = checked(&call.args[1])?;
    if to.ends_with('/') {
        to.push_str(from.rsplit('/').next().unwrap_or_default());
    }
    let cid = node_at(&source, from).await;
    let cid = cid.map_err(|cause| Failure::new(format!("cp: cannot get node from path {from}: {cause}")))?;
    let invalid = "cp: source must be a valid UnixFS (dag-pb or raw codec)";
    match cid.codec() {
        RAW => {}
        DAG_PB => {
            let stat = unixfs::stat(&source, cid).await;
            stat.map_err(|cause| Failure::new(format!("{invalid}: {cause}")))?;
        }
        _ => return Err(Failure::new(invalid)),
    }
    let item = mfs::item(&source, cid).await?;
    let edit = core.files.edit(source, Some(cid)).await?;
    if call.is("parents") && above(&to) != "/" {
        edit.mkdir(above(&to), true, form).await?;
    }
    if call.is("force") {
        unlink_file(&edit, &to)
            .await
            .map_err(|cause| Failure::new(format!("cp: cannot unlink existing file: {cause}")))?;
    }
    let done = edit.create(&to, item).await;
    done.map_err(|cause| Failure::new(format!("cp: cannot put node in path {to}: {cause}")))?;
    Ok(nothing())
}

/// Takes away a file that is in the way; a directory is none.
async fn unlink_file(edit: &Edit, path: &str) -> Result<(), Error> {
    let cid = match mfs::lookup(edit.source(), path).await {
        Ok(cid) => cid,
        Err(cause) if mfs::is_missing(&cause) => return Ok(()),
        Err(cause) => return Err(cause),
    };
    if mfs::is_directory(edit.source(), cid).await? {
        return Err(Error::message(format!("not a file: {path}")));
    }
    edit.set(path, None).await
}

/// Puts what was added into the tree. (Go: `commands/add.go`, its words)
pub(super) async fn put_added(
    core: &Core,
    source: Source,
    path: &str,
    roots: Vec<(String, Cid)>,
) -> Result<(), Failure> {
    let to = checked(if path.is_empty() { "/" } else { path })?;
    let is_folder = to.ends_with('/');
    let edit = core.files.edit(source, None).await?;
    if is_folder {
        let there = mfs::lookup(edit.source(), &to).await;
        let there = there.map_err(|cause| {
            Failure::new(format!("MFS destination directory {to:?} does not exist: {cause}"))
        })?;
        if !mfs::is_directory(edit.source(), there).await? {
            return Err(Failure::new(format!("MFS destination {to:?} is not a directory")));
        }
    }
    for (at, (name, cid)) in roots.into_iter().enumerate() {
        if name.is_empty() || name == cid.to_string() {
            return Err(Failure::new("cannot add unnamed files to MFS"));
        }
        if at > 0 && !is_folder {
            return Err(Failure::new(format!(
                "MFS destination is a file: only one entry can be copied to {to:?}"
            )));
        }
        let to = if is_folder { format!("{to}{name}") } else { to.clone() };
        if let Err(cause) = mfs::lookup(edit.source(), above(&to)).await {
            let parent = above(&to);
            return Err(Failure::new(format!(
                "MFS destination parent {to:?} {parent:?} does not exist: {cause}"
            )));
        }
        let item = mfs::item(edit.source(), cid).await?;
        let put = edit.create(&to, item).await;
        put.map_err(|cause| Failure::new(format!("cannot put node in path {to:?}: {cause}")))?;
    }
    Ok(())
}

/// `files/mv`.
pub(super) async fn mv(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (from, to) = (checked(&call.args[0])?, checked(&call.args[1])?);
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    edit.rename(from.trim_end_matches('/'), &to).await?;
    Ok(nothing())
}

/// `files/rm`.
pub(super) async fn rm(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    if call.maybe("flush") == Some(false) {
        let words =
            "files rm always flushes for safety. The --flush flag cannot be set to false for this command";
        return Err(Failure::new(words));
    }
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    let mut rows = Vec::new();
    for arg in &call.args {
        let path = match checked(arg) {
            Ok(path) => path,
            Err(cause) => {
                rows.push(Ok(format!("{arg} is not a valid path: {cause}")));
                continue;
            }
        };
        if let Err(cause) = remove(&edit, &path, call.is("recursive"), call.is("force")).await {
            rows.push(Ok(format!("{path}: {cause}")));
        }
    }
    if rows.is_empty() {
        return Ok(nothing());
    }
    rows.push(Err(Failure::new("can't remove some files")));
    Ok(Answer::many(stream::iter(rows)))
}

async fn remove(edit: &Edit, path: &str, is_recursive: bool, is_forced: bool) -> Result<(), Error> {
    if path == "/" {
        return Err(Error::message("cannot delete root"));
    }
    let path = path.trim_end_matches('/');
    let cid = match mfs::lookup(edit.source(), path).await {
        Ok(cid) => cid,
        Err(cause) if is_forced && mfs::is_missing(&cause) => return Ok(()),
        Err(cause) => return Err(cause),
    };
    if !is_forced && !is_recursive && mfs::is_directory(edit.source(), cid).await? {
        return Err(Error::message("path is a directory, use -r to remove directories"));
    }
    edit.set(path, None).await
}

#[derive(Serialize)]
struct Flushed {
    #[serde(rename = "Cid")]
    cid: String,
}

/// `files/flush`: everything is on disk already.
pub(super) async fn flush(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let cid = mfs::lookup(&source, call.args.first().map_or("/", String::as_str)).await?;
    Ok(Answer::one(&Flushed { cid: call.encoder()?.text(&cid) }))
}

/// `files/chcid`.
pub(super) async fn chcid(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let path = call.args[0].as_str();
    if path == "/" {
        return Err(Failure::new(
            "cannot change CID format of the MFS root; use 'ipfs config Import.CidVersion' and 'ipfs config \
             Import.HashFunction' instead",
        ));
    }
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    mfs::lookup(edit.source(), path).await?;
    if let Some(form) = form(&call)? {
        edit.reform(path, &form).await?;
    }
    Ok(nothing())
}

/// `files/chmod`.
pub(super) async fn chmod(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let path = checked(&call.args[1])?;
    let text = &call.args[0];
    let mode = u32::from_str_radix(text, 8)
        .map_err(|_| Failure::new(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    edit.annotate(&path, |old, _| *old = Some(mode).filter(|mode| *mode != 0)).await?;
    Ok(nothing())
}

/// `files/touch`.
pub(super) async fn touch(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let path = checked(&call.args[0])?;
    let nanos = call.number("mtime-nsecs").and_then(|nanos| u32::try_from(nanos).ok()).unwrap_or(0);
    let time = match call.number("mtime").unwrap_or(0) {
        0 => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
        }
        seconds => (seconds, nanos),
    };
    let edit = core.files.edit(core.source(call.is_offline()), None).await?;
    edit.annotate(&path, |_, old| *old = Some(time)).await?;
    Ok(nothing())
}

/// `files/write`.
pub(super) async fn write(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let (path, form) = (checked(&call.args[0])?, form(&call)?);
    let Ok(offset) = u64::try_from(call.number("offset").unwrap_or(0)) else {
        return Err(Failure::new("cannot have negative write offset"));
    };
    let Ok(count) = call.number("count").map_or(Ok(u64::MAX), u64::try_from) else {
        return Err(Failure::new("cannot have negative byte count"));
    };
    let edit = core.files.edit(source.clone(), None).await?;
    if call.is("parents") && above(&path) != "/" {
        edit.mkdir(above(&path), true, form.clone()).await?;
    }
    let (old, form) = match mfs::lookup(&source, &path).await {
        Ok(cid) => match unixfs::stat(&source, cid).await? {
            entry if entry.kind == EntryKind::File => (Some(entry), Form::of(&cid)),
            _ => return Err(Failure::new(format!("{path} was not a file"))),
        },
        Err(cause) if mfs::is_missing(&cause) && call.is("create") && !path.ends_with('/') => {
            mfs::lookup(&source, above(&path)).await?;
            // whatever the directory has, as in Kubo
            (None, form.unwrap_or_else(|| Form { version: 0, hash: "sha2-256".to_owned() }))
        }
        Err(cause) => return Err(cause.into()),
    };
    let params = AddParams {
        layout: Layout::Trickle,
        raw_leaves: call.maybe("raw-leaves").unwrap_or(form.version > 0),
        cid_version: form.version,
        hash: form.hash,
        no_pin: true,
        ..AddParams::default()
    };
    let truncates = call.is("truncate");
    let was_raw = old.as_ref().is_some_and(|entry| entry.cid.codec() == RAW);
    let old = old.filter(|_| !truncates).map(|entry| (entry.cid, entry.size));
    let mut files = call.files()?;
    // what comes before the file of the form is no content
    loop {
        match files.next_entry().await.map_err(|cause| Failure::new(cause.message))? {
            Some(entry) if entry.kind == PartKind::File => break,
            Some(_) => {}
            None => return Err(Failure::new("file argument 'data' is required")),
        }
    }
    let upload = Patched { is_told: false, content: Content::new(source.clone(), old, files, offset, count) };
    let host = NodeHost::new(Arc::clone(&core), String::new());
    let mut events = import(params, Box::new(upload), Arc::new(host));
    let mut root = None;
    while let Some(event) = events.next().await {
        root = event.map_err(|cause| Failure::new(cause.to_string()))?.cid.or(root);
    }
    let Some(root) = root else { return Err(Failure::new("nothing was written")) };
    let item = mfs::item(&source, collapsed(&source, root, was_raw).await?).await?;
    edit.set(&path, Some(item)).await?;
    Ok(nothing())
}

/// A file of one raw block is that block, and one that was raw stays so when it is emptied. (Go: boxo
/// `mod.DagModifier`)
async fn collapsed(source: &Source, root: Cid, was_raw: bool) -> Result<Cid, Failure> {
    if root.codec() == RAW {
        return Ok(root);
    }
    let node = Node::decode(&source.block(root).await?).map_err(Failure::new)?;
    match &node.links[..] {
        [only] if only.cid.codec() == RAW => Ok(only.cid),
        [] if was_raw => {
            let (code, len) = (root.hash().code(), root.hash().size());
            let Some(hash) = crate::adder::digest(code, len, b"") else { return Ok(root) };
            let block = Block { cid: Cid::new_v1(RAW, hash), data: Bytes::new(), is_spare: false };
            let (repo, cid) = (source.repo().clone(), block.cid);
            blocking(move || repo.put(&[block])).await?;
            Ok(cid)
        }
        _ => Ok(root),
    }
}
