//! Hostile bytes for every decoder of `fuzz/`: recorded bytes, mutated with a fixed seed. Nothing panics, and nothing
//! allocates more than a multiple of its input.
//!
//! `FUZZ_SECONDS`, `FUZZ_TARGET`, `FUZZ_SEED`, `FUZZ_INPUT` and `FUZZ_SEEDS`: see `fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "tests")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Mutated inputs for each target in an ordinary run.
const N_INPUTS: u64 = 1000;

/// Longest input.
const MAX_INPUT_BYTES: usize = 16 << 10;

/// What may be allocated whatever the input: messages of errors, first capacities.
const BASE_BYTES: usize = 4 << 10;

/// A small generator of our own, so that a seed means the same for ever (xorshift64*).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n.max(1)
    }

    /// A place in `data`, or its end.
    fn place(&mut self, data: &[u8]) -> usize {
        self.below(data.len() + 1)
    }

    /// One or a few changes of one seed.
    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.place(&data);
            match self.below(10) {
                0 | 1 if at < data.len() => data[at] ^= 1 << self.below(8),
                2 if at < data.len() => data[at] = [0, 1, 0x7f, 0x80, 0xff, 0xdd, 0xc1][self.below(7)],
                3 => data.truncate(at),
                4 => drop(data.splice(at..at, std::iter::repeat_n(self.next() as u8, self.below(64)))),
                5 => {
                    // a length or number as large as it can be written
                    let huge: &[u8] = [
                        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..],
                        &[0xff, 0xff, 0xff, 0xff, 0x0f],
                        &[0xdd, 0xff, 0xff, 0xff, 0xff],
                        &[0xdf, 0x7f, 0xff, 0xff, 0xff],
                        &[0xc6, 0xff, 0xff, 0xff, 0xff],
                        &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                        &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0],
                    ][self.below(7)];
                    drop(data.splice(at..at, huge.iter().copied()));
                }
                6 => {
                    let end = (at + self.below(40)).min(data.len());
                    drop(data.drain(at..end));
                }
                7 => {
                    // the same piece again and again: lists of many items
                    let end = (at + 1 + self.below(60)).min(data.len());
                    let piece = data[at..end].repeat(1 + self.below(100));
                    drop(data.splice(at..at, piece));
                }
                8 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.place(other);
                    data.truncate(at);
                    data.extend_from_slice(&other[from..]);
                }
                _ => data.extend((0..self.below(32)).map(|_| self.next() as u8).collect::<Vec<_>>()),
            }
        }
        data.truncate(MAX_INPUT_BYTES);
        data
    }
}

fn run(target: &Target, input: &[u8]) -> usize {
    let region = Region::new(ALLOCATOR);
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let n_allocated = region.change().bytes_allocated;
    assert!(ended.is_ok(), "FUZZ_TARGET={} FUZZ_INPUT={}", target.name, hex::encode(input));
    n_allocated
}

/// Runs one input and gives what it allocated for each byte.
fn check(target: &Target, input: &[u8]) -> usize {
    let n_allocated = run(target, input);
    let allowed = input.len().saturating_mul(target.max_growth).saturating_add(BASE_BYTES);
    assert!(
        n_allocated <= allowed,
        "FUZZ_TARGET={} allocated {n_allocated} bytes for an input of {}, FUZZ_INPUT={}",
        target.name,
        input.len(),
        hex::encode(input)
    );
    n_allocated.saturating_sub(BASE_BYTES) / input.len().max(1)
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn attack(target: &Target, seed: u64, seconds: Option<u64>) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has nothing to begin with", target.name);
    if let Some(folder) = setting("FUZZ_SEEDS") {
        let folder = std::path::Path::new(&folder).join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (i, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(i.to_string()), seed).unwrap();
        }
    }
    let (started, mut chance, mut n_inputs, mut most) = (Instant::now(), Chance::new(seed), 0, 0);
    // what is read once for all, such as the time zone, is not counted
    for good in &seeds {
        run(target, good);
    }
    for good in &seeds {
        most = most.max(check(target, good));
    }
    let goes_on = |n_inputs| match seconds {
        Some(seconds) => started.elapsed() < Duration::from_secs(seconds),
        None => n_inputs < N_INPUTS,
    };
    while goes_on(n_inputs) {
        let input = chance.mutate(&seeds);
        most = most.max(check(target, &input));
        n_inputs += 1;
    }
    eprintln!(
        "{}: {n_inputs} inputs in {:.1?}, at most {most} bytes allocated for each byte",
        target.name,
        started.elapsed()
    );
}

/// One test, so that nothing else allocates beside it.
#[test]
fn no_bytes_make_a_decoder_panic_or_hoard() {
    let seed = setting("FUZZ_SEED").map_or(1, |seed| seed.parse().expect("FUZZ_SEED is a number"));
    let seconds = setting("FUZZ_SECONDS").map(|seconds| seconds.parse().expect("FUZZ_SECONDS is a number"));
    let wanted = setting("FUZZ_TARGET");
    let input = setting("FUZZ_INPUT").map(|input| hex::decode(input).expect("FUZZ_INPUT is hexadecimal"));
    let mut n_targets = 0;
    for target in TARGETS.iter().filter(|target| wanted.as_deref().is_none_or(|name| name == target.name)) {
        match &input {
            Some(input) => drop(check(target, input)),
            None => attack(target, seed, seconds),
        }
        n_targets += 1;
    }
    assert!(n_targets > 0, "no target is called {wanted:?}");
}
