//! `init`: a configuration, an identity and a peerstore.

use std::io::BufRead;
use std::net::{IpAddr, TcpListener, UdpSocket};

use cluster_compat::config::{
    Config, Consensus, Engine, Identity, flat, parse_secret, peerstore, read_text, write_private,
};
use cluster_compat::types::{Multiaddr, PeerId, multiaddr_peer, parse_multiaddr};
use libp2p::multiaddr::Protocol;

use super::{Context, prompt, released};
use crate::cli::exit::{Failure, failed, print_error};
use crate::cli::table::Run;

pub(super) fn run(context: &Context, run: &Run) -> Result<(), Failure> {
    let consensus = match run.flags.string("consensus") {
        "crdt" => Consensus::Crdt,
        "raft" => Consensus::Raft,
        _ => return Err(Failure::new("choosing consensus", "flag value must be set to 'raft' or 'crdt'")),
    };
    let engine = match run.flags.string("datastore") {
        "badger" => Engine::Badger,
        "badger3" => Engine::Badger3,
        "leveldb" => Engine::Leveldb,
        "lmdb" => Engine::Lmdb,
        "pebble" => Engine::Pebble,
        _ => {
            let cause = "flag value must be set to 'leveldb', 'badger', 'badger3' or 'pebble'";
            return Err(Failure::new("choosing datastore", cause));
        }
    };
    let input = &mut std::io::stdin().lock();
    let exists = context.service_json().exists();
    if !exists && !context.identity_json().exists() && !run.flags.bool("convert") {
        return write(context, run, (consensus, engine), input);
    }
    // A peer may be running here.
    let lock = context.lock()?;
    let result = replace(context, run, (consensus, engine), input);
    released(lock, result)
}

/// What becomes of a configuration that is there, or of an identity without one.
fn replace(
    context: &Context,
    run: &Run,
    kind: (Consensus, Engine),
    input: &mut impl BufRead,
) -> Result<(), Failure> {
    if run.flags.bool("convert") {
        return convert(context, run, kind, &flat_text(context)?);
    }
    if !context.service_json().exists() || run.flags.bool("force") {
        return write(context, run, kind, input);
    }
    if let Ok(text) = flat_text(context)
        && run.args.is_empty()
        && prompt::confirm("The configuration file is one of versions 0.0.x. Carry its values over?", input)
    {
        return convert(context, run, kind, &text);
    }
    if prompt::confirm("The configuration file will be overwritten. Continue?", input) {
        return write(context, run, kind, input);
    }
    Ok(())
}

/// The text of a configuration file of versions 0.0.x.
fn flat_text(context: &Context) -> Result<String, Failure> {
    let doing = "converting the configuration";
    let path = context.service_json();
    let text = read_text(&path).map_err(failed(doing))?;
    if flat::is_flat(&text) {
        Ok(text)
    } else {
        Err(Failure::new(doing, format!("{} is not in the layout of versions 0.0.x", path.display())))
    }
}

/// Writes a configuration of today with the values of an old one, which is kept beside it.
fn convert(context: &Context, run: &Run, kind: (Consensus, Engine), text: &str) -> Result<(), Failure> {
    let doing = "converting the configuration";
    let mut converted = flat::convert(text, kind, &context.folder).map_err(failed(doing))?;
    let config = &mut converted.config;
    if run.flags.bool("embedded") {
        embed(config);
    }
    config
        .apply_env(&context.env, true)
        .map_err(failed("applying environment variables to configuration"))?;
    config.validate().map_err(failed(doing))?;
    let old = context.folder.join("service.json.0.0");
    write_private(&old, text).map_err(failed(doing))?;
    print_error(&format!("old configuration kept as {}\n", old.display()));
    if !converted.dropped.is_empty() {
        print_error(&format!("not carried over: {}\n", converted.dropped.join(", ")));
    }
    if let Some(identity) = converted.identity.filter(|_| !context.identity_json().exists()) {
        identity.save(&context.identity_json()).map_err(failed("saving identity.json"))?;
        print_error(&format!(
            "identity of the old configuration written to {}\n",
            context.identity_json().display()
        ));
    }
    save(context, &converted.config, &converted.peers)
}

/// What `init` without a source and without flags does, no question asked: the caller holds the lock and has looked.
pub(super) fn fresh(context: &Context, embedded: bool) -> Result<(), Failure> {
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, &context.folder);
    if embedded {
        embed(&mut config);
    }
    let doing = "applying environment variables to configuration";
    config.apply_env(&context.env, true).map_err(failed(doing))?;
    save(context, &config, &[])
}

/// Gives a new configuration the section of the embedded node. That of the connector goes: its defaults apply all the
/// same, and its address would not count.
fn embed(config: &mut Config) {
    config.embedded.present = true;
    config.ipfshttp.present = false;
}

fn write(
    context: &Context,
    run: &Run,
    (consensus, engine): (Consensus, Engine),
    input: &mut impl BufRead,
) -> Result<(), Failure> {
    let source = run.args.first().map(|source| source.to_string_lossy().into_owned());
    let mut config = Config::defaults(consensus, engine, &context.folder);
    config.source = source.filter(|source| !source.is_empty());
    if run.flags.bool("embedded") {
        embed(&mut config);
    }
    if run.flags.bool("randomports") {
        randomize(&mut config).map_err(failed("randomizing ports"))?;
    }
    let doing = "applying environment variables to configuration";
    config.apply_env(&context.env, true).map_err(failed(doing))?;
    if run.flags.bool("custom-secret") && run.args.is_empty() {
        let typed = prompt::ask("Enter cluster secret (32-byte hex string): ", input);
        config.cluster.secret = parse_secret(&typed).map_err(failed("parsing user-provided secret"))?;
    }
    let addrs = parse_peers(run.flags.string("peers"))?;
    if !run.flags.string("peers").is_empty() {
        let peers = peers_of(&addrs);
        config.raft.init_peerset.clone_from(&peers);
        config.crdt.trust_all = false;
        config.crdt.trusted_peers = peers;
    }
    save(context, &config, &addrs)
}

