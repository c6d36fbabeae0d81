//! Pins, listings, blocks, collections and paths against a fake daemon.

use super::*;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> Part {
    Part::Bytes(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

// Ticks P1 to P14.

#[tokio::test]
async fn what_the_daemon_already_holds_is_not_pinned_again() {
    let (kubo, client) = fake_with(|options| options.informer_trigger_interval = 1).await;
    kubo.set_pinned(ALPHA, "recursive");
    kubo.set_pinned(BRAVO, "direct");
    client.pin(&pin(ALPHA, -1)).await.unwrap();
    client.pin(&pin(BRAVO, 0)).await.unwrap();
    assert!(kubo.saw("pin/add").is_empty());
    assert!(futures::FutureExt::now_or_never(client.informer_trigger().notified()).is_none());
}

#[tokio::test]
async fn a_pin_that_cannot_be_looked_up_is_not_added() {
    let (kubo, client) = fake().await;
    for message in ["something else", "is not pinned at all"] {
        let body = format!("{{\"Message\":\"{message}\",\"Code\":0,\"Type\":\"error\"}}");
        kubo.set_rules(vec![Rule::reply("pin/ls", "500 X", &body)]);
        let failure = client.pin(&pin(ALPHA, -1)).await.unwrap_err().to_string();
        let path = format!("pin/ls?stream=true&arg={ALPHA}&type=recursive");
        assert_eq!(failure, format!("IPFS error ({path}). Code: 500. Message: {message}"));
    }
    assert!(kubo.saw("pin/add").is_empty());
}

#[tokio::test]
async fn the_first_ten_origins_are_connected_and_let_go_at_the_end() {
    let (kubo, client) = fake().await;
    let mut pin = pin(ALPHA, -1);
    let origins = (1..=12).map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
    pin.options.origins = Some(origins.collect());
    kubo.set_rules(vec![
        Rule::new("swarm/connect", vec![Part::Hang]),
        Rule::new("pin/add", vec![Part::Bytes(HEAD.to_vec()), chunk("{}"), Part::Hang]),
    ]);
    tokio::select! {
        result = client.pin(&pin) => panic!("pinned: {result:?}"),
        _ = kubo.wait_for("swarm/connect", 10) => {}
    }
    kubo.set_rules(vec![Rule::new("swarm/connect", vec![Part::Hang])]);
    client.pin(&pin).await.unwrap();
    let connected = kubo.saw("swarm/connect");
    assert!(connected.iter().all(|line| !line.ends_with("tcp%2F11") && !line.ends_with("tcp%2F12")));
    assert!(connected.contains(&"POST /api/v0/swarm/connect?arg=%2Fip4%2F127.0.0.1%2Ftcp%2F7".to_owned()));
}

#[tokio::test]
async fn a_pin_is_updated_only_from_what_is_held_recursively() {
    let (kubo, client) = fake().await;
    let mut pin = pin(BRAVO, -1);
    pin.options.pin_update = Some(cid(ALPHA));
    kubo.set_rules(vec![Rule::reply(&format!("pin/ls.*{ALPHA}"), "500 X", "broken")]);
    client.pin(&pin).await.unwrap();
    assert_eq!((kubo.saw("pin/add").len(), kubo.saw("pin/update").len()), (1, 0));
    kubo.set_unpinned(BRAVO);
    kubo.set_pinned(ALPHA, "recursive");
    let body = "{\"Message\":\"no\",\"Code\":0,\"Type\":\"error\"}";
    kubo.set_rules(vec![Rule::reply("pin/update", "500 X", body)]);
    // a replaced pin leaves while the new one is made of it
    client.pin(&pin).await.unwrap();
    assert_eq!((kubo.saw("pin/add").len(), kubo.saw("pin/update").len()), (2, 1));
    kubo.set_unpinned(BRAVO);
    let refusal = |path| Rule::reply(path, "500 X", body);
    kubo.set_rules(vec![refusal("pin/update"), refusal("pin/add")]);
    let failure = client.pin(&pin).await.unwrap_err().to_string();
    assert!(failure.contains("pin/add") && failure.ends_with("Code: 500. Message: no"), "{failure}");
}

#[tokio::test]
async fn answers_to_pin_add_decide_what_becomes_of_a_pin() {
    let (kubo, client) = fake().await;
    let path = format!("pin/add?arg={ALPHA}&recursive=true&progress=true");
    let daemon = |code: u16, message: &str| format!("IPFS error ({path}). Code: {code}. Message: {message}");
    let url = format!("http://{}/api/v0/{path}", kubo.authority());
    let rule = |parts: Vec<Part>| Rule::new("pin/add", parts);
    let end = || Part::Bytes(b"0\r\n\r\n".to_vec());
    let head = || Part::Bytes(HEAD.to_vec());
    for (rule, expected) in [
        (
            Rule::stream(
                "pin/add",
                &["{}\n", "{\"Progress\":1,\"Bytes\":10}\n", "{\"Pins\":[\"x\"]}\n"],
                None,
            ),
            None,
        ),
        (Rule::stream("pin/add", &["{\"Progress\":1}{\"Pins\":[]}"], None), None),
        (Rule::reply("pin/add", "200 OK", ""), None),
        (Rule::stream("pin/add", &["{\"Progress\":1}\n"], Some("boom late")), Some(daemon(200, "boom late"))),
        (
            Rule::stream(
                "pin/add",
                &[
                    "{\"Progress\":1}\n",
                    "{\"Message\":\"merkledag: not found\",\"Code\":0,\"Type\":\"error\"}\n",
                ],
                None,
            ),
            Some(daemon(200, "merkledag: not found")),
        ),
        (
            rule(vec![head(), chunk("{\"Progress\":1}\n"), chunk("{\"Progr\n")]),
            Some("invalid character '\\n' in string literal".into()),
        ),
        (rule(vec![head(), chunk("{\"Progress\":1}\n"), chunk("{\"Progr")]), Some("unexpected EOF".into())),
        (
            rule(vec![head(), chunk("{\"Progress\":1}\n"), chunk("{\"Progr"), end()]),
            Some("unexpected EOF".into()),
        ),
        (
            Rule::stream("pin/add", &["{\"Progress\":1}\n", "not json\n"], None),
            Some("invalid character 'o' in literal null (expecting 'u')".into()),
        ),
        (
            Rule::reply(
                "pin/add",
                "500 X",
                "{\"Message\":\"merkledag: not found\",\"Code\":0,\"Type\":\"error\"}\n",
            ),
            Some(daemon(500, "merkledag: not found")),
        ),
        (
            Rule::reply("pin/add", "500 X", "plain <text> & more\n"),
            Some(format!("IPFS request failed (is it running?) ({path}). Code 500: plain <text> & more\n")),
        ),
        (rule(Vec::new()), Some(format!("Post \"{url}\": EOF"))),
    ] {
        let shown = format!("{rule:?}");
        kubo.set_rules(vec![rule]);
        let failure = client.pin(&pin(ALPHA, -1)).await.err().map(|failure| failure.to_string());
        assert_eq!(failure, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_pin_without_progress_is_ended() {
    let stall = Duration::from_millis(700);
    let (kubo, client) = fake_with(|options| options.pin_timeout = stall).await;
    let url = format!("http://{}/api/v0/pin/add?arg={ALPHA}&recursive=true&progress=true", kubo.authority());
    let head = || Part::Bytes(HEAD.to_vec());
    let progress = |n: i64| chunk(&format!("{{\"Progress\":{n}}}\n"));
    let pause = || Part::Pause(stall / 4);
    let start = Instant::now();
    kubo.set_rules(vec![Rule::new("pin/add", vec![Part::Hang])]);
    let failure = client.pin(&pin(ALPHA, -1)).await.unwrap_err().to_string();
    assert_eq!(failure, format!("Post \"{url}\": context canceled"));
    assert!(start.elapsed() >= stall);

    // the same value again and again is no progress
    let mut parts = vec![head(), progress(5)];
    parts.extend((0..400).flat_map(|_| [pause(), progress(5), chunk("{}\n")]));
    kubo.set_rules(vec![Rule::new("pin/add", parts)]);
    let start = Instant::now();
    let failure = client.pin(&pin(ALPHA, -1)).await.unwrap_err().to_string();
    assert_eq!(failure, "context canceled");
    assert!(start.elapsed() >= stall);
}

#[tokio::test]
async fn a_pin_with_progress_goes_on_for_many_limits() {
    let stall = Duration::from_millis(1000);
    let (kubo, client) = fake_with(|options| options.pin_timeout = stall).await;
    let mut parts = vec![Part::Bytes(HEAD.to_vec())];
    for n in 1..=30 {
        parts.extend([Part::Pause(stall / 12), chunk(&format!("{{\"Progress\":{n}}}\n"))]);
    }
    parts.push(Part::Bytes(b"0\r\n\r\n".to_vec()));
    kubo.set_rules(vec![Rule::new("pin/add", parts)]);
    let start = Instant::now();
    client.pin(&pin(ALPHA, -1)).await.unwrap();
    assert!(start.elapsed() > stall * 2);
}

#[tokio::test]
async fn without_a_stall_limit_a_pin_may_be_silent() {
    let (kubo, client) = fake_with(|options| options.pin_timeout = Duration::ZERO).await;
    let end = Part::Bytes(b"0\r\n\r\n".to_vec());
    let parts = vec![Part::Bytes(HEAD.to_vec()), Part::Pause(Duration::from_millis(50)), end];
    kubo.set_rules(vec![Rule::new("pin/add", parts)]);
    client.pin(&pin(ALPHA, -1)).await.unwrap();
}

// Ticks U1 to U3 and L1 to L5.

#[tokio::test]
async fn answers_to_pin_rm_decide_what_becomes_of_an_unpin() {
    let (kubo, client) = fake().await;
    client.unpin(&cid(ALPHA)).await.unwrap();
    let body = "{\"Message\":\"not pinned or pinned indirectly, really\",\"Code\":0,\"Type\":\"error\"}";
    kubo.set_rules(vec![Rule::reply("pin/rm", "500 X", body)]);
    client.unpin(&cid(ALPHA)).await.unwrap_err();
    kubo.set_rules(vec![Rule::reply("pin/rm", "500 X", "not pinned or pinned indirectly")]);
    client.unpin(&cid(ALPHA)).await.unwrap_err();
    kubo.set_rules(vec![Rule::reply("pin/rm", "200 OK", "whatever")]);
    client.unpin(&cid(ALPHA)).await.unwrap();

    let (kubo, client) = fake_with(|options| options.unpin_disable = true).await;
    let failure = client.unpin(&cid(ALPHA)).await.unwrap_err().to_string();
    assert_eq!(failure, "ipfs unpinning is disallowed by configuration on this peer");
    assert!(kubo.saw("").is_empty());
}

#[tokio::test]
async fn answers_to_pin_ls_of_one_cid_are_statuses() {
    let (kubo, client) = fake().await;
    let line = |kind: &str| format!("{{\"Cid\":\"{ALPHA}\",\"Type\":\"{kind}\"}}\n");
    let path = format!("pin/ls?stream=true&arg={ALPHA}&type=recursive");
    for (body, expected) in [
        (line("recursive"), Ok(IpfsPinStatus::Recursive)),
        (line("direct"), Ok(IpfsPinStatus::Direct)),
        (line("indirect through QmX"), Ok(IpfsPinStatus::Indirect)),
        (line("weird"), Ok(IpfsPinStatus::Bug)),
        ("{}".into(), Ok(IpfsPinStatus::Bug)),
        (format!("{{\"Cid\":\"{BRAVO_RAW}\",\"Type\":\"recursive\"}}junk"), Ok(IpfsPinStatus::Recursive)),
        (String::new(), Err("EOF")),
        ("not json".into(), Err("invalid character 'o' in literal null (expecting 'u')")),
    ] {
        kubo.set_rules(vec![Rule::reply("pin/ls", "200 OK", &body)]);
        let answer = client.pin_ls_cid(&cid(ALPHA), -1).await.map_err(|failure| failure.to_string());
        assert_eq!(answer, expected.map_err(str::to_owned), "{body}");
    }
    for message in ["path 'x' is not pinned", "Error: path 'x' is not pinned"] {
        let body = format!("{{\"message\":\"{message}\"}}");
        kubo.set_rules(vec![Rule::reply("pin/ls", "500 X", &body)]);
        assert_eq!(client.pin_ls_cid(&cid(ALPHA), -1).await, Ok(IpfsPinStatus::Unpinned));
    }
    kubo.set_rules(vec![Rule::stream("pin/ls", &[&line("recursive")], Some("late"))]);
    let failure = client.pin_ls_cid(&cid(ALPHA), -1).await.unwrap_err().to_string();
    assert_eq!(failure, format!("IPFS error ({path}). Code: 200. Message: late"));
}

#[tokio::test]
async fn a_listing_delivers_what_came_before_its_failure() {
    let (kubo, client) = fake().await;
    let line = format!("{{\"Cid\":\"{ALPHA}\",\"Type\":\"recursive\"}}\n");
    for (rule, expected) in [
        (
            Rule::reply("pin/ls", "200 OK", &format!("{line}broken")),
            "error decoding ipfs pin: invalid character 'b' looking for beginning of value",
        ),
        (
            Rule::reply("pin/ls", "200 OK", &format!("{line}{{\"Cid\"")),
            "error decoding ipfs pin: unexpected EOF",
        ),
        (
            Rule::stream("pin/ls", &[&line], Some("late")),
            "IPFS error (pin/ls?stream=true&type=recursive). Code: 200. Message: late",
        ),
        (
            Rule::stream("pin/ls", &[&line, "{\"Message\":\"boom\",\"Code\":0,\"Type\":\"error\"}"], None),
            "IPFS error (pin/ls?stream=true&type=recursive). Code: 200. Message: boom",
        ),
        (
            Rule::new("pin/ls", vec![Part::Bytes(HEAD.to_vec()), chunk(&line)]),
            "error decoding ipfs pin: unexpected EOF",
        ),
    ] {
        kubo.set_rules(vec![rule]);
        let listed: Vec<_> = client.pin_ls(&["recursive", "direct"]).collect().await;
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0], Ok((cid(ALPHA), IpfsPinStatus::Recursive)));
        assert_eq!(listed[1].as_ref().unwrap_err().to_string(), expected);
    }
    assert!(kubo.saw("type=direct").is_empty());
    kubo.set_rules(vec![Rule::reply("pin/ls", "500 X", "{\"Message\":\"cannot list\"}")]);
    let listed: Vec<_> = client.pin_ls(&["recursive"]).collect().await;
    assert!(listed[0].as_ref().unwrap_err().to_string().ends_with("Message: cannot list"));
    assert!(client.pin_ls(&[]).collect::<Vec<_>>().await.is_empty());
}

#[tokio::test]
async fn a_long_listing_is_read_whole_and_in_order() {
    let (kubo, client) = fake().await;
    let n_pins = 20_000;
    let mut body = String::new();
    for i in 0..n_pins {
        let hash = multihash::Multihash::<64>::wrap(0x12, &[(i % 251) as u8; 32]).unwrap();
        body.push_str(&format!("{{\"Cid\":\"{}\",\"Type\":\"recursive\"}}\n", Cid::new_v1(0x55, hash)));
    }
    kubo.set_rules(vec![Rule::reply("pin/ls", "200 OK", &body)]);
    let mut listing = client.pin_ls(&["recursive"]);
    let mut n_seen = 0;
    while let Some(item) = listing.next().await {
        let (cid, _) = item.unwrap();
        assert_eq!(cid.hash().digest()[0], (n_seen % 251) as u8);
        n_seen += 1;
    }
    assert_eq!(n_seen, n_pins);
}

// Ticks K1, S1, G1, R1 to R4.

#[tokio::test]
async fn configuration_keys_are_found_two_deep() {
    let (_kubo, client) = fake().await;
    assert_eq!(client.config_key("Datastore/GCPeriod").await.unwrap(), "1h");
    assert!(client.config_key("Datastore").await.unwrap().is_object());
    for (key, expected) in [
        ("", "key not found in configuration"),
        ("Datastore/None", "key not found in configuration"),
        ("API/HTTPHeaders/Server", "key not found in configuration"),
    ] {
        assert_eq!(client.config_key(key).await.unwrap_err().to_string(), expected, "{key}");
    }
    let body = "{\"Version\":1}";
    _kubo.set_rules(vec![Rule::reply("config/show", "200 OK", body)]);
    assert_eq!(client.config_key("Version/x").await.unwrap_err().to_string(), "invalid path");
}

#[tokio::test]
async fn sizes_of_a_repository_are_whole_64_bits() {
    let (kubo, client) = fake().await;
    kubo.set_repo(12345, u64::MAX);
    let stat = client.repo_stat().await.unwrap();
    assert_eq!((stat.repo_size, stat.storage_max), (12345, u64::MAX));
    kubo.set_rules(vec![Rule::reply("repo/stat", "200 OK", "{\"RepoSize\":-1}")]);
    client.repo_stat().await.unwrap_err();
}

#[tokio::test]
async fn a_collection_lists_keys_and_failures() {
    let (kubo, client) = fake().await;
    let key = |cid: &str| format!("{{\"Key\":{{\"/\":\"{cid}\"}}}}\n");
    let body = format!(
        "{}{{\"Error\":\"no link by that name\"}}\n{}{{\"Key\":null,\"Error\":\"second & <error>\"}}\n",
        key(ALPHA),
        key(BRAVO_RAW)
    );
    kubo.set_rules(vec![Rule::stream("repo/gc", &[&body], Some("encountered errors during gc run"))]);
    let (keys, failure) = client.repo_gc().await;
    assert!(failure.is_none());
    let keys: Vec<_> = keys.into_iter().map(|key| (key.key, key.error)).collect();
    assert_eq!(
        keys,
        [
            (Some(cid(ALPHA)), String::new()),
            (None, "no link by that name".into()),
            (Some(cid(BRAVO_RAW)), String::new()),
            (None, "second & <error>".into())
        ]
    );
    kubo.set_rules(vec![Rule::stream("repo/gc", &[&key(ALPHA)], Some("encountered errors during gc run"))]);
    let (keys, failure) = client.repo_gc().await;
    assert_eq!((keys.len(), failure.is_some()), (1, true));
    kubo.set_rules(vec![Rule::reply("repo/gc", "200 OK", &format!("{}junk", key(ALPHA)))]);
    let failure = client.repo_gc().await.1.unwrap().to_string();
    assert_eq!(failure, "invalid character 'j' looking for beginning of value");
    kubo.set_rules(vec![Rule::reply("repo/gc", "500 X", "{\"Message\":\"gc failed\"}")]);
    let failure = client.repo_gc().await.1.unwrap().to_string();
    assert_eq!(failure, "IPFS error (repo/gc?stream-errors=true). Code: 500. Message: gc failed");
}

#[tokio::test]
async fn only_paths_that_lead_somewhere_are_asked_for() {
    let (kubo, client) = fake().await;
    for path in
        [ALPHA.to_owned(), format!("/ipfs/{ALPHA}"), format!("/ipfs/{ALPHA}/"), format!("/ipld/{ALPHA}")]
    {
        assert_eq!(client.resolve(&path).await.unwrap(), cid(ALPHA), "{path}");
    }
    let failure = client.resolve("foo").await.unwrap_err().to_string();
    assert!(failure.starts_with("invalid path \"/ipfs/foo\": invalid cid: "), "{failure}");
    assert!(kubo.saw("").is_empty());
    kubo.set_path(&format!("/ipfs/{ALPHA}/a b"), &format!("/ipfs/{BRAVO}"));
    assert_eq!(client.resolve(&format!("{ALPHA}/a b")).await.unwrap(), cid(BRAVO));
    kubo.set_path("/ipns/k", "/ipns/other");
    let failure = client.resolve("/ipns/k").await.unwrap_err().to_string();
    assert_eq!(failure, "invalid path \"/ipns/other\": path was expected to be immutable");
    kubo.set_path("/ipns/k", "nonsense");
    let failure = client.resolve("/ipns/k").await.unwrap_err().to_string();
    assert_eq!(failure, "invalid path \"nonsense\": path does not have enough components");
}

// Ticks B1 to B5.

async fn put(client: &Client, blocks: &[(&str, &[u8])]) -> Result<(), Error> {
    let (tx, rx) = mpsc::channel(1);
    let feed = async move {
        for (text, data) in blocks {
            let block = Block { cid: cid(text), data: Bytes::copy_from_slice(data), is_spare: false };
            if tx.send(vec![block]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(feed, client.block_stream(rx)).1
}

#[tokio::test]
async fn blocks_go_out_as_parts_of_one_form() {
    let (kubo, client) = fake().await;
    put(&client, &[(ALPHA, b"alpha"), (BRAVO_RAW, b""), (ALPHA, b"alpha")]).await.unwrap();
    let request = kubo.requests().pop().unwrap();
    assert_eq!(
        request.line,
        "POST /api/v0/block/put?allow-big-block=true&cid-codec=dag-pb&mhlen=32&mhtype=sha2-256&pin=false"
    );
    let head: Vec<_> = request.head.split("\r\n").skip(1).collect();
    let boundary = head[3].strip_prefix("Content-Type: multipart/form-data; boundary=").unwrap();
    assert!(boundary.len() == 60 && boundary.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(head[1..3], ["User-Agent: Go-http-client/1.1", "Transfer-Encoding: chunked"]);
    assert_eq!(head[4], "Accept-Encoding: gzip");
    let part = |text: &str, data: &str| {
        format!(
            "--{boundary}\r\nAbspath-Encoded: \r\nContent-Disposition: form-data; name=\"file\"; \
             filename=\"{text}\"\r\nContent-Type: application/octet-stream\r\n\r\n{data}\r\n"
        )
    };
    let expected =
        format!("{}{}{}--{boundary}--\r\n", part(ALPHA, "alpha"), part(BRAVO_RAW, ""), part(ALPHA, "alpha"));
    assert_eq!(String::from_utf8(request.body).unwrap(), expected);
}

#[tokio::test]
async fn a_large_block_is_stored() {
    let (kubo, client) = fake().await;
    let data = vec![7; 5 << 20];
    put(&client, &[(ALPHA_RAW, &data)]).await.unwrap();
    assert_eq!(kubo.blocks()[ALPHA_RAW].len(), data.len());
}

#[tokio::test]
async fn blocks_count_only_once_the_daemon_confirms_them() {
    let (kubo, client) = fake().await;
    let line = |cid: &str| format!("{{\"Key\":\"{cid}\",\"Size\":6}}\n");
    let foreign = format!("blockPut response CID ({BRAVO}) does not match the multihash of any blocks sent");
    for (rule, expected) in [
        (Rule::reply("block/put", "200 OK", &line(ALPHA)), None),
        (Rule::reply("block/put", "200 OK", ""), Some("block/put: the daemon did not confirm 1 of the blocks sent".to_owned())),
        (Rule::reply("block/put", "200 OK", &line(BRAVO)), Some(foreign)),
        (Rule::reply("block/put", "200 OK", "junk"), Some("invalid character 'j' looking for beginning of value".into())),
        (
            Rule::stream("block/put", &[&line(ALPHA)], Some("late failure")),
            Some("IPFS error (block/put?allow-big-block=true&cid-codec=dag-pb&mhlen=32&mhtype=sha2-256&pin=false). \
                  Code: 200. Message: late failure".into()),
        ),
        (
            Rule::reply("block/put", "400 X", "bad\n"),
            Some("IPFS request failed (is it running?) (block/put?allow-big-block=true&cid-codec=dag-pb&mhlen=32\
                  &mhtype=sha2-256&pin=false). Code 400: bad\n".into()),
        ),
    ] {
        let shown = format!("{rule:?}");
        kubo.set_rules(vec![rule]);
        let failure = put(&client, &[(ALPHA, b"alpha\n")]).await.err().map(|failure| failure.to_string());
        assert_eq!(failure, expected, "{shown}");
    }
    let failure = put(&client, &[]).await.unwrap_err().to_string();
    assert_eq!(failure, "BlockStream: no blocks to peek in blocks channel");
}

#[tokio::test]
async fn a_daemon_that_gives_up_on_an_upload_does_not_block_the_sender() {
    let (kubo, client) = fake().await;
    // the fake reads a request whole before it answers, so this one answers from the start
    drop(kubo);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let options = Options { node_multiaddress: address, ..client.inner.options.clone() };
    let client = Client::with_options(options).unwrap();
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 100]).await.unwrap() > 0);
        let body = "{\"Message\":\"disk full\",\"Code\":0,\"Type\":\"error\"}";
        let reply = format!("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut socket, reply.as_bytes()).await.unwrap();
        socket
    };
    let data = vec![7; 1 << 20];
    let blocks: Vec<(&str, &[u8])> = (0..64).map(|_| (ALPHA_RAW, data.as_slice())).collect();
    let both = futures::future::join(server, put(&client, &blocks));
    let (_socket, result) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    let failure = result.unwrap_err().to_string();
    assert!(failure.ends_with("Code: 500. Message: disk full"), "{failure}");
}

#[tokio::test]
async fn a_daemon_that_takes_nothing_ends_an_upload_but_a_slow_source_does_not() {
    let silence = Duration::from_millis(700);
    let (kubo, client) = fake_with(|options| options.ipfs_request_timeout = silence).await;
    kubo.set_rules(vec![Rule::new("block/put", vec![Part::Hang])]);
    let failure = put(&client, &[(ALPHA, b"alpha\n")]).await.unwrap_err().to_string();
    assert_eq!(failure, "block/put: the daemon took nothing for 0.7 seconds");
    kubo.set_rules(Vec::new());
    let (tx, rx) = mpsc::channel(1);
    let feed = async {
        for _ in 0..2 {
            let block = Block { cid: cid(ALPHA), data: Bytes::from_static(b"alpha\n"), is_spare: false };
            tx.send(vec![block]).await.unwrap();
            tokio::time::sleep(silence + silence / 2).await;
        }
        drop(tx);
    };
    tokio::join!(feed, client.block_stream(rx)).1.unwrap();
}

// Ticks T1 and T2.

#[tokio::test]
async fn every_second_event_triggers_when_the_interval_is_two() {
    let (_kubo, client) = fake_with(|options| options.informer_trigger_interval = 2).await;
    let trigger = client.informer_trigger();
    client.pin(&pin(ALPHA, -1)).await.unwrap();
    assert!(futures::FutureExt::now_or_never(trigger.notified()).is_some());
    client.repo_gc().await;
    assert!(futures::FutureExt::now_or_never(trigger.notified()).is_none());
    put(&client, &[(ALPHA, b"alpha\n")]).await.unwrap();
    assert!(futures::FutureExt::now_or_never(trigger.notified()).is_some());
}

// Kubo's own bytes.

#[tokio::test]
async fn recorded_answers_of_kubo_are_understood() {
    let (kubo, client) = fake().await;
    let files = [
        include_str!("../../../fixtures/kubo/pins.json"),
        include_str!("../../../fixtures/kubo/node.json"),
        include_str!("../../../fixtures/kubo/blocks.json"),
        include_str!("../../../fixtures/kubo/repo.json"),
    ];
    let mut rules = Vec::new();
    for file in files {
        let exchanges: Vec<serde_json::Value> = serde_json::from_str(file).unwrap();
        rules.extend(exchanges.iter().map(|exchange| Rule::recorded(exchange).unwrap()));
    }
    // every recorded request is answered once, in the order it was made
    kubo.set_rules(rules.into_iter().map(|rule| rule.times(1)).collect());
    assert_eq!(client.id().await.unwrap().id.unwrap().to_string(), PEER_ID);
    assert!(client.swarm_peers().await.unwrap().is_empty());
    let peer = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWFPWk4bQ2ncWgtTWDWQDdCRBGjatWMQ95YkU2yhtYbryt";
    let failure = client.swarm_connect(&peer.parse().unwrap()).await.unwrap_err().to_string();
    assert!(
        failure.contains("all dials failed\n  * [/ip4/127.0.0.1/tcp/9] dial tcp4 127.0.0.1:9"),
        "{failure}"
    );
    assert_eq!(client.config_key("Datastore/StorageGCWatermark").await.unwrap(), 90);
    let folder = "QmQRiXcmgocXXUZHXdndiE9LSKM45YJnCFsyjjPmg2p8MN";
    assert_eq!(client.resolve(&format!("{folder}/a.txt")).await.unwrap(), cid(ALPHA));
    assert_eq!(client.repo_stat().await.unwrap().storage_max, 10_000_000_000);
    assert_eq!(client.repo_gc().await.0.len(), 0);
    assert_eq!(client.repo_gc().await.0.len(), 4);
    assert_eq!(client.block_get(&cid(ALPHA_RAW)).await.unwrap(), "alpha\n");
    assert_eq!(client.pin_ls(&["recursive"]).collect::<Vec<_>>().await.len(), 1);
    client.pin(&pin(ALPHA, -1)).await.unwrap();
    assert_eq!(client.pin_ls_cid(&cid(ALPHA), 0).await.unwrap(), IpfsPinStatus::Unpinned);
    assert_eq!(client.pin_ls_cid(&cid(ALPHA), -1).await.unwrap(), IpfsPinStatus::Recursive);
    client.unpin(&cid(ALPHA)).await.unwrap();
    client.unpin(&cid(ALPHA)).await.unwrap();
    put(&client, &[(ALPHA, b"x")]).await.unwrap();
    put(&client, &[(ALPHA, b"x"), (ALPHA_RAW, b"alpha\n")]).await.unwrap();
}
