//! Having chunks copied, by as many workers as the mirror may have.

use std::time::Duration;

use pgrx::prelude::*;

use super::super::super::loader::Loader;
use super::super::super::{catalog, latch, session, shmem};
use super::super::start::Mirror;
use super::super::{Child, WorkerKind, start_helper};
use super::holding::{Held, start_child};

/// How often snapshot workers may fail, without any chunk being done between, before the copy gives up. One that somebody
/// ends has not failed.
const MOST_FAILURES: u32 = 5;
/// How often the copy is looked after.
const GLANCE: Duration = Duration::from_millis(100);

/// How a round of copying ended. No snapshot worker runs any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Copied {
    /// Every chunk is done.
    All,
    /// The snapshot is gone and chunks are left.
    SnapshotLost,
}

/// Has the chunks of a mirror copied under a snapshot; workers that fail are replaced. `meanwhile` is called now and then.
pub(in super::super) fn copy_chunks(
    mirror: &Mirror,
    loader: &Loader,
    held: &Held,
    mut meanwhile: impl FnMut(),
) -> Copied {
    let mut workers: Vec<Child> = Vec::new();
    let mut failures = 0;
    let mut failed_before = failed_workers(mirror);
    let mut fewest_left = usize::MAX;
    loop {
        workers.retain(|worker| !worker.is_gone());
        if held.is_lost() {
            workers.iter().for_each(Child::terminate);
        }
        if workers.is_empty() {
            let left = catalog::mirror::transaction(&mirror.name, || {
                catalog::chunk::release_claims(&mirror.name);
                catalog::chunk::count_left(&mirror.name)
            });
            if left == 0 {
                return Copied::All;
            }
            if held.is_lost() {
                return Copied::SnapshotLost;
            }
            if left < fewest_left {
                (fewest_left, failures) = (left, 0);
            }
            let failed = failed_workers(mirror);
            if failed > failed_before {
                failed_before = failed;
                failures += 1;
                give_up_after(failures, mirror);
            }
            workers = start_workers(mirror, left);
        }
        loader.wait(GLANCE);
        session::leave_if_unwanted(&mirror.name);
        meanwhile();
    }
}

/// At least one, and as many more as there is room for.
fn start_workers(mirror: &Mirror, chunks: usize) -> Vec<Child> {
    let mut workers = vec![start_child(mirror, WorkerKind::Snapshot)];
    let others = mirror.options.snapshot_workers.min(chunks).saturating_sub(1);
    workers.extend(
        (0..others).map_while(|_| start_helper(WorkerKind::Snapshot, mirror.database, &mirror.name).ok()),
    );
    workers
}

fn failed_workers(mirror: &Mirror) -> u64 {
    shmem::find(&mirror.name).map_or(0, |slot| slot.helper_failures)
}

fn give_up_after(failures: u32, mirror: &Mirror) {
    if failures >= MOST_FAILURES {
        let reason =
            shmem::find(&mirror.name).map(|slot| slot.last_error.as_str().to_owned()).unwrap_or_default();
        error!("could not copy the tables of mirror \"{}\": {reason}", mirror.name);
    }
    latch::wait(None, Duration::from_millis(200) * failures);
}
