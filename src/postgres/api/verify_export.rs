//! `dbmazz_verify_export`: the files are read by threads; the session waits on its latch and hands out what they find.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, unbounded};
use pgrx::iter::TableIterator;
use pgrx::name;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::current_role;
use super::failure::Failure;
use crate::export::destination::{Destination, Host as _, StoreError};
use crate::export::verify::{Finding, verify};
use crate::postgres::latch::{self, Waker};
use crate::postgres::store::{self, Access, ServerHost};

/// Reads every file of an export and compares it with the manifest.
///
/// # Errors
///
/// When the destination may not be used, or cannot be asked what is there. What is wrong with files is a row.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn dbmazz_verify_export(
    destination: Option<String>,
    server: Option<String>,
) -> Result<TableIterator<'static, (name!(file, String), name!(ok, bool), name!(detail, String))>, ErrorReport>
{
    let destination = destination.ok_or_else(|| Failure::null_argument("destination"))?;
    let store = store::open_for_threads(&destination, server.as_deref(), current_role(), Access::Read)
        .map_err(|problem| problem.into_report())?;
    let findings = Running::start(store)?.collect()?;
    Ok(TableIterator::new(findings.into_iter().map(|found| (found.file, found.ok, found.detail))))
}

/// Threads that verify. They are told to end when it is dropped, as by a cancel.
struct Running {
    findings: Receiver<Finding>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    outcome: Receiver<Result<(), StoreError>>,
}

impl Running {
    fn start(store: Arc<dyn Destination>) -> Result<Self, Failure> {
        let system = |problem: std::io::Error| {
            Failure::new(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, format!("could not start threads: {problem}"))
        };
        let waker = Waker::new().map_err(system)?;
        let wake = waker.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let (send, findings) = unbounded();
        let (tell, outcome) = unbounded();
        let asked_to_stop = Arc::clone(&stop);
        let thread = ServerHost.spawn(
            "dbmazz verify",
            Box::new(move || {
                let report = |finding| {
                    // Nobody listens any more when the session was cancelled.
                    let _ = send.send(finding);
                    wake();
                };
                let result = verify(&*store, threads(), &asked_to_stop, &report);
                let _ = tell.send(result);
                wake();
            }),
        );
        Ok(Self { findings, stop, waker, thread: Some(thread.map_err(system)?), outcome })
    }

    /// All findings, by name.
    fn collect(self) -> Result<Vec<Finding>, Failure> {
        let mut found = Vec::new();
        let outcome = loop {
            found.extend(self.findings.try_iter());
            match self.outcome.try_recv() {
                Ok(outcome) => break outcome,
                Err(TryRecvError::Empty) => latch::wait(Some(&self.waker), Duration::from_secs(1)),
                Err(TryRecvError::Disconnected) => {
                    let code = PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
                    return Err(Failure::new(code, "the threads that verify have ended unexpectedly"));
                }
            }
        };
        found.extend(self.findings.try_iter());
        outcome.map_err(|problem| Failure::new(store::sqlstate(&problem), problem.to_string()))?;
        found.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(found)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // They end at their next read, which has a time limit.
            let _ = thread.join();
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(4)
}
