//! What is there: the clusters, the state of one, the pins of its peer.

use std::path::Path;

use cluster_compat::config::{Config, Consensus, Engine, Error, IpfsHttp, go_error};
use cluster_compat::types::{Cid, PinInfoShort};
use futures::StreamExt as _;

use super::app::NAME;
use super::{Follower, caused};
use crate::cli::exit::{Failure, print};
use crate::daemon::offline::Offline;
use crate::ipfs;
use crate::node;

/// Pins that are read from disk at once.
const PAGE_PINS: usize = 1024;

/// The clusters in a folder, by name.
pub(super) fn clusters(parent: &Path) -> Result<(), Failure> {
    let read = |cause: &std::io::Error| Failure { line: go_error("open", parent, cause), code: 1 };
    let mut names = Vec::new();
    match std::fs::read_dir(parent) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(read(&cause)),
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|cause| read(&cause))?;
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && entry.path().join("service.json").exists() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
    }
    names.sort_unstable();
    print(&listing(&names));
    Ok(())
}

fn listing(names: &[String]) -> String {
    if names.is_empty() {
        return format!(
            "\nNo clusters configured yet!\n \nIf this is the first time you are running {NAME},\nbe sure to check out \
             the usage documentation. Here are some\nexamples to get you going:\n\n\
             $ {NAME} --help                     - general description and usage help\n\
             $ {NAME} <clusterName> --help       - Help and subcommands for the <clusterName>'s follower peer\n\
             $ {NAME} <clusterName> info --help  - Help for the \"info\" subcommand (same for others).\n"
        );
    }
    let lines: String = names.iter().map(|name| format!("{NAME} \"{name}\"\n")).collect();
    format!(
        "Configurations found for {} follower peers. For info and help, try running:\n\n{lines}\n\
         Tip: \"{NAME} --help\" for help and examples.\n",
        names.len()
    )
}

/// `info`: folder, source, and who is running.
pub(super) async fn info(follower: &Follower) -> Result<(), Failure> {
    follower.check_initialized()?;
    let (source, daemon) = match follower.load().await {
        Ok((config, _)) => {
            let source = format!("Available ({})", config.source.as_deref().unwrap_or_default());
            (source, daemon_of(follower, &config))
        }
        Err(Error::Fetch(url)) => {
            let doing = "applying environment variables to ipfshttp config";
            let daemon = IpfsHttp::from_env(&follower.env).map_err(|cause| caused(cause, doing))?;
            (format!("failed retrieving configuration source ({url})"), daemon)
        }
        Err(cause) => return Err(follower.unreadable(&cause)),
    };
    print(&format!(
        "Information about follower peer for Cluster \"{}\":\n\nConfig folder: {}\nConfig source URL: {source}\n",
        follower.name,
        follower.folder.display()
    ));
    let is_online = follower.client().await?.version().await.is_ok();
    print(&format!("Cluster Peer online: {is_online}\n"));
    let is_online = match ipfs::Client::new(&daemon) {
        Ok(client) => client.id().await.is_ok(),
        Err(_) => false,
    };
    print(&format!("IPFS peer online: {is_online}\n"));
    Ok(())
}

/// The daemon of a peer: the configured one, or the node in the peer's own process.
fn daemon_of(follower: &Follower, config: &Config) -> IpfsHttp {
    let mut daemon = config.ipfshttp.value.clone();
    if config.embedded.present
        && let Some(socket) = node::socket_address(&follower.folder)
    {
        daemon.node_multiaddress = socket;
    }
    daemon
}

/// `list`: what the running peer says, or what is on disk.
pub(super) async fn list(follower: &Follower) -> Result<(), Failure> {
    follower.check_initialized()?;
    let client = follower.client().await?;
    let mut items = client.status_all("", true);
    let mut is_answered = false;
    while let Some(item) = items.next().await {
        match item {
            Ok(info) => {
                is_answered = true;
                // there is one view: the peer's own
                let view = info.peer_map.iter().next().map(|(_, view)| view);
                print(&line(info.cid.as_ref(), &info.name, view));
            }
            // an end after the first lines is no reason to list them all again
            Err(cause) if is_answered => {
                return Err(caused(cause, "error obtaining the pinset"));
            }
            Err(_) => return list_offline(follower),
        }
    }
    Ok(())
}

fn line(cid: Option<&Cid>, name: &str, view: Option<&PinInfoShort>) -> String {
    let (status, error) = match view {
        Some(view) => (view.status.to_string(), view.error.as_str()),
        None => (String::new(), ""),
    };
    row(&status, cid, name, error)
}

fn row(status: &str, cid: Option<&Cid>, name: &str, error: &str) -> String {
    let cid = cid.map(ToString::to_string).unwrap_or_default();
    let error = if error.is_empty() { String::new() } else { format!(" ({error})") };
    format!("{status:<20} {cid} {name}{error}\n")
}

/// The pins on disk. The source is not asked: it may be a page of the very IPFS that is not running.
fn list_offline(follower: &Follower) -> Result<(), Failure> {
    let doing = "error obtaining the pinset";
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, &follower.folder);
    config.apply_env(&follower.env, false).map_err(|cause| caused(cause, doing))?;
    if !config.datastore.lmdb.path(&config.folder).exists() {
        return match config
            .datastore
            .reference_folders(&config.folder)
            .into_iter()
            .find(|(_, path)| path.is_dir())
        {
            None => Ok(()),
            Some((_, path)) => {
                let cause = format!(
                    "the pins in {} are those of an original follower, which are not read: this one fetches them \
                     from its cluster when it runs",
                    path.display()
                );
                Err(caused(cause, doing))
            }
        };
    }
    let peer = Offline::open(&config).map_err(|cause| caused(cause, doing))?;
    let pinset = peer.pinset();
    let mut after = None;
    loop {
        let (pins, cursor) = pinset.page(after, PAGE_PINS).map_err(|cause| caused(cause, doing))?;
        let rows: String =
            pins.iter().map(|pin| row("offline", Some(&pin.cid), &pin.options.name, "")).collect();
        print(&rows);
        if cursor.is_none() {
            return Ok(());
        }
        after = cursor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_tell_errors_after_the_name() {
        let cid = "QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6".parse().unwrap();
        assert_eq!(
            row("pin_error", Some(&cid), "site", "context deadline exceeded"),
            "pin_error            QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6 site (context deadline exceeded)\n"
        );
        assert_eq!(
            row("pinned", Some(&cid), "", ""),
            "pinned               QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6 \n"
        );
    }

    #[test]
    fn clusters_are_listed_by_name() {
        assert!(listing(&[]).starts_with("\nNo clusters configured yet!\n \nIf this is"));
        let text = listing(&["a".into(), "b c".into()]);
        assert!(text.starts_with("Configurations found for 2 follower peers."));
        assert!(text.contains("\n\nipfs-cluster-follow \"a\"\nipfs-cluster-follow \"b c\"\n\nTip: "));
    }
}
