//! Replicas that write, announce, lose and fetch at random must end alike.
//!
//! `SIM_SEED=n cargo test converge` runs one seed; a failure prints its seed.

use cluster_compat::types::Cid;

use super::tests::Replica;
use super::*;

/// A small generator of our own, so that a seed means the same for ever (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

struct World {
    chance: Chance,
    replicas: Vec<Replica>,
    /// Announcements under way: to whom, and what.
    mail: Vec<(usize, Vec<Cid>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let n_replicas = 2 + chance.below(3);
        Self { chance, replicas: (0..n_replicas).map(|_| Replica::new()).collect(), mail: Vec::new() }
    }

    /// All blocks of one replica, as another could fetch them.
    fn serve(&mut self, from: usize) {
        let blocks: Vec<_> = self.replicas[from]
            .rows(Table::Blocks)
            .into_iter()
            .filter_map(|(key, row)| Some((crdt_pb::cid_of_multihash(&key)?, row[1..].to_vec())))
            .collect();
        for replica in &mut self.replicas {
            replica.known.extend(blocks.iter().cloned());
        }
    }

    fn announce(&mut self, from: usize) {
        let heads = self.replicas[from].state.heads().list();
        for to in 0..self.replicas.len() {
            // one in four is lost
            if to != from && self.chance.below(4) > 0 {
                self.mail.push((to, heads.clone()));
            }
        }
    }

    fn step(&mut self) {
        let at = self.chance.below(self.replicas.len());
        let key = format!("/K{}", self.chance.below(6));
        let value = format!("value {}", self.chance.below(1000));
        match self.chance.below(8) {
            0..=2 => self.replicas[at].feed(Event::Put { key: &key, value: value.as_bytes() }),
            3 => self.replicas[at].feed(Event::Delete { key: &key }),
            4 => {
                // several keys, each once: a key written twice in one node is where the reference itself is torn
                for (i, key) in ["/K0", "/K1", "/K2", "/K3"].iter().enumerate() {
                    let value = (i % 2 == 0).then_some(value.as_bytes());
                    self.replicas[at].feed(Event::Queue { key, value, is_journalled: true });
                }
                self.replicas[at].feed(Event::Commit);
            }
            5 => {
                self.serve(at);
                self.announce(at);
            }
            _ => {
                if !self.mail.is_empty() {
                    let letter = self.chance.below(self.mail.len());
                    let (to, heads) = self.mail.swap_remove(letter);
                    self.replicas[to].feed(Event::Announced(&heads));
                }
            }
        }
    }

    /// Everything is served and announced until nobody learns anything new.
    fn settle(&mut self) {
        for at in 0..self.replicas.len() {
            self.serve(at);
        }
        loop {
            let before: Vec<_> = self.replicas.iter().map(|r| r.state.heads().list()).collect();
            for heads in &before {
                for replica in &mut self.replicas {
                    replica.feed(Event::Announced(heads));
                }
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

/// What is stored as the current value is what the rule gives when asked anew.
fn values_follow_the_rule(world: &World, seed: u64) {
    let replica = &world.replicas[0];
    for key in (0..6).map(|i| format!("/K{i}")) {
        let (stored, living) = kv_read(replica, &key);
        assert_eq!(stored, living, "seed {seed}: key {key}");
    }
}

fn kv_read(replica: &Replica, key: &str) -> (bool, bool) {
    store::kv::read(&replica.kv, |view| {
        let stored = view.has(Table::Values, key.as_bytes())?;
        let living = !set::living_ids(key, view)?.is_empty();
        Ok::<_, Error>((stored, living))
    })
    .unwrap()
}

#[test]
fn replicas_converge_whatever_is_lost_or_late() {
    let seeds = match std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..60u64,
    };
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
        }
        world.settle();
        all_alike(&world, seed);
        values_follow_the_rule(&world, seed);
    }
}
