//! The documents at `/openapi.json` against the tables of routes, the parsers and each other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cluster_compat::api::ClusterApi;
use cluster_compat::config::HttpApi;
use cluster_compat::http::listen::Listener;
use cluster_compat::http::openapi;
use cluster_compat::pinsvc::PinSvc;
use cluster_compat::rest::Rest;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::golden::{self, Answer, Step};
use cluster_compat::types::{AddParams, PinOptions, parse_multiaddr};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn rest() -> Value {
    serde_json::from_slice(&openapi::REST.json()).unwrap()
}

fn pinsvc() -> Value {
    serde_json::from_slice(&openapi::PINSVC.json()).unwrap()
}

/// Method and path of every operation.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = METHODS.iter().filter(|method| item.get(**method).is_some());
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    operations.collect()
}

/// A pattern of a route as OpenAPI writes it: without what its parts may hold.
fn as_path(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| match segment.split_once(':') {
        Some((name, _)) => format!("{name}}}"),
        None => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

fn routes(table: impl Iterator<Item = (&'static str, &'static str)>) -> BTreeSet<(String, String)> {
    table.map(|(method, pattern)| (method.to_owned(), as_path(pattern))).collect()
}

/// Follows a `$ref`.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(&path[1..]).unwrap_or_else(|| panic!("{path} leads nowhere")),
        None => value,
    }
}

/// Names of the parameters of an operation that stand in a place.
fn parameters(document: &Value, method: &str, path: &str, place: &str) -> BTreeSet<String> {
    let item = &document["paths"][path];
    let lists = [&item["parameters"], &item[method]["parameters"]];
    let all = lists.iter().filter_map(|list| list.as_array()).flatten();
    let all = all.map(|parameter| resolved(document, parameter)).filter(|parameter| parameter["in"] == place);
    all.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

fn check_references(document: &Value, value: &Value) {
    if value.get("$ref").is_some() {
        resolved(document, value);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        Value::Object(map) => map.values().for_each(|item| check_references(document, item)),
        _ => {}
    }
}

/// Names in quotes behind a text in a source of this crate.
fn names_behind(file: &str, text: &str) -> BTreeSet<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let names = source.split(text).skip(1).filter_map(|rest| rest.split('"').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    assert_eq!(operations(&rest()), routes(Rest::routes()));
    assert_eq!(operations(&pinsvc()), routes(PinSvc::routes()));
}

#[test]
fn references_lead_somewhere_and_operations_are_whole() {
    for document in [rest(), pinsvc()] {
        check_references(&document, &document);
        let mut ids = BTreeSet::new();
        for (method, path) in operations(&document) {
            let method = method.to_lowercase();
            let operation = &document["paths"][&path][&method];
            let what = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}");
            let has_body =
                method == "post" && ["/add", "/peers", "/pins/{requestID}"].contains(&path.as_str());
            assert!(!has_body || operation["requestBody"]["content"].is_object(), "{what}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolved(&document, response);
                let is_empty = response["content"].is_null();
                assert_eq!(
                    is_empty,
                    status == "204" || (path.contains("requestID") && status == "202" && method == "delete"),
                    "{what} {status}"
                );
                assert!(is_empty || response["content"]["application/json"]["schema"].is_object(), "{what}");
            }
            let in_path: BTreeSet<String> =
                path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect();
            assert_eq!(parameters(&document, &method, &path, "path"), in_path, "{what}");
        }
    }
}

#[test]
fn parameters_that_are_read_are_listed() {
    let document = rest();
    let mut options: BTreeSet<String> = names_behind("types/options.rs", "query.get(\"");
    options.extend(names_behind("types/options.rs", "factor(\""));
    options.insert("meta".into());
    for (method, path) in [("post", "/pins/{hash}"), ("post", "/pins/{keyType}/{path}")] {
        assert_eq!(parameters(&document, method, path, "query"), options, "{method} {path}");
    }
    // the other way round: what our client writes is there
    let written = PinOptions::default().to_query().encode();
    let written: BTreeSet<String> =
        written.split('&').filter_map(|pair| pair.split('=').next()).map(str::to_owned).collect();
    assert!(written.is_subset(&options), "{written:?}");

    let mut uploads = options.clone();
    uploads.extend(names_behind("types/add.rs", "query.get(\""));
    uploads.extend(names_behind("types/add.rs", "parse_bool(query, \""));
    uploads.extend(["chunker".to_owned(), "hash".to_owned()]);
    assert_eq!(parameters(&document, "post", "/add", "query"), uploads);
    let written = AddParams::default().to_query().encode();
    let written: BTreeSet<String> =
        written.split('&').filter_map(|pair| pair.split('=').next()).map(str::to_owned).collect();
    assert!(written.is_subset(&uploads), "{written:?}");

    let mut elsewhere: BTreeSet<String> = BTreeSet::new();
    for (method, path) in operations(&document) {
        elsewhere.extend(parameters(&document, &method.to_lowercase(), &path, "query"));
    }
    let read = ["mod", "status", "allocations", "health", "peers"];
    let read = read.iter().flat_map(|file| names_behind(&format!("rest/{file}.rs"), "query.get(\""));
    for name in read {
        assert!(elsewhere.contains(&name), "{name} is read and not listed");
    }

    let document = pinsvc();
    let mut read = names_behind("pinsvc/types.rs", "query.get(\"");
    read.extend(names_behind("pinsvc/types.rs", "time(\""));
    assert_eq!(parameters(&document, "get", "/pins", "query"), read);
}

async fn served(serve: impl FnOnce(Vec<Listener>, Arc<dyn ClusterApi>) -> JoinSet<()>) -> Answer {
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let port: u16 = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    let _serving = serve(vec![listener], Arc::new(FakeCluster::new()));
    golden::exchange(([127, 0, 0, 1], port).into(), &Step::request("GET", "/openapi.json")).await.unwrap()
}

#[tokio::test]
async fn both_faces_serve_their_document() {
    let answer = served(|listeners, api| {
        let face = Rest::new(&HttpApi::rest(), Path::new("."), api).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(face.serve(listeners, CancellationToken::new()));
        serving
    })
    .await;
    assert_eq!((answer.status, answer.body.bytes()), (200, openapi::REST.json().to_vec()));
    let answer = served(|listeners, api| {
        let face = PinSvc::new(&HttpApi::pinsvc(), Path::new("."), api).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(face.serve(listeners, CancellationToken::new()));
        serving
    })
    .await;
    assert_eq!((answer.status, answer.body.bytes()), (200, openapi::PINSVC.json().to_vec()));
}
