//! What original peers were recorded to say in gossip and in identify: read, written again, checked, and heard by a
//! network of ours. The raw peer of these tests writes frames itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config::Cluster;
use cluster_compat::types::{Multiaddr, PeerId};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use ipfs_cluster::net::{Message, Network, NetworkArgs, Stream};
use ipfs_cluster::task::Tasks;
use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::identity::{Keypair, PublicKey};
use libp2p::multiaddr::Protocol;
use prost::Message as _;
use serde_json::Value;
use tokio::sync::mpsc;

const TOPIC: &str = "monitor.metrics";

/// What the signature of a message begins with.
const SIGNED_PREFIX: &[u8] = b"libp2p-pubsub:";

/// Longest wait for anything below; far more than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, prost::Message)]
struct Rpc {
    #[prost(message, repeated, tag = "1")]
    subscriptions: Vec<Subscription>,
    #[prost(message, repeated, tag = "2")]
    publish: Vec<Published>,
    #[prost(message, optional, tag = "3")]
    control: Option<Control>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Subscription {
    #[prost(bool, optional, tag = "1")]
    subscribe: Option<bool>,
    #[prost(string, optional, tag = "2")]
    topic: Option<String>,
    #[prost(bool, optional, tag = "3")]
    requests_partial: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    supports_partial: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Published {
    #[prost(bytes, optional, tag = "1")]
    from: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "2")]
    data: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "3")]
    seqno: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    topic: Option<String>,
    #[prost(bytes, optional, tag = "5")]
    signature: Option<Vec<u8>>,
    #[prost(bytes, optional, tag = "6")]
    key: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Control {
    #[prost(message, repeated, tag = "1")]
    ihave: Vec<Ids>,
    #[prost(message, repeated, tag = "2")]
    iwant: Vec<Wanted>,
    #[prost(message, repeated, tag = "3")]
    graft: Vec<Grafted>,
    #[prost(message, repeated, tag = "4")]
    prune: Vec<Pruned>,
    #[prost(message, repeated, tag = "5")]
    idontwant: Vec<Wanted>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, optional, tag = "1")]
    topic: Option<String>,
    #[prost(bytes, repeated, tag = "2")]
    ids: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wanted {
    #[prost(bytes, repeated, tag = "1")]
    ids: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Grafted {
    #[prost(string, optional, tag = "1")]
    topic: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pruned {
    #[prost(string, optional, tag = "1")]
    topic: Option<String>,
    #[prost(bytes, repeated, tag = "2")]
    peers: Vec<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    backoff: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Identify {
    #[prost(bytes, optional, tag = "1")]
    public_key: Option<Vec<u8>>,
    #[prost(bytes, repeated, tag = "2")]
    listen_addrs: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes, optional, tag = "4")]
    observed_addr: Option<Vec<u8>>,
    #[prost(string, optional, tag = "5")]
    protocol_version: Option<String>,
    #[prost(string, optional, tag = "6")]
    agent_version: Option<String>,
    #[prost(bytes, optional, tag = "8")]
    signed_peer_record: Option<Vec<u8>>,
}

impl Published {
    fn id(&self) -> Vec<u8> {
        [&self.from.as_ref().unwrap()[..16], self.seqno.as_ref().unwrap()].concat()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Self { signature: None, key: None, ..self.clone() };
        [SIGNED_PREFIX, &unsigned.encode_to_vec()].concat()
    }

    fn is_signed(&self) -> bool {
        let source = PeerId::from_bytes(self.from.as_ref().unwrap()).unwrap();
        // an Ed25519 id is the key, after a head of six bytes: identity multihash, its length, and the key's protobuf head
        let key = match &self.key {
            Some(key) if !key.is_empty() => PublicKey::try_decode_protobuf(key).unwrap(),
            _ => PublicKey::try_decode_protobuf(&source.to_bytes()[2..]).unwrap(),
        };
        key.to_peer_id() == source && key.verify(&self.signed_bytes(), self.signature.as_ref().unwrap())
    }

    fn new(keypair: &Keypair, seqno: u64, data: Vec<u8>) -> Self {
        let mut message = Self {
            from: Some(keypair.public().to_peer_id().to_bytes()),
            data: Some(data),
            seqno: Some(seqno.to_be_bytes().to_vec()),
            topic: Some(TOPIC.to_owned()),
            signature: None,
            key: None,
        };
        message.signature = Some(keypair.sign(&message.signed_bytes()).unwrap());
        message
    }
}

fn frames() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../fixtures/wire/gossip-frames.json")).unwrap();
    file["frames"].as_array().unwrap().clone()
}

fn hexes(ids: &[Vec<u8>]) -> Value {
    ids.iter().map(hex::encode).collect()
}

