//! `dbmazz_export` and its kin.
//!
//! An export is written down at once and started at commit, so that a transaction that is rolled back leaves nothing.
//! Cancelling does not wait for the commit.

use std::cell::RefCell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, PgXactCallbackEvent, name, pg_sys, register_xact_callback};
use serde_json::{Map, Value};

use super::super::api::arguments::{current_role, not_null};
use super::super::api::failure::Failure;
use super::super::catalog::export::{self as table, ExportRow, NewExport};
use super::super::catalog::{as_extension, source};
use super::super::import;
use super::super::store::{self, Access, OpenError};
use super::super::{latch, scan, shmem};
use super::process::{self, ProcessKind};
use super::{argument, place, plan, shared};
use crate::export::destination::Location;
use crate::export::options::ExportOptions;
use crate::options::parse_size;
use crate::snapshot::plan_chunks;

/// How long a process may take to end by itself before it is told to.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a wait looks. It is one row by its key.
const GLANCE: Duration = Duration::from_millis(5);

thread_local! {
    /// Exports that this transaction has started or resumed.
    static STARTED: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

impl From<OpenError> for Failure {
    fn from(problem: OpenError) -> Self {
        Self { hint: problem.hint(), ..Self::new(problem.sqlstate(), problem.to_string()) }
    }
}

/// Writes tables, or the whole database, to files. Takes effect at commit.
///
/// # Errors
///
/// When an option is wrong, the destination may not be used or has files, or a table cannot be exported.
#[pg_extern(sql = false)]
fn dbmazz_export(
    destination: Option<&[u8]>,
    tables: Option<Vec<Option<pg_sys::Oid>>>,
    server: Option<&[u8]>,
    options: Option<JsonB>,
) -> Result<i64, ErrorReport> {
    refuse_read_only(c"dbmazz_export()");
    let destination = destination.ok_or_else(|| Failure::null_argument("destination"))?;
    let destination = argument::text("destination", destination)?;
    let server = server.map(|server| argument::text("server", server)).transpose()?;
    let written = options.map_or_else(|| Value::Object(Map::new()), |options| options.0);
    let options = ExportOptions::parse(&written).map_err(Failure::from)?;
    if !shmem::is_available() {
        return Err(Failure::not_preloaded().into());
    }
    let role = current_role();
    let tables = not_null(tables)?;
    let named = tables.as_deref();
    let store = store::open(destination, server, role, Access::Write).map_err(Failure::from)?;
    // One place has one name.
    let destination =
        destination.parse::<Location>().map_or_else(|_| destination.to_owned(), |it| it.to_string());
    let destination = destination.as_str();
    named.map_or(Ok(()), plan::check_named)?;
    // What there is when the snapshot is taken is looked at again then.
    plan::relations(named, role, options.format)?;
    one_start_at_a_time();
    place::check_nobody_writes(destination, &*store, None)?;
    place::check_room(destination, &*store, &options)?;
    let new = NewExport { destination, server, owner: role, named, options: &written };
    let id = as_extension(|| table::insert(&new)).unwrap_or_else(|| error!("could not write an export down"));
    start_at_commit(id);
    Ok(id)
}

/// Two exports to one place must not both find it free.
fn one_start_at_a_time() {
    // SAFETY: called inside a transaction, with which the lock goes. There is no foreign server one, so nobody else locks
    // it.
    unsafe {
        let (class, mode) = (pg_sys::ForeignServerRelationId, pg_sys::ExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::LockDatabaseObject(class, pg_sys::Oid::from(1), 0, mode);
    }
}

/// A start and a change of its state are writes of the caller's.
fn refuse_read_only(command: &CStr) {
    // SAFETY: a C string; raises the server's own error in a transaction that may not write.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) };
}

/// Goes on with an export that is not done. Takes effect at commit.
///
/// # Errors
///
/// `undefined_object` if there is no such export, `insufficient_privilege` if it is somebody else's,
/// `object_not_in_prerequisite_state` if it is done or running.
#[pg_extern(sql = false)]
fn dbmazz_resume_export(export_id: Option<i64>) -> Result<(), ErrorReport> {
    refuse_read_only(c"dbmazz_resume_export()");
    let row = owned(export_id)?;
    if !["starting", "running"].contains(&row.state.as_str()) {
        wait_for_last_leader(row.id);
    }
    // Of two that resume it at once one comes too late.
    let row = as_extension(|| table::lock(row.id)).ok_or_else(|| no_such_export(row.id))?;
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    if !shmem::is_available() {
        return Err(Failure::not_preloaded().into());
    }
    if row.state == "done" {
        return Err(Failure::new(code, format!("export {} is done", row.id)).into());
    }
    if is_led(row.id) {
        return Err(Failure::new(code, format!("export {} is running", row.id)).into());
    }
    let store = store::open(&row.destination, row.server.as_deref(), row.owner, Access::Write);
    place::check_nobody_writes(&row.destination, &*store.map_err(Failure::from)?, Some(row.id))?;
    as_extension(|| table::set_state(row.id, "starting", None));
    start_at_commit(row.id);
    Ok(())
}

/// Whether a process leads an export, or is about to.
fn is_led(id: i64) -> bool {
    shared::find(id, shared::my_database())
        .is_some_and(|place| place.launched_at != 0 || place.leader_pid != 0)
}

/// Whoever has led an export ends a moment after it has written down that it failed.
fn wait_for_last_leader(id: i64) {
    let until = Instant::now() + LAST_LEADER;
    while is_led(id) && Instant::now() < until {
        latch::wait(None, Duration::from_millis(20));
    }
}

/// How long that may take.
const LAST_LEADER: Duration = Duration::from_secs(5);

/// Stops an export, at once. What is done stays, for `dbmazz_resume_export`.
///
/// # Errors
///
/// As `dbmazz_resume_export`.
#[pg_extern(sql = false)]
fn dbmazz_cancel_export(export_id: Option<i64>) -> Result<(), ErrorReport> {
    refuse_read_only(c"dbmazz_cancel_export()");
    if let Some(id) = export_id
        && import::control::cancel(id)?
    {
        return Ok(());
    }
    let row = owned(export_id)?;
    if row.state == "done" {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(Failure::new(code, format!("export {} is done", row.id)).into());
    }
    let database = shared::my_database();
    let is_there = shared::update(row.id, database, |place| {
        place.cancel = true;
        (place.leader_pid, place.leader_proc_number)
    });
    if let Some((pid, proc_number)) = is_there
        && pid != 0
    {
        latch::wake(proc_number);
    }
    let began = Instant::now();
    let mut was_terminated = false;
    while let Some(place) = shared::find(row.id, database) {
        if began.elapsed() > PATIENCE && !was_terminated {
            was_terminated = true;
            let pids = place.helper_pids().chain([place.leader_pid]).filter(|pid| *pid != 0);
            as_extension(|| pids.for_each(source::terminate));
        }
        latch::wait(None, GLANCE);
    }
    let state = as_extension(|| table::present_state(row.id)).map(|(state, _)| state);
    if matches!(state.as_deref(), Some("starting" | "running" | "failed")) {
        as_extension(|| table::set_state(row.id, "cancelled", None));
    }
    Ok(())
}

/// Waits until an export is done: true then, false after the timeout.
///
/// # Errors
///
/// When it has failed, was cancelled, or has no process any more.
#[pg_extern(sql = false)]
fn dbmazz_wait_export(export_id: Option<i64>, timeout: Option<Interval>) -> Result<bool, ErrorReport> {
    let id = export_id.ok_or_else(|| Failure::null_argument("export_id"))?;
    if STARTED.with_borrow(|started| started.contains(&id)) {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(Failure::new(code, "cannot wait for an export in the transaction that starts it")
            .hint("It starts at commit: call dbmazz_wait_export in a statement of its own.")
            .into());
    }
    let deadline = timeout.map(|timeout| Instant::now() + length_of(&timeout));
    if let Some(done) = import::control::wait(id, deadline)? {
        return Ok(done);
    }
    let mut missed = 0;
    loop {
        let found = as_extension(|| table::present_state(id));
        let (state, reason) = found.ok_or_else(|| no_such_export(id))?;
        if let Some(done) = verdict(id, &state, reason)? {
            return Ok(done);
        }
        // The place goes a moment after the state is written.
        missed = if shared::find(id, shared::my_database()).is_some() { 0 } else { missed + 1 };
        if missed > 5 {
            return Err(interrupted(id).into());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        latch::wait(None, GLANCE);
    }
}

fn verdict(id: i64, state: &str, reason: Option<String>) -> Result<Option<bool>, Failure> {
    let goes_on = format!("SELECT dbmazz_resume_export({id}) goes on with it.");
    match state {
        "done" => Ok(Some(true)),
        "failed" => {
            let code = PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION;
            let reason = reason.unwrap_or_else(|| "for a reason that is not known".to_owned());
            let is_hopeless = as_extension(|| table::is_hopeless(id));
            let hint =
                if is_hopeless { "It cannot go on. Export to another place.".to_owned() } else { goes_on };
            Err(Failure::new(code, format!("export {id} failed: {reason}")).hint(hint))
        }
        "cancelled" => {
            let code = PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
            Err(Failure::new(code, format!("export {id} was cancelled")).hint(goes_on))
        }
        _ => Ok(None),
    }
}

fn interrupted(id: i64) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION;
    Failure::new(code, format!("export {id} was interrupted"))
        .detail("No process has it any more.")
        .hint(format!("SELECT dbmazz_resume_export({id}) goes on with it."))
}

fn no_such_export(id: i64) -> Failure {
    if import::control::exists(id) {
        return Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("{id} is an import, not an export"),
        )
        .hint("dbmazz_import with the same arguments goes on with it.");
    }
    Failure::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("export {id} does not exist"))
}

