//! Streams between networks of our own, and one that keeps no limits.

use cluster_compat::types::Multiaddr;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::multiaddr::Protocol;

use super::super::testing::{LIMIT, RawPeer, TestPeer, within};
use super::*;

const ECHO: &str = "/test/echo/1";
const SLOW: &str = "/test/slow/1";

impl TestPeer {
    /// Sends back what comes on [`ECHO`].
    fn echo(&self, capacity: usize) {
        let mut streams = self.network.accept(&[ECHO], capacity).unwrap();
        let tasks = self.tasks.clone();
        self.tasks.spawn("echo", async move {
            while let Some((_, mut stream)) = streams.recv().await {
                tasks.spawn("echo of one", async move {
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).await.unwrap();
                    stream.write_all(&said).await.unwrap();
                    stream.close().await.unwrap();
                });
            }
        });
    }

    async fn hears_back(&self, from: PeerId, said: &[u8]) -> bool {
        let (mut stream, protocol) = self.network.open(from, &[ECHO]).await.unwrap();
        assert_eq!(protocol, ECHO);
        stream.write_all(said).await.unwrap();
        stream.close().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard == said
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_opened_at_once_dial_once_and_all_arrive() {
    let (a, b) = (TestPeer::start().await, TestPeer::start().await);
    b.echo(4);
    a.knows(&b);
    let echoes = futures::future::join_all((0..500).map(|i| {
        let said = format!("stream {i}").into_bytes();
        let a = &a;
        let b = b.id();
        async move { a.hears_back(b, &said).await }
    }));
    let echoes = within("500 echoes", echoes).await;
    assert!(echoes.iter().all(|heard| *heard));
    assert_eq!(a.network.connected_peers(), [b.id()]);
}

#[tokio::test]
async fn closing_resetting_and_losing_the_connection_are_seen_on_the_other_side() {
    let (a, b) = (TestPeer::start().await, TestPeer::start().await);
    let mut streams = b.network.accept(&[ECHO], 16).unwrap();
    a.knows(&b);
    let (mut ours, _) = a.network.open(b.id(), &[ECHO]).await.unwrap();
    let (from, mut theirs) = within("the stream", streams.recv()).await.unwrap();
    assert_eq!(from, a.id());
    // half a close
    ours.write_all(b"question").await.unwrap();
    ours.close().await.unwrap();
    let mut said = Vec::new();
    within("the end of the question", theirs.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"question");
    theirs.write_all(b"answer").await.unwrap();
    theirs.flush().await.unwrap();
    let mut heard = [0; 6];
    within("the answer", ours.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"answer");
    // who leaves after half a close does not hold up the other side
    drop(ours);
    for _ in 0..64 {
        within("a write", theirs.write_all(&[0; 64 * 1024])).await.unwrap();
    }
    within("the close", theirs.close()).await.unwrap();

    // a reset: they write against a wall
    let (ours, _) = a.network.open(b.id(), &[ECHO]).await.unwrap();
    let (_, mut theirs) = within("the stream", streams.recv()).await.unwrap();
    drop(ours);
    within("the reset", theirs.read_to_end(&mut said)).await.unwrap();
    assert!(theirs.write_all(b"too late").await.is_err());
    assert!(!theirs.is_cut().await);

    let (mut ours, _) = a.network.open(b.id(), &[ECHO]).await.unwrap();
    let (_, theirs) = within("the stream", streams.recv()).await.unwrap();
    let mut events = a.network.peer_events();
    b.tasks.stop();
    b.tasks.join(LIMIT).await;
    drop(theirs);
    let mut rest = Vec::new();
    let _ = within("the end", ours.read_to_end(&mut rest)).await;
    assert!(within("what became of the connection", ours.is_cut()).await);
    let gone = async { while events.recv().await.unwrap() != PeerEvent::Disconnected(b.id()) {} };
    within("the news", gone).await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_that_says_why() {
    let (a, b) = (TestPeer::start().await, TestPeer::start().await);
    let mut events = a.network.peer_events();
    b.echo(4);
    let error = a.network.open(b.id(), &[ECHO]).await.unwrap_err();
    assert!(matches!(error, Error::Dial { .. }), "{error}");
    assert_eq!(error.to_string(), format!("failed to dial {}: no addresses", b.id()));
    let error = a.network.open(a.id(), &[ECHO]).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot open a stream to ourselves");
    a.knows(&b);
    let error = a.network.open(b.id(), &["/test/new/2", "/test/new/1"]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} does not speak /test/new/2, /test/new/1", b.id()));
    let (_, chosen) = a.network.open(b.id(), &["/test/new/2", ECHO]).await.unwrap();
    assert_eq!(chosen, ECHO);
    assert_eq!(within("the connection", events.recv()).await.unwrap(), PeerEvent::Connected(b.id()));
    assert_eq!(within("identify", events.recv()).await.unwrap(), PeerEvent::Identified(b.id()));
    assert!(a.network.speaks(&b.id(), ECHO));
    assert!(!a.network.speaks(&b.id(), "/test/new/2"));
    assert!(!b.network.speaks(&a.id(), ECHO));
    let error = b.network.accept(&[SLOW, ECHO], 1).unwrap_err();
    assert_eq!(error.to_string(), "streams for /test/echo/1 are accepted already");
    // nobody listens there
    let nowhere = PeerId::random();
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    a.network.add_addr(&addr.with(Protocol::P2p(nowhere))).unwrap();
    let (one, two) = tokio::join!(a.network.open(nowhere, &[ECHO]), a.network.open(nowhere, &[ECHO]));
    assert!(matches!(one, Err(Error::Dial { .. })), "{one:?}");
    assert!(matches!(two, Err(Error::Dial { .. })), "{two:?}");
}

#[tokio::test]
async fn a_protocol_is_accepted_again_when_its_acceptor_left() {
    let (a, b) = (TestPeer::start().await, TestPeer::start().await);
    a.knows(&b);
    drop(b.network.accept(&[ECHO], 4).unwrap());
    if let Ok((mut stream, _)) = a.network.open(b.id(), &[ECHO]).await {
        let mut nothing = Vec::new();
        within("the reset", stream.read_to_end(&mut nothing)).await.unwrap();
        assert!(nothing.is_empty());
    }
    b.echo(4);
    assert!(a.hears_back(b.id(), b"again").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_thousands_of_streams_pays_alone() {
    let (honest, target) = (TestPeer::start().await, TestPeer::start().await);
    honest.knows(&target);
    target.echo(4);
    let mut slow = target.network.accept(&[SLOW], 8).unwrap();
    let hostile = RawPeer::connect(&target).await;
    let opens = (0..3000).map(|_| hostile.open(target.id(), SLOW));
    let opened = within("3000 streams", futures::future::join_all(opens)).await;
    let opened: Vec<Stream> = opened.into_iter().flatten().collect();
    assert!(opened.len() >= MAX_INBOUND_PER_PEER);

    // the hostile peer's streams fill its share and the slow queue; nobody else notices
    assert!(within("an echo", honest.hears_back(target.id(), b"still there?")).await);
    let (mut ours, _) = within("a stream", honest.network.open(target.id(), &[SLOW])).await.unwrap();
    ours.write_all(b"me too").await.unwrap();
    ours.flush().await.unwrap();
    let mut n_hostile = 0;
    let mut kept = Vec::new();
    let mut theirs = loop {
        let (from, stream) = within("a waiting stream", slow.recv()).await.unwrap();
        if from == honest.id() {
            break stream;
        }
        n_hostile += 1;
        kept.push(stream);
    };
    let mut said = [0; 6];
    within("the words", theirs.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"me too");
    while n_hostile < MAX_INBOUND_PER_PEER {
        let (from, stream) = within("a waiting stream", slow.recv()).await.unwrap();
        assert_ne!(from, honest.id());
        n_hostile += 1;
        kept.push(stream);
    }
    assert!(slow.try_recv().is_err(), "more than its share");
    // what it gives back it may use again
    kept.clear();
    drop(opened);
    let mut again = within("a stream", hostile.open(target.id(), SLOW)).await.unwrap();
    again.write_all(b"x").await.unwrap();
    again.flush().await.unwrap();
    assert_eq!(within("the stream", slow.recv()).await.unwrap().0, hostile.id());
}
