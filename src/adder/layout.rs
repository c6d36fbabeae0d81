//! Shapes of a file's DAG: leaves go in, finished nodes come out as early as they can.
//!
//! Both shapes are built as state, not by recursion, so that the importer may wait between leaves. Equal to the
//! recursive builders of Kubo for every number of leaves (`fixtures/add`, and the tests below).

use cluster_compat::types::Cid;

use super::hash::CidBuilder;
use super::unixfs::{LeafKind, Node, file_node};

/// Most children of a node. (Go: `boxo/ipld/unixfs/importer/helpers`)
pub(super) const MAX_LINKS: usize = 174;
/// Subtrees of each depth in a trickle node. (Go: `boxo/ipld/unixfs/importer/trickle`)
const DEPTH_REPEAT: usize = 4;

/// A child as its parent sees it: CID, cumulative size, file size.
type Child = (Cid, u64, u64);

/// The DAG of one file while it grows.
pub(super) enum Layout {
    /// All leaves at the same depth.
    Balanced(Balanced),
    /// Subtrees of growing depth.
    Trickle(Trickle),
}

/// The end of a file.
pub(super) struct Finished {
    /// The root: the last node given out, or the leaf if that is all.
    pub(super) cid: Cid,
    /// Its cumulative size.
    pub(super) tsize: u64,
    /// How often the reference asks for another chunk after the last one. It reads, and reports progress, each
    /// time if the file ended with a whole chunk.
    pub(super) reads_at_end: usize,
}

impl Layout {
    /// How its leaves are written when they are not raw blocks.
    pub(super) fn leaf_kind(&self) -> LeafKind {
        match self {
            Self::Balanced(_) => LeafKind::File,
            Self::Trickle(_) => LeafKind::Data,
        }
    }

    /// Takes the next leaf; nodes that are complete without it go to `out`, and are written before it.
    pub(super) fn push(&mut self, leaf: &Node, out: &mut Vec<Node>) {
        match self {
            Self::Balanced(layout) => layout.push(leaf, out),
            Self::Trickle(layout) => layout.push(leaf, out),
        }
    }

    /// Closes what is open. `None` if the shape has no node for an empty file: its root is an empty leaf.
    pub(super) fn finish(self, out: &mut Vec<Node>) -> Option<Finished> {
        match self {
            Self::Balanced(layout) => layout.finish(out),
            Self::Trickle(layout) => Some(layout.finish(out)),
        }
    }
}

/// See [`Layout::Balanced`]: the open node of each level, leaves' parents first.
pub(super) struct Balanced {
    cids: CidBuilder,
    max_links: usize,
    levels: Vec<Vec<Child>>,
}

impl Balanced {
    /// An empty file.
    #[cfg(test)]
    pub(super) fn new(cids: CidBuilder) -> Self {
        Self::with_width(cids, MAX_LINKS)
    }

    /// With nodes of a width, from 2.
    pub(super) fn with_width(cids: CidBuilder, max_links: usize) -> Self {
        Self { cids, max_links, levels: Vec::new() }
    }

    fn push(&mut self, leaf: &Node, out: &mut Vec<Node>) {
        let mut level = 0;
        // A full node is closed only when a sibling arrives: without one it is the root.
        while let Some(full) = self.levels.get_mut(level).filter(|open| open.len() == self.max_links) {
            let node = file_node(self.cids, &std::mem::take(full));
            level += 1;
            self.add(level, child(&node));
            out.push(node);
        }
        self.add(0, child(leaf));
    }

    fn add(&mut self, level: usize, child: Child) {
        match self.levels.get_mut(level) {
            Some(open) => open.push(child),
            None => self.levels.push(vec![child]),
        }
    }

