//! The import itself: entries to nodes, nodes to the sink, events to the reader.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use cluster_compat::api::{Entry, EntryKind, Upload};
use cluster_compat::types::{AddParams, AddedOutput, Block, Cid, Format, Layout as LayoutParam};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::buffer::{Buffer, Pool};
use super::chunker::{Chunker, Chunks, Next};
use super::directory::{Nodes, Step as DirectoryStep};
use super::extras::{self, Extras};
use super::files::{self, Step, Walk};
use super::hash::CidBuilder;
use super::layout::{Balanced, Finished, Layout, MAX_LINKS, Trickle};
use super::sink::{Sink, Unfinished};
use super::tree::{Dir, Tree};
use super::unixfs::{LEAF_HEAD, LeafKind, Node, leaf, symlink};
use super::{Error, Host, MAX_QUEUED_OUTPUTS, car, transfer};

/// Chunks from this size on are hashed on a blocking thread: below, handing over costs more than it frees.
const HASH_ELSEWHERE_FROM: usize = 128 * 1024;

/// Most chunks of one file that are being hashed while the next is read; one for each core up to this.
const MAX_HASHING: usize = 16;

/// Imports an upload: its blocks go to the peers `host` allocates, then its roots are pinned. Yields an event
/// for each file, link and directory, and byte counts if asked for; an error is the last item. Dropping the
/// stream stops the import and leaves nothing pinned.
pub fn import(
    params: AddParams,
    upload: Box<dyn Upload>,
    host: Arc<dyn Host>,
) -> BoxStream<'static, Result<AddedOutput, Error>> {
    import_shaped(params, Shape::default(), upload, host)
}

/// What a daemon's importer can be told beyond the parameters of a cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks up to this size stand in their CIDs and are sent to nobody.
    pub inline_limit: Option<usize>,
    /// Links of a node of a file; from 2.
    pub max_file_links: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { inline_limit: None, max_file_links: MAX_LINKS }
    }
}

/// [`import`] with DAGs of another shape.
pub fn import_shaped(
    params: AddParams,
    shape: Shape,
    upload: Box<dyn Upload>,
    host: Arc<dyn Host>,
) -> BoxStream<'static, Result<AddedOutput, Error>> {
    let (outputs, received) = mpsc::channel(MAX_QUEUED_OUTPUTS);
    let work = run(params, shape, upload, host, outputs);
    Import { work: Some(Box::pin(work)), outputs: received, failure: None }.boxed()
}

/// An import that runs while it is polled.
struct Import {
    work: Option<BoxFuture<'static, Result<(), Error>>>,
    outputs: mpsc::Receiver<AddedOutput>,
    failure: Option<Error>,
}

impl Stream for Import {
    type Item = Result<AddedOutput, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.outputs.poll_recv(cx) {
                Poll::Ready(Some(output)) => return Poll::Ready(Some(Ok(output))),
                // The work has ended and its events have been read.
                Poll::Ready(None) if self.work.is_none() => {
                    return Poll::Ready(self.failure.take().map(Err));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            match &mut self.work {
                Some(work) => match work.as_mut().poll(cx) {
                    Poll::Ready(result) => {
                        self.work = None;
                        self.failure = result.err();
                    }
                    // An event sent by this very poll has woken us.
                    Poll::Pending => return Poll::Pending,
                },
                None => return Poll::Pending,
            }
        }
    }
}

/// Imports, waits for the destinations, pins; a failure takes back what was pinned meanwhile.
async fn run(
    params: AddParams,
    shape: Shape,
    upload: Box<dyn Upload>,
    host: Arc<dyn Host>,
    outputs: mpsc::Sender<AddedOutput>,
) -> Result<(), Error> {
    let (starts, started) = transfer::starts();
    let unfinished = Arc::new(Unfinished::new(host.clone()));
    let sink = Sink::new(&params, &unfinished, starts, outputs.clone());
    let mut import = pin!(whole(params, shape, upload, sink, outputs));
    let mut transfers = pin!(transfer::run(host, started));
    let mut is_over = false;
    let result = loop {
        tokio::select! {
            result = &mut import => break result,
            () = &mut transfers, if !is_over => is_over = true,
        }
    };
    if result.is_err() {
        unfinished.take_back_from(0).await;
    }
    result
}

