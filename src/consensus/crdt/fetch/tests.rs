//! The fetcher against peers that serve, hang or have nothing.

use super::*;
use crate::task::{GRACE, Tasks};

/// What others have: single blocks, and chains that one peer streams.
#[derive(Default)]
struct Others {
    blocks: HashMap<Cid, Vec<u8>>,
    /// The streaming peer, its chain from the top, and how many come before the stream hangs.
    chain: Option<(PeerId, Vec<Vec<u8>>, usize)>,
    asked: Mutex<Vec<Cid>>,
    streams: Mutex<Vec<Request>>,
}

struct Chain {
    left: VecDeque<Vec<u8>>,
    hangs: bool,
}

#[async_trait]
impl Nodes for Chain {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self.left.pop_front() {
            None if self.hangs => std::future::pending().await,
            block => Ok(block),
        }
    }
}

#[async_trait]
impl Exchange for Others {
    async fn block(&self, cid: Cid, _likely: &[PeerId]) -> Result<Vec<u8>, String> {
        self.asked.lock().unwrap().push(cid);
        match self.blocks.get(&cid) {
            Some(block) => Ok(block.clone()),
            None => std::future::pending().await,
        }
    }

    fn streamers(&self, _likely: &[PeerId]) -> Vec<PeerId> {
        self.chain.iter().map(|(peer, ..)| *peer).collect()
    }

    async fn stream(&self, _peer: PeerId, request: Request) -> Result<Box<dyn Nodes>, String> {
        let (_, chain, n) = self.chain.as_ref().ok_or("no streams here")?;
        let mut bytes = 0;
        let left = chain.iter().skip_while(|block| node_cid(block) != request.want).take(*n);
        let left = left.take_while(|block| {
            bytes += block.len() as u64;
            bytes <= request.max_bytes
        });
        let left: VecDeque<_> = left.cloned().collect();
        let hangs = left.len() == *n;
        self.streams.lock().unwrap().push(request);
        Ok(Box::new(Chain { left, hangs }))
    }
}

/// Short enough to wait for, far enough from each other to be told apart on a busy machine.
const SHORT: Limits = Limits {
    fetch: Duration::from_millis(1500),
    stream: Duration::from_millis(200),
    grace: Duration::from_millis(20),
    ahead: Duration::from_millis(20),
};

struct Nothing;

impl Known for Nothing {
    fn have(&self) -> Vec<Cid> {
        Vec::new()
    }

    fn is_processed(&self, _cid: &Cid) -> bool {
        false
    }
}

struct Lab {
    fetcher: Arc<Fetcher>,
    others: Arc<Others>,
    arrivals: mpsc::Receiver<Arrival>,
    tasks: Tasks,
}

fn lab(others: Others) -> Lab {
    let fetcher = Arc::new(Fetcher { limits: SHORT, ..Fetcher::default() });
    let (others, tasks) = (Arc::new(others), Tasks::new());
    let (arrivals_tx, arrivals) = mpsc::channel(64);
    let exchange: Arc<dyn Exchange> = others.clone();
    tasks.spawn("fetcher", fetcher.clone().run(exchange, Arc::new(Nothing), arrivals_tx, tasks.token()));
    Lab { fetcher, others, arrivals, tasks }
}

impl Lab {
    fn want(&self, cid: Cid) {
        self.fetcher.want(Want { cid, likely: Vec::new() });
    }

    async fn stop(self) {
        self.tasks.stop();
        self.tasks.join(GRACE).await;
    }
}

fn block(n: usize) -> Vec<u8> {
    format!("block {n}").into_bytes()
}

#[tokio::test]
async fn what_nobody_serves_is_unavailable_in_the_end_and_holds_up_nothing() {
    let (missing, there) = (node_cid(b"missing"), node_cid(&block(1)));
    let mut lab = lab(Others { blocks: [(there, block(1))].into(), ..Others::default() });
    let started = Instant::now();
    lab.want(missing);
    lab.want(missing);
    lab.want(there);
    assert_eq!(lab.arrivals.recv().await, Some(Arrival::Block { cid: there, data: block(1) }));
    assert!(started.elapsed() < SHORT.fetch);
    assert_eq!(lab.arrivals.recv().await, Some(Arrival::Unavailable(missing)));
    assert!(started.elapsed() >= SHORT.fetch);
    assert_eq!(*lab.others.asked.lock().unwrap(), [missing, there]);
    // and may be wanted again
    lab.want(missing);
    assert_eq!(lab.arrivals.recv().await, Some(Arrival::Unavailable(missing)));
    lab.stop().await;
}

