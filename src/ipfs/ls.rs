//! `pin/ls`: one CID, or all of a type.

use std::collections::VecDeque;
use std::sync::Arc;

use cluster_compat::types::{Cid, parse_cid};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tracing::{error, warn};

use super::block::Outgoing;
use super::json::{self, Documents, Text};
use super::request::{Limit, Reply};
use super::{Cause, Client, Error, Inner, IpfsPinStatus};
use crate::observe::metrics;

/// End of the message for a CID that is not pinned, the only such text that is recognised.
const NOT_PINNED: &str = "not pinned";

json::object! {
    /// A line of `pin/ls`, or the error line that ends it.
    LsLine {
        cid: Text<'a> = "Cid",
        kind: Text<'a> = "Type",
        message: Text<'a> = "Message",
    }
}

impl Client {
    /// How the daemon holds `cid`, asked for the type that a pin of this depth would have.
    pub async fn pin_ls_cid(&self, cid: &Cid, depth: i64) -> Result<IpfsPinStatus, Error> {
        let kind = match depth {
            0 => "direct",
            -1 => "recursive",
            _ => {
                warn!(target: "apitypes", "bad pin depth: {depth}");
                "recursive"
            }
        };
        let path = format!("pin/ls?stream=true&arg={cid}&type={kind}");
        let reply = self.inner.daemon.post(&path, None, Outgoing::Empty, self.request_limit()).await;
        let mut reply = match reply {
            Err(Error::Daemon { message, .. }) if message.ends_with(NOT_PINNED) => {
                return Ok(IpfsPinStatus::Unpinned);
            }
            reply => reply?,
        };
        let mut documents = Documents::default();
        let mut found = None;
        while let Some(piece) = reply.piece().await? {
            let mut failure = None;
            let read = documents.feed(&piece, |lines| {
                if let Some(line) = lines.next::<LsLine<'_>>()? {
                    if line.message.0.is_empty() {
                        if !line.cid.0.is_empty() {
                            parse_cid(&line.cid.0)?;
                        }
                        found = Some(IpfsPinStatus::parse(&line.kind.0));
                    } else {
                        failure = Some(line.message.0.into_owned());
                    }
                }
                Ok(())
            });
            if let Err(text) = read {
                error!(target: "ipfshttp", "error parsing pin/ls?arg=cid response");
                return Err(Error::Reply(text));
            }
            if let Some(message) = failure {
                return Err(reply.failure(message));
            }
            if let Some(status) = found {
                // What follows the first line is the end of the reply, or a late failure in its trailer.
                reply.finish().await?;
                return Ok(status);
            }
        }
        error!(target: "ipfshttp", "error parsing pin/ls?arg=cid response");
        documents.finish().map_err(Error::Reply)?;
        Err(Error::Reply("EOF".into()))
    }

    /// Everything the daemon holds as one of `types`, type after type, as it arrives. The request timeout is for
    /// the whole listing. The first error ends it.
    pub fn pin_ls(
        &self,
        types: &'static [&'static str],
    ) -> BoxStream<'static, Result<(Cid, IpfsPinStatus), Error>> {
        // Boxed: the state is passed from item to item, and a reply is large.
        let listing = Box::new(Listing {
            client: Arc::clone(&self.inner),
            types,
            limit: self.request_limit(),
            reply: None,
            documents: Documents::default(),
            ready: VecDeque::new(),
            is_over: false,
            n_listed: 0,
        });
        stream::unfold(listing, |mut listing| async move {
            let item = listing.next().await?;
            if item.is_err() {
                listing.is_over = true;
                listing.reply = None;
            }
            Some((item, listing))
        })
        .boxed()
    }
}

/// A listing in progress. It holds one piece of the reply at a time.
struct Listing {
    client: Arc<Inner>,
    /// Those not asked for yet.
    types: &'static [&'static str],
    limit: Limit,
    reply: Option<Reply>,
    documents: Documents,
    /// The lines of the last piece.
    ready: VecDeque<Result<(Cid, IpfsPinStatus), Error>>,
    is_over: bool,
    /// Pins so far.
    n_listed: i64,
}

impl Listing {
    async fn next(&mut self) -> Option<Result<(Cid, IpfsPinStatus), Error>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if let Err(failure) = self.advance().await {
                return Some(Err(failure));
            }
        }
    }

    /// Reads one piece more, asks for the next type, or notices the end.
    async fn advance(&mut self) -> Result<(), Error> {
        let Some(reply) = self.reply.as_mut() else {
            let Some((kind, rest)) = self.types.split_first() else {
                self.is_over = true;
                metrics::IPFS_PINS.set(self.n_listed);
                return Ok(());
            };
            self.types = rest;
            let path = format!("pin/ls?stream=true&type={kind}");
            self.reply = Some(self.client.daemon.post(&path, None, Outgoing::Empty, self.limit).await?);
            return Ok(());
        };
        let piece = reply.piece().await.map_err(|failure| match failure {
            Error::Limit(Cause::DeadlineExceeded) => {
                let text = format!("aborting pin/ls operation: {}", Cause::DeadlineExceeded);
                error!(target: "ipfshttp", "{text}");
                Error::Reply(text)
            }
            Error::Reply(text) => Error::Reply(format!("error decoding ipfs pin: {text}")),
            failure => failure,
        })?;
        let undecodable = |text: String| Error::Reply(format!("error decoding ipfs pin: {text}"));
        let Some(piece) = piece else {
            self.documents.finish().map_err(undecodable)?;
            self.reply = None;
            return Ok(());
        };
        let (ready, n_listed) = (&mut self.ready, &mut self.n_listed);
        let read = self.documents.feed(&piece, |lines| {
            while let Some(line) = lines.next::<LsLine<'_>>()? {
                *n_listed += 1;
                if !line.message.0.is_empty() {
                    ready.push_back(Err(reply.failure(line.message.0.into_owned())));
                    return Ok(());
                }
                ready.push_back(Ok((parse_cid(&line.cid.0)?, IpfsPinStatus::parse(&line.kind.0))));
            }
            Ok(())
        });
        if let Err(text) = read {
            // The lines before the broken one are delivered first.
            self.ready.push_back(Err(undecodable(text)));
        }
        Ok(())
    }
}
