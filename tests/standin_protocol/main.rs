//! The StarRocks stand-in, tested from outside: golden transcripts over raw sockets, SQL through a MySQL client, faults.
//!
//! The binary is built by `cargo build --release --example starrocks_standin` and lies beside this test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod golden;
mod http;
mod loads;
mod server;
mod sql;