/// The import alone: what it sends is carried by the transfers beside it.
async fn whole(
    params: AddParams,
    shape: Shape,
    mut upload: Box<dyn Upload>,
    mut sink: Sink,
    outputs: mpsc::Sender<AddedOutput>,
) -> Result<(), Error> {
    if params.format == Format::Car {
        if params.wrap_with_directory {
            return Err(Error::car("cannot wrap a CAR file upload"));
        }
        let roots = car::read(&mut *upload, &mut sink, &outputs).await?;
        return sink.finish(&roots).await;
    }
    let mut importer = Importer::new(params, shape, sink, outputs)?;
    importer.read(&mut *upload).await?;
    importer.sink.finish(&importer.roots).await
}

/// An import on its way.
struct Importer {
    sink: Sink,
    outputs: mpsc::Sender<AddedOutput>,
    cids: CidBuilder,
    /// A bad chunker is an error of the first file, as in the reference.
    chunker: Result<Chunker, Error>,
    layout: LayoutParam,
    max_file_links: usize,
    raw_leaves: bool,
    progress: bool,
    no_copy: bool,
    wrap: bool,
    walk: Walk,
    /// The directories that are open in `walk`.
    dirs: Vec<Dir>,
    tree: Tree,
    /// The last block of a file or link: its root, once all are written.
    last: Option<Block>,
    extras: Extras,
    roots: Vec<Cid>,
    buffers: Pool,
    /// See [`MAX_HASHING`].
    max_hashing: usize,
}

/// The root of an entry.
struct Root {
    cid: Cid,
    tsize: u64,
}

