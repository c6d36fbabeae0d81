//! `demo`: a cluster of several peers with their own IPFS nodes in this process, and a table of what they do.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::time::Duration;

use cluster_compat::go::size;
use cluster_compat::types::Multiaddr;

use crate::cli::exit::{Failure, print};
use crate::cli::table::Run;
use crate::daemon::demo::{Demo, Doing, MAX_PEERS};

/// Pause between two looks at the peers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(run: &Run) -> Result<(), Failure> {
    let asked = run.flags.int("peers");
    let n_peers = usize::try_from(asked).ok().filter(|n| (1..=MAX_PEERS).contains(n));
    let n_peers = n_peers.ok_or_else(|| {
        Failure::new("starting the demo", format!("--peers {asked}: between 1 and {MAX_PEERS}"))
    })?;
    let folder = std::env::temp_dir().join(format!("ipfs-cluster-demo-{}", std::process::id()));
    let failed = |cause: crate::daemon::Error| Failure { line: cause.to_string(), code: 1 };
    let demo = Demo::start(folder, n_peers).await.map_err(failed)?;
    print(&addresses(&demo));
    let names: Vec<String> = demo.peers().iter().map(|peer| peer.name.clone()).collect();
    let is_terminal = std::io::stdout().is_terminal();
    let last: RefCell<Option<Vec<Doing>>> = RefCell::new(None);
    demo.run(|doing| {
        let is_first = last.borrow().is_none();
        if last.borrow().as_ref() != Some(&doing) {
            let table = table(&names, &doing);
            if is_terminal && !is_first {
                // back over the table before
                print(&format!("\x1b[{}A\x1b[J", table.lines().count()));
            }
            print(&table);
            *last.borrow_mut() = Some(doing);
        }
        tokio::time::sleep(LOOK_EVERY)
    })
    .await
    .map_err(failed)
}

/// Host and port, as URLs have it.
fn authority(addr: &Multiaddr) -> String {
    let text = addr.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [_, _, host, _, port, ..] => format!("{host}:{port}"),
        _ => text,
    }
}

fn addresses(demo: &Demo) -> String {
    let mut text = format!("A cluster of {} peers, each with its own IPFS node.\n\n", demo.peers().len());
    for peer in demo.peers() {
        text.push_str(&format!(
            "{}  {}\n  REST API         http://{}\n  IPFS proxy       http://{}\n  Pinning service  http://{}\n  \
             Gateway          http://{}\n",
            peer.name,
            peer.id,
            authority(&peer.rest),
            authority(&peer.proxy),
            authority(&peer.pinsvc),
            authority(&peer.gateway)
        ));
    }
    if let Some(peer) = demo.peers().first() {
        text.push_str(&format!(
            "\nAdd a file:  ipfs-cluster-ctl --host {} add FILE\nCtrl-C stops the cluster and removes what it has stored.\n\n",
            peer.rest
        ));
    }
    text
}

fn table(names: &[String], doing: &[Doing]) -> String {
    let mut text = format!(
        "{:<10} {:>5} {:>8} {:>8} {:>8} {:>10}\n",
        "PEER", "SEES", "PINNED", "OTHERS", "BLOCKS", "STORED"
    );
    for (name, doing) in names.iter().zip(doing) {
        text.push_str(&format!(
            "{name:<10} {:>5} {:>8} {:>8} {:>8} {:>10}\n",
            doing.n_peers,
            doing.n_pinned,
            doing.n_others,
            doing.n_blocks,
            size::bytes(doing.n_bytes)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_peer() {
        let doing = Doing { n_peers: 3, n_pinned: 2, n_others: 1, n_blocks: 40, n_bytes: 2_000_000 };
        let text = table(&["peer0".into(), "peer1".into()], &[doing.clone(), doing]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines().nth(1).unwrap().starts_with("peer0          3        2        1       40"),
            "{text}"
        );
        assert_eq!(authority(&"/ip4/127.0.0.1/tcp/9094".parse().unwrap()), "127.0.0.1:9094");
    }
}
