//! The end of a worker, however it comes.
//!
//! An ERROR passes through [`run`], which keeps its text for the views and lets it go on. A FATAL (SIGTERM, the
//! death of the database) does not unwind Rust: what must happen then happens in a callback of the server
//! ([`on_exit`](super::super::process::on_exit)), which also runs after an ERROR and after a plain return.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use super::super::caught::{report_of, text_of};
use super::super::shmem::{self, MirrorState};

/// Runs the body of a worker that belongs to a mirror; an error is written into the mirror's slot of shared memory
/// before it ends the process.
pub(super) fn run(mirror: &str, body: impl FnOnce() + std::panic::UnwindSafe) {
    let name = mirror.to_owned();
    PgTryBuilder::new(body)
        .catch_others(move |error| {
            // SAFETY: the process is about to end by this error. Whatever lock the failing code held must not stop
            // the update below, and nothing else of this process will touch what it protects.
            unsafe { pg_sys::LWLockReleaseAll() };
            note(&name, &error);
            error.rethrow()
        })
        .execute();
}

/// Runs the body of a worker that helps a mirror; an error is shown as the mirror's, but does not count as a failure of
/// the mirror's own worker, which decides what follows from it.
pub(super) fn run_helper(mirror: &str, body: impl FnOnce() + std::panic::UnwindSafe) {
    let name = mirror.to_owned();
    PgTryBuilder::new(body)
        .catch_others(move |error| {
            // SAFETY: as in `run`.
            unsafe { pg_sys::LWLockReleaseAll() };
            shmem::note_error(&name, &text_of(&error));
            if !is_by_request(report_of(&error).sql_error_code()) {
                shmem::update(&name, |slot| slot.helper_failures += 1);
            }
            error.rethrow()
        })
        .execute();
}

/// Errors that say nothing about the mirror: somebody asked the worker to end.
fn is_by_request(code: PgSqlErrorCode) -> bool {
    matches!(code, PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN)
}

fn note(mirror: &str, error: &CaughtError) {
    let failed = !is_by_request(report_of(error).sql_error_code());
    shmem::note_error(mirror, &text_of(error));
    shmem::update(mirror, |slot| {
        slot.worker_failed |= failed;
        if failed {
            slot.state = MirrorState::Retrying;
        }
    });
}
