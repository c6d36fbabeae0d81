//! `refs` and `refs/local`.

use std::collections::HashMap;
use std::sync::Arc;

use cluster_compat::types::Cid;
use futures::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::ipld::{self, Link};
use super::super::source::{Source, blocking};
use super::super::{Core, Error, gc};
use super::answer::{Answer, Failure};
use super::call::{Call, Encoder};
use super::pin::root_of;

/// Rows on their way to a reader.
const MAX_QUEUED: usize = 256;

#[derive(Serialize)]
struct Ref {
    #[serde(rename = "Ref")]
    text: String,
    #[serde(rename = "Err")]
    err: String,
}

fn row(text: String) -> Ref {
    Ref { text, err: String::new() }
}

/// How references are written.
struct Writer {
    source: Source,
    encoder: Encoder,
    /// With `<src>`, `<dst>` and `<linkname>`.
    format: String,
    unique: bool,
    max_depth: i64,
    seen: HashMap<Cid, i64>,
    deadline: Option<Instant>,
}

/// A node whose links are being written.
struct Frame {
    cid: Cid,
    links: std::vec::IntoIter<Link>,
}

impl Writer {
    /// A node, while there is time: what does not come is a row, and the call ends well. (Go: `WriteRefs`)
    async fn open(&self, cid: Cid) -> Result<Frame, Error> {
        let block = self.source.block(cid);
        let block = match self.deadline {
            None => block.await?,
            Some(deadline) => match tokio::time::timeout_at(deadline, block).await {
                Ok(block) => block?,
                Err(_) => return Err(Error::message(Failure::deadline().to_string())),
            },
        };
        let links = ipld::links(&cid, &block).map_err(Error::message)?;
        Ok(Frame { cid, links: links.into_iter() })
    }

    /// Whether to go below a CID, and whether to write it. (Go: `commands/refs.go`, `visit`)
    fn visit(&mut self, cid: Cid, depth: i64) -> (bool, bool) {
        let is_bounded = self.max_depth >= 0;
        if is_bounded && depth > self.max_depth {
            return (false, false);
        }
        let goes_deeper = !(is_bounded && depth == self.max_depth);
        if !self.unique {
            return (goes_deeper, true);
        }
        let before = self.seen.get(&cid).copied();
        if before.is_some_and(|before| !is_bounded || before <= depth) {
            return (false, false);
        }
        self.seen.insert(cid, depth);
        (goes_deeper, before.is_none())
    }

    fn edge(&self, from: &Cid, link: &Link) -> Ref {
        let text = self.format.replace("<src>", &self.encoder.text(from));
        let text = text.replace("<dst>", &self.encoder.text(&link.cid));
        row(text.replace("<linkname>", &link.name))
    }
}

/// `refs`.
pub(super) async fn refs(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let mut max_depth = call.number("max-depth").unwrap_or(-1);
    if !call.is("recursive") {
        max_depth = 1;
    }
    let mut format = call.text("format").to_owned();
    if call.is("edges") {
        if format != "<dst>" {
            return Err(Failure::new("using format argument with edges is not allowed"));
        }
        format = "<src> -> <dst>".to_owned();
    }
    let source = core.source(call.is_offline());
    let mut writer = Writer {
        source: source.clone(),
        encoder: call.encoder()?,
        format,
        unique: call.is("unique"),
        max_depth,
        seen: HashMap::new(),
        deadline: call.deadline,
    };
    let mut roots = Vec::new();
    for arg in call.take_args().await? {
        roots.push(root_of(&source, &arg).await?);
    }
    roots.reverse();
    let mut frames: Vec<Frame> = Vec::new();
    let rows = async_rows(move |rows| async move {
        loop {
            let Some(frame) = frames.last_mut() else {
                let Some(root) = roots.pop() else { return Ok(()) };
                match writer.open(root).await {
                    Ok(frame) => frames.push(frame),
                    Err(cause) => {
                        let failed = Ref { text: String::new(), err: cause.to_string() };
                        if rows.send(Ok(failed)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                continue;
            };
            let from = frame.cid;
            let Some(link) = frame.links.next() else {
                frames.pop();
                continue;
            };
            let depth = i64::try_from(frames.len()).unwrap_or(i64::MAX);
            let (goes_deeper, writes) = writer.visit(link.cid, depth);
            if !goes_deeper && !writes {
                continue;
            }
            // what is written was got
            let next = match writer.open(link.cid).await {
                Ok(next) => next,
                Err(cause) => {
                    let failed = Ref { text: String::new(), err: cause.to_string() };
                    if rows.send(Ok(failed)).await.is_err() {
                        return Ok(());
                    }
                    frames.clear();
                    continue;
                }
            };
            if writes && rows.send(Ok(writer.edge(&from, &link))).await.is_err() {
                return Ok(());
            }
            if goes_deeper {
                frames.push(next);
            }
        }
    });
    Ok(Answer::many(rows))
}

/// Rows that a future writes while they are read.
pub(super) fn async_rows<T, F, W>(work: W) -> impl futures::Stream<Item = Result<T, Failure>> + Send + 'static
where
    T: Send + 'static,
    W: FnOnce(mpsc::Sender<Result<T, Failure>>) -> F,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (rows, received) = mpsc::channel(MAX_QUEUED);
    let work: futures::future::BoxFuture<'static, Result<(), Failure>> = Box::pin(work(rows));
    stream::unfold((Some(work), received, None), |(mut work, mut received, mut failure)| async move {
        loop {
            let Some(running) = &mut work else {
                // what was written before the end
                if let Some(row) = received.recv().await {
                    return Some((row, (work, received, failure)));
                }
                let failure = failure.take()?;
                return Some((Err(failure), (work, received, None)));
            };
            tokio::select! {
                biased;
                Some(row) = received.recv() => return Some((row, (work, received, failure))),
                done = running => {
                    failure = done.err();
                    work = None;
                }
            }
        }
    })
}

/// `refs/local`.
pub(super) async fn local(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let encoder = call.encoder()?;
    let repo = core.repo.clone();
    let rows = async_rows(move |rows| async move {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let (repo, from) = (repo.clone(), after.take());
            let page = blocking(move || repo.blocks_after(from.as_deref())).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for cid in page.iter().filter_map(|(key, _)| gc::raw_cid(key)) {
                if rows.send(Ok(row(encoder.text(&cid)))).await.is_err() {
                    return Ok(());
                }
            }
        }
    });
    Ok(Answer::many(rows))
}
