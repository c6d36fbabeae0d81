//! Answering: one task for each stream that another peer opens.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes};
use cluster_compat::types::PeerId;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::codec::{self, Incoming};
use super::methods::{self, Call, Kind, Known, Method, Policy};
use super::traced::Served;
use super::{MAX_HEAD_BYTES, TYPE_AUTHORIZATION, TYPE_SERVER};
use crate::wire::call::{Response, ServiceId};
use crate::{net, wire};

/// Calls of one peer that are worked on at once; the others of that peer wait.
const MAX_RUNNING: usize = 64;

/// Streams of one peer that are open at once; one more is reset. An original peer asks hundreds of things at most.
const MAX_OPEN: usize = 1024;

/// How long the name of a method, and its argument, may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a caller may take none of its answer: one that gathers lists may have to wait for the slowest.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Pause between looks whether the caller still wants its answer.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Bytes of replies that are gathered before they are sent, where more replies are at hand.
const WRITE_BYTES: usize = 32 << 10;

/// Longest that tasks of closed connections are waited for at the end.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Why a method has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It failed; the text is for the caller.
    #[error("{0}")]
    Method(String),
    /// What came is not its argument.
    #[error("msgpack decode error: {0}")]
    Argument(String),
}

impl From<wire::Error> for Failure {
    fn from(error: wire::Error) -> Self {
        Self::Argument(error.to_string())
    }
}

/// A reply in msgpack, or why there is none.
pub type Outcome = Result<Vec<u8>, Failure>;

/// Replies of a streaming method; after a failure there is nothing more.
pub type Outcomes = BoxStream<'static, Outcome>;

/// Arguments of a streaming method; after a failure there is nothing more.
pub type Arguments = BoxStream<'static, Result<Bytes, Failure>>;

/// What the methods do.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether a peer may call what is for trusted peers.
    fn is_trusted(&self, peer: &PeerId) -> bool;
    /// Whether nobody may call it here.
    fn is_closed(&self, call: Call) -> bool;
    /// A unary method. Dropped when the caller has gone.
    async fn call(&self, call: Call, argument: Bytes) -> Outcome;
    /// A streaming method.
    fn stream(&self, call: Call, arguments: Arguments) -> Outcomes;
}

/// Answers the streams that come, until stopped.
pub struct Server {
    handler: Arc<dyn Handler>,
    /// Open streams and the permits for running calls, by caller; held for a look-up, never over an await.
    callers: Arc<Mutex<HashMap<PeerId, Caller>>>,
}

struct Caller {
    n_open: usize,
    running: Arc<Semaphore>,
}

impl Server {
    /// With the methods of `handler`.
    pub fn new(handler: Arc<dyn Handler>) -> Self {
        Self { handler, callers: Arc::default() }
    }

    /// Answers the streams of a swarm until `stop` fires; then calls get a moment to end.
    pub async fn run(self, streams: mpsc::Receiver<(PeerId, net::Stream)>, stop: CancellationToken) {
        self.serve(streams, net::Stream::compat, stop).await;
    }

    pub(super) async fn serve<T, S>(
        self,
        mut streams: mpsc::Receiver<(PeerId, T)>,
        open: fn(T) -> S,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = calls.join_next() => on_end(ended),
                stream = streams.recv() => {
                    let Some((peer, stream)) = stream else { break };
                    let Some(place) = Place::take(&self.callers, peer) else {
                        warn!(target: "p2p-gorpc", %peer, "more than {MAX_OPEN} calls at once: one is reset");
                        continue;
                    };
                    let (handler, stream) = (Arc::clone(&self.handler), open(stream));
                    calls.spawn(async move {
                        let Ok(_permit) = Arc::clone(&place.running).acquire_owned().await else { return };
                        if let Err(cause) = answer(stream, peer, &*handler).await {
                            debug!(target: "p2p-gorpc", %peer, "call not answered: {cause}");
                        }
                    });
                }
            }
        }
        let all = async {
            while let Some(ended) = calls.join_next().await {
                on_end(ended)
            }
        };
        let _ = tokio::time::timeout(LAST_CALLS, all).await;
    }
}

fn on_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(target: "p2p-gorpc", %failure, "a call ended in a panic");
    }
}

