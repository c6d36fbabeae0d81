//! What else lies in a peer's folder: the data of an original peer.
//!
//! The pinset is kept in LMDB whichever datastore section the configuration has. A folder that holds a Go
//! datastore is never touched; a peer that could not get those pins back from its cluster does not begin with an
//! empty set beside them. (rulings: datastore sections, "a folder that holds a Go datastore")

use std::path::{Path, PathBuf};

use cluster_compat::config::Config;

/// The folder of an original peer's pinset, if there is one that holds anything.
pub(super) fn go_data(config: &Config, folder: &Path) -> Option<PathBuf> {
    let lmdb = config.datastore.lmdb.path(folder);
    let mut places = config.datastore.reference_folders(folder).into_iter().map(|(_, place)| place);
    places.find(|place| *place != lmdb && holds_something(place))
}

fn holds_something(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// What the data is, why it is not read, and what to do.
pub(super) fn advice(found: &Path) -> String {
    format!(
        "{} holds the pins of an original ipfs-cluster peer, which are not read: carry them over with \
         `state export` of the original program and `state import` of this one",
        found.display()
    )
}