/// Writes the configuration, and what else there is none of: an identity, a peerstore.
fn save(context: &Context, config: &Config, addrs: &[Multiaddr]) -> Result<(), Failure> {
    config.save(&context.service_json()).map_err(failed("saving default configuration"))?;
    print_error(&format!("configuration written to {}.\n", context.service_json().display()));
    if !context.identity_json().exists() {
        let doing = "applying environment variables to the identity";
        let identity = Identity::generate()
            .and_then(|identity| identity.with_env(&context.env))
            .map_err(failed(doing))?;
        identity.save(&context.identity_json()).map_err(failed("saving identity.json"))?;
        print_error(&format!("new identity written to {}\n", context.identity_json().display()));
    }
    if config.source.is_some() {
        // Where its peerstore lies is known only once the configuration is fetched.
        print_error("new empty peerstore written to .\n");
        return Ok(());
    }
    if addrs.iter().any(|addr| multiaddr_peer(addr).is_none()) {
        return Err(Failure::new("getting AddrInfos from peer multiaddresses", "invalid p2p multiaddr"));
    }
    let path = config.peerstore_path();
    let lines: Vec<String> = addrs.iter().map(Multiaddr::to_string).collect();
    peerstore::write(&path, &lines).map_err(failed("saving peers to peerstore"))?;
    print_error(&match lines.len() {
        0 => format!("new empty peerstore written to {}.\n", path.display()),
        n => format!("peerstore written to {} with {n} entries.\n", path.display()),
    });
    Ok(())
}

fn parse_peers(text: &str) -> Result<Vec<Multiaddr>, Failure> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let addrs = text.split(',').map(str::trim);
    addrs
        .map(|addr| parse_multiaddr(addr).map_err(failed(&format!("parsing peer multiaddress: {addr}"))))
        .collect()
}

/// The peers of addresses, each once, in their order; addresses without one are left out.
pub(super) fn peers_of(addrs: &[Multiaddr]) -> Vec<PeerId> {
    let mut peers = Vec::new();
    for peer in addrs.iter().filter_map(multiaddr_peer) {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

/// Gives every address that is listened on free ports.
fn randomize(config: &mut Config) -> Result<(), String> {
    for addrs in [
        &mut config.cluster.listen_multiaddress,
        &mut config.restapi.http_listen_multiaddress,
        &mut config.ipfsproxy.listen_multiaddress,
        &mut config.pinsvcapi.http_listen_multiaddress,
        &mut config.embedded.swarm_listen_multiaddress,
    ] {
        // All are bound until the list is done, so that none comes twice.
        let mut held = Vec::new();
        for addr in addrs {
            *addr = with_free_ports(addr, &mut held)?;
        }
    }
    Ok(())
}

/// What keeps a port from being given out again.
enum Held {
    Tcp { _socket: TcpListener },
    Udp { _socket: UdpSocket },
}

fn with_free_ports(addr: &Multiaddr, held: &mut Vec<Held>) -> Result<Multiaddr, String> {
    let mut ip = IpAddr::from([0, 0, 0, 0]);
    let mut changed = Multiaddr::empty();
    for part in addr {
        changed.push(match part {
            Protocol::Ip4(own) => {
                ip = own.into();
                part
            }
            Protocol::Ip6(own) => {
                ip = own.into();
                part
            }
            Protocol::Tcp(_) => {
                let socket = TcpListener::bind((ip, 0)).map_err(|reason| format!("{addr}: {reason}"))?;
                let port = socket.local_addr().map_err(|reason| format!("{addr}: {reason}"))?.port();
                held.push(Held::Tcp { _socket: socket });
                Protocol::Tcp(port)
            }
            Protocol::Udp(_) => {
                let socket = UdpSocket::bind((ip, 0)).map_err(|reason| format!("{addr}: {reason}"))?;
                let port = socket.local_addr().map_err(|reason| format!("{addr}: {reason}"))?.port();
                held.push(Held::Udp { _socket: socket });
                Protocol::Udp(port)
            }
            part => part,
        });
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_replaced_and_nothing_else() {
        let mut held = Vec::new();
        for text in ["/ip4/127.0.0.1/tcp/9096", "/ip4/127.0.0.1/udp/9096/quic"] {
            let changed = with_free_ports(&text.parse().unwrap(), &mut held).unwrap().to_string();
            let port: u16 = changed.split('/').nth(4).unwrap().parse().unwrap();
            assert_eq!(changed, text.replace("9096", &port.to_string()));
            assert!(port != 0 && port != 9096);
        }
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn peers_come_once_in_their_order() {
        let id = |n: &str| {
            format!("/ip4/10.0.0.{n}/tcp/1/p2p/12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt")
        };
        let addrs = parse_peers(&format!("{}, /ip4/1.1.1.1/tcp/1 ,{}", id("1"), id("2"))).unwrap();
        assert_eq!(addrs.len(), 3);
        assert_eq!(peers_of(&addrs).len(), 1);
        let failure = parse_peers("foo").unwrap_err();
        let expected =
            "error parsing peer multiaddress: foo: failed to parse multiaddr \"foo\": must begin with /";
        assert_eq!(failure.line, expected);
    }
}
