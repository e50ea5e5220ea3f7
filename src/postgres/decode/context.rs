//! The decoding context: one per worker, from its start to its end.
//!
//! The slot is an ordinary `pgoutput` slot. The context is created inside a short transaction, so that this process'
//! xmin keeps counting for vacuum when it later runs transactions of its own, and used outside of any, so that the
//! reorder buffer opens plain ones. Its callbacks are then replaced by ours; pgoutput's are kept for filtered tables.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::{compat, ffi, latch};
use super::callbacks;
use super::feed::Feed;
use crate::lsn::Lsn;

/// pgoutput's own callbacks.
#[derive(Clone, Copy)]
pub(super) struct Originals {
    pub(super) begin: pg_sys::LogicalDecodeBeginCB,
    pub(super) change: pg_sys::LogicalDecodeChangeCB,
    pub(super) truncate: pg_sys::LogicalDecodeTruncateCB,
    pub(super) commit: pg_sys::LogicalDecodeCommitCB,
}

/// What the callbacks find behind the context: the feed, and pgoutput's callbacks.
pub(super) struct Behind {
    pub(super) feed: Feed,
    pub(super) originals: Originals,
}

/// The decoding of one slot.
pub(in super::super) struct Decoder {
    ctx: *mut pg_sys::LogicalDecodingContext,
    behind: *mut Behind,
}

impl Decoder {
    /// Takes the slot and begins to decode what committed after `start`.
    ///
    /// # Errors
    ///
    /// Raises PostgreSQL's own errors when the slot is missing, taken or invalidated.
    pub(in super::super) fn start(slot: &str, publication: Option<&str>, start: Lsn, mut feed: Feed) -> Self {
        feed.filtered.publication = publication.and_then(|name| CString::new(name).ok());
        let slot = CString::new(slot).unwrap_or_default();
        // SAFETY: this process holds no slot; the transaction has no xid, and the context goes into memory that
        // lives as long as the process.
        let ctx = unsafe {
            compat::acquire_slot(&slot);
            pg_sys::StartTransactionCommand();
            pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let mut reader = ffi::xlog_reader_routine(read_page);
            let ctx = pg_sys::CreateDecodingContext(
                start.0,
                options(publication),
                false,
                &raw mut reader,
                Some(callbacks::prepare_write),
                Some(callbacks::write),
                Some(compat::update_progress),
            );
            pg_sys::CommitTransactionCommand();
            pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            ctx
        };
        Self::take_over(ctx, feed)
    }

    /// Puts our callbacks in, and the reader at the place from which the slot must be decoded.
    fn take_over(ctx: *mut pg_sys::LogicalDecodingContext, feed: Feed) -> Self {
        // SAFETY: `ctx` was just made and belongs to this process. The feed is never freed: it lives as long as the
        // process, like the context. The catalogs that the past will fill in are emptied of the present.
        unsafe {
            let hooks = &mut (*ctx).callbacks;
            let originals = Originals {
                begin: hooks.begin_cb,
                change: hooks.change_cb,
                truncate: hooks.truncate_cb,
                commit: hooks.commit_cb,
            };
            let behind = Box::into_raw(Box::new(Behind { feed, originals }));
            hooks.begin_cb = Some(callbacks::begin);
            hooks.change_cb = Some(callbacks::change);
            hooks.truncate_cb = Some(callbacks::truncate);
            hooks.commit_cb = Some(callbacks::commit);
            hooks.message_cb = Some(callbacks::message);
            hooks.filter_by_origin_cb = Some(callbacks::filter);
            (*ctx).output_writer_private = behind.cast::<c_void>();
            pg_sys::XLogBeginRead((*ctx).reader, (*(*ctx).slot).data.restart_lsn);
            pg_sys::InvalidateSystemCaches();
            Self { ctx, behind }
        }
    }

    /// What the callbacks feed, between records.
    pub(in super::super) fn feed(&mut self) -> &mut Feed {
        // SAFETY: the box is never freed, and no callback runs while the caller has the borrow: callbacks run only
        // inside `decode_records`, which borrows `self` too.
        unsafe { &mut (*self.behind).feed }
    }

