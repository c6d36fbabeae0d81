//! Both ends over memory, against what the reference was recorded to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::types::{Id, PeerId, Version, parse_peer_id};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::server::answer;
use super::*;
use crate::task::Tasks;
use crate::wire::call::{Response, ServiceId};
use crate::wire::msgpack::{Reader, Scanner, Writer};

/// A wait that is over long before a slow machine needs it.
const LIMIT: Duration = Duration::from_secs(20);

const IPFS_DOWN: &str = "could not get pinset from IPFS: Post \"http://127.0.0.1:1/api/v0/pin/ls?stream=true&type=recursive\": dial tcp 127.0.0.1:1: connect: connection refused";

impl client::Duplex for DuplexStream {
    async fn is_cut(&mut self) -> bool {
        false
    }
}

#[derive(Default)]
struct Fake {
    trusts_none: bool,
    id: Vec<u8>,
    row: Vec<u8>,
    n_written: AtomicUsize,
    hangs: AtomicBool,
    started: Arc<Notify>,
    released: Arc<Notify>,
}

struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Handler for Fake {
    fn is_closed(&self, call: Call) -> bool {
        call == Call::RepoGcLocal
    }

    fn is_trusted(&self, _: &PeerId) -> bool {
        !self.trusts_none
    }

    async fn call(&self, call: Call, argument: Bytes) -> Outcome {
        let mut reader = Reader::new(&argument);
        match call {
            Call::Version => {
                reader.record(&[], |_, _| Ok(()))?;
                Ok(wire::id::encode_version(&Version { version: "1.1.6".into() }))
            }
            Call::Id if self.hangs.load(Ordering::SeqCst) => {
                let _told = Told(Arc::clone(&self.released));
                self.started.notify_one();
                std::future::pending().await
            }
            Call::Id => Ok(self.id.clone()),
            Call::Status => {
                reader.cid()?;
                Ok(self.row.clone())
            }
            Call::LogPin => {
                wire::pin::read(&mut reader).map_err(|e| match e {
                    wire::Error::PinWithoutCid => Failure::Method(e.to_string()),
                    _ => e.into(),
                })?;
                self.n_written.fetch_add(1, Ordering::SeqCst);
                Ok(vec![0x80])
            }
            _ => Err(Failure::Method("boom".into())),
        }
    }

    fn stream(&self, call: Call, mut arguments: Arguments) -> Outcomes {
        let id = self.id.clone();
        match call {
            Call::Peers => {
                let (started, told) = (Arc::clone(&self.started), Told(Arc::clone(&self.released)));
                stream::once(async move {
                    let _told = told;
                    started.notify_one();
                    std::future::pending().await
                })
                .boxed()
            }
            Call::IdStream => stream::iter([Ok(id)]).boxed(),
            // every argument comes back
            Call::BlockStream => arguments.map(|argument| argument.map(|bytes| bytes.to_vec())).boxed(),
            _ => async move {
                match arguments.next().await {
                    Some(Err(failure)) => Err(failure),
                    Some(Ok(filter)) => match wire::status::decode_filter(&filter) {
                        Ok(_) => Err(Failure::Method(IPFS_DOWN.into())),
                        Err(e) => Err(e.into()),
                    },
                    None => Err(Failure::Method(IPFS_DOWN.into())),
                }
            }
            .into_stream()
            .boxed(),
        }
    }
}

fn raw() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../fixtures/wire/rpc-raw.json")).unwrap();
    file["items"].as_array().unwrap().clone()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn split(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    while let Some(len) = Scanner::new().scan(data).unwrap() {
        values.push(data[..len].to_vec());
        data = &data[len..];
    }
    assert!(data.is_empty());
    values
}

fn serve(handler: Arc<Fake>) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let tasks = Tasks::new();
    tasks.spawn("answer", async move {
        let _ = answer(theirs, PeerId::random(), &*handler).await;
    });
    ours
}

