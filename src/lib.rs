//! How a cluster works: swarm, consensus, tracker, adder, the peer, and the programs around them.
//!
//! A room imports from lower levels, never from its own level or above (`tests/tidy.rs` reads the `use` lines).
//!
//! | level | room | owns |
//! | --- | --- | --- |
//! | 0 | [`task`], [`observe`] | spawning, stopping, waiting; logs |
//! | 0 | [`wire`] | every byte exchanged with peers |
//! | 0 | [`store`] | every byte of the database |
//! | 1 | [`net`] | the swarm |
//! | 1 | [`ipfs`] | Kubo's RPC, as a client |
//! | 1 | [`state`] | the pinset read from a `Kv`; export and import |
//! | 1 | [`allocator`], [`adder`] | pure choice of peers; files to blocks and pins |
//! | 2 | [`monitor`] | metrics from peers, expiry, alerts |
//! | 2 | [`node`] | the embedded IPFS node: blocks, pins, Kubo's RPC |
//! | 2 | [`tracker`] | this peer's pins against the pinset |
//! | 3 | [`consensus`] | the agreed pinset |
//! | 3 | [`informer`] | what this peer tells about itself |
//! | 4 | [`cluster`] | the peer: implements `ClusterApi`, runs the periodic jobs |
//! | 5 | [`daemon`] | builds a peer and its servers, stops them in order |
//! | 6 | [`cli`] | the command lines |

pub mod adder;
pub mod allocator;
pub mod cli;
pub mod cluster;
pub mod consensus;
pub mod daemon;
pub mod informer;
pub mod ipfs;
pub mod monitor;
pub mod net;
pub mod node;
pub mod observe;
pub mod rpc;
pub mod state;
pub mod store;
pub mod task;
pub mod tracker;
pub mod wire;
