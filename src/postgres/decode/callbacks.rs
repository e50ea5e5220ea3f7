//! What PostgreSQL calls while a transaction comes out of the reorder buffer.
//!
//! All of this runs in the mirror worker's main thread, inside `LogicalDecodingProcessRecord`, in a transaction of
//! the reorder buffer under a historic snapshot: catalogs may be read, user tables must not, nothing can be
//! committed. A panic becomes an ERROR at the border and ends the worker.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::{compat, ffi};
use super::context::Behind;
use super::partition::Way;
use super::table_event;
use crate::lsn::Lsn;

type Context = *mut pg_sys::LogicalDecodingContext;
type Txn = *mut pg_sys::ReorderBufferTXN;

/// What stands behind a context.
///
/// # Safety
///
/// `ctx` is the context that is calling back, taken over by `Decoder`; the reference must not be kept.
unsafe fn behind<'a>(ctx: Context) -> &'a mut Behind {
    // SAFETY: `Decoder::take_over` put the pointer there and never frees it; the decoder holds no reference while
    // callbacks run, and callbacks do not nest, but for pgoutput's writes, during which no reference is held.
    unsafe { &mut *(*ctx).output_writer_private.cast::<Behind>() }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn begin(ctx: Context, txn: Txn) {
    // SAFETY: called by the server with its own context and transaction.
    unsafe {
        let here = behind(ctx);
        here.feed.begin(Lsn((*txn).end_lsn), (*txn).xid.into_inner(), compat::commit_time(txn));
        if here.feed.has_filtered_tables()
            && let Some(original) = here.originals.begin
        {
            pg_sys::ffi::pg_guard_ffi_boundary(|| original(ctx, txn));
        }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn change(
    ctx: Context,
    txn: Txn,
    relation: pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: called by the server with an open relation and one of its changes. While pgoutput runs, and writes
    // through `write`, no reference to the feed is held.
    unsafe {
        let here = behind(ctx);
        match here.feed.way(relation) {
            Way::Skip => here.feed.skipped((*relation).rd_id.to_u32()),
            Way::Own => here.feed.change(relation, change),
            Way::Partition(root) => here.feed.change_of_partition(relation, root, change),
            Way::Pgoutput => {
                here.feed.expect_messages_about(relation);
                if let Some(original) = here.originals.change {
                    pg_sys::ffi::pg_guard_ffi_boundary(|| original(ctx, txn, relation, change));
                }
                behind(ctx).feed.after_change();
            }
        }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn truncate(
    ctx: Context,
    txn: Txn,
    count: c_int,
    relations: *mut pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: the server gives an array of that many open relations. pgoutput says in a message which of the filtered
    // ones are published with TRUNCATE.
    unsafe {
        let all = std::slice::from_raw_parts(relations, usize::try_from(count).unwrap_or_default());
        if behind(ctx).feed.truncated(all)
            && let Some(original) = behind(ctx).originals.truncate
        {
            pg_sys::ffi::pg_guard_ffi_boundary(|| original(ctx, txn, count, relations, change));
        }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn commit(ctx: Context, txn: Txn, commit_lsn: pg_sys::XLogRecPtr) {
    // SAFETY: called by the server with its own context and transaction.
    unsafe {
        let here = behind(ctx);
        if here.feed.has_filtered_tables()
            && let Some(original) = here.originals.commit
        {
            pg_sys::ffi::pg_guard_ffi_boundary(|| original(ctx, txn, commit_lsn));
        }
        behind(ctx).feed.compare_partitions(txn);
        behind(ctx).feed.commit(Lsn((*txn).end_lsn), compat::commit_time(txn));
    }
}

/// Asked for each record, whether changes of this origin are wanted. They all are; what is left out is of tables that are not
/// mirrored.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn filter(ctx: Context, _origin: pg_sys::RepOriginId) -> bool {
    // SAFETY: called by the server with its own context, whose reader stands on the record.
    unsafe {
        let Some(file) = ffi::file_of_change((*ctx).reader) else { return false };
        behind(ctx).feed.unmirrored.leaves_out(ctx, file)
    }
}

/// A message of `pg_logical_emit_message`. Only those of the extension's event triggers are of interest: their place among
/// the rows says when a table changed without a row that would show it.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn message(
    ctx: Context,
    _txn: Txn,
    lsn: pg_sys::XLogRecPtr,
    is_transactional: bool,
    prefix: *const c_char,
    size: pg_sys::Size,
    message: *const c_char,
) {
    // SAFETY: the server gives a prefix that ends with a zero, and a message of that size.
    let (prefix, message) =
        unsafe { (CStr::from_ptr(prefix), std::slice::from_raw_parts(message.cast::<u8>(), size)) };
    if !is_transactional || prefix != table_event::PREFIX {
        return;
    }
    if let Some(event) = table_event::parse(message) {
        // SAFETY: called by the server with its own context.
        unsafe { behind(ctx) }.feed.take_event(event, Lsn(lsn));
    }
}

/// pgoutput is about to write a message into `ctx->out`.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn prepare_write(
    ctx: Context,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _last: bool,
) {
    // SAFETY: the buffer belongs to the context.
    unsafe { pg_sys::resetStringInfo((*ctx).out) };
}

/// pgoutput has written a message into `ctx->out`.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn write(
    ctx: Context,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _last: bool,
) {
    // SAFETY: the buffer holds `len` bytes until the next message is prepared.
    unsafe {
        let out = (*ctx).out;
        let message = std::slice::from_raw_parts(
            (*out).data.cast::<u8>(),
            usize::try_from((*out).len).unwrap_or_default(),
        );
        behind(ctx).feed.message_of_pgoutput(message);
    }
}

/// Serves interrupts in long stretches that give pgoutput nothing to write.
///
/// # Safety
///
/// Called by the server through `update_progress`, with its own context.
pub(in super::super) unsafe fn breathe(ctx: Context) {
    // SAFETY: the caller vouches. During the context's own start nothing stands behind it.
    unsafe {
        if !(*ctx).output_writer_private.is_null() {
            behind(ctx).feed.breathe();
        }
    }
}
