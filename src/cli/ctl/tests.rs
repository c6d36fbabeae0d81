//! Whole command lines against the REST API of a cluster in memory.

use std::path::Path;
use std::sync::Arc;

use cluster_compat::api;
use cluster_compat::config::HttpApi;
use cluster_compat::http::listen::Listener;
use cluster_compat::rest::Rest;
use cluster_compat::testing::cluster::{FakeCluster, PEER};
use cluster_compat::types::parse_cid;
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::{app, run_command};
use crate::cli::table::Parsed;

const CID: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";

/// A REST API over `cluster`, and the address to ask it at. It ends with the guard.
async fn served(cluster: &FakeCluster) -> (String, tokio_util::sync::DropGuard) {
    let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().to_string();
    let rest = Rest::new(&HttpApi::rest(), Path::new("/"), Arc::new(cluster.clone())).unwrap();
    let stop = CancellationToken::new();
    let tasks = crate::task::Tasks::new();
    tasks.spawn("rest", rest.serve(vec![listener], stop.clone()));
    (address, stop.drop_guard())
}

/// Runs a command line; its exit code and what it printed.
async fn ctl(host: &str, line: &[&str]) -> (u8, String) {
    let args = ["--host", host].iter().chain(line).map(Into::into).collect();
    let run = match app::app().parse(args, &|_| None) {
        Parsed::Run(run) => run,
        Parsed::Done(done) => return (done.code, done.stdout + &done.stderr),
    };
    let mut printed = Vec::new();
    let mut output = Output::new(run.globals.string("encoding") == "json", &mut printed);
    let result = run_command(&run, &mut output).await;
    let code = output.finish(result);
    (code, String::from_utf8(printed).unwrap())
}

#[tokio::test]
async fn a_pin_is_added_shown_listed_and_removed() {
    let cluster = FakeCluster::new();
    let (host, _guard) = served(&cluster).await;
    let (code, text) = ctl(&host, &["pin", "add", "--ns", "-n", "my pin", CID]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with(&format!("{CID} | my pin | PIN | Repl. Factor: ")), "{text}");
    let (code, text) = ctl(&host, &["status", CID]).await;
    assert_eq!(code, 0);
    assert!(text.starts_with(&format!("{CID} | my pin:\n    > peer0                : PINNED | ")), "{text}");
    assert_eq!(ctl(&host, &["pin", "ls"]).await.1.lines().count(), 1);
    let (code, text) = ctl(&host, &["--enc", "json", "pin", "ls", CID]).await;
    assert_eq!(code, 0);
    assert!(text.starts_with("{\n    \"replication_factor_min\""), "{text}");
    assert_eq!(ctl(&host, &["pin", "rm", "--ns", CID]).await.0, 0);
    let refused = (2, "An error occurred:\n  Code: 404\n  Message: pin is not part of the pinset\n".into());
    assert_eq!(ctl(&host, &["pin", "ls", CID]).await, refused);
    assert!(cluster.pins().is_empty());
}

#[tokio::test]
async fn files_are_added_and_shown_in_every_form() {
    let cluster = FakeCluster::new();
    let (host, _guard) = served(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "hello\n").unwrap();
    let path = path.to_str().unwrap();
    let (code, text) = ctl(&host, &["add", path]).await;
    assert_eq!(code, 0, "{text}");
    let cid = text.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(text, format!("added {cid} a.txt\n"));
    assert_eq!(ctl(&host, &["add", "-Q", path]).await, (0, format!("{cid}\n")));
    let (_, text) = ctl(&host, &["--enc", "json", "add", "--no-stream", "-q", path]).await;
    assert!(text.starts_with("[\n    {\n        \"name\": \"a.txt\",\n"), "{text}");
    assert_eq!(ctl(&host, &["add"]).await, (1, String::new()));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_named_with_the_url() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let config =
        HttpApi { ssl_cert_file: "rsa.crt".into(), ssl_key_file: "rsa.key".into(), ..HttpApi::rest() };
    let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().to_owned();
    let cluster = FakeCluster::new();
    let web = Rest::new(&config, &folder, Arc::new(cluster.clone())).unwrap();
    let stop = CancellationToken::new();
    let tasks = crate::task::Tasks::new();
    tasks.spawn("web", web.serve(vec![listener], stop.clone()));
    let _web = stop.drop_guard();
    let (host, _guard) = served(&cluster).await;
    let url = format!("https://127.0.0.1:{port}/version");
    let (code, text) = ctl(&host, &["add", &url]).await;
    assert_eq!(code, 1);
    assert!(text.contains(&format!("Get \"{url}\": invalid peer certificate")), "{text}");
}