/// An export, locked for the rest of the transaction, that the caller may do with as he likes.
fn owned(id: Option<i64>) -> Result<ExportRow, Failure> {
    let id = id.ok_or_else(|| Failure::null_argument("export_id"))?;
    let row = as_extension(|| table::read(id)).ok_or_else(|| no_such_export(id))?;
    // SAFETY: looks into the system caches. A superuser has the privileges of every role.
    if unsafe { pg_sys::has_privs_of_role(current_role(), row.owner) } {
        return Ok(row);
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Failure::new(code, format!("must be owner of export {id}")))
}

fn start_at_commit(id: i64) {
    let is_first = STARTED.with_borrow_mut(|started| {
        started.push(id);
        started.len() == 1
    });
    if is_first {
        register_xact_callback(PgXactCallbackEvent::PrePrepare, || {
            error!("cannot PREPARE a transaction that has started an export");
        });
        register_xact_callback(PgXactCallbackEvent::Commit, start_all);
        register_xact_callback(PgXactCallbackEvent::Abort, || STARTED.with_borrow_mut(Vec::clear));
    }
}

/// Raises nothing: an error after the commit would take the whole server down.
fn start_all() {
    let database = shared::my_database();
    for id in STARTED.take() {
        if shared::take(id, database).is_err() {
            warning!("too many exports are running; SELECT dbmazz_resume_export({id}) starts this one later");
        } else if process::start(ProcessKind::Leader, id, 0).is_err() {
            shared::give_up_launch(id, database);
            warning!(
                "no slot for a background worker is free; SELECT dbmazz_resume_export({id}) starts the export later"
            );
        }
    }
}

