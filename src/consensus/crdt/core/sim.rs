//! Replicas that write, announce, fetch, are cut off and restarted at random must end alike.
//!
//! Announcements are lost, doubled, delayed and reordered; a block comes late or not at all, and only from replicas
//! on the same side of a partition; a restart forgets what is not stored. `SIM_SEED=n cargo test --lib converge` runs
//! one history, `SIM_HISTORIES=n` that many; a failure prints its seed.

use std::collections::BTreeSet;

use cluster_compat::types::Cid;

use super::tests::Replica;
use super::*;

/// Histories of one run; ten thousand different ones on every run of the tests.
const HISTORIES: u64 = 10_000;

/// Keys that replicas write.
const KEYS: [&str; 4] = ["/K0", "/K1", "/K2", "/K3"];

/// A small generator of our own, so that a seed means the same for ever (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct World {
    chance: Chance,
    replicas: Vec<Replica>,
    /// Who is on the other side of the partition, if there is one.
    cut_off: BTreeSet<usize>,
    /// Announcements under way: from whom, to whom, and what.
    mail: Vec<(usize, usize, Vec<Cid>)>,
    /// Blocks that a replica waits for.
    fetches: Vec<(usize, Cid)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let n_replicas = 2 + chance.below(3);
        let replicas = (0..n_replicas).map(|_| Replica::new()).collect();
        Self { chance, replicas, cut_off: BTreeSet::new(), mail: Vec::new(), fetches: Vec::new() }
    }

    /// Hands an event to a replica. What it asks for is fetched later.
    fn feed(&mut self, at: usize, event: Event<'_>) {
        let fetch = self.replicas[at].feed_one(event);
        self.fetches.extend(fetch.into_iter().map(|fetch| (at, fetch.cid)));
    }

    fn are_together(&self, a: usize, b: usize) -> bool {
        self.cut_off.contains(&a) == self.cut_off.contains(&b)
    }

    /// A block that another replica on this side has, as it would be served.
    fn served(&self, to: usize, cid: &Cid) -> Option<Vec<u8>> {
        let from = (0..self.replicas.len()).filter(|from| *from != to && self.are_together(*from, to));
        from.filter_map(|from| blocks::load(&self.replicas[from].kv, cid).unwrap()).next()
    }

    fn announce(&mut self, from: usize) {
        let heads = self.replicas[from].state.heads().list();
        for to in 0..self.replicas.len() {
            // one in four is lost, one in eight comes twice
            if to != from && !self.chance.one_in(4) {
                self.mail.push((from, to, heads.clone()));
                if self.chance.one_in(8) {
                    self.mail.push((from, to, heads.clone()));
                }
            }
        }
    }

    fn write(&mut self, at: usize) {
        let key = KEYS[self.chance.below(KEYS.len())];
        let value = format!("value {}", self.chance.below(1000));
        match self.chance.below(5) {
            0..=2 => self.feed(at, Event::Put { key, value: value.as_bytes() }),
            3 => self.feed(at, Event::Delete { key }),
            _ => {
                // several keys, each once: a key written twice in one node is where the reference itself is torn
                let skipped = self.chance.below(KEYS.len());
                for (i, key) in KEYS.iter().enumerate().filter(|(i, _)| *i != skipped) {
                    let value = (i % 2 == 0).then_some(value.as_bytes());
                    self.feed(at, Event::Queue { key, value, is_journalled: true });
                }
                self.feed(at, Event::Commit);
            }
        }
    }

    fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let letter = self.chance.below(self.mail.len());
        let (from, to, heads) = self.mail.swap_remove(letter);
        if self.are_together(from, to) {
            self.feed(to, Event::Announced(&heads));
        }
    }

    fn fetch(&mut self) {
        if self.fetches.is_empty() {
            return;
        }
        let fetch = self.chance.below(self.fetches.len());
        let (at, cid) = self.fetches.swap_remove(fetch);
        match self.served(at, &cid) {
            Some(data) if !self.chance.one_in(6) => self.feed(at, Event::Block { cid, data }),
            _ => self.feed(at, Event::Unavailable(cid)),
        }
    }

    fn restart(&mut self, at: usize) {
        self.replicas[at].restart();
        self.fetches.retain(|(asker, _)| *asker != at);
        self.feed(at, Event::Continue);
    }

    fn step(&mut self) {
        let at = self.chance.below(self.replicas.len());
        match self.chance.below(16) {
            0..=3 => self.write(at),
            4..=5 => self.announce(at),
            6..=8 => self.deliver(),
            9..=12 => self.fetch(),
            13 => self.restart(at),
            14 => self.feed(at, Event::Repair),
            _ if self.cut_off.is_empty() => {
                self.cut_off.insert(at);
            }
            _ => self.cut_off.clear(),
        }
    }

    /// The partition heals; everything is announced, repaired and fetched until nobody learns anything new.
    fn heal(&mut self) {
        self.cut_off.clear();
        self.mail.clear();
        loop {
            let before: Vec<_> = self.replicas.iter().map(|r| r.state.heads().list()).collect();
            for at in 0..self.replicas.len() {
                self.feed(at, Event::Repair);
                for heads in &before {
                    self.feed(at, Event::Announced(heads));
                }
            }
            while let Some((at, cid)) = self.fetches.pop() {
                let data = self.served(at, &cid).expect("somebody has every block that is known of");
                self.feed(at, Event::Block { cid, data });
            }
            if self.replicas.iter().map(|r| r.state.heads().list()).eq(before) {
                return;
            }
        }
    }
}

