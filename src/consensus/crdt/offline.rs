//! What can be done to the CRDT of a stopped peer.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use cluster_compat::types::{Cid, PeerId, Pin};

use super::super::Error;
use super::core::{self, Event, State};
use crate::state::{Sorted, Sorter};
use crate::store::{Kv, KvWrite, Reads, blocks, kv};
use crate::wire::{crdt_pb, key, pin_pb};

/// What an import changes of each pin; zeros and empty lists change nothing.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Fewest copies, if above zero.
    pub replication_factor_min: i64,
    /// Most copies, if above zero.
    pub replication_factor_max: i64,
    /// Allocations, if any.
    pub allocations: Vec<PeerId>,
}

/// Bytes of keys and values written in one transaction of an import. LMDB keeps what a transaction writes in memory,
/// and each pin is written twice: in its node and in its row.
const MAX_WRITE_BYTES: usize = 8 << 20;

/// Replaces the whole pinset. All pins are read, and put in the order of their keys, before anything is written: where
/// one cannot be read, the old pinset stays. It is written in several transactions, so that memory is bounded; where an
/// end in between would matter, `kv` is a database that nobody uses yet ([`crate::store::Db::rebuild`]). Of pins of one
/// CID the last counts. The DAG starts anew, with nodes as large as batches may be. Says how many pins were read.
pub fn import<E: std::fmt::Display>(
    kv: &(impl Kv + ?Sized),
    pins: impl IntoIterator<Item = Result<Pin, E>>,
    overrides: &Overrides,
    scratch: &Path,
) -> Result<u64, Error> {
    let mut sorter = Sorter::new(scratch);
    let mut n_pins = 0;
    for pin in pins {
        let mut pin = pin.map_err(message)?;
        overrides.apply(&mut pin);
        sorter.push(key::of_cid(&pin.cid).as_bytes(), &pin_pb::encode(&pin)).map_err(message)?;
        n_pins += 1;
    }
    let mut sorted = sorter.finish().map_err(message)?;
    let mut state = kv::write(kv, |transaction| {
        core::clean(transaction)?;
        State::load(transaction.as_read()).map_err(message)
    })?;
    while !kv::write(kv, |transaction| write_some(&mut state, &mut sorted, transaction))? {}
    Ok(n_pins)
}

/// Writes what fits into a transaction; says whether that was all.
fn write_some(state: &mut State, sorted: &mut Sorted, transaction: &mut dyn KvWrite) -> Result<bool, Error> {
    let mut n_bytes = 0;
    while n_bytes < MAX_WRITE_BYTES {
        let Some((key, value)) = sorted.next().map_err(message)? else {
            handle(state, Event::Commit, transaction)?;
            return Ok(true);
        };
        n_bytes += key.len() + value.len();
        let key = std::str::from_utf8(key).map_err(message)?;
        handle(state, Event::Queue { key, value: Some(value), is_journalled: false }, transaction)?;
    }
    Ok(false)
}

impl Overrides {
    fn apply(&self, pin: &mut Pin) {
        if self.replication_factor_max > 0 {
            pin.options.replication_factor_max = self.replication_factor_max;
        }
        if self.replication_factor_min > 0 {
            pin.options.replication_factor_min = self.replication_factor_min;
        }
        if !self.allocations.is_empty() {
            pin.allocations = Some(self.allocations.clone());
        }
    }
}

fn handle(state: &mut State, event: Event<'_>, transaction: &mut dyn KvWrite) -> Result<(), Error> {
    let effects = state.handle(event, transaction.as_read()).map_err(message)?;
    Ok(effects.apply(transaction)?)
}

fn message(cause: impl std::fmt::Display) -> Error {
    Error::Message(cause.to_string())
}

/// Removes the whole pinset.
pub fn clean(kv: &(impl Kv + ?Sized)) -> Result<(), Error> {
    Ok(kv::write(kv, |transaction| core::clean(transaction))?)
}

/// Notes that the DAG has to be walked at the next start, or that it need not be.
pub fn mark_dirty(kv: &(impl Kv + ?Sized), is_dirty: bool) -> Result<(), Error> {
    kv::write(kv, |transaction| {
        let mut state = State::load(transaction.as_read()).map_err(message)?;
        handle(&mut state, Event::MarkDirty(is_dirty), transaction)
    })
}

/// The DAG in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The heads, sorted by their bytes.
    pub heads: Vec<Cid>,
    /// Height of the highest.
    pub max_height: u64,
    /// Whether the DAG has to be walked.
    pub is_dirty: bool,
}

/// The DAG in short.
pub fn info(kv: &(impl Reads + ?Sized)) -> Result<Info, Error> {
    kv::read(kv, |view| {
        let state = State::load(view).map_err(message)?;
        let (heads, max_height) = (state.heads().list(), state.heads().max_height());
        Ok(Info { heads, max_height, is_dirty: core::is_dirty(view)? })
    })
}

/// Draws the DAG for Graphviz, depth first from each head, in the reference's words.
pub fn dot(kv: &(impl Reads + ?Sized), mut out: impl Write) -> Result<(), Error> {
    let heads = info(kv)?.heads;
    let mut text = String::from("digraph CRDTDAG {\nsubgraph heads {\n");
    heads.iter().for_each(|head| text += &format!("{head}\n"));
    text += "}\n";
    let mut seen = HashSet::new();
    let mut next: Vec<_> = heads.into_iter().rev().collect();
    while let Some(cid) = next.pop() {
        if !seen.insert(cid) {
            continue;
        }
        let Some(block) = blocks::load(kv, &cid)? else { continue };
        let Ok(node) = crdt_pb::decode_node(&block) else { continue };
        draw(&mut text, &cid, &node);
        next.extend(node.links.into_iter().rev());
        out.write_all(text.as_bytes()).map_err(message)?;
        text.clear();
    }
    text += "}\n";
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(message)
}

