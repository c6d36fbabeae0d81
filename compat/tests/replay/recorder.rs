//! The recorder: what it takes from a server can be replayed against it, and shows where another differs.

use std::fs;

use cluster_compat::testing::golden::record::{Ports, record};
use cluster_compat::testing::golden::{Data, Recording, Replay};

use super::stage;

const REQUESTS: &str = r#"{"about": "a pin and who holds it", "steps": [
{"method":"GET","target":"/id"},
{"method":"POST","target":"/pins/bafkqabdsnuqgc?name=one","headers":[["X-Odd","{cluster}"]]},
{"method":"GET","target":"/allocations/bafkqabdsnuqgc"},
{"to":"proxy","method":"POST","target":"/api/v0/pin/ls"},
{"raw":{"text":"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}}
]}"#;

#[tokio::test]
async fn what_is_recorded_can_be_replayed_and_tells_other_servers_apart() {
    let server = stage("rest/redirects").await;
    let requests: Recording = serde_json::from_str(REQUESTS).unwrap();
    let ports = Ports::from([(9096, "cluster".to_owned())]);
    let recording = record(requests, &server.faces, &ports, "record requests.json").await.unwrap();
    assert!(recording.recorded.starts_with("ipfs-cluster 1.1.6, "), "{}", recording.recorded);
    assert!(recording.recorded.ends_with(", by `record requests.json`"), "{}", recording.recorded);
    let numbers: Vec<usize> = recording.steps.iter().map(|step| step.no).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let text = recording.to_text();
    assert!(text.contains("/tcp/{cluster}/p2p/") && !text.contains("/tcp/9096/"), "{text}");
    assert!(text.contains("\\\"timestamp\\\":\\\"<time>"), "{text}");
    assert!(text.contains("404 Not Found") && text.lines().count() == 7, "{text}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.json");
    fs::write(&file, &text).unwrap();
    let replay = || Replay::load(&file, server.faces.clone()).unwrap();
    let outcome = replay().with_ports(ports.clone()).run(None).await;
    assert_eq!((outcome.n_compared, outcome.differences.len()), (5, 0), "{:?}", outcome.differences);
    let outcome = replay().run(None).await;
    assert_eq!(outcome.differences.len(), 1, "ports that have no name differ: {:?}", outcome.differences);

    let mut other = recording.clone();
    other.steps[2].answer.body = Data::Text("{}".into());
    other.save(&file).unwrap();
    let outcome = replay().with_ports(ports).run(None).await;
    let differing: Vec<usize> = outcome.differences.iter().map(|difference| difference.no).collect();
    assert_eq!(differing, [2]);
}

#[tokio::test]
async fn a_step_without_an_address_is_named() {
    let server = stage("rest/redirects").await;
    let requests = r#"{"steps": [{"to":"pinsvc","method":"GET","target":"/pins"}]}"#;
    let mut faces = server.faces.clone();
    faces.retain(|face, _| *face == Default::default());
    let failed = record(serde_json::from_str(requests).unwrap(), &faces, &Ports::new(), "x").await;
    assert_eq!(failed.unwrap_err().to_string(), "step 0 goes to Pinsvc, which has no address");
}
