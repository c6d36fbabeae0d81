//! Rabin chunks by a second, slow implementation: it makes what the test of the original's library asserts for
//! another polynomial, and with ours what the importer makes.

use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::api::EntryKind;
use cluster_compat::types::AddParams;

use super::recipes::{ChaCha, GoRand, entry};
use super::{Collector, Memory, add, params};

const WINDOW: usize = 16;
/// Of both polynomials.
const DEGREE: u32 = 53;

struct Slow {
    polynomial: u64,
    min: usize,
    average: usize,
    max: usize,
}

impl Slow {
    fn reduce(&self, mut value: u64) -> u64 {
        while value >> DEGREE != 0 {
            value ^= self.polynomial << (63 - value.leading_zeros() - DEGREE);
        }
        value
    }

    /// Lengths of the chunks of `data`.
    fn chunks(&self, mut data: &[u8]) -> Vec<usize> {
        let append = |hash: u64, byte: u8| self.reduce(hash << 8 | u64::from(byte));
        let leaving: Vec<u64> =
            (0..=255).map(|byte| (1..WINDOW).fold(append(0, byte), |hash, _| append(hash, 0))).collect();
        let mask = (1u64 << self.average.ilog2()) - 1;
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let mut window = std::collections::VecDeque::from([0; WINDOW]);
            let mut hash = 0;
            let mut slide = |byte: u8| {
                window.push_back(byte);
                let gone = window.pop_front().unwrap_or_default();
                hash = append(hash ^ leaving[usize::from(gone)], byte);
                hash
            };
            slide(1);
            let mut length = data.len();
            for (at, byte) in data.iter().enumerate().skip(self.min - WINDOW) {
                let hash = slide(*byte);
                if at + 1 >= self.min && (hash & mask == 0 || at + 1 >= self.max) {
                    length = at + 1;
                    break;
                }
            }
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }
}

/// Vector C20.
#[test]
fn the_slow_rabin_makes_the_chunks_of_the_originals_library() {
    let slow = Slow { polynomial: 0x3d_a335_8b4d_c173, min: 524_288, average: 1_048_576, max: 8_388_608 };
    let mut random = GoRand::new(23);
    let data: Vec<u8> = (0..8 << 20).flat_map(|_| ((random.int63() >> 31) as u32).to_le_bytes()).collect();
    let expected = [
        1_579_758, 1_089_328, 614_316, 1_183_251, 2_079_238, 1_282_082, 1_656_779, 1_053_264, 1_028_060,
        896_166, 1_633_016, 1_051_769, 5_719_810, 2_490_321, 544_210, 892_726, 1_147_747, 1_964_963, 798_928,
        2_585_098, 975_521, 1_288_081,
    ];
    assert_eq!(slow.chunks(&data), expected);
}

#[tokio::test]
async fn the_importer_cuts_where_the_slow_rabin_does() {
    let data = ChaCha::new("rabin").take(300_000);
    for (min, average, max) in [
        (16, 17, 18),
        (16, 100, 1000),
        (17, 64, 65),
        (1000, 3000, 9000),
        (50_000, 60_000, 70_000),
        (16, 4096, 2_000_000),
    ] {
        let slow = Slow { polynomial: 0x3d_f305_dfb2_a805, min, average, max };
        // zeros have one fingerprint only, and end by the longest chunk or at once
        for data in [&data[..], &data[..max.min(200_000) + 1], &vec![0; 5 * max.min(20_000) + 3]] {
            let params =
                AddParams { chunker: format!("rabin-{min}-{average}-{max}"), raw_leaves: true, ..params() };
            let host = Arc::new(Collector::new());
            let upload = Memory::new([(entry(b"f", EntryKind::File), Bytes::copy_from_slice(data))]);
            let (events, error) = add(params, upload, &host).await;
            assert_eq!(error, None);
            let found = super::vectors::leaf_lengths(&host.kept(), events[0].cid.unwrap());
            let expected: Vec<_> = slow.chunks(data).into_iter().map(|length| length as u64).collect();
            assert_eq!(found, expected, "rabin-{min}-{average}-{max} of {} bytes", data.len());
        }
    }
}