#[tokio::test]
async fn odd_requests_are_answered_as_recorded() {
    let items = raw();
    for item in &items {
        let title = item["title"].as_str().unwrap();
        let values: Vec<Vec<u8>> = item["values"].as_array().unwrap().iter().map(bytes).collect();
        let mut expected: Vec<(Response, Vec<u8>)> =
            values.chunks(2).map(|pair| (Response::decode(&pair[0]).unwrap(), pair[1].clone())).collect();
        // by the rulings: one reply to an unreadable name; a bad argument is named as such; nothing is written
        // for a pin without a CID
        expected.truncate(1);
        if title == "streaming, argument of a wrong type" {
            expected[0].0.error = "msgpack decode error".into();
            expected[0].0.error_type = 1;
        }
        if ["LogPin, a pin as an array", "LogPin, no CID", "LogPin, CID nil"].contains(&title) {
            expected[0].0.error = "pin without a CID".into();
        }
        let body = expected.first().map(|pair| pair.1.clone()).unwrap_or_default();
        let handler = Arc::new(Fake { id: body.clone(), row: body, ..Fake::default() });
        let mut stream = serve(Arc::clone(&handler));
        for piece in item["sent"].as_array().unwrap() {
            stream.write_all(&bytes(piece)).await.unwrap();
        }
        if title.contains("half-closed") {
            stream.shutdown().await.unwrap();
        }
        let mut data = Vec::new();
        if values.is_empty() {
            // nothing comes, and the stream stays open
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read_to_end(&mut data)).await;
            assert!(read.is_err() && data.is_empty(), "{title}");
            continue;
        }
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut data)).await.expect(title).unwrap();
        let answered: Vec<(Response, Vec<u8>)> = split(&data)
            .chunks(2)
            .map(|pair| (Response::decode(&pair[0]).unwrap(), pair[1].clone()))
            .collect();
        for ((head, body), (wanted, wanted_body)) in answered.iter().zip(&expected) {
            assert_eq!((&head.service, head.error_type), (&wanted.service, wanted.error_type), "{title}");
            let prefix = ["msgpack decode error", "error reading service ID"]
                .into_iter()
                .find(|prefix| wanted.error.starts_with(prefix));
            match prefix {
                Some(prefix) => assert!(head.error.starts_with(prefix), "{title}: {}", head.error),
                None => assert_eq!(head.error, wanted.error, "{title}"),
            }
            assert_eq!(hex::encode(body), hex::encode(wanted_body), "{title}");
        }
        assert_eq!(answered.len(), expected.len(), "{title}");
    }
}

#[tokio::test]
async fn peers_that_are_not_trusted_may_call_what_is_open() {
    let handler =
        Arc::new(Fake { trusts_none: true, id: wire::id::encode(&Id::default()), ..Fake::default() });
    for (call, is_open) in
        [(Call::Version, true), (Call::Id, true), (Call::Status, false), (Call::LogPin, false)]
    {
        let reply = client::unary(serve(Arc::clone(&handler)), call.method(), &[0x80]).await;
        match reply {
            Ok(_) => assert!(is_open, "{call:?}"),
            Err(error) => {
                assert!(error.is_refusal() && !is_open, "{error}");
                let name = call.method();
                let text = format!("client does not have permissions to call {}.{}", name.service, name.name);
                assert_eq!(error.to_string(), text);
            }
        }
    }
}

#[tokio::test]
async fn nobody_may_call_what_is_closed() {
    let reply = client::unary(serve(Arc::new(Fake::default())), Call::RepoGcLocal.method(), &[0x80]).await;
    let error = reply.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert_eq!(error.to_string(), "client does not have permissions to call Cluster.RepoGCLocal");
}

#[tokio::test]
async fn a_unary_call_keeps_its_side_open_until_the_reply() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let call = client::unary(ours, Call::Version.method(), &[0x80]);
    let peer = async move {
        let mut request = vec![0; 31];
        theirs.read_exact(&mut request[..30]).await.unwrap();
        assert_eq!(
            hex::encode(&request[..30]),
            "82a44e616d65a7436c7573746572a64d6574686f64a756657273696f6e80"
        );
        let more = tokio::time::timeout(Duration::from_millis(50), theirs.read(&mut request)).await;
        assert!(more.is_err(), "the caller ended its side");
        // the body comes later than its head
        theirs.write_all(b"\x80").await.unwrap();
        tokio::task::yield_now().await;
        theirs.write_all(b"\x81\xa1v\xa1x").await.unwrap();
        assert_eq!(tokio::time::timeout(LIMIT, theirs.read(&mut request)).await.unwrap().unwrap(), 0);
    };
    let (reply, ()) = tokio::join!(call, peer);
    assert_eq!(wire::id::decode_version(&reply.unwrap()).unwrap().version, "x");
}

