//! Writes down the definition that a target is about to get, before it gets it.
//!
//! The worker that alters a target sits in a decoding callback, where nothing can be committed. So a process of its own
//! does that: it finds what to write in a segment of shared memory, commits it, and says so there. After a crash the next
//! worker knows from it which columns the target has or is about to have, and from which change on.

use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::table::{DefinedAt, Layout, NewDefinition};
use super::super::shmem::{self, WaitNote};
use super::super::{catalog, failpoint, process, session};
use super::{Child, NoWorkerSlot, WAITS_FOR_SLOT, WorkerKind, start_process};
use crate::lsn::Lsn;

/// What stands before the text: its length, and whether it has been written down.
#[repr(C)]
struct Head {
    done: u32,
    len: u32,
}

/// A definition on its way into the tables of the extension.
pub(in super::super) struct WriteAhead {
    segment: *mut pg_sys::dsm_segment,
    child: Option<Child>,
    mirror: String,
    waiting: WaitNote,
}

impl WriteAhead {
    /// Puts it where the other process finds it. Inside a decoding callback.
    pub(in super::super) fn begin(mirror: &str, new: &NewDefinition) -> Self {
        let text = encode(new);
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        // SAFETY: the segment has room for head and text, and belongs to the callback's transaction until `end`.
        let segment = unsafe {
            let segment = pg_sys::dsm_create(size_of::<Head>() + text.len(), 0);
            let head = pg_sys::dsm_segment_address(segment).cast::<Head>();
            head.write(Head { done: 0, len });
            std::ptr::copy_nonoverlapping(text.as_ptr(), head.add(1).cast::<u8>(), text.len());
            segment
        };
        Self { segment, child: None, mirror: mirror.to_owned(), waiting: WaitNote::of(mirror) }
    }

    /// Whether it has been committed. To be asked again after a wait; a process that ended without is replaced.
    pub(in super::super) fn is_done(&mut self) -> bool {
        if self.child.as_ref().is_some_and(|child| !child.is_gone()) {
            return false;
        }
        // SAFETY: the segment is attached; the other process has ended, or never was.
        if unsafe { (*pg_sys::dsm_segment_address(self.segment).cast::<Head>()).done == 1 } {
            return true;
        }
        if self.child.take().is_some() {
            error!("could not write down the new definition of a table of mirror \"{}\"", self.mirror);
        }
        let generation = shmem::find(&self.mirror).map_or(0, |slot| slot.generation);
        // SAFETY: the segment is attached; the number of the database is set before any worker runs.
        let (handle, database) = unsafe { (pg_sys::dsm_segment_handle(self.segment), pg_sys::MyDatabaseId) };
        let argument = format!("{} {generation} {handle}", self.mirror);
        match start_process(WorkerKind::Definition, database, &argument) {
            Ok(child) => self.child = Some(child),
            Err(NoWorkerSlot) => self.waiting.say(WAITS_FOR_SLOT),
        }
        false
    }

    /// Gives the segment back.
    pub(in super::super) fn end(self) {
        // SAFETY: attached in `begin` and used no more.
        unsafe { pg_sys::dsm_detach(self.segment) }
    }
}

/// How long [`WriteAhead::is_done`] may be waited for at a time.
pub(in super::super) const GLANCE: Duration = Duration::from_millis(100);

/// Main function of `dbmazz definition`. Its arguments are the database, the mirror, the generation of its worker, and
/// the segment.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_definition_main(argument: pg_sys::Datum) {
    let (_, extra) = super::enter(argument);
    let mut parts = extra.split(' ');
    let (Some(mirror), Some(generation), Some(handle)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let (Ok(generation), Ok(handle)) = (generation.parse(), handle.parse()) else { return };
    let Some(place) = shmem::place_of(mirror) else { return };
    process::on_exit(super::forget_helper, pg_sys::Datum::from(place as i32));
    // SAFETY: set before any worker runs.
    if !shmem::join_helpers(mirror, generation, unsafe { pg_sys::MyProcPid }) {
        return;
    }
    let Some(head) = session::transaction(|| write(mirror, handle)) else { return };
    failpoint::hit("definition_written");
    // SAFETY: the mapping lasts as long as this process, and the creator keeps the segment until this process has ended.
    unsafe { (*head).done = 1 };
}

/// Writes down what is in a segment. None when the segment is gone, and with it who waited.
fn write(mirror: &str, handle: pg_sys::dsm_handle) -> Option<*mut Head> {
    // SAFETY: inside a transaction; the creator wrote head and text before this process was started, and keeps the segment.
    let (head, text) = unsafe {
        let segment = pg_sys::dsm_attach(handle);
        if segment.is_null() {
            return None;
        }
        pg_sys::dsm_pin_mapping(segment);
        let head = pg_sys::dsm_segment_address(segment).cast::<Head>();
        let len = usize::try_from((*head).len).unwrap_or_default();
        (head, std::slice::from_raw_parts(head.add(1).cast::<u8>(), len))
    };
    let new = std::str::from_utf8(text).ok().and_then(decode);
    let new = new.unwrap_or_else(|| error!("could not read the new definition of a table"));
    catalog::table::write_new_definition(mirror, &new);
    Some(head)
}

type Parts = (u32, String, [u64; 2], i16, u32, String);

fn encode(new: &NewDefinition) -> String {
    let NewDefinition { relid, definition, at, layout, steps } = new;
    let parts =
        (relid.to_u32(), definition, [at.commit.0, at.change.0], layout.natts, layout.file.to_u32(), steps);
    serde_json::to_string(&parts).unwrap_or_default()
}

fn decode(text: &str) -> Option<NewDefinition> {
    let (relid, definition, [commit, change], natts, file, steps): Parts = serde_json::from_str(text).ok()?;
    Some(NewDefinition {
        relid: relid.into(),
        definition,
        at: DefinedAt { commit: Lsn(commit), change: Lsn(change) },
        layout: Layout { natts, file: file.into() },
        steps,
    })
}