    fn finish(mut self, out: &mut Vec<Node>) -> Option<Finished> {
        let mut reads_at_end = 1;
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let children = std::mem::take(self.levels.get_mut(level)?);
            if let (true, &[(cid, tsize, _)]) = (is_top, &children[..]) {
                // Only a single leaf gets here: a level above has been opened by a sibling.
                return Some(Finished { cid, tsize, reads_at_end });
            }
            reads_at_end += usize::from(children.len() < self.max_links);
            let node = file_node(self.cids, &children);
            let (cid, tsize, file_size) = child(&node);
            out.push(node);
            if is_top {
                return Some(Finished { cid, tsize, reads_at_end });
            }
            level += 1;
            self.add(level, (cid, tsize, file_size));
        }
    }
}

/// See [`Layout::Trickle`]: the path from the root to the node that takes leaves.
pub(super) struct Trickle {
    cids: CidBuilder,
    max_links: usize,
    open: Vec<Subtree>,
}

/// An open node of a trickle DAG.
struct Subtree {
    children: Vec<Child>,
    n_leaves: usize,
    /// Subtrees stay below this depth; `None` for the root, which has no limit.
    max_depth: Option<usize>,
    /// Depth of the next subtree, from 1.
    depth: usize,
    /// How many subtrees of that depth there are.
    repeats: usize,
}

impl Subtree {
    fn new(max_depth: Option<usize>) -> Self {
        Self { children: Vec::new(), n_leaves: 0, max_depth, depth: 1, repeats: 0 }
    }

    /// Whether it takes another subtree.
    fn has_room(&self) -> bool {
        self.max_depth.is_none_or(|max| self.depth < max)
    }

    /// Takes a finished subtree of the current depth.
    fn add(&mut self, child: Child) {
        self.children.push(child);
        self.repeats += 1;
        if self.repeats == DEPTH_REPEAT {
            self.repeats = 0;
            self.depth += 1;
        }
    }
}

impl Trickle {
    /// An empty file.
    #[cfg(test)]
    pub(super) fn new(cids: CidBuilder) -> Self {
        Self::with_width(cids, MAX_LINKS)
    }

    /// With a number of leaves in each node, from 2.
    pub(super) fn with_width(cids: CidBuilder, max_links: usize) -> Self {
        Self { cids, max_links, open: vec![Subtree::new(None)] }
    }

    fn push(&mut self, leaf: &Node, out: &mut Vec<Node>) {
        while let Some(subtree) = self.open.last_mut() {
            if subtree.n_leaves < self.max_links {
                subtree.n_leaves += 1;
                subtree.children.push(child(leaf));
                return;
            }
            if subtree.has_room() {
                let depth = subtree.depth;
                self.open.push(Subtree::new(Some(depth)));
            } else {
                self.close(out);
            }
        }
    }

    /// Closes the innermost node; the root has no limit, so it is closed by `finish` alone.
    fn close(&mut self, out: &mut Vec<Node>) -> Option<Child> {
        let subtree = self.open.pop()?;
        let node = file_node(self.cids, &subtree.children);
        let closed = child(&node);
        out.push(node);
        if let Some(parent) = self.open.last_mut() {
            parent.add(closed);
        }
        Some(closed)
    }

    fn finish(mut self, out: &mut Vec<Node>) -> Finished {
        let innermost = self.open.last();
        let mut reads_at_end = innermost
            .map_or(0, |node| usize::from(node.n_leaves < self.max_links) + usize::from(node.has_room()));
        let mut root = None;
        while let Some(closed) = self.close(out) {
            root = Some(closed);
            if let Some(parent) = self.open.last() {
                // After a child: once more for the next of the same depth, once for the next depth.
                reads_at_end += usize::from(parent.repeats > 0);
                let next = parent.depth + usize::from(parent.repeats > 0);
                reads_at_end += usize::from(parent.max_depth.is_none_or(|max| next < max));
            }
        }
        match root {
            Some((cid, tsize, _)) => Finished { cid, tsize, reads_at_end },
            // `open` starts with the root and only this function removes it.
            None => {
                let node = file_node(self.cids, &[]);
                let (cid, tsize, _) = child(&node);
                out.push(node);
                Finished { cid, tsize, reads_at_end }
            }
        }
    }
}

