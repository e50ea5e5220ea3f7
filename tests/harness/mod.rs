//! What the server tests, the demo and the end-to-end benchmarks stand on: a private PostgreSQL cluster, a StarRocks
//! to mirror into, and the means to compare the two.
//!
//! * [`Cluster`] and [`Database`]: the source, in a directory of its own, on a port of its own.
//! * [`StarRocks`] and [`Target`]: the stand-in, or the cluster that `DBMAZZ_TEST_STARROCKS=host:8030:9030` names.
//! * [`Pair`]: one database on each side, with the extension, the server and the user mapping of the quick start.
//! * [`Comparison`]: both sides row by row, with a readable first difference.
//! * [`wait_until`]: waits on a condition; nothing here waits for a time to pass.
//!
//! Whatever was started ends with the process that started it, however that ends: see [`guard`].

// Each of the programs that includes this module uses a part of it.
#![allow(dead_code, unused_imports)]

mod account;
mod cluster;
mod compare;
mod consumer;
mod control;
mod copies;
mod database;
mod failpoint;
mod failure;
mod guard;
mod hand_export;
mod installation;
mod memory;
mod normal_form;
mod pair;
mod pgbench;
mod proxy;
pub(crate) mod s3;
mod seed;
mod starrocks;
mod target;
mod wait;

pub(crate) use cluster::{Cluster, Settings, StopMode};
pub(crate) use compare::Comparison;
pub(crate) use consumer::SlotConsumer;
pub(crate) use control::{Control, Fault};
pub(crate) use database::Database;
pub(crate) use failpoint::{Action, Failpoint};
pub(crate) use failure::{Failure, Outcome};
pub(crate) use hand_export::HandExport;
pub(crate) use installation::Installation;
pub(crate) use memory::{own_size, proportional_size};
pub(crate) use normal_form::normal_form;
pub(crate) use pair::Pair;
pub(crate) use pgbench::Pgbench;
pub(crate) use proxy::{Proxy, Traffic};
pub(crate) use s3::S3Server;
pub(crate) use seed::Random;
pub(crate) use starrocks::StarRocks;
pub(crate) use target::Target;
pub(crate) use wait::{PATIENCE, Progress, wait_for, wait_until};
