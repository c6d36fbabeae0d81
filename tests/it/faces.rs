//! A whole peer whose APIs are served as an operator configures them: TLS, credentials, libp2p, several listeners.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluster_compat::testing::kubo::FakeKubo;
use libp2p::identity::Keypair;

use crate::support::{Peer, free_port};

/// Runs our ctl against an endpoint.
fn ctl(args: &[&str]) -> Output {
    // its own sockets block: nothing else of this process may wait for it meanwhile
    Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-ctl"))
        .args(args)
        .env_remove("CLUSTER_CREDENTIALS")
        .env("SSL_CERT_FILE", fixture("rsa.crt"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name).display().to_string()
}

fn text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_is_reached_by_libp2p_with_its_credentials_and_by_nobody_else() {
    let daemon = FakeKubo::start().await.unwrap();
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id().to_base58();
    let port = free_port();
    let mut peer = Peer::init(&daemon, |config| {
        let rest = &mut config["api"]["restapi"];
        rest["libp2p_listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{port}").into();
        rest["id"] = id.clone().into();
        rest["private_key"] = BASE64_STANDARD.encode(key.to_protobuf_encoding().unwrap()).into();
        rest["http_log_file"] = "access.log".into();
    });
    peer.start().await;
    let endpoint = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}");
    let run = |args: &[&str]| text(&ctl(&[&["-l", &endpoint], args].concat()));
    assert_eq!(run(&["version"]), (Some(0), "1.1.6\n".into()));
    assert_eq!(run(&["status"]), (Some(0), String::new()));
    // a long upload and its answer share the stream
    let file = peer.path("file");
    std::fs::write(&file, vec![7; 3 << 20]).unwrap();
    let (code, added) = run(&["add", &file.display().to_string()]);
    assert!(code == Some(0) && added.starts_with("added Qm"), "{added}");
    let wrong = endpoint.replace(&id, &Keypair::generate_ed25519().public().to_peer_id().to_base58());
    let (code, refusal) = text(&ctl(&["-l", &wrong, "version"]));
    assert!(
        code == Some(1) && refusal.contains("/version\": failed to dial: failed to dial 12D3"),
        "{refusal}"
    );
    let log = std::fs::read_to_string(peer.path("access.log")).unwrap();
    assert!(
        log.lines()
            .any(|line| line.starts_with("12D3KooW") && line.contains("\"GET /version HTTP/1.1\" 200 20"))
    );
    assert!(peer.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_with_tls_and_credentials_is_served_on_every_listener() {
    let daemon = FakeKubo::start().await.unwrap();
    let ports = [free_port(), free_port()];
    let mut peer = Peer::init(&daemon, |config| {
        let api = config["api"].as_object_mut().unwrap();
        let mut face = api["restapi"].clone();
        face["http_listen_multiaddress"] = serde_json::json!([
            format!("/ip4/127.0.0.1/tcp/{}", ports[0]),
            format!("/dns4/localhost/tcp/{}", ports[1]),
        ]);
        face["ssl_cert_file"] = fixture("rsa.crt").into();
        face["ssl_key_file"] = fixture("rsa.key").into();
        face["basic_auth_credentials"] = serde_json::json!({"user": "secret"});
        api.insert("pinsvcapi".into(), face);
    });
    peer.start().await;
    let checked =
        tls_client(reqwest::Certificate::from_pem(&std::fs::read(fixture("rsa.crt")).unwrap()).unwrap());
    for port in ports {
        let url = |target: &str| format!("https://localhost:{port}{target}");
        let refused = checked.get(url("/pins")).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 401);
        assert_eq!(refused.headers().get_all("www-authenticate").iter().count(), 2);
        let asked = checked.post(url("/token")).header("Authorization", "Basic dXNlcjpzZWNyZXQ=");
        let token: serde_json::Value =
            serde_json::from_str(&asked.send().await.unwrap().text().await.unwrap()).unwrap();
        let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
        let listed = checked.get(url("/pins")).header("Authorization", bearer).send().await.unwrap();
        assert_eq!(
            (listed.status().as_u16(), listed.text().await.unwrap()),
            (200, "{\"count\":0,\"results\":[]}\n".into())
        );
    }
    // ctl trusts what SSL_CERT_FILE names, and asks names before chains
    let endpoint = format!("/dns4/localhost/tcp/{}", ports[0]);
    let run = |args: &[&str]| text(&ctl(&[&["-l", &endpoint], args].concat()));
    let (code, refusal) = run(&["--basic-auth", "user:wrong", "id"]);
    assert_eq!((code, refusal.contains("Code: 401")), (Some(2), true), "{refusal}");
    let (code, refusal) = run(&["--basic-auth", "user:secret", "-f", "id"]);
    assert!(
        code == Some(2) && refusal.contains("Client sent an HTTP request to an HTTPS server."),
        "{refusal}"
    );
    let (code, refusal) = text(&ctl(&["-l", &format!("/ip4/127.0.0.2/tcp/{}", ports[0]), "--https", "id"]));
    assert_eq!(code, Some(1), "{refusal}");
    assert!(peer.stop().await.success());
}

fn tls_client(root: reqwest::Certificate) -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([root]).build().unwrap()
}
