//! The REST API.

use cluster_compat::testing::golden::{Face, Recording};
use cluster_compat::types::GlobalPinInfo;

use super::{replay, stage};

#[tokio::test]
async fn methods_and_paths_are_matched_as_recorded() {
    replay("rest/routes-methods").await;
}

#[tokio::test]
async fn redirects_are_as_recorded() {
    replay("rest/redirects").await;
}

#[tokio::test]
async fn answers_about_the_peer_are_as_recorded() {
    replay("rest/info-single-peer").await;
}

#[tokio::test]
async fn every_form_of_a_cid_is_as_recorded() {
    replay("rest/cid-forms").await;
}

#[tokio::test]
async fn pin_options_are_as_recorded() {
    replay("rest/pin-options").await;
}

#[tokio::test]
async fn bad_pin_options_are_refused_and_nothing_is_executed() {
    replay("rest/pin-options-bad").await;
}

#[tokio::test]
async fn replication_factors_are_as_recorded() {
    replay("rest/pin-options-range").await;
}

#[tokio::test]
async fn paths_are_as_recorded() {
    let stage = stage("rest/path-pins").await;
    let root = "/ipfs/bafybeigxhyyshaovknmxuqstphof2nyek54wqgvu5om5fkwzklsb4se63u";
    stage.insert_paths(&[
        (&format!("{root}/f.txt"), "bafkreid2mwwjco65icsyqhn2gbjosmva5ujbogr7mem4bksjds5xhsa5j4"),
        (&format!("{root}/sub"), "bafybeibn2iazo3xas3qeixk7ixeykiasybvflaszpeuyt3ds6xbmi6p74i"),
    ]);
    stage.replay().await;
}

#[tokio::test]
async fn configured_headers_are_added_as_recorded() {
    replay("rest/custom-headers").await;
}

#[tokio::test]
async fn status_filters_are_as_recorded() {
    let stage = stage("rest/status-filter").await;
    let recording = Recording::load(&stage.path).unwrap();
    let listing =
        recording.steps.iter().find(|step| step.to == Face::Rest && step.target == "/pins").unwrap();
    for line in listing.answer.body.text().lines() {
        stage.cluster.insert_info(serde_json::from_str::<GlobalPinInfo>(line).unwrap());
    }
    stage.replay().await;
}

#[tokio::test]
async fn lists_of_cids_are_as_recorded() {
    replay("rest/status-cids").await;
}

#[tokio::test]
async fn pin_type_filters_are_as_recorded() {
    replay("rest/allocations-filter").await;
}

#[tokio::test]
async fn direct_pins_are_as_ruled() {
    replay("rest/mode-direct").await;
}

#[tokio::test]
async fn lives_of_pins_are_as_recorded() {
    replay("rest/pin-life").await;
}

#[tokio::test]
async fn updates_of_pins_are_as_recorded() {
    replay("rest/pin-update").await;
}

#[tokio::test]
async fn requests_that_are_none_are_refused_as_recorded() {
    replay("rest/http-framing").await;
}

#[tokio::test]
async fn garbage_collections_are_as_recorded() {
    replay("rest/repo-gc").await;
}

#[tokio::test]
async fn followers_refuse_writes_as_recorded() {
    replay("rest/follower-mode").await;
}
