//! Texts of values that repeat.
//!
//! A listing names the same few peers and addresses in every one of a million rows. Each thread keeps the texts of
//! those it printed last, in a fixed number of places; a value that finds another in its place takes it.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Places of a memo: more than the peers of a large cluster.
const PLACES: usize = 64;

/// The memo of one kind of value on one thread.
pub(super) type Memo<K> = RefCell<[Option<(K, Box<str>)>; PLACES]>;

/// An empty memo.
pub(super) const fn memo<K>() -> Memo<K> {
    RefCell::new([const { None }; PLACES])
}

/// Gives the text of a value to `read`, made by `text` if it is not there. `bytes` decide about the place.
pub(super) fn with_text<K: PartialEq + Clone, R>(
    memo: &'static LocalKey<Memo<K>>,
    bytes: &[u8],
    key: &K,
    text: impl FnOnce() -> String,
    read: impl FnOnce(&str) -> R,
) -> R {
    memo.with_borrow_mut(|places| {
        let slot = &mut places[place(bytes)];
        match slot {
            Some((kept, text)) if kept == key => read(text),
            slot => {
                let text = text().into_boxed_str();
                let (_, text) = slot.insert((key.clone(), text));
                read(text)
            }
        }
    })
}

/// FNV-1a over words of eight bytes.
fn place(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let words =
        words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest.iter().map(|byte| u64::from(*byte)));
    let hash =
        words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3));
    // the high bits are the mixed ones
    (hash >> 48) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static TEXTS: Memo<u64> = const { memo() };
    }

    #[test]
    fn every_value_gets_its_own_text_however_often_places_change() {
        for round in 0..3 {
            for value in 0..500u64 {
                let bytes = value.to_le_bytes();
                with_text(
                    &TEXTS,
                    &bytes,
                    &value,
                    || value.to_string(),
                    |text| {
                        assert_eq!(text, value.to_string(), "{round}");
                    },
                );
            }
        }
    }

    #[test]
    fn a_value_in_its_place_is_not_printed_again() {
        let mut n_printed = 0;
        for _ in 0..10 {
            with_text(
                &TEXTS,
                b"1234567890",
                &7,
                || {
                    n_printed += 1;
                    "7".into()
                },
                |text| assert_eq!(text, "7"),
            );
        }
        assert_eq!(n_printed, 1);
    }
}
