//! The mirror worker: one mirror, from its start to its end.
//!
//! ```text
//! read definition ─► settle earlier labels ─► checkpoint? ──none──► first copy ─┐
//!                                                 └────────────────────────────►├─► stream
//! ```
//!
//! Streaming is a loop of turns. Each decodes what has been flushed, for a bounded time, lets the pipeline seal what is
//! due, writes a checkpoint when loads have become visible, and waits at the bottom. Between turns, and only there, the
//! worker runs transactions of its own, on tables of the schema `dbmazz`.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::checkpoint::{self, Checkpoint, Written};
use super::super::catalog::event::{Event, Severity};
use super::super::decode::{Decoder, Feed, Horizon};
use super::super::loader::Loader;
use super::super::shmem::{self, MirrorState, Role, Text};
use super::super::{catalog, compat, failpoint, labels, session, slot};
use super::complete::complete_rows;
use super::exit;
use super::joining::{Joining, Next};
use super::start::{self, DefinitionWatch, Mirror};
use crate::lsn::Lsn;
use crate::pipeline::LabelSequence;

/// Checkpoints are at least so far apart, but for the one at a pause.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// When nothing is loaded, the checkpoint moves after this much log: it is log itself.
const IDLE_CHECKPOINT_BYTES: u64 = 16 << 20;
/// One turn decodes no longer than this, unless a single transaction takes longer.
const TURN: Duration = Duration::from_millis(50);
/// How long the worker sleeps between looks at the log: the first when it is busy, the last when nothing happens.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_millis(25);
/// How long a mirror that is being paused waits for its loads.
const FAREWELL: Duration = Duration::from_secs(5);

/// Main function of `dbmazz mirror`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_mirror_main(argument: pg_sys::Datum) {
    let (database, name) = super::enter(argument);
    let Some(place) = shmem::place_of(&name) else { return };
    exit::on_exit(forget_worker, pg_sys::Datum::from(place as i32));
    if !announce(&name) {
        return;
    }
    log!("dbmazz worker of mirror \"{name}\" has started");
    exit::run(&name.clone(), move || run(&name, database));
}