#[tokio::test]
async fn the_final_root_of_a_sharded_add_is_no_shard() {
    let cluster = FakeCluster::new();
    let (host, _guard) = served(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard-1");
    std::fs::write(&path, "hello\n").unwrap();
    let path = path.to_str().unwrap();
    let (code, text) = ctl(&host, &["add", "-Q", "--shard", "--shard-size", "1000", path]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.lines().count(), 1);
    assert!(cluster.calls().iter().any(|call| call.contains("add")), "{:?}", cluster.calls());
    let (code, _) = ctl(&host, &["add", "--shard-size=-1", path]).await;
    assert_eq!(code, 1);
    let output = |name: &str, cid: &str| {
        super::add::is_index(
            &cluster_compat::types::AddedOutput {
                name: name.into(),
                cid: parse_cid(cid).ok(),
                ..Default::default()
            },
            "n",
        )
    };
    let cbor = "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua";
    assert!(output("shard-1", cbor) && output("n-clusterDAG", cbor));
    assert!(!output("shard-1", CID) && !output("-clusterDAG", cbor) && !output("shard-x", cbor));
}

#[tokio::test]
async fn late_errors_come_after_the_items() {
    let cluster = FakeCluster::new();
    cluster.fail_late("peers", api::Error::internal("one peer is gone"));
    let (host, _guard) = served(&cluster).await;
    let (code, text) = ctl(&host, &["peers", "ls"]).await;
    assert_eq!(code, 2);
    assert!(text.starts_with(PEER), "{text}");
    assert!(text.ends_with("An error occurred:\n  Code: 500\n  Message: one peer is gone\n"), "{text}");
}

#[tokio::test]
async fn a_status_that_cannot_be_had_is_an_error_alone() {
    let cluster = FakeCluster::new();
    cluster.fail("status", api::Error::internal("no"));
    let (host, _guard) = served(&cluster).await;
    let expected = "An error occurred:\n  Code: 500\n  Message: no\n";
    assert_eq!(ctl(&host, &["status", CID]).await, (2, expected.into()));
}

#[tokio::test]
async fn old_commands_are_answered_by_what_replaced_them() {
    let cluster = FakeCluster::new();
    let (host, _guard) = served(&cluster).await;
    ctl(&host, &["pin", "add", "--ns", CID]).await;
    let (code, text) = ctl(&host, &["sync"]).await;
    assert_eq!(code, 0);
    assert!(text.starts_with(&parse_cid(CID).unwrap().to_string()), "{text}");
    assert_eq!(ctl(&host, &["member", "ls"]).await, ctl(&host, &["peers", "ls"]).await);
    let (_, commands) = ctl(&host, &["commands"]).await;
    assert_eq!(commands.lines().count(), 22);
    assert!(!commands.contains("sync") && !commands.contains("member"));
}

#[tokio::test]
async fn wrong_arguments_are_refused_before_anything_is_sent() {
    let cluster = FakeCluster::new();
    let (host, _guard) = served(&cluster).await;
    for line in [
        &["--enc", "xml", "id"][..],
        &["--secret", "zz", "id"],
        &["pin", "add", "x"],
        &["pin", "add", "--expire-in", "soon", CID],
        &["pin", "add", "--metadata", "x", CID],
        &["pin", "add", "--allocations", "x", CID],
        &["status", CID, "zz"],
        &["status", "--filter", "nosuch"],
        &["peers", "rm", "x"],
        &["add", "nothere"],
    ] {
        assert_eq!(ctl(&host, line).await, (1, String::new()), "{line:?}");
    }
    assert_eq!(cluster.calls(), Vec::<String>::new());
    assert_eq!(ctl("foo", &["id"]).await, (1, String::new()));
}
