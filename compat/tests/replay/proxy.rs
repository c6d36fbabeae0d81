//! The IPFS proxy.

use cluster_compat::types::{Pin, parse_cid};

use super::{replay, stage};

const ALPHA: &str = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
const CHARLIE: &str = "QmbSb6EFBiVTGUppGuvZhxSfTSuAcXGMZhWaMmv1CtU4qE";
const ECHO: &str = "QmeVuM3FUyCqsZHvTea4ni2tee9ZeE9JExJ7oZsNpHXK1d";
const ROOT: &str = "QmQRiXcmgocXXUZHXdndiE9LSKM45YJnCFsyjjPmg2p8MN";

#[tokio::test]
async fn pins_are_added_as_recorded() {
    let stage = stage("proxy/pin-add").await;
    stage.insert_paths(&[
        (&format!("/ipfs/{ROOT}/a.txt"), ALPHA),
        (&format!("/ipfs/{ROOT}/sub/c.txt"), CHARLIE),
        (&format!("/ipfs/{ECHO}/"), ECHO),
    ]);
    stage.replay().await;
}

#[tokio::test]
async fn pins_are_removed_as_recorded() {
    let stage = stage("proxy/pin-rm").await;
    stage.cluster.insert_pin(Pin::new(parse_cid(ROOT).unwrap()));
    stage.insert_paths(&[(&format!("/ipfs/{ROOT}/a.txt"), ALPHA)]);
    stage.replay().await;
}

#[tokio::test]
async fn pins_are_listed_as_recorded() {
    replay("proxy/pin-ls").await;
}

#[tokio::test]
async fn paths_and_methods_lead_where_they_were_recorded_to() {
    replay("proxy/path-arguments-and-methods").await;
}

#[tokio::test]
async fn refused_uploads_are_as_recorded() {
    replay("proxy/add-errors").await;
}

#[tokio::test]
async fn uploads_that_would_only_be_hashed_are_as_ruled() {
    replay("proxy/add-only-hash").await;
}

#[tokio::test]
async fn what_passes_through_passes_as_recorded() {
    replay("proxy/pass-through").await;
}

#[tokio::test]
async fn bodies_pass_through_as_recorded() {
    replay("proxy/pass-through-bodies").await;
}

#[tokio::test]
async fn errors_pass_through_as_recorded() {
    replay("proxy/pass-through-errors").await;
}

#[tokio::test]
async fn request_headers_pass_through_as_recorded() {
    replay("proxy/pass-through-request-headers").await;
}

#[tokio::test]
async fn updates_are_as_recorded() {
    replay("proxy/pin-update").await;
}

#[tokio::test]
async fn followers_are_asked_as_recorded() {
    replay("proxy/follower-mode").await;
}

#[tokio::test]
async fn blocks_are_put_as_recorded() {
    replay("proxy/block-put").await;
}

#[tokio::test]
async fn nodes_are_put_as_recorded() {
    replay("proxy/dag-put").await;
}

#[tokio::test]
async fn repositories_are_told_as_recorded() {
    replay("proxy/repo").await;
}

#[tokio::test]
async fn requests_that_are_none_are_refused_as_recorded() {
    replay("proxy/raw-requests").await;
}

#[tokio::test]
async fn headers_come_from_the_daemon_as_recorded() {
    replay("proxy/headers-from-daemon").await;
}

#[tokio::test]
async fn configured_headers_come_from_the_daemon_as_recorded() {
    replay("proxy/headers-extra").await;
}