impl Importer {
    fn new(
        params: AddParams,
        shape: Shape,
        sink: Sink,
        outputs: mpsc::Sender<AddedOutput>,
    ) -> Result<Self, Error> {
        let cids = CidBuilder::new(params.cid_version, &params.hash)?.with_inline(shape.inline_limit);
        Ok(Self {
            sink,
            outputs,
            extras: Extras::new(cids),
            cids,
            chunker: Chunker::parse(&params.chunker),
            layout: params.layout,
            max_file_links: shape.max_file_links.max(2),
            raw_leaves: params.raw_leaves,
            progress: params.progress,
            no_copy: params.no_copy,
            wrap: params.wrap_with_directory,
            walk: Walk::default(),
            dirs: Vec::new(),
            tree: Tree::default(),
            last: None,
            roots: Vec::new(),
            buffers: Pool::default(),
            max_hashing: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_HASHING),
        })
    }

    /// Takes all entries of the upload.
    async fn read(&mut self, upload: &mut dyn Upload) -> Result<(), Error> {
        while let Some(entry) = upload.next_entry().await? {
            let path = files::clean(&entry.path)?;
            loop {
                match self.walk.step(&path) {
                    Step::Leave => self.leave().await?,
                    Step::Enter => {
                        let (dir, is_new) = self.tree.child(self.dir(), self.walk.name())?;
                        self.dirs.push(dir);
                        if self.walk.depth() == 1 {
                            self.begin_root(&path, is_new).await?;
                        }
                        self.extras.directory(is_new, self.walk.depth(), self.wrap, &mut self.sink).await?;
                    }
                    Step::Take(name) => {
                        self.take(name, &path, entry, upload).await?;
                        break;
                    }
                    Step::Skip => break,
                }
            }
        }
        while self.walk.depth() > 0 {
            self.leave().await?;
        }
        if self.wrap {
            self.finish_directory(Dir::ROOT, Vec::new()).await?;
        } else if self.roots.is_empty() {
            return Err(if self.sink.wants_roots_apart() { Error::NoShard } else { Error::NoParts });
        }
        Ok(())
    }

    /// Ends the innermost directory; one at the top is a root unless all entries are wrapped.
    async fn leave(&mut self) -> Result<(), Error> {
        let is_root = self.walk.depth() == 1 && !self.wrap;
        let path = if is_root { self.walk.name().to_vec() } else { Vec::new() };
        let dir = self.dir();
        self.walk.leave();
        self.dirs.pop();
        if is_root { self.finish_directory(dir, path).await } else { Ok(()) }
    }

    /// The innermost directory.
    fn dir(&self) -> Dir {
        self.dirs.last().copied().unwrap_or(Dir::ROOT)
    }

    /// Imports the entry called `name` in the innermost directory.
    async fn take(
        &mut self,
        name: Vec<u8>,
        path: &[Vec<u8>],
        entry: Entry,
        upload: &mut dyn Upload,
    ) -> Result<(), Error> {
        let (dir, is_new) = match entry.kind {
            EntryKind::Directory => self.tree.child(self.dir(), &name)?,
            EntryKind::File | EntryKind::Symlink(_) => (self.dir(), true),
        };
        if self.walk.depth() == 0 {
            self.begin_root(path, is_new).await?;
        }
        let root = match &entry.kind {
            EntryKind::Directory => {
                self.walk.enter(name, path);
                self.dirs.push(dir);
                self.extras.directory(is_new, self.walk.depth(), self.wrap, &mut self.sink).await?;
                return Ok(());
            }
            EntryKind::Symlink(target) => {
                let node = symlink(self.cids, target);
                let root = Root { cid: node.block.cid, tsize: node.tsize };
                self.put(node.block).await?;
                root
            }
            EntryKind::File => self.import_file(&name, &entry, upload).await?,
        };
        let is_lone = !self.wrap && self.walk.depth() == 0 && self.extras.is_unused();
        self.extras.entry(&mut self.sink).await?;
        if self.wrap || self.walk.depth() > 0 {
            // An unnamed entry of a directory is called by its CID, as in Kubo.
            let link = if name.is_empty() { root.cid.to_string().into_bytes() } else { name.clone() };
            self.tree.insert(dir, &link, root.cid, root.tsize)?;
        } else {
            self.add_root(root.cid);
        }
        let path = files::join(self.walk.names().chain([&name[..]]));
        self.report(&path, &root).await;
        if is_lone && let Some(block) = self.last.take() {
            self.extras.lone(block, root.tsize, &mut self.sink).await?;
        }
        Ok(())
    }

    /// Before the first block of an entry at the top.
    async fn begin_root(&mut self, path: &[Vec<u8>], is_new: bool) -> Result<(), Error> {
        if self.wrap || !self.sink.wants_roots_apart() {
            return Ok(());
        }
        if !is_new {
            let name = path.first().map(|name| files::text(name)).unwrap_or_default();
            return Err(Error::PartedDirectory(name));
        }
        self.sink.begin_root().await
    }

    /// Imports the content of a file.
    async fn import_file(
        &mut self,
        name: &[u8],
        entry: &Entry,
        upload: &mut dyn Upload,
    ) -> Result<Root, Error> {
        let chunker = self.chunker.clone()?;
        if self.no_copy && entry.abspath.as_ref().is_none_or(String::is_empty) {
            return Err(Error::MissingPath);
        }
        // Progress names leave out the top-level entry. (Go: `adder/ipfsadd`)
        let skipped = usize::from(!self.wrap);
        let progress_name = files::text(&files::join(
            self.walk.names().chain([name]).skip(skipped).collect::<Vec<_>>().into_iter(),
        ));
        let mut layout = match self.layout {
            LayoutParam::Balanced => Layout::Balanced(Balanced::with_width(self.cids, self.max_file_links)),
            LayoutParam::Trickle => Layout::Trickle(Trickle::with_width(self.cids, self.max_file_links)),
        };
        let kind = if self.raw_leaves { LeafKind::Raw } else { layout.leaf_kind() };
        let mut chunks = Chunks::new(upload, chunker, self.buffers.clone(), self.progress);
        let mut buffer = Buffer::default();
        let mut hashing = VecDeque::with_capacity(self.max_hashing);
        loop {
            match chunks.next(&mut buffer).await? {
                Next::Chunk(chunk) => {
                    if hashing.len() == self.max_hashing {
                        self.push_oldest(&mut layout, &mut hashing).await?;
                    }
                    hashing.push_back(Hashing::start(kind, self.cids, chunk));
                }
                Next::Progress(bytes) => self.report_progress(&progress_name, bytes).await,
                Next::End => break,
            }
        }
        while !hashing.is_empty() {
            self.push_oldest(&mut layout, &mut hashing).await?;
        }
        let mut nodes = Vec::new();
        let finished = layout.finish(&mut nodes);
        self.put_all(nodes).await?;
        let Some(Finished { cid, tsize, reads_at_end }) = finished else {
            buffer = Buffer::default();
            buffer.resize(LEAF_HEAD, 0);
            let node = leaf(kind, self.cids, buffer);
            let root = Root { cid: node.block.cid, tsize: node.tsize };
            self.put(node.block).await?;
            return Ok(root);
        };
        if self.progress && chunks.ended_on_a_border() {
            for _ in 0..reads_at_end {
                self.report_progress(&progress_name, chunks.n_bytes()).await;
            }
        }
        Ok(Root { cid, tsize })
    }

    /// Waits for the oldest leaf, sends what is complete without it, and sends it.
    async fn push_oldest(
        &mut self,
        layout: &mut Layout,
        hashing: &mut VecDeque<Hashing>,
    ) -> Result<(), Error> {
        let Some(oldest) = hashing.pop_front() else { return Ok(()) };
        let leaf = oldest.finish().await?;
        let mut nodes = Vec::new();
        layout.push(&leaf, &mut nodes);
        self.put_all(nodes).await?;
        self.put(leaf.block).await
    }

    async fn put_all(&mut self, nodes: Vec<Node>) -> Result<(), Error> {
        for node in nodes {
            self.put(node.block).await?;
        }
        Ok(())
    }

    async fn put(&mut self, block: Block) -> Result<(), Error> {
        self.last = Some(block.clone());
        self.sink.put(block).await
    }

    /// Writes the directory `dir`, which stands at `path`, and all beneath it, children first; it is a root.
    async fn finish_directory(&mut self, dir: Dir, path: Vec<u8>) -> Result<(), Error> {
        self.extras.entry(&mut self.sink).await?;
        // The tree stays: a later part may name the same directory again.
        let tree = std::mem::take(&mut self.tree);
        let mut nodes = Nodes::new(&tree, dir, path, self.cids);
        let mut again = nodes.is_chain().then(Vec::new);
        let mut root = None;
        while let Some(step) = nodes.next()? {
            match step {
                DirectoryStep::Node(node) => self.put(node.block).await?,
                DirectoryStep::Directory { path, root: node, is_sharded } => {
                    let top = Root { cid: node.block.cid, tsize: node.tsize };
                    again = again.filter(|_| !is_sharded);
                    if let Some(again) = &mut again {
                        again.push(node.block.clone());
                    }
                    self.put(node.block).await?;
                    self.report(&path, &top).await;
                    root = Some(top.cid);
                }
            }
        }
        drop(nodes);
        self.tree = tree;
        extras::chain(&again.unwrap_or_default(), &mut self.sink).await?;
        if let Some(cid) = root {
            self.add_root(cid);
        }
        Ok(())
    }

    fn add_root(&mut self, cid: Cid) {
        self.sink.name_root(cid);
        if self.roots.last() != Some(&cid) {
            self.roots.push(cid);
        }
    }

    /// Sends the event of a finished entry. A reader that left drops the import, so no error is handled here.
    async fn report(&self, path: &[u8], root: &Root) {
        let output = AddedOutput {
            name: files::text(path),
            cid: Some(root.cid),
            bytes: 0,
            size: root.tsize,
            allocations: self.sink.allocations(),
        };
        let _ = self.outputs.send(output).await;
    }

    async fn report_progress(&self, name: &str, bytes: u64) {
        let output = AddedOutput { name: name.to_string(), bytes, ..AddedOutput::default() };
        let _ = self.outputs.send(output).await;
    }
}

/// A leaf that is being hashed.
enum Hashing {
    Done(Node),
    Elsewhere(JoinHandle<Node>),
}

impl Hashing {
    fn start(kind: LeafKind, cids: CidBuilder, chunk: Buffer) -> Self {
        if chunk.len() < HASH_ELSEWHERE_FROM {
            Self::Done(leaf(kind, cids, chunk))
        } else {
            Self::Elsewhere(tokio::task::spawn_blocking(move || leaf(kind, cids, chunk)))
        }
    }

    async fn finish(self) -> Result<Node, Error> {
        match self {
            Self::Done(node) => Ok(node),
            Self::Elsewhere(task) => task.await.map_err(|_| Error::Interrupted),
        }
    }
}