#[tokio::test]
async fn a_streaming_call_ends_its_side_and_reads_to_the_end() {
    let handler = Arc::new(Fake::default());
    let arguments: Vec<Bytes> = (0..1000).map(|n| Writer::one(|out| out.uint(n)).into()).collect();
    let sent = stream::iter(arguments.clone()).boxed();
    let replies = client::streaming(serve(handler), Call::BlockStream.method(), sent);
    let replies: Vec<Bytes> =
        tokio::time::timeout(LIMIT, replies.map(|reply| reply.unwrap()).collect()).await.unwrap();
    assert_eq!(replies, arguments);
}

#[tokio::test]
async fn errors_of_a_stream_come_after_its_replies() {
    let handler = Arc::new(Fake::default());
    let replies = client::streaming(serve(handler), Call::StatusAll.method(), stream::empty().boxed());
    let replies: Vec<_> = tokio::time::timeout(LIMIT, replies.collect::<Vec<_>>()).await.unwrap();
    assert!(matches!(&replies[..], [Err(Error::Method(text))] if text == IPFS_DOWN));

    // values that are no answer, an answer that is cut, and none at all
    for (sent, expected) in
        [(&b"\x01"[..], "record"), (b"\x80\xa3a", "unexpected EOF"), (b"\x80", "ended before")]
    {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut replies = client::streaming(ours, Call::Peers.method(), stream::empty().boxed());
        let error = replies.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(replies.next().await.is_none());
    }
}

