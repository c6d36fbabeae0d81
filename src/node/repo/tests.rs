//! What a repository keeps, and what it refuses.

use super::super::testing::{block, named, repo};
use super::*;
use crate::node::ipld;

fn pin(kind: PinKind, name: &str) -> Pin {
    Pin { kind, name: name.into() }
}

#[test]
fn a_block_is_stored_once_and_counted_once() {
    let (_folder, repo) = repo();
    let one = block(b"hello");
    repo.put(&[one.clone(), one.clone()]).unwrap();
    repo.put(std::slice::from_ref(&one)).unwrap();
    // the same bytes under another codec are the same block
    let other = named(ipld::DAG_PB, b"hello");
    repo.put(std::slice::from_ref(&other)).unwrap();
    assert_eq!(repo.stat(), Stat { n_objects: 1, n_bytes: 5 });
    assert_eq!(repo.get(&other.cid).unwrap().unwrap(), "hello");
    assert_eq!(repo.size(&one.cid).unwrap(), Some(5));
    repo.remove(&[one.cid, one.cid]).unwrap();
    assert_eq!(repo.stat(), Stat::default());
    assert_eq!(repo.get(&one.cid).unwrap(), None);
}

#[test]
fn a_cid_that_holds_its_block_is_never_stored() {
    let (_folder, repo) = repo();
    let cid = Cid::new_v1(ipld::RAW, multihash::Multihash::wrap(0, b"tiny").unwrap());
    assert_eq!(repo.get(&cid).unwrap().unwrap(), "tiny");
    assert_eq!(repo.size(&cid).unwrap(), Some(4));
    repo.put(&[Block { cid, data: Bytes::from_static(b"tiny"), is_spare: false }]).unwrap();
    assert_eq!(repo.stat(), Stat::default());
}

#[test]
fn blocks_pins_and_counts_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let one = block(&vec![7; 300_000]);
    let repo = Repo::open(folder.path(), 1 << 30).unwrap();
    repo.put(std::slice::from_ref(&one)).unwrap();
    repo.set_pin(one.cid, pin(PinKind::Recursive, "name")).unwrap();
    let stat = repo.stat();
    drop(repo);
    let repo = Repo::open(folder.path(), 1 << 30).unwrap();
    assert_eq!(repo.stat(), stat);
    assert_eq!(repo.get(&one.cid).unwrap().unwrap(), one.data);
    assert_eq!(repo.pin_of(&one.cid).unwrap(), Some(pin(PinKind::Recursive, "name")));
    assert_eq!(repo.pins_after(None).unwrap().len(), 1);
    assert!(repo.pins_after(Some(&one.cid)).unwrap().is_empty());
}

#[test]
fn what_exceeds_the_storage_limit_is_refused_whole_in_kubos_words() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::open(folder.path(), 100).unwrap();
    let (small, large) = (block(&[1; 60]), block(&[2; 60]));
    repo.put(std::slice::from_ref(&small)).unwrap();
    let refused = repo.put(&[block(&[3; 30]), large.clone()]).unwrap_err();
    assert_eq!(refused.to_string(), "maximum storage limit exceeded. Try to unpin some files");
    assert_eq!(repo.stat(), Stat { n_objects: 1, n_bytes: 60 });
    // what is there already may be put again
    repo.put(std::slice::from_ref(&small)).unwrap();
    repo.remove(&[small.cid]).unwrap();
    repo.put(&[large]).unwrap();
}

#[test]
fn pins_follow_kubos_rules() {
    let (_folder, repo) = repo();
    let (a, b) = (block(b"a").cid, block(b"b").cid);
    let words = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(words(repo.remove_pin(a, true)), "not pinned or pinned indirectly");
    repo.set_pin(a, pin(PinKind::Direct, "")).unwrap();
    assert_eq!(words(repo.update_pin(a, b, true)), "'from' cid was not recursively pinned already");
    repo.set_pin(a, pin(PinKind::Recursive, "n")).unwrap();
    assert_eq!(words(repo.set_pin(a, pin(PinKind::Direct, ""))), format!("{a} already pinned recursively"));
    assert_eq!(words(repo.remove_pin(a, false)), format!("{a} is pinned recursively"));
    repo.update_pin(a, a, true).unwrap();
    repo.update_pin(a, b, false).unwrap();
    assert_eq!(repo.pin_of(&b).unwrap(), Some(pin(PinKind::Recursive, "n")));
    assert_eq!(words(repo.update_pin(a, b, true)), "'to' cid was already recursively pinned");
    repo.remove_pin(b, true).unwrap();
    repo.update_pin(a, b, true).unwrap();
    assert_eq!(repo.pin_of(&a).unwrap(), None);
}

#[test]
fn many_writers_share_transactions_and_lose_nothing() {
    let (_folder, repo) = repo();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let repo = repo.clone();
            scope.spawn(move || {
                for n in 0..32u8 {
                    let one = block(&[thread, n]);
                    repo.put(std::slice::from_ref(&one)).unwrap();
                    assert_eq!(repo.get(&one.cid).unwrap().unwrap(), one.data);
                }
            });
        }
    });
    assert_eq!(repo.stat().n_objects, 256);
}