fn all_alike(world: &World, seed: u64) {
    let [first, others @ ..] = &world.replicas[..] else { return };
    for other in others {
        assert_eq!(first.values(), other.values(), "seed {seed}: values");
        for table in [Table::Adds, Table::Tombs] {
            assert_eq!(first.pairs(table), other.pairs(table), "seed {seed}: table {}", table.name());
        }
        for table in [Table::Blocks, Table::Heads] {
            assert_eq!(first.rows(table), other.rows(table), "seed {seed}: table {}", table.name());
        }
    }
}

/// The heads are the nodes that no node has as a parent.
fn heads_are_what_nothing_builds_on(world: &World, seed: u64) {
    let replica = &world.replicas[0];
    let (mut nodes, mut parents) = (BTreeSet::new(), BTreeSet::new());
    for (key, row) in replica.rows(Table::Blocks) {
        nodes.insert(crdt_pb::cid_of_multihash(&key).unwrap());
        parents.extend(crdt_pb::decode_node(&row[1..]).unwrap().links);
    }
    let tops: BTreeSet<Cid> = nodes.difference(&parents).copied().collect();
    let heads: BTreeSet<Cid> = replica.state.heads().list().into_iter().collect();
    assert_eq!(heads, tops, "seed {seed}: heads");
}

fn nothing_is_left_to_do(world: &World, seed: u64) {
    for replica in &world.replicas {
        assert_eq!(replica.state.n_unfinished(), 0, "seed {seed}: unfinished");
        assert!(replica.rows(Table::Unfinished).is_empty(), "seed {seed}: table unfinished");
        assert!(!store::kv::read(&replica.kv, is_dirty).unwrap(), "seed {seed}: dirty");
    }
}

/// A key has a value if and only if one of its adds lives.
fn values_follow_the_rule(world: &World, seed: u64) {
    let replica = &world.replicas[0];
    for key in KEYS {
        let (stored, living) = store::kv::read(&replica.kv, |view| {
            let stored = view.has(Table::Values, key.as_bytes())?;
            Ok::<_, Error>((stored, !set::living_ids(key, view)?.is_empty()))
        })
        .unwrap();
        assert_eq!(stored, living, "seed {seed}: key {key}");
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..60 {
        world.step();
    }
    world.heal();
    all_alike(&world, seed);
    heads_are_what_nothing_builds_on(&world, seed);
    nothing_is_left_to_do(&world, seed);
    values_follow_the_rule(&world, seed);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn replicas_converge_whatever_is_lost_late_or_restarted() {
    if let Some(seed) = number("SIM_SEED") {
        return run(seed);
    }
    let n_histories = number("SIM_HISTORIES").unwrap_or(HISTORIES);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..n_threads {
            scope.spawn(move || (thread..n_histories).step_by(n_threads as usize).for_each(run));
        }
    });
}
