//! The connectivity graph as a DOT file (spec: cli 3.7).

use std::collections::BTreeMap;
use std::fmt::Write;

use cluster_compat::types::ConnectGraph;

/// Colours and shape of a kind of node.
struct Look {
    colour: &'static str,
    shape: &'static str,
    is_self: bool,
}

const SELF: Look = Look { colour: "orange", shape: "box3d", is_self: true };
const TRUSTED: Look = Look { colour: "orange", shape: "box3d", is_self: false };
const OTHER: Look = Look { colour: "darkorange3", shape: "box3d", is_self: false };
const IPFS: Look = Look { colour: "turquoise3", shape: "cylinder", is_self: false };
const ERRORED: Look = Look { colour: "firebrick1", shape: "cylinder", is_self: false };

/// The graph; with `all_ipfs_peers`, swarm peers outside the cluster are nodes too.
pub(super) fn dot(graph: &ConnectGraph, all_ipfs_peers: bool) -> String {
    let mut swarm: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, peers) in &graph.ipfs_links {
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        if all_ipfs_peers {
            for peer in &peers {
                swarm.entry(peer.clone()).or_default();
            }
        }
        let shown = peers.into_iter().filter(|peer| all_ipfs_peers || graph.ipfs_links.contains_key(peer));
        swarm.insert(id.clone(), shown.collect());
    }
    let mut out = String::from(
        "digraph cluster {\n/* The nodes of the connectivity graph */\n/* The cluster-service peers */\n",
    );

    let self_id = graph.cluster_id.to_string();
    let mut cluster_nodes: BTreeMap<&str, String> = BTreeMap::new();
    out.push_str("subgraph  {\nrank=\"min\"\n");
    for (n, id) in graph.cluster_links.keys().enumerate() {
        let is_trusted = graph.cluster_trust_links.get(id).copied().unwrap_or(false);
        let (letter, look) = match () {
            () if *id == self_id => ('C', &SELF),
            () if is_trusted => ('T', &TRUSTED),
            () => ('C', &OTHER),
        };
        let name = graph.id_to_peername.get(id).map_or("", String::as_str);
        let node = format!("{letter}{n}");
        write_node(&mut out, &node, name, &shorten(id), id, look);
        cluster_nodes.insert(id, node);
    }
    out.push_str("}\n\n/* The ipfs peers */\nsubgraph  {\nrank=\"max\"\n");

    let mut ipfs_nodes: BTreeMap<&str, String> = BTreeMap::new();
    for id in swarm.keys() {
        let node = format!("I{}", ipfs_nodes.len());
        write_node(&mut out, &node, "IPFS", &shorten(id), id, &IPFS);
        ipfs_nodes.insert(id, node);
    }
    for id in graph.cluster_links.keys().filter(|id| !graph.cluster_to_ipfs.contains_key(*id)) {
        let node = format!("I{}", ipfs_nodes.len());
        write_node(&mut out, &node, "IPFS", "Errored", id, &ERRORED);
        ipfs_nodes.insert(id, node);
    }
    out.push_str("}\n\n/* Edges representing active connections in the cluster */\n");

    out.push_str("/* The connections among cluster-service peers */\n");
    for (id, peers) in &graph.cluster_links {
        for peer in peers {
            write_edge(
                &mut out,
                cluster_nodes.get(id.as_str()),
                cluster_nodes.get(peer.to_string().as_str()),
                "",
            );
        }
    }
    out.push_str("\n/* The connections between cluster peers and their ipfs daemons */\n");
    for id in graph.cluster_links.keys() {
        let from = cluster_nodes.get(id.as_str());
        match graph.cluster_to_ipfs.get(id) {
            Some(ipfs) => write_edge(&mut out, from, ipfs_nodes.get(ipfs.to_string().as_str()), ""),
            None => write_edge(&mut out, from, ipfs_nodes.get(id.as_str()), " [ style=\"dotted\" ]"),
        }
    }
    out.push_str("\n/* The swarm peer connections among ipfs daemons in the cluster */\n");
    for (id, peers) in &swarm {
        for peer in peers {
            write_edge(&mut out, ipfs_nodes.get(id.as_str()), ipfs_nodes.get(peer.as_str()), "");
        }
    }
    out.push('}');
    out
}

/// An edge between nodes of the graph; one to a node outside is left out.
fn write_edge(out: &mut String, from: Option<&String>, to: Option<&String>, attributes: &str) {
    if let (Some(from), Some(to)) = (from, to) {
        let _ = writeln!(out, "{from} -> {to}{attributes}");
    }
}

fn write_node(out: &mut String, node: &str, name: &str, short: &str, id: &str, look: &Look) {
    let Look { colour, shape, is_self } = look;
    let border = if *is_self { " peripheries=\"2\"" } else { "" };
    let _ = writeln!(
        out,
        "{node} [label=< <B> {name} </B> <BR/> <B> {short} </B> > group=\"{id}\" color=\"{colour}\" \
         style=\"filled\" colorscheme=\"x11\" fontcolor=\"black\" fontname=\"Arial\" shape=\"{shape}\"{border} ]"
    );
}

/// First two and last six characters.
fn shorten(id: &str) -> String {
    match (id.get(..2), id.len().checked_sub(6).and_then(|at| id.get(at..))) {
        (Some(first), Some(last)) => format!("{first}*{last}"),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, with a daemon that did not answer.
    #[test]
    fn two_peers_one_without_its_daemon() {
        let one = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";
        let two = "12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU";
        let ipfs = "12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3";
        let graph: ConnectGraph = serde_json::from_str(&format!(
            r#"{{"cluster_id":"{one}","id_to_peername":{{"{one}":"cluster0"}},"ipfs_links":{{"{ipfs}":[]}},
                "cluster_links":{{"{one}":["{two}"],"{two}":["{one}"]}},
                "cluster_trust_links":{{"{one}":true,"{two}":true}},"cluster_to_ipfs":{{"{one}":"{ipfs}"}}}}"#
        ))
        .unwrap();
        let rest = "style=\"filled\" colorscheme=\"x11\" fontcolor=\"black\" fontname=\"Arial\"";
        let expected = format!(
            "digraph cluster {{
/* The nodes of the connectivity graph */
/* The cluster-service peers */
subgraph  {{
rank=\"min\"
C0 [label=< <B> cluster0 </B> <BR/> <B> 12*hFJgSt </B> > group=\"{one}\" color=\"orange\" {rest} shape=\"box3d\" peripheries=\"2\" ]
T1 [label=< <B>  </B> <BR/> <B> 12*eXQNhU </B> > group=\"{two}\" color=\"orange\" {rest} shape=\"box3d\" ]
}}

/* The ipfs peers */
subgraph  {{
rank=\"max\"
I0 [label=< <B> IPFS </B> <BR/> <B> 12*2yZ8j3 </B> > group=\"{ipfs}\" color=\"turquoise3\" {rest} shape=\"cylinder\" ]
I1 [label=< <B> IPFS </B> <BR/> <B> Errored </B> > group=\"{two}\" color=\"firebrick1\" {rest} shape=\"cylinder\" ]
}}

/* Edges representing active connections in the cluster */
/* The connections among cluster-service peers */
C0 -> T1
T1 -> C0

/* The connections between cluster peers and their ipfs daemons */
C0 -> I0
T1 -> I1 [ style=\"dotted\" ]

/* The swarm peer connections among ipfs daemons in the cluster */
}}"
        );
        assert_eq!(dot(&graph, false), expected);
    }
}