#[test]
fn recorded_frames_are_read_and_written_again() {
    for frame in frames() {
        let bytes = hex::decode(frame["frame"].as_str().unwrap()).unwrap();
        let rpc = Rpc::decode(&bytes[..]).unwrap();
        assert_eq!(hex::encode(rpc.encode_to_vec()), frame["frame"].as_str().unwrap());
        let said = &frame["decoded"];
        let list = |name: &str| said[name].as_array().cloned().unwrap_or_default();
        let control = rpc.control.unwrap_or_default();
        for (read, said) in rpc.subscriptions.iter().zip(list("subscriptions")) {
            assert_eq!(
                (read.subscribe, read.topic.as_deref()),
                (said["subscribe"].as_bool(), said["topic"].as_str())
            );
        }
        for (read, said) in control.ihave.iter().zip(list("ihave")) {
            assert_eq!(
                (read.topic.as_deref(), hexes(&read.ids)),
                (said["topic"].as_str(), said["ids"].clone())
            );
        }
        for (read, said) in control.graft.iter().zip(list("graft")) {
            assert_eq!(read.topic.as_deref(), said["topic"].as_str());
        }
        for (read, said) in control.prune.iter().zip(list("prune")) {
            assert_eq!(
                (read.topic.as_deref(), read.backoff),
                (said["topic"].as_str(), said["backoff"].as_u64())
            );
        }
        for (read, name) in [(&control.iwant, "iwant"), (&control.idontwant, "idontwant")] {
            for (read, said) in read.iter().zip(list(name)) {
                assert_eq!(hexes(&read.ids), said["ids"], "{name}");
            }
        }
        let counts = [
            ("subscriptions", rpc.subscriptions.len()),
            ("publish", rpc.publish.len()),
            ("ihave", control.ihave.len()),
            ("iwant", control.iwant.len()),
            ("graft", control.graft.len()),
            ("prune", control.prune.len()),
            ("idontwant", control.idontwant.len()),
        ];
        assert_eq!(counts.map(|(name, _)| (name, list(name).len())), counts);
    }
}

#[test]
fn recorded_messages_bear_valid_signatures_and_the_recorded_ids() {
    let mut n_messages = 0;
    for frame in frames() {
        for said in frame["decoded"]["publish"].as_array().into_iter().flatten() {
            let message =
                Published::decode(&hex::decode(said["message"].as_str().unwrap()).unwrap()[..]).unwrap();
            assert_eq!(hex::encode(message.id()), said["id"].as_str().unwrap());
            assert!(message.is_signed(), "{said}");
            let mut forged = message.clone();
            forged.data.as_mut().unwrap().push(0);
            assert!(!forged.is_signed());
            n_messages += 1;
        }
    }
    assert!(n_messages > 10);
}

#[test]
fn recorded_peers_identify_themselves_with_signed_records() {
    let file: Value = serde_json::from_str(include_str!("../../fixtures/wire/identify.json")).unwrap();
    for said in file["peers"].as_array().unwrap() {
        let raw = hex::decode(said["raw"].as_str().unwrap()).unwrap();
        let message = Identify::decode_length_delimited(&raw[..]).unwrap();
        assert_eq!(hex::encode(message.encode_length_delimited_to_vec()), said["raw"].as_str().unwrap());
        let peer = PublicKey::try_decode_protobuf(message.public_key.as_ref().unwrap()).unwrap().to_peer_id();
        assert_eq!(peer.to_string(), said["peer"].as_str().unwrap());
        let envelope =
            SignedEnvelope::from_protobuf_encoding(message.signed_peer_record.as_ref().unwrap()).unwrap();
        let record = PeerRecord::from_signed_envelope_interop(envelope).unwrap();
        assert_eq!(record.peer_id(), peer);
        let listen: Value = record.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(listen, said["listen"]);
        assert_eq!(message.agent_version.as_deref(), said["agent"].as_str());
    }
}

