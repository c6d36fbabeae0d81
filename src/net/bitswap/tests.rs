//! Blocks between networks of our own, and with peers that lie, keep silent, flood or leave.

use std::collections::HashMap;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use futures::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::frames::{Allowance, Reader};
use super::*;
use crate::net::testing::{RawPeer, TestPeer, within};
use crate::wire::bitswap_pb::{Builder, Entry, Message, Part, Want};

const BITSWAP: &str = PROTOCOLS[0];

/// Blocks in memory, and which were asked for.
#[derive(Default)]
struct Shelf {
    blocks: RwLock<HashMap<Cid, Vec<u8>>>,
    read: Mutex<Vec<Cid>>,
}

impl Blocks for Shelf {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        self.read.lock().unwrap().push(*cid);
        self.blocks.read().unwrap().get(cid).cloned()
    }

    fn size(&self, cid: &Cid) -> Option<usize> {
        self.blocks.read().unwrap().get(cid).map(Vec::len)
    }
}

impl Shelf {
    fn put(&self, data: &[u8]) -> Cid {
        let cid = cid_of(data);
        self.blocks.write().unwrap().insert(cid, data.to_vec());
        cid
    }
}

fn cid_of(data: &[u8]) -> Cid {
    Cid::new_v1(0x70, Code::Sha2_256.digest(data))
}

async fn peer() -> (TestPeer, Arc<Shelf>) {
    let (peer, shelf) = (TestPeer::start().await, Arc::new(Shelf::default()));
    peer.network.serve_blocks(Arc::clone(&shelf) as Arc<dyn Blocks>);
    (peer, shelf)
}

async fn fetched(peer: &TestPeer, cid: Cid, likely: &[PeerId]) -> Bytes {
    within("a block", peer.network.fetch_block(cid, likely)).await.unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    cid: Cid,
    want: Want,
    is_cancelled: bool,
    wants_dont_have: bool,
}

/// Reads what our peer wants from a peer that is played by the test.
struct Wantlists {
    streams: mpsc::Receiver<(PeerId, Stream)>,
    open: Option<Reader<Stream>>,
}

impl Wantlists {
    async fn next(&mut self) -> (bool, Vec<Line>) {
        loop {
            let reader = match &mut self.open {
                Some(reader) => reader,
                None => {
                    let (_, stream) = within("a stream", self.streams.recv()).await.unwrap();
                    self.open.insert(Reader::new(stream, Allowance::new()))
                }
            };
            let Some((bytes, _)) = within("a wantlist", reader.next()).await.unwrap() else {
                self.open = None;
                continue;
            };
            let message = Message::decode(&bytes).unwrap();
            let lines = message.parts().filter_map(|part| match part {
                Part::Entry(entry) => Some(Line {
                    cid: Cid::try_from(entry.cid).unwrap(),
                    want: entry.want,
                    is_cancelled: entry.is_cancelled,
                    wants_dont_have: entry.wants_dont_have,
                }),
                _ => None,
            });
            return (message.is_full, lines.collect());
        }
    }

    /// The next line, of a message that has one.
    async fn line(&mut self) -> Line {
        let (_, lines) = self.next().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0]
    }
}

async fn scripted(target: &TestPeer) -> (RawPeer, Wantlists) {
    let (raw, streams) = RawPeer::connect_speaking(target, &[BITSWAP]).await;
    (raw, Wantlists { streams, open: None })
}

/// Sends a message on a stream of its own, as originals do.
async fn say(raw: &RawPeer, to: &TestPeer, message: Builder) {
    let mut stream = within("a stream", raw.open(to.id(), BITSWAP)).await.unwrap();
    stream.write_all(&message.build()).await.unwrap();
    stream.close().await.unwrap();
}

fn block(cid: &Cid, data: &[u8]) -> Builder {
    let mut message = Builder::default();
    message.block(&prefix(cid), data);
    message
}

fn presence(cid: &Cid, has: bool) -> Builder {
    let mut message = Builder::default();
    message.presence(&cid.to_bytes(), has);
    message
}

fn want(cid: &Cid, want: Want) -> Builder {
    let mut message = Builder::default();
    let bytes = cid.to_bytes();
    message.entry(&Entry { cid: &bytes, priority: 1, is_cancelled: false, want, wants_dont_have: true });
    message
}