/// The plan of a table for any tool: `WHERE ctid >= first_ctid AND ctid <= last_ctid`.
///
/// # Errors
///
/// When the size is none, or the relation has no rows of its own.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // The columns of a result.
fn dbmazz_ctid_chunks(
    relation: Option<pg_sys::Oid>,
    chunk_size: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(chunk, i32),
            name!(first_ctid, pg_sys::ItemPointerData),
            name!(last_ctid, pg_sys::ItemPointerData),
            name!(bytes, i64),
        ),
    >,
    ErrorReport,
> {
    let relid = relation.ok_or_else(|| Failure::null_argument("relation"))?;
    let text = chunk_size.ok_or_else(|| Failure::null_argument("chunk_size"))?;
    let chunk_bytes = parse_size(text).filter(|bytes| *bytes > 0).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        Failure::new(code, format!("invalid chunk size: \"{text}\""))
            .hint("Write a size with its unit, such as \"128MB\".")
    })?;
    let size = measure(relid)?;
    let heap_bytes = u64::from(size.blocks) * u64::from(pg_sys::BLCKSZ);
    let total = heap_bytes + size.toast_bytes;
    let place = |block: u32, offset: u16| {
        let mut tid = pg_sys::ItemPointerData::default();
        pgrx::itemptr::item_pointer_set_all(&mut tid, block, offset);
        tid
    };
    let row = |(number, chunk): (i32, crate::snapshot::Chunk)| {
        let last = chunk.end_block.map_or(pg_sys::InvalidBlockNumber - 1, |end| end - 1);
        let end = chunk.end_block.unwrap_or(size.blocks).max(chunk.first_block);
        let bytes = u128::from(total) * u128::from(end - chunk.first_block) / u128::from(size.blocks.max(1));
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        (number, place(chunk.first_block, 1), place(last, u16::MAX), bytes)
    };
    let chunks = plan_chunks(size.blocks, heap_bytes, size.toast_bytes, chunk_bytes);
    Ok(TableIterator::new((1..).zip(chunks).map(row).collect::<Vec<_>>()))
}