/// A place among the open streams of a caller, given back when dropped.
struct Place {
    callers: Arc<Mutex<HashMap<PeerId, Caller>>>,
    peer: PeerId,
    running: Arc<Semaphore>,
}

impl Place {
    fn take(callers: &Arc<Mutex<HashMap<PeerId, Caller>>>, peer: PeerId) -> Option<Self> {
        let mut known = callers.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = known
            .entry(peer)
            .or_insert_with(|| Caller { n_open: 0, running: Arc::new(Semaphore::new(MAX_RUNNING)) });
        if caller.n_open >= MAX_OPEN {
            return None;
        }
        caller.n_open += 1;
        Some(Self { callers: Arc::clone(callers), peer, running: Arc::clone(&caller.running) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = known.get_mut(&self.peer) {
            caller.n_open -= 1;
            if caller.n_open == 0 {
                known.remove(&self.peer);
            }
        }
    }
}

/// Answers one call.
pub(super) async fn answer<S>(stream: S, peer: PeerId, handler: &dyn Handler) -> Result<(), codec::Error>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (mut incoming, mut outgoing) =
        (Incoming::new(reader), Outgoing { writer, pending: Vec::new(), served: None });
    let named = in_time(incoming.value(MAX_HEAD_BYTES)).await?;
    let service = match named {
        Ok(Some(data)) => ServiceId::decode(&data).map_err(|e| e.to_string()),
        Ok(None) => Err("EOF".to_owned()),
        Err(codec::Error::Io(cause)) => return Err(cause.into()),
        Err(cause) => Err(cause.to_string()),
    };
    let service = match service {
        Ok(service) => service,
        Err(cause) => {
            outgoing.service_error(ServiceId::default(), format!("error reading service ID: {cause}"));
            return outgoing.finish().await;
        }
    };
    let method = match methods::find(&service.service, &service.method) {
        Known::NoService => {
            let text = format!("rpc: can't find service {}", service.service);
            outgoing.service_error(service, text);
            return outgoing.finish().await;
        }
        Known::NoMethod => {
            let text = format!("rpc: can't find method {}", service.method);
            outgoing.service_error(service, text);
            return outgoing.finish().await;
        }
        Known::Method(method)
            if !handler.is_closed(method.call)
                && (method.policy == Policy::Open || handler.is_trusted(&peer)) =>
        {
            method
        }
        Known::Method(_) | Known::Closed => {
            let error =
                format!("client does not have permissions to call {}.{}", service.service, service.method);
            debug!(target: "p2p-gorpc", %peer, "{error}");
            outgoing.error(Response { service, error, error_type: TYPE_AUTHORIZATION }, NIL);
            return outgoing.finish().await;
        }
    };
    let served = Served::begin(method, &peer);
    outgoing.served.clone_from(&served);
    let answered = async {
        match method.kind {
            Kind::Unary { zero } => unary(incoming, outgoing, service, method, zero, handler).await,
            Kind::Streaming => streaming(incoming, outgoing, service, method, handler).await,
        }
    };
    match served {
        // apart, so that calls that nobody traces are no larger
        Some(served) => Box::pin(served.span.scope(answered)).await,
        None => answered.await,
    }
}

/// The body of an answer that has none.
const NIL: &[u8] = b"\xc0";

async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, codec::Error> {
    let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the request does not arrive");
    Ok(tokio::time::timeout(REQUEST_TIMEOUT, future).await.map_err(late)?)
}

async fn unary<S: AsyncRead + AsyncWrite>(
    mut incoming: Incoming<ReadHalf<S>>,
    mut outgoing: Outgoing<S>,
    service: ServiceId,
    method: &Method,
    zero: &[u8],
    handler: &dyn Handler,
) -> Result<(), codec::Error> {
    let outcome = match in_time(incoming.value(method.max_bytes)).await? {
        Ok(Some(argument)) => {
            if let Some(served) = &outgoing.served {
                served.received(argument.len());
            }
            tokio::select! {
                biased;
                outcome = handler.call(method.call, argument) => outcome,
                cause = outgoing.refused() => return Err(cause.into()),
            }
        }
        Ok(None) => {
            outgoing.error(Response { service, error: "EOF".into(), error_type: 0 }, NIL);
            return outgoing.finish().await;
        }
        Err(codec::Error::Io(cause)) => return Err(cause.into()),
        Err(cause) => Err(Failure::Argument(cause.to_string())),
    };
    match outcome {
        Ok(reply) => outgoing.reply(service, &reply),
        Err(failure) => outgoing.failure(service, &failure, zero),
    }
    outgoing.finish().await
}

async fn streaming<S: AsyncRead + AsyncWrite + Send + 'static>(
    incoming: Incoming<ReadHalf<S>>,
    mut outgoing: Outgoing<S>,
    service: ServiceId,
    method: &Method,
    handler: &dyn Handler,
) -> Result<(), codec::Error> {
    let max = method.max_bytes;
    let start = Some((incoming, outgoing.served.clone()));
    let arguments = stream::unfold(start, move |state| async move {
        let (mut incoming, served) = state?;
        match incoming.value(max).await {
            Ok(value) => value.map(|value| {
                if let Some(served) = &served {
                    served.received(value.len());
                }
                (Ok(value), Some((incoming, served)))
            }),
            Err(cause) => Some((Err(Failure::Argument(cause.to_string())), None)),
        }
    });
    let mut outcomes = handler.stream(method.call, arguments.boxed());
    let success = Response { service: service.clone(), ..Response::default() }.encode();
    loop {
        // what is at hand is sent together, and nothing waits for what is not
        let next = match futures::poll!(outcomes.next()) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                outgoing.flush().await?;
                tokio::select! {
                    biased;
                    next = outcomes.next() => next,
                    cause = outgoing.refused() => return Err(cause.into()),
                }
            }
        };
        match next {
            Some(Ok(reply)) => {
                outgoing.pending.put_slice(&success);
                outgoing.pending.put_slice(&reply);
                if outgoing.pending.len() >= WRITE_BYTES {
                    outgoing.flush().await?;
                }
            }
            Some(Err(failure)) => {
                outgoing.failure(service, &failure, NIL);
                return outgoing.finish().await;
            }
            None => return outgoing.finish().await,
        }
    }
}

