//! Garbage collection: mark what pins and the mutable files reach, then sweep the rest.
//!
//! Adding and pinning go on meanwhile; what they need is spared ([`super::lease`]). Nothing is removed while a pinned
//! DAG cannot be walked whole: what hangs below the missing block could not be told from garbage.

use std::collections::HashSet;

use cluster_compat::types::Cid;
use multihash::Multihash;

use super::repo::{PinKind, Repo, key};
use super::{Error, ipld};

/// Blocks looked at in one snapshot.
const CHUNK: usize = 64;

/// Removes what no pin holds. `removed` is told each block as a CID of raw bytes, as Kubo names it, and says whether
/// anybody still listens; the collection goes on either way. Blocks.
pub(super) fn collect(repo: &Repo, mut removed: impl FnMut(Cid)) -> Result<(), Error> {
    let began = repo.leases().collect().ok_or(Error::Collecting)?;
    mark(repo, &began.roots)?;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = repo.blocks_after(after.as_deref())?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let garbage: Vec<Vec<u8>> =
            page.into_iter().map(|(key, _)| key).filter(|key| !repo.leases().is_marked(key)).collect();
        if garbage.is_empty() {
            continue;
        }
        for key in repo.sweep(garbage, began.horizon)? {
            if let Some(cid) = raw_cid(&key) {
                removed(cid);
            }
        }
    }
    drop(began.end);
    Ok(())
}

/// Keeps a DAG from the running collection, as much of it as is here: it is about to be reached. Blocks.
pub(super) fn spare(repo: &Repo, root: Cid) -> Result<(), Error> {
    // with no collection everything is marked
    match repo.leases().is_marked(&key(&root)) {
        true => Ok(()),
        false => walk(repo, root, &mut HashSet::new(), false),
    }
}

/// A block as the collection and `refs/local` name it.
pub(super) fn raw_cid(key: &[u8]) -> Option<Cid> {
    Multihash::from_bytes(key).ok().map(|hash| Cid::new_v1(ipld::RAW, hash))
}

/// Marks what pins reach, and as much of the walked roots as is here.
fn mark(repo: &Repo, roots: &[Cid]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut after = None;
    loop {
        let page = repo.pins_after(after.as_ref())?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (cid, pin) in page {
            match pin.kind {
                PinKind::Direct => repo.leases().mark([&cid]),
                PinKind::Recursive => walk(repo, cid, &mut seen, true)?,
            }
        }
    }
    // as much of the mutable files as is here, like Kubo
    for root in repo.files()?.iter().chain(roots) {
        walk(repo, *root, &mut seen, false)?;
    }
    Ok(())
}