fn measure(relid: pg_sys::Oid) -> Result<scan::TableSize, Failure> {
    // SAFETY: looks into the system cache.
    let kind = unsafe { pg_sys::get_rel_relkind(relid) }.cast_unsigned();
    let relation = scan::open_table(relid).filter(|_| matches!(kind, b'r' | b'm' | b't'));
    let Some(relation) = relation else {
        let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
        let hint = if kind == b'p' { "Ask for each of its partitions." } else { "Name a table." };
        return Err(Failure::new(code, "the relation has no rows of its own").hint(hint));
    };
    // SAFETY: just opened, in this transaction, and closed at once.
    unsafe {
        let size = scan::size_of(relation);
        scan::close_table(relation);
        Ok(size)
    }
}

/// Exports of this database that have a process; none when the library was not preloaded.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // The columns of a view.
fn live_exports() -> TableIterator<
    'static,
    (
        name!(export_id, i64),
        name!(pid, Option<i32>),
        name!(rows_done, i64),
        name!(bytes_done, i64),
        name!(bytes_written, i64),
        name!(last_error, Option<String>),
    ),
> {
    let places = if shmem::is_available() { shared::all_of(shared::my_database()) } else { vec![] };
    let row = |place: &shared::Place| {
        let figures = place.figures();
        (
            place.id,
            (place.leader_pid != 0).then_some(place.leader_pid),
            figures.rows.cast_signed(),
            figures.bytes.cast_signed(),
            figures.written.cast_signed(),
            (!place.error.is_empty()).then(|| place.error.as_str().to_owned()),
        )
    };
    TableIterator::new(places.iter().map(row).collect::<Vec<_>>())
}

/// An interval as PostgreSQL compares it: a month has 30 days, a day 24 hours. Nothing for a negative one.
fn length_of(interval: &Interval) -> Duration {
    const DAY: i128 = 86_400_000_000;
    let days = i128::from(interval.months()) * 30 + i128::from(interval.days());
    let micros = days * DAY + i128::from(interval.micros());
    // An Instant cannot be much further away than this; nobody waits longer.
    const CENTURY: i128 = DAY * 36_525;
    u64::try_from(micros.clamp(0, CENTURY)).map_or(Duration::ZERO, Duration::from_micros)
}