struct Outgoing<S> {
    writer: WriteHalf<S>,
    pending: Vec<u8>,
    /// While calls are counted.
    served: Option<Arc<Served>>,
}

impl<S: AsyncRead + AsyncWrite> Outgoing<S> {
    fn reply(&mut self, service: ServiceId, body: &[u8]) {
        self.error(Response { service, ..Response::default() }, body);
    }

    fn failure(&mut self, service: ServiceId, failure: &Failure, zero: &[u8]) {
        match failure {
            Failure::Method(text) => {
                self.error(Response { service, error: text.clone(), error_type: 0 }, zero);
            }
            Failure::Argument(_) => self.service_error(service, failure.to_string()),
        }
    }

    fn service_error(&mut self, service: ServiceId, error: String) {
        self.error(Response { service, error, error_type: TYPE_SERVER }, NIL);
    }

    fn error(&mut self, head: Response, body: &[u8]) {
        if let Some(served) = &self.served
            && !head.error.is_empty()
        {
            served.failed(&head.error);
        }
        self.pending.put_slice(&head.encode());
        self.pending.put_slice(body);
    }

    async fn flush(&mut self) -> Result<(), codec::Error> {
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the answer is not taken");
        if let Some(served) = &self.served {
            served.sent(self.pending.len());
        }
        // a long answer is taken piece by piece, and each may take its time
        for piece in self.pending.chunks(WRITE_BYTES) {
            tokio::time::timeout(WRITE_TIMEOUT, self.writer.write_all(piece)).await.map_err(late)??;
        }
        self.pending.clear();
        tokio::time::timeout(WRITE_TIMEOUT, self.writer.flush()).await.map_err(late)??;
        Ok(())
    }

    /// Resolves when the caller has reset the stream, or is gone. Reading would not tell: there a reset looks like the
    /// end of what the caller has to say.
    async fn refused(&mut self) -> std::io::Error {
        loop {
            tokio::time::sleep(PROBE_EVERY).await;
            let probe =
                std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut self.writer).poll_write(cx, &[])));
            if let Poll::Ready(Err(cause)) = probe.await {
                return cause;
            }
        }
    }

    /// Sends what is left and ends our side.
    async fn finish(mut self) -> Result<(), codec::Error> {
        self.flush().await?;
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the stream does not close");
        tokio::time::timeout(WRITE_TIMEOUT, self.writer.shutdown()).await.map_err(late)??;
        Ok(())
    }
}
