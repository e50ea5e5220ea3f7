//! dbmazz in a real server, against StarRocks or its stand-in.
//!
//! Run by `make test-server`: the extension must be installed and the stand-in built. Most tests share one cluster,
//! each with a database, a mirror and a stand-in of its own, so that they can run side by side; those that stop,
//! kill or configure a server have their own.

#[path = "../harness/mod.rs"]
mod harness;

mod altered_types;
mod backlog_ddl;
mod bad_input;
mod bad_server;
mod catalog_caches;
mod copied_server;
mod copy_rate;
mod crash;
mod crash_matrix;
mod ddl;
mod drop_extension;
mod drop_mirror;
mod encodings;
mod export;
mod failover;
mod faults;
mod first_mirror;
mod handover;
mod identity;
mod import;
mod inheritance;
mod keyless;
mod large_transactions;
mod late_loads;
mod late_statements;
mod lifecycle;
mod loads;
mod mark;
mod memory;
mod metadata;
mod mixed;
mod names;
mod new_tables;
mod own_tools;
mod owner;
mod partition_copies;
mod partitions;
mod publications;
mod random_changes;
mod random_ddl;
mod readme;
mod refusal;
mod rejected;
mod resumed_copy;
mod s3;
mod shutdown;
mod sizes;
mod slot;
mod slot_guard;
mod slot_start;
mod soak;
mod starts;
mod swap;
mod table_ddl;
mod tables;
mod type_keys;
mod type_paths;
mod types;
mod unmirrored;
mod views;
mod workload;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use harness::{Cluster, Outcome, Pair, Settings};

/// The cluster that tests share. It is stopped by its guard when the process ends.
///
/// # Panics
///
/// When it cannot be started; that is tried once.
fn shared_cluster() -> Arc<Cluster> {
    static SHARED: OnceLock<Result<Arc<Cluster>, String>> = OnceLock::new();
    let start = || Cluster::start(&Settings::default()).map(Arc::new).map_err(|failure| failure.to_string());
    match SHARED.get_or_init(start) {
        Ok(cluster) => Arc::clone(cluster),
        Err(reason) => panic!("there is no cluster to share: {reason}"),
    }
}

/// Runs a test with a pair of its own in the shared cluster.
fn on_a_pair(test: impl FnOnce(&mut Pair) -> Outcome) {
    run_on(&shared_cluster(), test);
}

/// Runs a test with a cluster of its own. One at a time: they are what loads the machine most.
fn on_its_own_cluster(settings: &Settings, test: impl FnOnce(&mut Pair) -> Outcome) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start(settings).map(Arc::new).unwrap_or_else(|failure| panic!("{failure}"));
    run_on(&cluster, test);
}

/// A failure becomes a panic while the pair is still there, so that its drop can show views and log.
fn run_on(cluster: &Arc<Cluster>, test: impl FnOnce(&mut Pair) -> Outcome) {
    let pair = Pair::new(cluster).unwrap_or_else(|failure| panic!("{failure}\n{}", cluster.end_of_log()));
    run_with(pair, test);
}

/// The same with a pair that is there already.
fn run_with(mut pair: Pair, test: impl FnOnce(&mut Pair) -> Outcome) {
    let cluster = Arc::clone(pair.source.cluster());
    if let Err(failure) = test(&mut pair) {
        panic!("{failure}");
    }
    if let Some(assertion) = cluster.failed_assertion() {
        panic!("the server has failed an assertion: {assertion}");
    }
}