/// Blocks and presences of the next answer.
async fn answer(answers: &mut Wantlists) -> (Vec<Vec<u8>>, Vec<(Cid, bool)>) {
    let reader = match &mut answers.open {
        Some(reader) => reader,
        None => {
            let (_, stream) = within("a stream", answers.streams.recv()).await.unwrap();
            answers.open.insert(Reader::new(stream, Allowance::new()))
        }
    };
    let (bytes, _) = within("an answer", reader.next()).await.unwrap().unwrap();
    let (mut blocks, mut presences) = (Vec::new(), Vec::new());
    for part in Message::decode(&bytes).unwrap().parts() {
        match part {
            Part::Block { prefix, data } => {
                assert_eq!(name(super::listed, prefix, data), Some(cid_of(data)));
                blocks.push(data.to_vec());
            }
            Part::Presence { cid, has } => presences.push((Cid::try_from(cid).unwrap(), has)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    (blocks, presences)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_blocks_is_fetched_one_after_another_and_many_at_once() {
    let ((a, shelf), (b, _)) = (peer().await, peer().await);
    b.meets(&a, BITSWAP).await;
    let n_blocks = std::env::var("BITSWAP_CHAIN").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let chain: Vec<Cid> = (0..n_blocks).map(|i: u32| shelf.put(format!("{i:0400}").as_bytes())).collect();
    let began = Instant::now();
    for (i, cid) in chain.iter().enumerate() {
        assert_eq!(fetched(&b, *cid, &[a.id()]).await, format!("{i:0400}").as_bytes());
    }
    println!("{n_blocks} blocks one after another: {:?}", began.elapsed());
    let blocks: Vec<Vec<u8>> = (0..400u32).map(|i| [&i.to_be_bytes()[..], &[7; 9000]].concat()).collect();
    let cids: Vec<Cid> = blocks.iter().map(|block| shelf.put(block)).collect();
    let began = Instant::now();
    let all = futures::future::join_all(cids.iter().map(|cid| fetched(&b, *cid, &[]))).await;
    assert_eq!(all, blocks);
    println!("{} blocks at once: {:?}", blocks.len(), began.elapsed());
    let large = vec![9; MAX_TEST_BLOCK];
    let cid = shelf.put(&large);
    assert_eq!(fetched(&b, cid, &[]).await, large);
}

const MAX_TEST_BLOCK: usize = 2 << 20;

#[tokio::test]
async fn a_block_that_comes_later_is_sent_to_whoever_waits_and_to_many_waiting_here() {
    let ((a, shelf), (b, _), (c, _)) = (peer().await, peer().await, peer().await);
    b.meets(&a, BITSWAP).await;
    let cid = cid_of(b"later");
    let unwanted = cid_of(b"given up");
    let likely = [a.id()];
    let early = async { tokio::join!(fetched(&b, cid, &likely), fetched(&b, cid, &[])) };
    // connected after it began to want
    let late = async {
        let (block, ()) = tokio::join!(fetched(&c, cid, &[]), c.meets(&a, BITSWAP));
        block
    };
    let store = async {
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), b.network.fetch_block(unwanted, &[])).await;
        assert!(given_up.is_err());
        let asked = async {
            // both peers have been told that it is not there
            while shelf.read.lock().unwrap().iter().filter(|read| **read == cid).count() < 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            c.hears_of(a.id(), BITSWAP).await;
        };
        within("the question", asked).await;
        shelf.put(b"later");
        a.network.blocks_stored(&[cid]);
    };
    let ((one, two), three, ()) = tokio::join!(early, late, store);
    assert!([one, two, three].iter().all(|block| block == &b"later"[..]));
}

#[tokio::test]
async fn blocks_that_need_no_peer_or_cannot_be_checked_are_not_asked_for() {
    let (a, _) = peer().await;
    let identity: Cid = Cid::try_from(&hex::decode("01550003616263").unwrap()[..]).unwrap();
    assert_eq!(fetched(&a, identity, &[]).await, &b"abc"[..]);
    let unknown = Cid::new_v1(0x55, Multihash::wrap(0x7777, &[1; 32]).unwrap());
    let error = a.network.fetch_block(unknown, &[]).await.unwrap_err();
    assert!(error.to_string().contains("0x7777"), "{error}");
    let short = Cid::new_v1(0x55, Multihash::wrap(0x12, &[1; 8]).unwrap());
    assert!(matches!(a.network.fetch_block(short, &[]).await, Err(Error::Unverifiable { .. })));
}

#[tokio::test]
async fn a_peer_that_lies_is_not_believed_and_the_next_is_asked() {
    let (a, _) = peer().await;
    let (liar, mut to_liar) = scripted(&a).await;
    let (honest, mut to_honest) = scripted(&a).await;
    let cid = cid_of(b"truth");
    let likely = [liar.id()];
    let fetch = fetched(&a, cid, &likely);
    let play = async {
        let line = to_liar.line().await;
        let asked = Line { cid, want: Want::Block, is_cancelled: false, wants_dont_have: true };
        assert_eq!(line, asked);
        // other bytes under the wanted prefix, a block nobody asked for, and garbage
        say(&liar, &a, block(&cid, b"lie")).await;
        say(&liar, &a, block(&cid_of(b"spam"), b"spam")).await;
        let mut stream = liar.open(a.id(), BITSWAP).await.unwrap();
        stream.write_all(&[5, 0xff, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        say(&liar, &a, presence(&cid, false)).await;
        let line = to_honest.line().await;
        assert_eq!(line, Line { want: Want::Have, ..asked });
        say(&honest, &a, presence(&cid, true)).await;
        assert_eq!(to_honest.line().await, asked);
        say(&honest, &a, block(&cid, b"truth")).await;
        // whoever did not send it need not keep it in mind
        assert_eq!(
            to_liar.line().await,
            Line { cid, want: Want::Block, is_cancelled: true, wants_dont_have: false }
        );
    };
    let (block, ()) = tokio::join!(fetch, play);
    assert_eq!(block, &b"truth"[..]);
    // who sent the last block is asked first
    let next = cid_of(b"next");
    let play = async {
        assert_eq!(to_honest.line().await.cid, next);
        say(&honest, &a, self::block(&next, b"next")).await;
    };
    assert_eq!(tokio::join!(fetched(&a, next, &[]), play).0, &b"next"[..]);
}

#[tokio::test]
async fn a_silent_peer_costs_its_head_start_and_given_up_wants_are_cancelled() {
    let (a, _) = peer().await;
    let (silent, mut to_silent) = scripted(&a).await;
    let (other, mut to_other) = scripted(&a).await;
    let cid = cid_of(b"block");
    let play = async {
        assert_eq!(to_silent.line().await.want, Want::Block);
        assert_eq!(to_other.line().await.want, Want::Have);
        // small blocks come at once
        say(&other, &a, block(&cid, b"block")).await;
        assert!(to_silent.line().await.is_cancelled);
    };
    let likely = [silent.id()];
    tokio::join!(fetched(&a, cid, &likely), play);
    let nowhere = cid_of(b"nowhere");
    {
        let likely = [other.id()];
        let fetch = a.network.fetch_block(nowhere, &likely);
        tokio::select! {
            _ = fetch => panic!("nobody has it"),
            line = to_other.line() => assert_eq!(line.cid, nowhere),
        }
    }
    let line = to_other.line().await;
    assert!(line.cid == nowhere && line.is_cancelled);
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_made_good() {
    let (a, _) = peer().await;
    let (first, mut to_first) = scripted(&a).await;
    let cid = cid_of(b"block");
    let likely = [first.id()];
    let play = async {
        assert_eq!(to_first.line().await.want, Want::Block);
        // half a message, then the end
        let mut stream = first.open(a.id(), BITSWAP).await.unwrap();
        stream.write_all(&block(&cid, b"block").build()[..10]).await.unwrap();
        stream.flush().await.unwrap();
        drop((first, to_first));
        let (second, mut to_second) = scripted(&a).await;
        assert_eq!(to_second.line().await.cid, cid);
        // it drops the stream alone: the whole list comes again
        to_second.open = None;
        let (is_full, lines) = to_second.next().await;
        assert!(is_full && lines.len() == 1 && lines[0].cid == cid);
        say(&second, &a, block(&cid, b"block")).await;
        (second, to_second)
    };
    assert_eq!(tokio::join!(fetched(&a, cid, &likely), play).0, &b"block"[..]);
}

#[tokio::test]
async fn no_peer_is_asked_for_more_than_it_remembers() {
    let (a, _) = peer().await;
    let (other, mut to_other) = scripted(&a).await;
    let blocks: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let by_cid: HashMap<Cid, &Vec<u8>> = blocks.iter().map(|block| (cid_of(block), block)).collect();
    let all = futures::future::join_all(by_cid.keys().map(|cid| fetched(&a, *cid, &[])));
    let play = async {
        let mut open = std::collections::HashSet::new();
        let mut n_answered = 0;
        while n_answered < blocks.len() {
            let (_, lines) = to_other.next().await;
            for line in lines {
                if line.is_cancelled {
                    open.remove(&line.cid)
                } else {
                    open.insert(line.cid)
                };
            }
            assert!(open.len() <= fetch::MAX_ASKS_PER_PEER, "{} at once", open.len());
            let mut message = Builder::default();
            for cid in open.drain() {
                message.block(&prefix(&cid), by_cid[&cid]);
                n_answered += 1;
            }
            say(&other, &a, message).await;
        }
    };
    let (all, ()) = tokio::join!(all, play);
    assert_eq!(all.len(), blocks.len());
}

#[tokio::test]
async fn questions_are_answered_as_originals_answer_them() {
    let (a, shelf) = peer().await;
    let (raw, mut answers) = scripted(&a).await;
    let small = shelf.put(&[1; 1024]);
    let large = shelf.put(&[2; 1025]);
    let missing = cid_of(b"missing");
    say(&raw, &a, want(&small, Want::Have)).await;
    assert_eq!(answer(&mut answers).await, (vec![vec![1; 1024]], vec![]));
    say(&raw, &a, want(&large, Want::Have)).await;
    assert_eq!(answer(&mut answers).await, (vec![], vec![(large, true)]));
    say(&raw, &a, want(&large, Want::Block)).await;
    assert_eq!(answer(&mut answers).await, (vec![vec![2; 1025]], vec![]));
    say(&raw, &a, want(&missing, Want::Block)).await;
    assert_eq!(answer(&mut answers).await, (vec![], vec![(missing, false)]));
    // without sendDontHave there is no answer until the block is stored
    let mut quiet = Builder::default();
    let later = cid_of(b"later");
    let bytes = later.to_bytes();
    quiet.entry(&Entry {
        cid: &bytes,
        priority: 1,
        is_cancelled: false,
        want: Want::Have,
        wants_dont_have: false,
    });
    say(&raw, &a, quiet).await;
    shelf.put(b"missing");
    a.network.blocks_stored(&[missing]);
    assert_eq!(answer(&mut answers).await, (vec![b"missing".to_vec()], vec![]));
    shelf.put(b"later");
    a.network.blocks_stored(&[later]);
    assert_eq!(answer(&mut answers).await, (vec![b"later".to_vec()], vec![]));
    // blocks that do not fit into one message
    let mut many = Builder::default();
    let cids: Vec<Cid> = (0..7).map(|i| shelf.put(&[i; 300 << 10])).collect();
    for cid in &cids {
        let bytes = cid.to_bytes();
        let entry = Entry {
            cid: &bytes,
            priority: 1,
            is_cancelled: false,
            want: Want::Block,
            wants_dont_have: false,
        };
        many.entry(&entry);
    }
    say(&raw, &a, many).await;
    let mut n_blocks = Vec::new();
    while n_blocks.iter().sum::<usize>() < 7 {
        n_blocks.push(answer(&mut answers).await.0.len());
    }
    assert_eq!(n_blocks, [2, 2, 2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wants_holds_up_nobody_else() {
    let ((a, shelf), (honest, _)) = (peer().await, peer().await);
    honest.meets(&a, BITSWAP).await;
    let cid = shelf.put(b"block");
    let (raw, mut answers) = scripted(&a).await;
    for round in 0..5u32 {
        let mut flood = Builder::default();
        for i in 0..50_000u32 {
            let bytes = Cid::new_v1(
                0x70,
                Multihash::wrap(
                    0x12,
                    &[[round, i]; 4].concat().iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>(),
                )
                .unwrap(),
            )
            .to_bytes();
            let entry = Entry {
                cid: &bytes,
                priority: 1,
                is_cancelled: false,
                want: Want::Block,
                wants_dont_have: true,
            };
            flood.entry(&entry);
        }
        say(&raw, &a, flood).await;
    }
    assert_eq!(fetched(&honest, cid, &[a.id()]).await, &b"block"[..]);
    // it is still answered itself
    say(&raw, &a, want(&cid, Want::Block)).await;
    let found = async {
        loop {
            let (blocks, _) = answer(&mut answers).await;
            if blocks == [b"block".to_vec()] {
                return;
            }
        }
    };
    within("the block", found).await;
}
