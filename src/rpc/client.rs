//! Calling another peer.

use std::time::Duration;

use bytes::Bytes;
use cluster_compat::types::PeerId;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::codec::Incoming;
use super::methods::{Call, Method};
use super::traced;
use super::{Error, MAX_HEAD_BYTES, PROTOCOL, TYPE_AUTHORIZATION};
use crate::net::{self, Network};
use crate::observe::trace::Kind;
use crate::wire::call::{Response, ServiceId};

/// Replies of a streaming method; after an error there is nothing more. Dropping them cancels the call.
pub type Replies = BoxStream<'static, Result<Bytes, Error>>;

/// Calls other peers. Clones share the swarm.
#[derive(Clone)]
pub struct Client {
    network: Network,
}

impl Client {
    /// Over a swarm.
    pub const fn new(network: Network) -> Self {
        Self { network }
    }

    /// One argument, one reply, within `limit` where there is one. Dropping the future cancels the call.
    pub async fn call(
        &self,
        peer: PeerId,
        call: Call,
        argument: Vec<u8>,
        limit: Option<Duration>,
    ) -> Result<Bytes, Error> {
        let mut span = traced::span(Kind::Client, call.method(), &peer);
        let called = async {
            let (stream, _) = self.network.open(peer, &[PROTOCOL]).await?;
            unary(stream.compat(), call.method(), &argument).await
        };
        let reply = match limit {
            None => called.await,
            Some(limit) => tokio::time::timeout(limit, called).await.unwrap_or(Err(Error::Deadline(limit))),
        };
        if let Err(cause) = &reply {
            span.fail(|| cause.to_string());
        }
        reply
    }

    /// Any number of arguments and replies, both at once; arguments are taken as long as replies are asked for.
    pub fn stream(&self, peer: PeerId, call: Call, arguments: BoxStream<'static, Bytes>) -> Replies {
        let network = self.network.clone();
        let mut span = traced::span(Kind::Client, call.method(), &peer);
        let is_traced = span.context().is_some();
        let opened = async move {
            match network.open(peer, &[PROTOCOL]).await {
                Ok((stream, _)) => streaming(stream.compat(), call.method(), arguments),
                Err(cause) => stream::iter([Err(cause.into())]).boxed(),
            }
        };
        let replies = opened.into_stream().flatten();
        if !is_traced {
            return replies.boxed();
        }
        let told = replies.inspect(move |reply| {
            if let Err(cause) = reply {
                span.fail(|| cause.to_string());
            }
        });
        told.boxed()
    }
}

fn service_id(method: &Method) -> ServiceId {
    ServiceId { service: method.service.into(), method: method.name.into() }
}

/// The write side stays open until the reply has come: the reference takes its end for a cancellation.
pub(super) async fn unary<S: AsyncRead + AsyncWrite>(
    stream: S,
    method: &Method,
    argument: &[u8],
) -> Result<Bytes, Error> {
    let (reader, mut writer) = tokio::io::split(stream);
    let request = [&service_id(method).encode(), argument].concat();
    // a server that refuses need not read on: its answer says more than the broken pipe
    let sent = async {
        writer.write_all(&request).await?;
        writer.flush().await
    };
    let sent = sent.await;
    let mut incoming = Incoming::new(reader);
    let reply = match pair(&mut incoming, &mut None, &[], method).await {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(Error::NoAnswer),
        Err(error) => Err(error),
    };
    if let (Err(Error::NoAnswer | Error::Broken(_)), Err(cause)) = (&reply, sent) {
        return Err(Error::Broken(cause.into()));
    }
    // ends our side as it should, where the other has not yet
    let _ = writer.shutdown().now_or_never();
    reply
}

