//! ipfs-api-backend-hyper, pointed at the IPFS proxy. Each step tells how it went as a line of JSON.

use std::fmt::Display;
use std::future::Future;
use std::io::Cursor;
use std::time::Duration;

use futures::TryStreamExt;
use ipfs_api_backend_hyper::{IpfsApi, IpfsClient, TryFromUri};
use serde_json::{json, Value};

/// Runs a step and prints what became of it. Gives what it found.
async fn step<T, E: Display>(name: &str, action: impl Future<Output = Result<(Value, T), E>>) -> Option<T> {
    let (ok, value, result) = match tokio::time::timeout(Duration::from_secs(30), action).await {
        Ok(Ok((value, result))) => (true, value, Some(result)),
        Ok(Err(error)) => (false, json!(error.to_string().lines().next()), None),
        Err(_) => (false, json!("no answer within 30 s"), None),
    };
    println!("{}", json!({ "step": name, "ok": ok, "value": value }));
    result
}

type Failure = ipfs_api_backend_hyper::Error;

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_default();
    let ipfs = match IpfsClient::from_str(&url) {
        Ok(ipfs) => ipfs,
        Err(error) => panic!("{url}: {error}"),
    };

    step("id", async {
        let id = ipfs.id(None).await?;
        Ok::<_, Failure>((json!([id.id.starts_with("12D3"), !id.addresses.is_empty()]), ()))
    })
    .await;
    step("version", async { Ok::<_, Failure>((json!(ipfs.version().await?.version), ())) }).await;
    let file = step("add file", async {
        let added = ipfs.add(Cursor::new("hello clients\n")).await?;
        Ok::<_, Failure>((json!([added.name, added.hash, added.size]), added.hash))
    })
    .await
    .unwrap_or_default();
    let folder = step("add folder", async {
        let folder = std::env::temp_dir().join(format!("clients-{}", std::process::id())).join("a");
        std::fs::create_dir_all(folder.join("b"))?;
        for path in ["x.txt", "y.txt", "b/z.txt"] {
            std::fs::write(folder.join(path), format!("a/{path}"))?;
        }
        let added = ipfs.add_path(&folder).await;
        std::fs::remove_dir_all(folder.parent().unwrap_or(&folder))?;
        let mut names: Vec<String> =
            added?.into_iter().map(|entry| format!("{} {}", entry.name, entry.hash)).collect();
        names.sort();
        let root = names.first().and_then(|name| name.split_once(' ')).map(|(_, hash)| hash.to_owned());
        Ok::<_, Box<dyn std::error::Error>>((json!(names), root.unwrap_or_default()))
    })
    .await
    .unwrap_or_default();
    step("cat", async {
        let bytes = ipfs.cat(&file).map_ok(|piece| piece.to_vec()).try_concat().await?;
        Ok::<_, Failure>((json!(String::from_utf8_lossy(&bytes)), ()))
    })
    .await;
    step("ls", async {
        let listed = ipfs.ls(&folder).await?;
        let names = listed.objects.into_iter().flat_map(|object| object.links).map(|link| link.name);
        Ok::<_, Failure>((json!(names.collect::<Vec<_>>()), ()))
    })
    .await;
    let block = step("block put", async {
        let put = ipfs.block_put(Cursor::new("a block")).await?;
        Ok::<_, Failure>((json!([put.key, put.size]), put.key))
    })
    .await
    .unwrap_or_default();
    step("block get", async {
        let bytes = ipfs.block_get(&block).map_ok(|piece| piece.to_vec()).try_concat().await?;
        Ok::<_, Failure>((json!(String::from_utf8_lossy(&bytes)), ()))
    })
    .await;
    let node = step("dag put", async {
        let put = ipfs.dag_put(Cursor::new(r#"{"hello":"dag"}"#)).await?;
        Ok::<_, Failure>((json!(put.cid.cid_string), put.cid.cid_string))
    })
    .await
    .unwrap_or_default();
    step("dag get", async {
        let bytes = ipfs.dag_get(&node).map_ok(|piece| piece.to_vec()).try_concat().await?;
        Ok::<_, Failure>((json!(String::from_utf8_lossy(&bytes)), ()))
    })
    .await;
    for (name, of) in [("pin ls", None), ("pin ls of one", Some(file.as_str()))] {
        step(name, async {
            let listed = ipfs.pin_ls(of, Some("recursive")).await?;
            let mut pins: Vec<String> =
                listed.keys.into_iter().map(|(cid, pin)| format!("{cid} {}", pin.typ)).collect();
            pins.sort();
            Ok::<_, Failure>((json!(pins), ()))
        })
        .await;
    }
    step("pin rm", async { Ok::<_, Failure>((json!(ipfs.pin_rm(&file, true).await?.pins), ())) }).await;
    step("pin add", async { Ok::<_, Failure>((json!(ipfs.pin_add(&file, true).await?.pins), ())) }).await;
    step("pin rm of what is not pinned", async {
        let cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
        Ok::<_, Failure>((json!(ipfs.pin_rm(cid, true).await?.pins), ()))
    })
    .await;
    step("repo stat", async {
        let stat = ipfs.stats_repo().await?;
        Ok::<_, Failure>((json!([stat.repo_size > 0, stat.num_objects > 0]), ()))
    })
    .await;
}
