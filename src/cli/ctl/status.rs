//! Where pins stand on the peers, and trying again.

use cluster_compat::client::status_filter;
use cluster_compat::types::TrackerStatus;
use futures::StreamExt;

use super::output::{Failure, Output};
use super::{Request, cid};

/// `status`
pub(super) async fn status(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let cids = request.cids()?;
    match cids[..] {
        [] => {
            let text = request.flags.string("filter");
            let filter = TrackerStatus::parse_filter(text);
            if filter == TrackerStatus::UNDEFINED && !text.is_empty() {
                return Err(Failure::new("parsing filter flag", "invalid filter name"));
            }
            output.stream(request.client.status_all(&status_filter(filter), request.local())).await
        }
        [cid] => output.show(&request.client.status(cid, request.local()).await?),
        _ => output.stream(request.client.status_cids(&cids, request.local())).await,
    }
}

/// `recover`
pub(super) async fn recover(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    match request.arg(0).as_str() {
        "" => output.stream(request.client.recover_all(request.local())).await,
        text => output.show(&request.client.recover(cid(text)?, request.local()).await?),
    }
}

/// `sync`, of old releases: recovers, then shows the status.
pub(super) async fn sync(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    if request.args.is_empty() {
        let mut queued = request.client.recover_all(request.local());
        while let Some(item) = queued.next().await {
            item?;
        }
        output.stream(request.client.status_all("", request.local())).await
    } else {
        recover(request, output).await
    }
}