#[tokio::test]
async fn one_stream_brings_a_chain() {
    let chain: Vec<_> = (0..100).map(block).collect();
    let cids: Vec<_> = chain.iter().map(|block| node_cid(block)).collect();
    let mut lab = lab(Others { chain: Some((PeerId::random(), chain, 1000)), ..Others::default() });
    for cid in cids {
        let data = match lab.fetcher.take_ahead(&cid) {
            Some(data) => data,
            None => {
                lab.want(cid);
                match lab.arrivals.recv().await {
                    Some(Arrival::Block { data, .. }) => data,
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(node_cid(&data), cid);
    }
    assert_eq!(lab.others.streams.lock().unwrap().len(), 1);
    assert!(lab.others.asked.lock().unwrap().is_empty());
    lab.stop().await;
}

#[tokio::test]
async fn a_stream_that_hangs_does_not_keep_others_waiting() {
    let chain: Vec<_> = (0..3).map(block).collect();
    let cids: Vec<_> = chain.iter().map(|block| node_cid(block)).collect();
    let elsewhere = node_cid(b"elsewhere");
    let mut lab = lab(Others {
        chain: Some((PeerId::random(), chain, 2)),
        blocks: [(elsewhere, b"elsewhere".to_vec())].into(),
        ..Others::default()
    });
    let started = Instant::now();
    lab.want(cids[0]);
    assert!(matches!(lab.arrivals.recv().await, Some(Arrival::Block { cid, .. }) if cid == cids[0]));
    lab.want(elsewhere);
    assert!(matches!(lab.arrivals.recv().await, Some(Arrival::Block { cid, .. }) if cid == elsewhere));
    assert!(started.elapsed() < SHORT.fetch, "{:?}", started.elapsed());
    lab.stop().await;
}

#[tokio::test]
async fn what_came_ahead_is_bounded_and_forgotten() {
    let chain: Vec<_> = (0..40usize).map(|n| vec![n as u8; 1 << 20]).collect();
    let first = node_cid(&chain[0]);
    let mut lab = lab(Others { chain: Some((PeerId::random(), chain, 1000)), ..Others::default() });
    lab.fetcher.lock().stream_bytes = MAX_STREAM_BYTES;
    lab.want(first);
    assert!(matches!(lab.arrivals.recv().await, Some(Arrival::Block { .. })));
    let wait_for = async |n_bytes: usize| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while lab.fetcher.lock().ahead_bytes != n_bytes {
            assert!(Instant::now() < deadline, "{} bytes are kept", lab.fetcher.lock().ahead_bytes);
            tokio::task::yield_now().await;
        }
    };
    wait_for(MAX_AHEAD_BYTES).await;
    wait_for(0).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_peer_that_announces_what_nobody_serves_holds_up_only_itself() {
    let there = node_cid(&block(1));
    let mut lab = lab(Others { blocks: [(there, block(1))].into(), ..Others::default() });
    let (liar, honest) = (PeerId::random(), PeerId::random());
    let lies: HashSet<Cid> = (0..MAX_FETCHES_PER_PEER * 2).map(|n| node_cid(&n.to_be_bytes())).collect();
    for cid in &lies {
        lab.fetcher.want(Want { cid: *cid, likely: vec![liar] });
    }
    let started = Instant::now();
    lab.fetcher.want(Want { cid: there, likely: vec![honest, liar] });
    assert_eq!(lab.arrivals.recv().await, Some(Arrival::Block { cid: there, data: block(1) }));
    assert!(started.elapsed() < SHORT.fetch);
    let mut unavailable = HashSet::new();
    while unavailable.len() < lies.len() {
        match lab.arrivals.recv().await {
            Some(Arrival::Unavailable(cid)) => unavailable.insert(cid),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(unavailable, lies);
    assert!(started.elapsed() >= SHORT.fetch * 2);
    assert!(lab.fetcher.lock().queue.by_peer.is_empty() && lab.fetcher.lock().asked.is_empty());
    lab.stop().await;
}

#[tokio::test]
async fn streams_are_short_until_they_are_worth_it() {
    let chain: Vec<Vec<u8>> = (0..1000).map(|n| [block(n), vec![0; 2048]].concat()).collect();
    let cids: Vec<Cid> = chain.iter().map(|block| node_cid(block)).collect();
    let peer = PeerId::random();
    let mut lab = lab(Others { chain: Some((peer, chain, usize::MAX)), ..Others::default() });
    for cid in &cids {
        if lab.fetcher.take_ahead(cid).is_none() {
            lab.want(*cid);
            let arrival = timeout(Duration::from_secs(30), lab.arrivals.recv()).await.unwrap();
            assert!(matches!(arrival, Some(Arrival::Block { cid: came, .. }) if came == *cid), "{arrival:?}");
        }
    }
    // the end of the chain is shorter than what was asked for: next time little is asked for again
    let asked =
        |lab: &Lab| lab.others.streams.lock().unwrap().iter().map(|r| r.max_bytes).collect::<Vec<_>>();
    let mut expected = vec![64 << 10, 512 << 10, 4 << 20];
    assert_eq!(asked(&lab), expected);
    lab.want(cids[999]);
    lab.arrivals.recv().await.unwrap();
    expected.push(64 << 10);
    assert_eq!(asked(&lab), expected);
    lab.stop().await;
}
