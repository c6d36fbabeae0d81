//! What ipfs-cluster looks like from outside: its types and their JSON, its HTTP faces, its configuration.
//!
//! This crate knows no swarm and no consensus. Its HTTP servers are functions of a listener, a
//! [`api::ClusterApi`], a configuration and a stop token, so they run as well over a fake cluster.
//!
//! | room | owns |
//! | --- | --- |
//! | [`go`] | the habits of Go's standard library that clients can see: JSON, times, query strings, sizes |
//! | [`types`] | CIDs, peers, pins, statuses, metrics and their JSON |
//! | [`api`] | what a cluster peer can be asked, and how it fails |
//! | [`config`] | `service.json`, `identity.json`, the peerstore file |
//! | [`http`] | HTTP/1.1 with the habits of Go's net/http |
//! | [`rest`], [`proxy`], [`pinsvc`] | the REST API (9094), the IPFS proxy (9095), the pinning service (9097) |
//! | [`client`] | [`api::ClusterApi`] over HTTP |
//! | `testing` | a fake cluster, a fake daemon and golden replay (feature `testing`) |

pub mod api;
pub mod client;
pub mod config;
pub mod go;
pub mod http;
pub mod pinsvc;
pub mod proxy;
pub mod rest;
#[cfg(feature = "testing")]
pub mod testing;
pub mod types;