/// Makes this process the mirror's worker. Not when there is one: a launcher that was ended may have forgotten it.
fn announce(name: &str) -> bool {
    let announced = shmem::update(name, |slot| {
        if slot.pid != 0 {
            return false;
        }
        slot.generation += 1;
        // SAFETY: set before any worker runs; reads the clock.
        (slot.pid, slot.started_at) = unsafe { (pg_sys::MyProcPid, pg_sys::GetCurrentTimestamp()) };
        slot.proc_number = compat::my_proc_number();
        slot.state = MirrorState::Starting;
        slot.progress = shmem::Progress::default();
        true
    });
    announced == Some(true)
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_worker(_code: i32, place: pg_sys::Datum) {
    // SAFETY: set before any worker runs.
    let me = unsafe { pg_sys::MyProcPid };
    shmem::update_at(place.value() as i32 as usize, |slot| {
        if slot.pid == me {
            slot.pid = 0;
        }
    });
}

fn run(name: &str, database: pg_sys::Oid) {
    session::report_activity(&format!("mirror {name}: starting"));
    let Some(mut mirror) = Mirror::read(name, database) else {
        shmem::update(name, |slot| slot.wanted = shmem::Wanted::Stop);
        return;
    };
    start::end_earlier_helpers(name);
    let mut loader = Loader::start(name, &mirror.config, mirror.options.load_threads);
    start::settle_earlier_labels(&mirror, &mut loader, &[]);
    let mut labels = labels::open(&mirror.name);
    let from = match session::transaction(|| checkpoint::read(name)) {
        None => super::copy::first::first_copy(&mut mirror, &mut loader, &mut labels),
        Some(last) => match resume_point(&mirror, &last) {
            Ok(from) => from,
            Err(stop) => return stop.write_down(&mirror),
        },
    };
    labels::top_up(name, &mut labels);
    Streamer::new(mirror, loader, labels, from).run();
}

/// A reason not to go on by itself.
struct Stop {
    state: MirrorState,
    reason: String,
    hint: &'static str,
}

impl Stop {
    fn write_down(self, mirror: &Mirror) {
        let message = format!("mirror \"{}\" has been stopped: {}", mirror.name, self.reason);
        warning!("{message}");
        session::transaction(|| {
            catalog::mirror::write_state(&mirror.name, self.state, Some(&self.reason));
            Event { hint: Some(self.hint), ..Event::of(&mirror.name, Severity::Error, &message) }.record();
        });
        shmem::update(&mirror.name, |slot| {
            slot.state = self.state;
            slot.last_error = Text::new(&self.reason);
            // SAFETY: reads the clock.
            slot.last_error_at = unsafe { pg_sys::GetCurrentTimestamp() };
        });
    }
}

/// Where to stream from, when slot and checkpoint still belong together. A slot has no identity of its own, so any
/// disagreement ends here, and never by taking the later position.
fn resume_point(mirror: &Mirror, last: &Checkpoint) -> Result<Lsn, Stop> {
    let here = checkpoint::here(mirror.database, 0);
    if last.system_identifier != here.system_identifier {
        return Err(Stop {
            state: MirrorState::Paused,
            reason: "this server is a copy: the checkpoint was written by another one".to_owned(),
            hint: "Drop the mirror here, or drop it on the other server and start it again here.",
        });
    }
    let slot = slot::find(&mirror.slot_name());
    let lost = |reason: String| Stop {
        state: MirrorState::NeedsResync,
        reason,
        hint: "Changes are missing at the target.  Drop the mirror and start it again to copy the tables anew.",
    };
    let Some(slot) = slot else {
        return Err(lost(format!("replication slot \"{}\" does not exist", mirror.slot_name())));
    };
    if slot.is_invalidated {
        return Err(lost(format!("replication slot \"{}\" has been invalidated", mirror.slot_name())));
    }
    if slot.confirmed_lsn > last.confirmed_lsn {
        return Err(lost(format!(
            "replication slot \"{}\" is at {}, ahead of the checkpoint at {}",
            mirror.slot_name(),
            slot.confirmed_lsn,
            last.confirmed_lsn
        )));
    }
    Ok(last.confirmed_lsn)
}

/// The loop of a streaming mirror.
struct Streamer {
    mirror: Mirror,
    decoder: Decoder,
    horizon: Horizon,
    /// The last checkpoint, and when it was written.
    confirmed: Lsn,
    confirmed_at: Instant,
    sleep: Duration,
    definition: DefinitionWatch,
    joining: Joining,
}

impl Streamer {
    fn new(mirror: Mirror, mut loader: Loader, labels: LabelSequence, from: Lsn) -> Self {
        loader.enter_phase(MirrorState::Streaming);
        session::transaction(|| catalog::mirror::write_state(&mirror.name, MirrorState::Streaming, None));
        session::report_activity(&format!("mirror {}: streaming from {from}", mirror.name));
        let feed = Feed::new(&mirror.name, Role::Mirror, &mirror.options, &mirror.tables, loader, labels);
        let publication = mirror.row.publication.as_deref();
        let decoder = Decoder::start(&mirror.slot_name(), publication, from, feed);
        Self {
            joining: Joining::new(&mirror.name),
            mirror,
            decoder,
            horizon: Horizon::default(),
            confirmed: from,
            confirmed_at: Instant::now(),
            sleep: SHORTEST_SLEEP,
            definition: DefinitionWatch::new(),
        }
    }

    fn run(mut self) {
        loop {
            session::reload_configuration_if_asked();
            if session::is_unwanted(&self.mirror.name) {
                return self.say_farewell();
            }
            if self.definition_was_mended() {
                start::log_restart(&self.mirror.name);
                shmem::update(&self.mirror.name, |slot| slot.restart_at_once = true);
                return self.decoder.feed().shut_down();
            }
            let position = self.position();
            let has_decoded = match self.joining.look(&self.mirror, position) {
                Next::GoOn => self.turn(),
                Next::StandStill => self.stand_still(),
                Next::ReadTables => self.read_tables(),
            };
            self.sleep = if has_decoded { SHORTEST_SLEEP } else { (self.sleep * 2).min(LONGEST_SLEEP) };
            let deadline = self.decoder.feed().time_to_next_seal();
            let sleep = deadline.map_or(self.sleep, |deadline| deadline.min(self.sleep));
            self.decoder.feed().wait(sleep);
        }
    }

    /// The catalogs of the present must not stay in the caches of decoding.
    fn definition_was_mended(&mut self) -> bool {
        let trouble_lasts = self.decoder.feed().trouble_lasts();
        self.definition.is_due(trouble_lasts)
            && session::with_present_catalogs(|| self.mirror.config_has_changed())
    }

    /// Returns whether there was anything to decode.
    fn turn(&mut self) -> bool {
        let end = self.horizon.advance();
        let before = self.decoder.feed().received_lsn();
        let until = Instant::now() + TURN;
        let position = self.decoder.decode_records(end, |feed| feed.is_time_for_a_pause(until));
        let feed = self.decoder.feed();
        complete_rows(&self.mirror, feed);
        feed.turn(Instant::now());
        let is_letting_go = feed.is_letting_go();
        self.checkpoint_if_due();
        self.decoder.feed().publish();
        if !is_letting_go {
            self.joining.start_copy(&self.mirror);
        }
        position > before
    }

    /// How far this worker has decoded.
    fn position(&mut self) -> Lsn {
        self.decoder.feed().received_lsn().max(self.confirmed)
    }

    /// Tables are about to join: loads go on, decoding waits for them.
    fn stand_still(&mut self) -> bool {
        failpoint::hit("sync_standing");
        self.decoder.feed().turn(Instant::now());
        self.checkpoint_if_due();
        self.decoder.feed().publish();
        false
    }

    /// The list of tables has changed. What is known of the present ones is written down first.
    fn read_tables(&mut self) -> bool {
        if self.decoder.feed().has_news() {
            let durable = self.decoder.feed().durable_lsn();
            self.checkpoint(durable);
        }
        let read = session::with_present_catalogs(|| Mirror::read(&self.mirror.name, self.mirror.database));
        if let Some(mirror) = read {
            self.mirror.follow(mirror);
            self.decoder.feed().set_tables(&self.mirror.tables);
            failpoint::hit("sync_tables_read");
        }
        true
    }

    /// Writes a checkpoint when loads have become visible since the last one, or when much log has passed without any.
    fn checkpoint_if_due(&mut self) {
        let feed = self.decoder.feed();
        let durable = feed.durable_lsn();
        let has_loaded = feed.has_loaded_since_checkpoint();
        let is_far = durable.bytes_since(self.confirmed) >= IDLE_CHECKPOINT_BYTES;
        let is_time = self.confirmed_at.elapsed() >= CHECKPOINT_INTERVAL;
        if feed.has_news() || (durable > self.confirmed && is_time && (has_loaded || is_far)) {
            self.checkpoint(durable);
        }
    }

    /// The order is the guarantee: visible at the target (`durable`), checkpoint committed, slot told.
    fn checkpoint(&mut self, durable: Lsn) {
        let name = self.mirror.name.clone();
        let feed = self.decoder.feed();
        feed.reserve_labels();
        let news = feed.take_news();
        let row = Checkpoint {
            confirmed_lsn: durable.max(self.confirmed),
            label_number: feed.settled_label(),
            ..checkpoint::here(self.mirror.database, feed.incarnation())
        };
        let written: Written = checkpoint::commit(&name, &row, || {
            news.write_down(&name);
            failpoint::hit("checkpoint_before_commit");
        });
        failpoint::hit("checkpoint_committed");
        self.decoder.confirm(&written);
        failpoint::hit("slot_confirmed");
        self.confirmed = row.confirmed_lsn;
        self.confirmed_at = Instant::now();
        self.decoder.feed().checkpoint_written(row.confirmed_lsn);
    }

    /// The mirror is no longer wanted: what has been read so far is loaded, for a moment, and written down.
    fn say_farewell(mut self) {
        log!("dbmazz worker of mirror \"{}\" will stop because the mirror was disabled", self.mirror.name);
        failpoint::hit("farewell");
        let until = Instant::now() + FAREWELL;
        self.decoder.feed().seal_everything();
        while Instant::now() < until && !self.decoder.feed().is_idle() {
            self.decoder.feed().turn(Instant::now());
            self.decoder.feed().wait(Duration::from_millis(20));
        }
        if let Some(durable) = Some(self.decoder.feed().durable_lsn()).filter(|lsn| *lsn > self.confirmed) {
            self.checkpoint(durable);
        }
        failpoint::hit("farewell_checkpointed");
        if self.decoder.feed().is_idle() {
            // Every number that was used has its answer and no other one will be used: the next worker need not ask.
            let incarnation = self.decoder.feed().incarnation();
            session::transaction(|| catalog::incarnation::remove(&self.mirror.name, incarnation));
        }
        self.decoder.feed().shut_down();
    }
}