#[tokio::test]
async fn a_call_whose_caller_is_gone_is_dropped() {
    let handler = Arc::new(Fake::default());
    handler.hangs.store(true, Ordering::SeqCst);
    for call in [Call::Id, Call::Peers] {
        let mut stream = serve(Arc::clone(&handler));
        let row = call.method();
        let name = ServiceId { service: row.service.into(), method: row.name.into() }.encode();
        stream.write_all(&[&name[..], b"\x80"].concat()).await.unwrap();
        // half-closing is no reason to stop
        stream.shutdown().await.unwrap();
        tokio::time::timeout(LIMIT, handler.started.notified()).await.unwrap();
        assert!(handler.released.notified().now_or_never().is_none());
        drop(stream);
        tokio::time::timeout(LIMIT, handler.released.notified()).await.expect(row.name);
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_over_the_swarm_is_dropped() {
    let handler = Arc::new(Fake::default());
    handler.hangs.store(true, Ordering::SeqCst);
    let tasks = Tasks::new();
    let callee = network(&tasks).await;
    let caller = network(&tasks).await;
    let streams = callee.accept(&[PROTOCOL], MAX_WAITING).unwrap();
    let (server, stop) = (Server::new(Arc::clone(&handler) as Arc<dyn Handler>), tasks.token());
    tasks.spawn("server", server.run(streams, stop));
    let peer = callee.local_peer();
    let addr = callee.listen_addrs()[0].clone().with(libp2p::multiaddr::Protocol::P2p(peer));
    caller.add_addr(&addr).unwrap();
    let client = Client::new(caller);
    // one that has half-closed its side, as streaming calls do, has no way left to say so
    tokio::select! {
        _ = client.call(peer, Call::Id, vec![0x80], None) => panic!("nobody answers"),
        started = tokio::time::timeout(LIMIT, handler.started.notified()) => started.unwrap(),
    }
    tokio::time::timeout(LIMIT, handler.released.notified()).await.unwrap();
    let reply = client.call(peer, Call::Version, vec![0x80], Some(LIMIT)).await.unwrap();
    assert_eq!(wire::id::decode_version(&reply).unwrap().version, "1.1.6");
    tasks.stop();
}

async fn network(tasks: &Tasks) -> net::Network {
    let config = cluster_compat::config::Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
        ..cluster_compat::config::Cluster::default()
    };
    let keypair = libp2p::identity::Keypair::generate_ed25519();
    let args =
        net::NetworkArgs { keypair, secret: None, config: &config, peerstore: vec![], tasks: tasks.clone() };
    net::Network::start(args).await.unwrap()
}

#[tokio::test]
async fn one_callers_flood_leaves_others_their_answers() {
    let handler = Arc::new(Fake::default());
    handler.hangs.store(true, Ordering::SeqCst);
    let (tx, rx) = mpsc::channel(8);
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    tasks.spawn("server", Server::new(handler).serve(rx, |stream| stream, stop.clone()));
    let (greedy, modest) =
        (PeerId::random(), parse_peer_id("12D3KooWCzcBPSRVQGSdgtpVwPo1HaNKATUrMcRdcYmZbNpp7pqi").unwrap());
    let mut held = Vec::new();
    for _ in 0..1100 {
        let (ours, theirs) = tokio::io::duplex(256);
        tx.send((greedy, theirs)).await.unwrap();
        held.push(ours);
    }
    for stream in held.iter_mut().take(200) {
        let name = ServiceId { service: "Cluster".into(), method: "ID".into() }.encode();
        stream.write_all(&[&name[..], b"\x80"].concat()).await.unwrap();
    }
    // the last ones were reset at once
    let last = held.last_mut().unwrap();
    assert_eq!(
        tokio::time::timeout(LIMIT, last.read_u8()).await.unwrap().unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    let (ours, theirs) = tokio::io::duplex(256);
    tx.send((modest, theirs)).await.unwrap();
    let reply =
        tokio::time::timeout(LIMIT, client::unary(ours, Call::Version.method(), &[0x80])).await.unwrap();
    assert!(reply.is_ok());
    stop.cancel();
    tasks.join(LIMIT).await;
}

/// Bytes with a few of them changed, removed, doubled or cut off.
fn mutated(data: &[u8], rng: &mut impl rand::Rng) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if data.is_empty() {
            break;
        }
        let at = rng.random_range(0..data.len());
        match rng.random_range(0..4) {
            0 => data[at] = rng.random(),
            1 => drop(data.remove(at)),
            2 => data.insert(at, [0x80, 0x90, 0xc0, 0xdd, 0xdf, 0xff][rng.random_range(0..6)]),
            _ => data.truncate(at),
        }
    }
    data
}

/// A stream that gives some bytes, ends, and takes everything.
fn of(data: Vec<u8>) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    tokio::io::join(std::io::Cursor::new(data), tokio::io::sink())
}

impl<R: AsyncRead + Unpin + Send + 'static> client::Duplex for tokio::io::Join<R, tokio::io::Sink> {
    async fn is_cut(&mut self) -> bool {
        false
    }
}

#[tokio::test]
async fn hostile_requests_and_answers_end_in_an_error_or_an_answer() {
    let seed = 0x5eed;
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let items = raw();
    let handler = Arc::new(Fake { id: vec![0x80], row: vec![0x80], ..Fake::default() });
    let every = async {
        for round in 0..200 {
            for item in &items {
                let sent: Vec<u8> = item["sent"].as_array().unwrap().iter().flat_map(bytes).collect();
                let values: Vec<u8> = item["values"].as_array().unwrap().iter().flat_map(bytes).collect();
                let _ = answer(of(mutated(&sent, &mut rng)), PeerId::random(), &*handler).await;
                let reply = mutated(&values, &mut rng);
                let call = if round % 2 == 0 { Call::Id } else { Call::Status };
                let _ = client::unary(of(reply.clone()), call.method(), &[0x80]).await;
                let stream = tokio::io::join(std::io::Cursor::new(reply), tokio::io::sink());
                let replies = client::streaming(stream, Call::StatusAll.method(), stream::empty().boxed());
                for reply in replies.collect::<Vec<_>>().await.into_iter().flatten() {
                    let _ = wire::status::decode(&reply, PeerId::random());
                    let _ = wire::id::decode(&reply);
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, every).await.unwrap_or_else(|_| panic!("seed {seed}: one never ends"));
}