/// A node as its parent sees it.
fn child(node: &Node) -> Child {
    (node.block.cid, node.tsize, node.file_size)
}

#[cfg(test)]
mod tests {
    use super::super::buffer::Buffer;

    use super::super::unixfs::{LEAF_HEAD, leaf};
    use super::*;

    fn cids() -> CidBuilder {
        CidBuilder::new(0, "sha2-256").unwrap()
    }

    /// The builder of the specification, by recursion over a list of leaves.
    fn balanced_by_recursion(leaves: &[Child]) -> Child {
        fn fill(node: &mut Vec<Child>, depth: usize, leaves: &mut &[Child]) {
            while node.len() < MAX_LINKS && !leaves.is_empty() {
                if depth == 1 {
                    node.push(leaves[0]);
                    *leaves = &leaves[1..];
                } else {
                    let mut sub = Vec::new();
                    fill(&mut sub, depth - 1, leaves);
                    node.push(child(&file_node(cids(), &sub)));
                }
            }
        }
        let mut root = leaves[0];
        let mut rest = &leaves[1..];
        let mut depth = 1;
        while !rest.is_empty() {
            let mut node = vec![root];
            fill(&mut node, depth, &mut rest);
            root = child(&file_node(cids(), &node));
            depth += 1;
        }
        root
    }

    fn trickle_by_recursion(mut leaves: &[Child]) -> Child {
        fn fill(max_depth: Option<usize>, leaves: &mut &[Child]) -> Child {
            let n = leaves.len().min(MAX_LINKS);
            let mut children = leaves[..n].to_vec();
            *leaves = &leaves[n..];
            let mut depth = 1;
            while max_depth.is_none_or(|max| depth < max) && !leaves.is_empty() {
                for _ in 0..DEPTH_REPEAT {
                    if !leaves.is_empty() {
                        children.push(fill(Some(depth), leaves));
                    }
                }
                depth += 1;
            }
            child(&file_node(cids(), &children))
        }
        fill(None, &mut leaves)
    }

    fn build(mut layout: Layout, leaves: &[Node]) -> (Cid, Vec<Node>) {
        let mut out = Vec::new();
        for leaf in leaves {
            layout.push(leaf, &mut out);
        }
        let root = layout.finish(&mut out).unwrap();
        (root.cid, out)
    }

    #[test]
    fn both_shapes_equal_their_recursive_definition() {
        let mut buffer = Buffer::default();
        buffer.resize(LEAF_HEAD, 0);
        buffer.extend_from_slice(b"x");
        let leaf = leaf(LeafKind::File, cids(), buffer);
        let square = MAX_LINKS * MAX_LINKS;
        for n in
            [1, 2, 173, 174, 175, 348, 349, 696, 697, 871, 5000, square - 1, square, square + 1, square + 175]
        {
            let leaves = vec![leaf.clone(); n];
            let children = vec![child(&leaf); n];
            let (root, nodes) = build(Layout::Balanced(Balanced::new(cids())), &leaves);
            assert_eq!(root, balanced_by_recursion(&children).0, "balanced, {n} leaves");
            assert!(n == 1 || nodes.last().unwrap().block.cid == root, "the root comes last");
            let (root, nodes) = build(Layout::Trickle(Trickle::new(cids())), &leaves);
            assert_eq!(root, trickle_by_recursion(&children).0, "trickle, {n} leaves");
            assert_eq!(nodes.last().unwrap().block.cid, root);
        }
    }

    #[test]
    fn an_empty_file_has_a_node_only_in_a_trickle() {
        let mut out = Vec::new();
        assert!(Layout::Balanced(Balanced::new(cids())).finish(&mut out).is_none());
        let root = Layout::Trickle(Trickle::new(cids())).finish(&mut out).unwrap();
        assert_eq!(root.cid.to_string(), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    }
}
