//! What the fake daemon holds, and Kubo's answers from it.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{HEAD, PEER_ID, Rule, Seen, find};
use crate::types::{Cid, parse_cid};

#[derive(Debug, Default)]
pub(super) struct State {
    /// Before `rules`: what the step of a recording that is under way got.
    pub(super) recorded: Vec<Rule>,
    pub(super) rules: Vec<Rule>,
    pub(super) seen: Vec<Seen>,
    /// `recursive` or `direct` by CID.
    pub(super) pins: BTreeMap<String, &'static str>,
    pub(super) blocks: BTreeMap<String, Vec<u8>>,
    pub(super) paths: BTreeMap<String, String>,
    pub(super) repo_size: u64,
    pub(super) storage_max: u64,
}

/// A reply as Kubo frames it: each text one chunk.
fn reply(status: &str, is_stream: bool, chunks: &[String]) -> Vec<u8> {
    let stream = if is_stream { "X-Chunked-Output: 1\r\n" } else { "" };
    let mut reply = format!("HTTP/1.1 {status}\r\n{HEAD}{stream}Transfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        reply.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    reply.push_str("0\r\n\r\n");
    reply.into_bytes()
}

fn one(text: String) -> Vec<u8> {
    reply("200 OK", false, &[text])
}

/// An error as Kubo words it.
fn failure(message: &str) -> Vec<u8> {
    let message = Value::from(message);
    let text = format!("{{\"Message\":{message},\"Code\":0,\"Type\":\"error\"}}\n");
    reply("500 Internal Server Error", false, &[text])
}

fn refusal(text: &str) -> Vec<u8> {
    let length = text.len();
    let head =
        "Content-Type: text/plain; charset=utf-8\r\nVary: Origin\r\nX-Content-Type-Options: nosniff\r\n";
    format!("HTTP/1.1 400 Bad Request\r\n{head}Content-Length: {length}\r\n\r\n{text}").into_bytes()
}

impl State {
    /// What Kubo would answer.
    pub(super) fn answer(&mut self, seen: &Seen) -> Vec<u8> {
        let target = seen.line.split_once(' ').map_or("", |(_, target)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let option = |name: &str| values(query, name).into_iter().next();
        let whole_arg = option("arg").unwrap_or_default();
        let arg = whole_arg.trim_start_matches("/ipfs/").to_owned();
        let not_found =
            || b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n".to_vec();
        let Some(command) = path.strip_prefix("/api/v0/") else { return not_found() };
        match command {
            "id" => one(format!(
                "{{\"ID\":\"{PEER_ID}\",\"PublicKey\":\"CAESIKKM/Jpp21KSg6FI0MpFsdCXhgHqdakjLxJLPAkNzrKi\",\
                 \"Addresses\":[\"/ip4/127.0.0.1/tcp/4001/p2p/{PEER_ID}\"],\"AgentVersion\":\"kubo/0.42.0\",\
                 \"Protocols\":[\"/ipfs/bitswap/1.2.0\"]}}\n"
            )),
            "version" => {
                one("{\"Version\":\"0.42.0\",\"Commit\":\"\",\"Repo\":\"18\",\"System\":\"amd64/linux\",\
                              \"Golang\":\"go1.26.8\"}\n"
                    .into())
            }
            "swarm/peers" => one("{\"Peers\":null}\n".into()),
            "swarm/connect" => {
                let peer = arg.rsplit_once("/p2p/").map_or(arg.as_str(), |(_, peer)| peer);
                one(format!("{{\"Strings\":[\"connect {peer} success\"]}}\n"))
            }
            "config/show" => one("{\"API\":{\"HTTPHeaders\":{}},\"Datastore\":{\"GCPeriod\":\"1h\",\
                                  \"StorageGCWatermark\":90,\"StorageMax\":\"10GB\"}}\n"
                .into()),
            "repo/stat" => one(format!(
                "{{\"RepoSize\":{},\"StorageMax\":{},\"NumObjects\":0,\"RepoPath\":\"\",\"Version\":\"\"}}\n",
                self.repo_size, self.storage_max
            )),
            "repo/gc" => self.collect(),
            "resolve" => match self.paths.get(&whole_arg) {
                Some(resolved) => one(format!("{{\"Path\":\"{resolved}\"}}\n")),
                None if parse_cid(&arg).is_ok() => one(format!("{{\"Path\":\"/ipfs/{arg}\"}}\n")),
                None => failure("could not resolve name"),
            },
            "pin/add" | "pin/rm" if arg.is_empty() => refusal("argument \"ipfs-path\" is required\n"),
            "block/get" if arg.is_empty() => refusal("argument \"cid\" is required\n"),
            "pin/ls" | "pin/add" | "pin/rm" if !arg.is_empty() && parse_cid(&arg).is_err() => {
                failure(&format!("invalid path \"{arg}\": path does not have enough components"))
            }
            "pin/ls" => {
                let is_stream = option("stream").as_deref() == Some("true");
                self.pin_ls(&arg, option("type").as_deref().unwrap_or("all"), is_stream)
            }
            "pin/add" => match option("recursive").as_deref() {
                Some("false") => self.pin_directly(&arg),
                Some(text) if text != "true" => refusal(&format!(
                    "could not convert value \"{text}\" to type \"bool\" (for option \"-recursive\")\n"
                )),
                _ => {
                    self.pins.insert(arg.clone(), "recursive");
                    let done = format!("{{\"Pins\":[\"{arg}\"]}}\n");
                    reply("200 OK", true, &["{\"Progress\":1,\"Bytes\":14}\n".into(), done])
                }
            },
            "pin/rm" => match self.pins.remove(&arg) {
                Some(_) => one(format!("{{\"Pins\":[\"{arg}\"]}}\n")),
                None => failure("not pinned or pinned indirectly"),
            },
            "pin/update" => self.pin_update(query),
            "block/put" => self.block_put(&seen.body, option("cid-codec").as_deref().unwrap_or("raw")),
            "block/get" => match self.blocks.get(&arg) {
                Some(block) => {
                    let head = HEAD.replace("application/json", "application/vnd.ipld.raw");
                    let framing = "X-Stream-Output: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
                    let mut reply =
                        format!("HTTP/1.1 200 OK\r\n{head}{framing}{:x}\r\n", block.len()).into_bytes();
                    reply.extend_from_slice(block);
                    reply.extend_from_slice(b"\r\n0\r\n\r\n");
                    reply
                }
                None => {
                    failure(&format!("block was not found locally (offline): ipld: could not find {arg}"))
                }
            },
            _ => not_found(),
        }
    }

    fn collect(&mut self) -> Vec<u8> {
        let pins = &self.pins;
        let removed: Vec<String> =
            self.blocks.keys().filter(|cid| !pins.contains_key(*cid)).cloned().collect();
        self.blocks.retain(|cid, _| pins.contains_key(cid));
        let lines: Vec<String> =
            removed.iter().map(|cid| format!("{{\"Key\":{{\"/\":\"{cid}\"}}}}\n")).collect();
        reply("200 OK", true, &lines)
    }

    fn pin_ls(&self, arg: &str, kind: &str, is_stream: bool) -> Vec<u8> {
        if !["all", "direct", "indirect", "recursive"].contains(&kind) {
            let known = "must be one of {direct, indirect, recursive, all}";
            return failure(&format!("invalid type '{kind}', {known}"));
        }
        let is_chosen =
            |cid: &str, held: &str| (arg.is_empty() || arg == cid) && (kind == "all" || kind == held);
        let chosen: Vec<_> = self.pins.iter().filter(|(cid, held)| is_chosen(cid, held)).collect();
        if chosen.is_empty() && !arg.is_empty() {
            return failure(&format!("path '{arg}' is not pinned"));
        }
        if is_stream {
            let line =
                |(cid, held): &(&String, &&str)| format!("{{\"Cid\":\"{cid}\",\"Type\":\"{held}\"}}\n");
            return reply("200 OK", true, &chosen.iter().map(line).collect::<Vec<_>>());
        }
        let key = |(cid, held): &(&String, &&str)| format!("\"{cid}\":{{\"Type\":\"{held}\",\"Name\":\"\"}}");
        one(format!("{{\"Keys\":{{{}}}}}\n", chosen.iter().map(key).collect::<Vec<_>>().join(",")))
    }

    fn pin_directly(&mut self, arg: &str) -> Vec<u8> {
        if self.pins.get(arg) == Some(&"recursive") {
            return failure(&format!("pin: {arg} already pinned recursively"));
        }
        self.pins.insert(arg.to_owned(), "direct");
        reply("200 OK", true, &[format!("{{\"Pins\":[\"{arg}\"]}}\n")])
    }

    fn pin_update(&mut self, query: &str) -> Vec<u8> {
        let mut args = values(query, "arg").into_iter();
        let Some(from) = args.next() else { return refusal("argument \"from-path\" is required\n") };
        let Some(to) = args.next() else { return refusal("argument \"to-path\" is required\n") };
        if self.pins.get(&from) != Some(&"recursive") {
            return failure("'from' cid was not recursively pinned already");
        }
        if from != to && self.pins.get(&to) == Some(&"recursive") {
            return failure("'to' cid was already recursively pinned");
        }
        self.pins.insert(to.clone(), "recursive");
        if !query.contains("unpin=false") && from != to {
            self.pins.remove(&from);
        }
        one(format!("{{\"Pins\":[\"{from}\",\"{to}\"]}}\n"))
    }

    /// Stores the parts under the CIDs they are named after; answers as Kubo does, CIDv1 with the codec asked for.
    fn block_put(&mut self, body: &[u8], codec: &str) -> Vec<u8> {
        let code = match codec {
            "dag-pb" => 0x70,
            "dag-cbor" => 0x71,
            "raw" => 0x55,
            _ => return failure(&format!("unknown multicodec: \"{codec}\"")),
        };
        let mut lines = Vec::new();
        for (name, content) in parts(body) {
            let Ok(cid) = parse_cid(&name) else { return failure(&format!("invalid cid: {name}")) };
            let key = Cid::new_v1(code, *cid.hash());
            lines.push(format!("{{\"Key\":\"{key}\",\"Size\":{}}}\n", content.len()));
            self.blocks.insert(name, content);
        }
        if lines.is_empty() {
            return refusal("file argument 'data' is required\n");
        }
        reply("200 OK", true, &lines)
    }
}

/// Every value of an option, unescaped.
fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.filter(|(key, _)| *key == name);
    found
        .map(|(_, value)| percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
        .collect()
}

/// File name and content of each part of a multipart body.
fn parts(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let Some(end) = find(body, b"\r\n") else { return Vec::new() };
    let delimiter = [b"\r\n", &body[..end]].concat();
    let mut rest = &body[end..];
    let mut parts = Vec::new();
    while let Some(head_end) = find(rest, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
        let content = &rest[head_end + 4..];
        let Some(end) = find(content, &delimiter) else { break };
        let name = head.split_once("filename=\"").and_then(|(_, rest)| rest.split_once('"'));
        parts.push((name.map_or("", |(name, _)| name).to_owned(), content[..end].to_vec()));
        rest = &content[end + delimiter.len()..];
    }
    parts
}