fn draw(text: &mut String, cid: &Cid, node: &crdt_pb::Node<'_>) {
    let name = cid.to_string();
    let end = &name[name.len().saturating_sub(4)..];
    let (height, n_adds, n_deletes) =
        (node.delta.priority, node.delta.elements.len(), node.delta.tombstones.len());
    *text += &format!("{name} [label=\"{height} | {end}: +{n_adds} -{n_deletes}\"]\n{name} -> {{");
    node.links.iter().for_each(|link| *text += &format!("{link} "));
    *text += &format!("}}\nsubgraph sg_{name} {{\n");
    node.links.iter().for_each(|link| *text += &format!("{link}\n"));
    *text += "}\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::crdt::SetReads;
    use crate::consensus::suite::{cid, pin};
    use crate::state::{Error as StateError, Pinset};
    use crate::store::{Mem, Table};
    use std::sync::Arc;

    fn pins(n_pins: u64) -> impl Iterator<Item = Result<Pin, StateError>> {
        (0..n_pins).map(|n| Ok(pin(n, &format!("pin {n}"))))
    }

    fn listed(store: &Arc<Mem>) -> usize {
        Pinset::new(Arc::new(SetReads(StoreOf(Arc::clone(store))))).page(None, 1_000_000).unwrap().0.len()
    }

    struct StoreOf(Arc<Mem>);

    impl Reads for StoreOf {
        fn with_snapshot(
            &self,
            job: &mut dyn FnMut(&dyn crate::store::KvRead),
        ) -> Result<(), crate::store::Error> {
            self.0.with_snapshot(job)
        }
    }

    #[test]
    fn an_import_replaces_the_pinset_in_nodes_of_a_megabyte() {
        let store = Arc::new(Mem::new());
        assert_eq!(
            import(&*store, pins(20_000), &Overrides::default(), &std::env::temp_dir()).unwrap(),
            20_000
        );
        assert_eq!(listed(&store), 20_000);
        let info = info(&*store).unwrap();
        assert_eq!((info.heads.len(), info.is_dirty), (1, false));
        assert!((2..=4).contains(&info.max_height), "{}", info.max_height);
        assert_eq!(import(&*store, pins(3), &Overrides::default(), &std::env::temp_dir()).unwrap(), 3);
        assert_eq!(listed(&store), 3);
    }

    #[test]
    fn an_import_that_fails_leaves_the_old_pinset() {
        let store = Arc::new(Mem::new());
        import(&*store, pins(5), &Overrides::default(), &std::env::temp_dir()).unwrap();
        let before = info(&*store).unwrap();
        let broken = pins(2).chain([Err(StateError::Import { number: 3, cause: "no pin".into() })]);
        let refused = import(&*store, broken, &Overrides::default(), &std::env::temp_dir()).unwrap_err();
        assert_eq!(refused.to_string(), "no pin");
        assert_eq!((listed(&store), info(&*store).unwrap()), (5, before));
    }

    #[test]
    fn overrides_above_zero_count() {
        let store = Arc::new(Mem::new());
        let peer = PeerId::random();
        let overrides =
            Overrides { replication_factor_min: 2, replication_factor_max: 0, allocations: vec![peer] };
        import(&*store, pins(1), &overrides, &std::env::temp_dir()).unwrap();
        let pin = Pinset::new(Arc::new(SetReads(StoreOf(store)))).get(&cid(0)).unwrap().unwrap();
        assert_eq!(pin.options.replication_factor_min, 2);
        assert_eq!(pin.allocations, Some(vec![peer]));
    }

    #[test]
    fn cleaning_and_marking_show_in_the_info() {
        let store = Mem::new();
        import(&store, pins(1), &Overrides::default(), &std::env::temp_dir()).unwrap();
        mark_dirty(&store, true).unwrap();
        assert!(info(&store).unwrap().is_dirty);
        mark_dirty(&store, false).unwrap();
        assert!(!info(&store).unwrap().is_dirty);
        clean(&store).unwrap();
        assert_eq!(info(&store).unwrap(), Info { heads: vec![], max_height: 0, is_dirty: false });
        let is_there = kv::read(&store, |view| Ok::<_, Error>(view.has(Table::Blocks, b"x")?)).unwrap();
        assert!(!is_there);
    }

    #[test]
    fn the_dag_is_drawn_as_the_reference_draws_it() {
        let store = Mem::new();
        kv::write(&store, |transaction| {
            let mut state = State::load(transaction.as_read()).map_err(message)?;
            handle(&mut state, Event::Put { key: "/K", value: b"v" }, transaction)?;
            handle(&mut state, Event::Delete { key: "/K" }, transaction)
        })
        .unwrap();
        let head = info(&store).unwrap().heads[0];
        let block = blocks::load(&store, &head).unwrap().unwrap();
        let first = crdt_pb::decode_node(&block).unwrap().links[0];
        let end = |cid: &Cid| cid.to_string()[cid.to_string().len() - 4..].to_owned();
        let mut out = Vec::new();
        dot(&store, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "digraph CRDTDAG {{\nsubgraph heads {{\n{head}\n}}\n{head} [label=\"2 | {}: +0 -1\"]\n\
                 {head} -> {{{first} }}\nsubgraph sg_{head} {{\n{first}\n}}\n{first} [label=\"1 | {}: +1 -0\"]\n\
                 {first} -> {{}}\nsubgraph sg_{first} {{\n}}\n}}\n",
                end(&head),
                end(&first)
            )
        );
    }
}
