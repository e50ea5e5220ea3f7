//! The second decoder: brings tables that were copied beside the stream up to where the stream is, and hands them over.
//!
//! Runs in the holder of their slot, once their copy is done. It decodes what committed since the snapshot, for these
//! tables only. When it is about as far as the mirror worker it asks that one to stand still, goes on to at least the same
//! position, waits until everything is visible at the target, and writes the position down with the tables: from there on
//! they are the mirror worker's.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::super::catalog::event::{Event, Severity};
use super::super::catalog::table::{CopyTable, MirrorTableRow, TableState};
use super::super::decode::{Decoder, Feed, Horizon};
use super::super::loader::Loader;
use super::super::shmem::{self, Handover, Role};
use super::super::{catalog, failpoint, labels, session};
use super::complete::complete_rows;
use super::start::Mirror;
use crate::definition::AlterStep;
use crate::lsn::Lsn;
use crate::sink::{Job, StatementError};

/// Nearer than this the mirror worker is asked to stand still.
const NEAR: u64 = 1 << 20;
/// One turn decodes no longer than this.
const TURN: Duration = Duration::from_millis(50);
/// How long the decoder sleeps between looks at the log.
const SLEEP: Duration = Duration::from_millis(5);
/// Load threads of the second decoder.
const THREADS: usize = 2;

/// Decodes the slot of this process from `start`, where the tables were copied, until they are handed over.
pub(super) fn run(name: &str, database: pg_sys::Oid, slot: &str, start: Lsn) {
    session::report_activity(&format!("mirror {name}: bringing copied tables up to the stream"));
    let Some(mirror) = Mirror::read(name, database) else { return };
    let tables = copied_tables(&mirror);
    if tables.is_empty() {
        return;
    }
    let mut loader = Loader::start(name, &mirror.config, THREADS);
    loader.enter_phase(mirror.phase_of_copy());
    let labels = labels::open(name);
    let feed = Feed::new(name, Role::Tables, &mirror.options, &tables, loader, labels);
    let decoder = Decoder::start(slot, mirror.row.publication.as_deref(), start, feed);
    Follower { mirror, tables, start, decoder, horizon: Horizon::default() }.run();
}

/// The tables whose every chunk is done, as if they were in step: this decoder has nothing to leave out.
fn copied_tables(mirror: &Mirror) -> Vec<MirrorTableRow> {
    let is_copied = |table: &&MirrorTableRow| {
        let (chunks, done) = catalog::chunk::counts(&mirror.name, table.relid);
        table.state == TableState::Copying && chunks > 0 && chunks == done
    };
    let copied: Vec<&MirrorTableRow> =
        session::transaction(|| mirror.tables.iter().filter(is_copied).collect());
    let in_step = |table: &MirrorTableRow| MirrorTableRow {
        state: TableState::Ready,
        catch_up: None,
        target: table.copied_into(),
        ..table.clone()
    };
    copied.into_iter().map(in_step).collect()
}

struct Follower {
    mirror: Mirror,
    tables: Vec<MirrorTableRow>,
    start: Lsn,
    decoder: Decoder,
    horizon: Horizon,
}

impl Follower {
    fn run(mut self) {
        loop {
            session::reload_configuration_if_asked();
            session::leave_if_unwanted(&self.mirror.name);
            let Some(slot) = shmem::find(&self.mirror.name).filter(|slot| slot.pid != 0) else { return };
            if slot.sync.handover == Handover::Standing {
                return self.hand_over(slot.sync.position);
            }
            let end = self.horizon.advance();
            self.turn(end);
            let leader = slot.progress.received_lsn.max(slot.progress.confirmed_lsn);
            let is_near = leader.bytes_since(self.position()) < NEAR;
            if slot.sync.handover == Handover::None && is_near && leader.is_valid() {
                failpoint::hit("sync_near");
                shmem::update(&self.mirror.name, |slot| slot.sync.handover = Handover::Asked);
                shmem::wake_worker(&self.mirror.name);
            }
        }
    }

    fn position(&mut self) -> Lsn {
        self.decoder.feed().received_lsn().max(self.start)
    }

    /// Decodes for a moment, up to `end`, and lets loads go and come.
    fn turn(&mut self, end: Lsn) {
        let before = self.position();
        let until = Instant::now() + TURN;
        self.decoder.decode_records(end, |feed| feed.is_time_for_a_pause(until));
        let moved = self.position() > before;
        let feed = self.decoder.feed();
        complete_rows(&self.mirror, feed);
        feed.turn(Instant::now());
        feed.reserve_labels();
        if !moved {
            feed.wait(SLEEP);
        }
    }

    /// The mirror worker stands still: goes on to its position, and gives the tables away.
    fn hand_over(mut self, leader: Lsn) {
        while self.position() < leader {
            self.turn(leader);
        }
        let feed = self.decoder.feed();
        while !feed.incomplete().is_empty() || !feed.is_idle() {
            session::leave_if_unwanted(&self.mirror.name);
            complete_rows(&self.mirror, feed);
            feed.turn(Instant::now());
            feed.seal_everything();
            if !feed.is_idle() {
                feed.wait(Duration::from_millis(20));
            }
        }
        let reached = self.position();
        failpoint::hit("sync_caught_up");
        self.put_in_place();
        failpoint::hit("sync_swapped");
        self.write_down(reached);
        failpoint::hit("sync_written_down");
        shmem::update(&self.mirror.name, |slot| slot.sync.handover = Handover::Done);
        shmem::wake_worker(&self.mirror.name);
        self.decoder.feed().shut_down();
    }

    /// Tables that were filled beside their targets take their places, with everything up to here. Until they are written
    /// down nobody streams into them, so whatever ends before that leaves rows that are older than others, and no others.
    fn put_in_place(&mut self) {
        // As it is now: one may have been taken out of the mirror.
        let rows = session::transaction(|| catalog::table::list(&self.mirror.name));
        for table in &self.tables {
            let is_wanted = |row: &&MirrorTableRow| {
                row.relid == table.relid && row.state == TableState::Copying && row.copy == table.copy
            };
            let (Some(copy), Some(row)) = (&table.copy, rows.iter().find(is_wanted)) else { continue };
            if !self.decoder.feed().follows(table.relid.to_u32()) {
                continue;
            }
            let CopyTable { table: with, mark } = copy.clone();
            let steps = vec![
                AlterStep::Swap { with: with.clone(), mark: mark.clone() },
                AlterStep::DropSwapped { table: with, mark },
            ];
            let (feed, relid) = (self.decoder.feed(), table.relid.to_u32());
            match feed.change_target(Job::Alter { target: row.target.clone(), steps }) {
                Ok(()) => {}
                Err(problem @ StatementError::Undone { .. }) => {
                    feed.copy_table_again(relid, problem.to_string())
                }
                Err(problem) => feed.fail_table(relid, problem.to_string()),
            }
        }
    }

    fn write_down(&mut self, reached: Lsn) {
        let name = self.mirror.name.as_str();
        let feed = self.decoder.feed();
        let (news, incarnation) = (feed.take_news(reached), feed.incarnation());
        catalog::mirror::transaction(name, || {
            news.write_down(name);
            for table in &self.tables {
                if catalog::table::set_caught_up(name, table.relid, self.start, reached) {
                    catalog::chunk::clear_of(name, table.relid);
                    let message =
                        format!("table \"{}\" has been copied and joins the stream", table.source_name);
                    let relid = Some(table.relid);
                    Event { relid, ..Event::of(name, Severity::Info, &message) }.record();
                }
            }
            // Everything has its answer.
            catalog::incarnation::remove(name, incarnation);
        });
    }
}