/// Marks everything beneath `root` that was not walked before.
fn walk(repo: &Repo, root: Cid, seen: &mut HashSet<Cid>, is_whole: bool) -> Result<(), Error> {
    let mut todo = vec![root];
    while !todo.is_empty() {
        let mut chunk = todo.split_off(todo.len().saturating_sub(CHUNK));
        chunk.retain(|cid| seen.insert(*cid));
        repo.leases().mark(&chunk);
        chunk.retain(|cid| cid.codec() != ipld::RAW);
        for (cid, block) in chunk.iter().zip(repo.get_all(&chunk)?) {
            match block {
                Some(block) => match ipld::links(cid, &block) {
                    Ok(links) => todo.extend(links.into_iter().map(|link| link.cid)),
                    // a block of a format that is not known has no links that could be followed
                    Err(cause) => {
                        tracing::warn!(target: "node", %cid, "a pinned block cannot be read: {cause}")
                    }
                },
                None if is_whole => {
                    return Err(Error::message(format!(
                        "could not walk {root}, which is pinned: ipld: could not find {cid}"
                    )));
                }
                None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::repo::Pin;
    use super::super::testing::{block, node, repo};
    use super::*;

    fn removed(repo: &Repo) -> Vec<Cid> {
        let mut all = Vec::new();
        collect(repo, |cid| all.push(cid)).unwrap();
        all
    }

    fn recursive() -> Pin {
        Pin { kind: PinKind::Recursive, name: String::new() }
    }

    #[test]
    fn what_a_pin_reaches_stays_and_the_rest_goes() {
        let (_folder, repo) = repo();
        let (leaf, lone, direct) = (block(b"leaf"), block(b"lone"), block(b"direct"));
        let root = node(&[leaf.cid]);
        repo.put(&[leaf.clone(), lone.clone(), direct.clone(), root.clone()]).unwrap();
        repo.set_pin(root.cid, recursive()).unwrap();
        repo.set_pin(direct.cid, Pin { kind: PinKind::Direct, name: "x".into() }).unwrap();
        assert_eq!(removed(&repo), [lone.cid]);
        assert_eq!(repo.stat().n_objects, 3);
        repo.remove_pin(root.cid, true).unwrap();
        assert_eq!(removed(&repo).len(), 2);
        assert!(repo.get(&direct.cid).unwrap().is_some() && repo.get(&leaf.cid).unwrap().is_none());
    }

    #[test]
    fn what_is_put_under_a_lease_stays_even_if_it_was_there_before() {
        let (_folder, repo) = repo();
        let (old, new) = (block(b"old"), block(b"new"));
        repo.put(std::slice::from_ref(&old)).unwrap();
        let lease = repo.leases().hold(None);
        repo.put(&[old.clone(), new.clone()]).unwrap();
        assert_eq!(removed(&repo), []);
        drop(lease);
        assert_eq!(removed(&repo).len(), 2);
    }

    #[test]
    fn what_is_being_walked_stays() {
        let (_folder, repo) = repo();
        let leaf = block(b"leaf");
        let root = node(&[leaf.cid]);
        repo.put(&[leaf.clone(), root.clone()]).unwrap();
        let lease = repo.leases().hold(Some(root.cid));
        assert_eq!(removed(&repo), []);
        drop(lease);
        assert_eq!(removed(&repo).len(), 2);
    }

    #[test]
    fn a_walk_that_begins_while_blocks_are_swept_keeps_what_it_finds() {
        let (_folder, repo) = repo();
        let leaf = block(b"leaf");
        repo.put(std::slice::from_ref(&leaf)).unwrap();
        let began = repo.leases().collect().unwrap();
        assert!(repo.leases().collect().is_none(), "one at a time");
        repo.leases().mark([&leaf.cid]);
        let swept = repo.sweep(vec![leaf.cid.hash().to_bytes()], began.horizon).unwrap();
        assert!(swept.is_empty() && repo.get(&leaf.cid).unwrap().is_some());
    }

    #[test]
    fn what_the_mutable_files_reach_stays_and_what_is_put_into_them_meanwhile_too() {
        let (_folder, repo) = repo();
        let (leaf, other, lone) = (block(b"leaf"), block(b"other"), block(b"lone"));
        let (root, copied) = (node(&[leaf.cid]), node(&[other.cid]));
        repo.put(&[leaf.clone(), other.clone(), lone.clone(), root.clone(), copied.clone()]).unwrap();
        repo.set_files(root.cid).unwrap();
        let began = repo.leases().collect().unwrap();
        mark(&repo, &began.roots).unwrap();
        spare(&repo, copied.cid).unwrap();
        let all = [&leaf, &other, &lone, &root, &copied].map(|block| key(&block.cid)).to_vec();
        assert_eq!(repo.sweep(all, began.horizon).unwrap(), [key(&lone.cid)]);
    }

    #[test]
    fn nothing_goes_while_a_pinned_dag_has_a_hole() {
        let (_folder, repo) = repo();
        let (leaf, lone) = (block(b"leaf"), block(b"lone"));
        let inner = node(&[leaf.cid]);
        let root = node(&[inner.cid]);
        repo.put(&[lone.clone(), root.clone()]).unwrap();
        repo.set_pin(root.cid, recursive()).unwrap();
        let refused = collect(&repo, |_| {}).unwrap_err().to_string();
        assert!(refused.contains(&inner.cid.to_string()), "{refused}");
        assert!(repo.get(&lone.cid).unwrap().is_some());
    }
}