    /// Decodes records until the log is read up to `end`, or `enough` says so. Returns the position.
    pub(in super::super) fn decode_records(
        &mut self,
        end: Lsn,
        mut enough: impl FnMut(&mut Feed) -> bool,
    ) -> Lsn {
        loop {
            let position = self.position();
            if position >= end {
                return position;
            }
            self.decode_record();
            latch::serve_interrupts();
            let position = self.position();
            let feed = self.feed();
            feed.record_done(position);
            if enough(feed) {
                return position;
            }
        }
    }

    /// The end of the last record.
    fn position(&self) -> Lsn {
        // SAFETY: the context and its reader live as long as the process.
        Lsn(unsafe { (*(*self.ctx).reader).EndRecPtr })
    }

    /// Reads one record and hands it to the reorder buffer. A commit record calls the callbacks for everything that
    /// its transaction did.
    fn decode_record(&mut self) {
        let mut problem: *mut c_char = std::ptr::null_mut();
        // SAFETY: the reader is live; no borrow of the feed is held while the callbacks may run.
        unsafe {
            let record = pg_sys::XLogReadRecord((*self.ctx).reader, &raw mut problem);
            if !problem.is_null() {
                let problem = CStr::from_ptr(problem).to_string_lossy();
                error!("could not find record for logical decoding: {problem}");
            }
            if !record.is_null() {
                ffi::process_record(self.ctx);
            }
        }
    }

    /// How much log the slot would let go if it were told that everything before `lsn` is durable.
    pub(in super::super) fn log_to_let_go(&self, lsn: Lsn) -> u64 {
        // SAFETY: this process holds the slot, and only it changes these fields.
        let (valid, candidate, now) = unsafe {
            let slot = (*self.ctx).slot;
            ((*slot).candidate_restart_valid, (*slot).candidate_restart_lsn, (*slot).data.restart_lsn)
        };
        if valid == 0 || valid > lsn.0 { 0 } else { candidate.saturating_sub(now) }
    }

    /// Whether changes of a transaction that is still open may have been left out, because their table was not mirrored.
    pub(in super::super) fn may_lack_changes(&mut self) -> bool {
        // SAFETY: the list of open transactions is a ring through its head, or not begun.
        let has_open = unsafe {
            let head = &raw mut (*(*self.ctx).reorder).toplevel_by_lsn.head;
            !(*head).next.is_null() && (*head).next != head
        };
        has_open && self.feed().unmirrored.has_left_out()
    }

    /// Tells the slot that everything before `lsn` is durable at the target, and that a checkpoint says so.
    ///
    /// The only place that moves a slot that has been read. The proof can only be had by writing the checkpoint.
    pub(in super::super) fn confirm(&mut self, proof: &super::super::catalog::checkpoint::Written) {
        // SAFETY: this process holds the slot; no transaction is open.
        unsafe { pg_sys::LogicalConfirmReceivedLocation(proof.confirmed_lsn().0) }
    }
}

/// The options of pgoutput. It looks at the publication only when its own change callback runs.
fn options(publication: Option<&str>) -> *mut pg_sys::List {
    let quoted = format!("\"{}\"", publication.unwrap_or("dbmazz").replace('"', "\"\""));
    let pairs = [("proto_version", "1"), ("publication_names", quoted.as_str())];
    let mut list = std::ptr::null_mut();
    for (name, value) in pairs {
        let name = CString::new(name).unwrap_or_default();
        let value = CString::new(value).unwrap_or_default();
        // SAFETY: `pstrdup` copies both texts into the current memory context, which the nodes live in as well.
        unsafe {
            let node = compat::string_node(pg_sys::pstrdup(value.as_ptr()));
            let option = pg_sys::makeDefElem(pg_sys::pstrdup(name.as_ptr()), node, -1);
            list = pg_sys::lappend(list, option.cast());
        }
    }
    list
}

/// Reads a page of the log. Waits, on the latch, until it has been flushed: PostgreSQL's own reader would sleep.
#[pg_guard]
unsafe extern "C-unwind" fn read_page(
    reader: *mut pg_sys::XLogReaderState,
    page: pg_sys::XLogRecPtr,
    wanted: c_int,
    target: pg_sys::XLogRecPtr,
    buffer: *mut c_char,
) -> c_int {
    let end = Lsn(page + u64::from(wanted.unsigned_abs()));
    while compat::flush_position() < end {
        latch::wait(None, Duration::from_millis(1));
    }
    // SAFETY: the arguments are the reader's own.
    unsafe { ffi::read_local_page(reader, page, wanted, target, buffer) }
}