/// The next reply; `None` where the stream ends instead. The head it has read is kept in `head` when it is dropped.
async fn pair<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    head: &mut Option<Response>,
    success: &[u8],
    method: &Method,
) -> Result<Option<Bytes>, Error> {
    let response = match head {
        Some(response) => response,
        None => {
            let Some(data) = incoming.value(MAX_HEAD_BYTES).await? else { return Ok(None) };
            // all heads of a long list are alike as a rule
            let is_success = data.as_ref() == success;
            head.insert(if is_success { Response::default() } else { Response::decode(&data)? })
        }
    };
    if !response.error.is_empty() {
        let text = std::mem::take(&mut response.error);
        return Err(match response.error_type {
            TYPE_AUTHORIZATION => Error::Authorization(text),
            0 => Error::Method(text),
            _ => Error::Server(text),
        });
    }
    let body = incoming.value(method.max_bytes).await?.ok_or(Error::NoAnswer)?;
    *head = None;
    Ok(Some(body))
}

struct Streaming<S> {
    incoming: Incoming<ReadHalf<S>>,
    head: Option<Response>,
    /// The head of each reply as the reference writes it, and we do.
    success: Vec<u8>,
    method: &'static Method,
    /// Sends the name, the arguments and the end; `None` once that is done.
    sending: Option<BoxFuture<'static, (WriteHalf<S>, std::io::Result<()>)>>,
    /// The other half of `incoming`, once everything is sent.
    writer: Option<WriteHalf<S>>,
    /// Why it was not done to the end.
    unsent: Option<std::io::Error>,
}

pub(super) fn streaming<S: Duplex>(
    stream: S,
    method: &'static Method,
    mut arguments: BoxStream<'static, Bytes>,
) -> Replies {
    let (reader, mut writer) = tokio::io::split(stream);
    let sending = async move {
        let sent = async {
            writer.write_all(&service_id(method).encode()).await?;
            writer.flush().await?;
            while let Some(argument) = arguments.next().await {
                writer.write_all(&argument).await?;
                writer.flush().await?;
            }
            // the reference ends its side only after ours
            writer.shutdown().await
        };
        let sent = sent.await;
        (writer, sent)
    };
    let (incoming, sending) = (Incoming::new(reader), Some(sending.boxed()));
    let success = Response { service: service_id(method), ..Response::default() }.encode();
    let state = Streaming { incoming, head: None, success, method, sending, writer: None, unsent: None };
    stream::unfold(Some(state), |state| async move { state?.next().await }).boxed()
}

impl<S: Duplex> Streaming<S> {
    /// The next reply, and the rest of the call where there may be more.
    async fn next(mut self) -> Option<(Result<Bytes, Error>, Option<Self>)> {
        loop {
            let next = pair(&mut self.incoming, &mut self.head, &self.success, self.method);
            let reply = match &mut self.sending {
                None => next.await,
                Some(sending) => tokio::select! {
                    biased;
                    reply = next => reply,
                    (writer, sent) = sending => {
                        self.sending = None;
                        self.writer = Some(writer);
                        // who refuses need not read on: its answer says more
                        self.unsent = sent.err();
                        continue;
                    }
                },
            };
            return match reply {
                Ok(Some(reply)) => Some((Ok(reply), Some(self))),
                Ok(None) => self.verdict().await.err().map(|error| (Err(error), None)),
                Err(error) => Some((Err(error), None)),
            };
        }
    }

    /// Whether a stream that ended has ended well.
    async fn verdict(self) -> Result<(), Error> {
        if let Some(cause) = self.unsent {
            return Err(Error::Broken(cause.into()));
        }
        // an end before all arguments were taken is no success
        let writer = self.writer.ok_or(Error::NoAnswer)?;
        let mut stream = self.incoming.into_reader().unsplit(writer);
        if stream.is_cut().await { Err(Error::NoAnswer) } else { Ok(()) }
    }
}

/// A stream to another peer. The end of one whose connection was lost looks like any other.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether it ended because of that.
    fn is_cut(&mut self) -> impl Future<Output = bool> + Send;
}

impl Duplex for Compat<net::Stream> {
    async fn is_cut(&mut self) -> bool {
        self.get_mut().is_cut().await
    }
}
