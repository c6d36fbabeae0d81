//! What any [`Kv`] must pass.

use std::any::Any;
use std::ops::ControlFlow;

use super::kv::{read, write};
use super::{Error, Kv, KvRead, Table};

/// Runs every check on a new store each; the second part of what `make` returns is kept alive meanwhile.
pub(crate) fn run(make: impl Fn() -> (Box<dyn Kv>, Box<dyn Any>)) {
    for check in [
        values_are_replaced_and_removed,
        tables_are_separate,
        a_failed_transaction_leaves_no_trace,
        a_transaction_reads_its_own_writes,
        scans_follow_key_order_and_respect_bounds,
        long_keys_are_whole_in_every_answer,
        clearing_empties_one_table,
    ] {
        let (kv, _guard) = make();
        check(&*kv);
    }
}

fn get(kv: &dyn Kv, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    read(kv, |view| Ok::<_, Error>(view.get(table, key)?.map(<[u8]>::to_vec))).unwrap()
}

fn keys(view: &dyn KvRead, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    view.scan(table, prefix, after, &mut |key, _| {
        keys.push(key.to_vec());
        if keys.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    keys
}

fn values_are_replaced_and_removed(kv: &dyn Kv) {
    assert_eq!(get(kv, Table::Values, b"k"), None);
    write(kv, |t| t.put(Table::Values, b"k", b"one")).unwrap();
    write(kv, |t| t.put(Table::Values, b"k", b"")).unwrap();
    assert_eq!(get(kv, Table::Values, b"k").as_deref(), Some(&b""[..]));
    assert!(write(kv, |t| t.delete(Table::Values, b"k")).unwrap());
    assert!(!write(kv, |t| t.delete(Table::Values, b"k")).unwrap());
    assert_eq!(get(kv, Table::Values, b"k"), None);
}

fn tables_are_separate(kv: &dyn Kv) {
    write(kv, |t| t.put(Table::Values, b"k", b"v")).unwrap();
    assert_eq!(get(kv, Table::Adds, b"k"), None);
    assert!(read(kv, |view| Ok::<_, Error>(keys(view, Table::Adds, b"", None, 9))).unwrap().is_empty());
}

fn a_failed_transaction_leaves_no_trace(kv: &dyn Kv) {
    write(kv, |t| t.put(Table::Values, b"kept", b"1")).unwrap();
    let failed = write(kv, |t| {
        t.put(Table::Values, b"kept", b"2")?;
        t.put(Table::Values, b"new", b"2")?;
        t.clear(Table::Values)?;
        Err::<(), Error>(Error::Database("on purpose".into()))
    });
    assert!(failed.is_err());
    assert_eq!(get(kv, Table::Values, b"kept").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(kv, Table::Values, b"new"), None);
}

fn a_transaction_reads_its_own_writes(kv: &dyn Kv) {
    write(kv, |t| {
        t.put(Table::Values, b"k", b"v")?;
        assert_eq!(t.as_read().get(Table::Values, b"k")?, Some(&b"v"[..]));
        t.delete(Table::Values, b"k")?;
        assert!(!t.has(Table::Values, b"k")?);
        Ok::<_, Error>(())
    })
    .unwrap();
}

fn scans_follow_key_order_and_respect_bounds(kv: &dyn Kv) {
    write(kv, |t| [&b"b1"[..], b"a", b"b2", b"c", b"b"].iter().try_for_each(|k| t.put(Table::Heads, k, k)))
        .unwrap();
    read(kv, |view| {
        assert_eq!(keys(view, Table::Heads, b"", None, 9), [&b"a"[..], b"b", b"b1", b"b2", b"c"]);
        assert_eq!(keys(view, Table::Heads, b"b", None, 9), [&b"b"[..], b"b1", b"b2"]);
        assert_eq!(keys(view, Table::Heads, b"b", Some(b"b"), 9), [&b"b1"[..], b"b2"]);
        assert_eq!(keys(view, Table::Heads, b"b", Some(b"a"), 1), [&b"b"[..]]);
        assert!(keys(view, Table::Heads, b"b", Some(b"c"), 9).is_empty());
        Ok::<_, Error>(())
    })
    .unwrap();
}

fn long_keys_are_whole_in_every_answer(kv: &dyn Kv) {
    let long = |n: usize, end: u8| {
        let mut key = vec![b'x'; n];
        key.push(end);
        key
    };
    let all = [long(100, b'a'), long(509, b'a'), long(510, b'a'), long(510, b'b'), long(5000, b'c')];
    write(kv, |t| all.iter().try_for_each(|key| t.put(Table::Adds, key, &key[key.len() - 1..]))).unwrap();
    for key in &all {
        assert_eq!(get(kv, Table::Adds, key).as_deref(), Some(&key[key.len() - 1..]));
    }
    read(kv, |view| {
        let mut found = keys(view, Table::Adds, b"xx", None, 9);
        let mut paged = Vec::new();
        while let Some(key) = keys(view, Table::Adds, b"xx", paged.last().map(Vec::as_slice), 1).pop() {
            paged.push(key);
        }
        assert_eq!(found, paged);
        found.sort();
        let mut expected = all.to_vec();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(keys(view, Table::Adds, &[b'x'; 600], None, 9), [long(5000, b'c')]);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(write(kv, |t| t.delete(Table::Adds, &all[4])).unwrap());
    assert_eq!(get(kv, Table::Adds, &all[4]), None);
}

fn clearing_empties_one_table(kv: &dyn Kv) {
    write(kv, |t| {
        t.put(Table::Journal, b"a", b"")?;
        t.put(Table::Heads, b"a", b"")
    })
    .unwrap();
    write(kv, |t| t.clear(Table::Journal)).unwrap();
    assert_eq!(get(kv, Table::Journal, b"a"), None);
    assert_eq!(get(kv, Table::Heads, b"a").as_deref(), Some(&b""[..]));
}