struct Peer {
    network: Network,
    tasks: Tasks,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn start() -> Peer {
    let config = Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
        ..Cluster::default()
    };
    let (keypair, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let args =
        NetworkArgs { keypair, secret: None, config: &config, peerstore: vec![], tasks: tasks.clone() };
    Peer { network: Network::start(args).await.unwrap(), tasks }
}

/// A listener that subscribes, and a stream to it on which anything can be written.
async fn listener(protocol: &'static str) -> (Peer, Peer, mpsc::Receiver<Message>, Stream) {
    let (listener, raw) = (start().await, start().await);
    let messages = listener.network.subscribe(TOPIC, Arc::new(|_: &PeerId| true)).unwrap();
    let addr: Multiaddr = listener.network.listen_addrs()[0].clone();
    raw.network.add_addr(&addr.with(Protocol::P2p(listener.network.local_peer()))).unwrap();
    let (stream, _) = raw.network.open(listener.network.local_peer(), &[protocol]).await.unwrap();
    (listener, raw, messages, stream)
}

async fn write(stream: &mut Stream, frame: &[u8]) {
    let mut head = unsigned_varint::encode::usize_buffer();
    stream.write_all(unsigned_varint::encode::usize(frame.len(), &mut head)).await.unwrap();
    stream.write_all(frame).await.unwrap();
    stream.flush().await.unwrap();
}

async fn next(messages: &mut mpsc::Receiver<Message>) -> Message {
    tokio::time::timeout(LIMIT, messages.recv()).await.expect("a message arrives").unwrap()
}

#[tokio::test]
async fn recorded_frames_are_heard_once_and_forged_ones_never() {
    let (_listener, raw, mut messages, mut stream) = listener("/meshsub/1.3.0").await;
    let mut expected = Vec::new();
    let mut known = HashSet::new();
    for frame in frames() {
        let bytes = hex::decode(frame["frame"].as_str().unwrap()).unwrap();
        for message in Rpc::decode(&bytes[..]).unwrap().publish {
            if message.topic.as_deref() == Some(TOPIC) && known.insert(message.id()) {
                let source = PeerId::from_bytes(message.from.as_ref().unwrap()).unwrap();
                expected.push((source, message.data.unwrap()));
            }
        }
        let mut forged = Rpc::decode(&bytes[..]).unwrap();
        for message in &mut forged.publish {
            message.data.as_mut().unwrap().push(0);
        }
        write(&mut stream, &forged.encode_to_vec()).await;
        write(&mut stream, &bytes).await;
        write(&mut stream, &bytes).await;
    }
    let end = Published::new(&Keypair::generate_ed25519(), 1, b"end".to_vec());
    let rpc = Rpc { publish: vec![end], ..Rpc::default() };
    write(&mut stream, &rpc.encode_to_vec()).await;
    let mut heard = Vec::new();
    loop {
        let message = next(&mut messages).await;
        assert_eq!(message.from, raw.network.local_peer());
        if message.data == b"end" {
            break;
        }
        heard.push((message.source, message.data));
    }
    assert!(heard.len() > 10);
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn big_frames_of_original_peers_do_not_end_the_stream() {
    let (_listener, _raw, mut messages, mut stream) = listener("/meshsub/1.2.0").await;
    let author = Keypair::generate_ed25519();
    let id = |seqno: u64| Published::new(&author, seqno, Vec::new()).id();
    let ids: Vec<Vec<u8>> = {
        let first = id(0);
        (0..10_000u64).map(|i| [&first[..16], &i.to_be_bytes()].concat()).collect()
    };
    let ihave = Control { ihave: vec![Ids { topic: Some(TOPIC.to_owned()), ids }], ..Control::default() };
    let announcement = Rpc { control: Some(ihave), ..Rpc::default() }.encode_to_vec();
    assert!(announcement.len() > 240_000);
    write(&mut stream, &announcement).await;
    // 900 KiB of small messages in one frame
    let publish: Vec<Published> =
        (0..700).map(|i| Published::new(&author, 1_000_000 + i, vec![i as u8; 1200])).collect();
    let n_messages = publish.len();
    let burst = Rpc { publish, ..Rpc::default() }.encode_to_vec();
    assert!(burst.len() > 900 * 1024 && burst.len() < 1 << 20);
    write(&mut stream, &burst).await;
    for _ in 0..n_messages {
        next(&mut messages).await;
    }
    let end = Published::new(&author, 2_000_000, b"end".to_vec());
    write(&mut stream, &Rpc { publish: vec![end], ..Rpc::default() }.encode_to_vec()).await;
    assert_eq!(next(&mut messages).await.data, b"end");
}

#[tokio::test]
async fn we_identify_ourselves_as_original_peers_do() {
    let (_listener, _raw, _messages, mut stream) = listener("/ipfs/id/1.0.0").await;
    let mut bytes = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let ours = Identify::decode_length_delimited(&bytes[..]).unwrap();
    let file: Value = serde_json::from_str(include_str!("../../fixtures/wire/identify.json")).unwrap();
    let theirs: HashSet<&str> =
        file["peers"][0]["protocols"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    // what this network alone does not serve
    let of_others = |id: &&str| !id.starts_with("/ipfs/bitswap") && !id.starts_with("/ipfscluster/");
    let spoken: HashSet<&str> = ours.protocols.iter().map(String::as_str).filter(of_others).collect();
    assert_eq!(spoken, theirs.into_iter().filter(|id| of_others(id)).collect());
    assert_eq!(ours.protocol_version.as_deref(), Some(""));
    let envelope = SignedEnvelope::from_protobuf_encoding(&ours.signed_peer_record.unwrap()).unwrap();
    // the library signs in its own domain, which original peers do not take; they read the plain addresses then
    assert_eq!(PeerRecord::from_signed_envelope(envelope).unwrap().addresses().len(), 1);
    assert_eq!(ours.listen_addrs.len(), 1);
}
