//! The mirror worker: one mirror, from its start to its end.
//!
//! ```text
//! read definition ─► still the one? ─► settle earlier labels ─► claim target ─► checkpoint? ──none──► first copy ─┐
//!                                                                                    └────────────────────────────►├─► stream
//! ```
//!
//! Streaming is a loop of turns. Each decodes what has been flushed, for a bounded time, lets the pipeline seal what is
//! due, writes a checkpoint when loads have become visible, and waits at the bottom. Between turns, and only there, the
//! worker runs transactions of its own, on tables of the schema `dbmazz`.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::checkpoint::{self, Checkpoint, Written};
use super::super::decode::{Decoder, Feed, Horizon};
use super::super::heap::FreedMemory;
use super::super::loader::Loader;
use super::super::shmem::{self, MirrorState, Role};
use super::super::{catalog, clock, compat, failpoint, labels, process, session};
use super::complete::complete_rows;
use super::joining::{Joining, Next};
use super::owner::Owner;
use super::publication::PublicationWatch;
use super::standstill::Stop;
use super::start::{self, DefinitionWatch, Mirror};
use super::{exit, guard, identity, owner};
use crate::lsn::Lsn;
use crate::pipeline::LabelSequence;

/// Checkpoints are at least so far apart, but for the one at a pause.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// When nothing is loaded, the checkpoint moves after this much log: it is log itself.
const IDLE_CHECKPOINT_BYTES: u64 = 16 << 20;
/// A checkpoint that does no more than have the slot let log go is written after this time at the earliest. The position
/// from which decoding would begin again follows the log with every checkpoint one step behind; without this, the log
/// of a burst would be kept until the next change.
const LETTING_GO_INTERVAL: Duration = Duration::from_secs(10);
/// One turn decodes no longer than this, unless a single transaction takes longer.
const TURN: Duration = Duration::from_millis(50);
/// How long the worker sleeps between looks at the log when it is busy.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// How long a mirror that is being paused waits for its loads.
const FAREWELL: Duration = Duration::from_secs(5);

/// Main function of `dbmazz mirror`. Its arguments are the database and the mirror.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_mirror_main(argument: pg_sys::Datum) {
    let (database, name) = super::enter(argument);
    let Some(place) = shmem::place_of(&name) else { return };
    process::on_exit(forget_worker, pg_sys::Datum::from(place as i32));
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
        // SAFETY: set before any worker runs.
        slot.pid = unsafe { pg_sys::MyProcPid };
        slot.started_at = clock::now();
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
    guard::arm(name, database, &mirror.options);
    let checked = match identity::check(&mirror) {
        Ok(checked) => checked,
        Err(stop) => return stop.write_down(name),
    };
    start::end_earlier_helpers(name);
    // They may have written down how far tables have come until the last moment.
    mirror.read_tables();
    let mut loader = Loader::start(name, &mirror.config, mirror.options.load_threads);
    start::settle_earlier_labels(&mirror, &mut loader, &[]);
    let mut labels = labels::open(&mirror.name);
    let mut owner = match owner::claim(&mirror, &mut loader, &checked, labels.incarnation()) {
        Ok(owner) => owner,
        Err(stop) => return stop.write_down(name),
    };
    let from = match checked.checkpoint {
        Some(last) => last.confirmed_lsn,
        None => {
            let from = super::copy::first::first_copy(&mut mirror, &mut loader, &mut labels);
            if let Err(stop) = owner.advance_after_copy(&mirror, &mut loader, from) {
                return stop.write_down(name);
            }
            session::transaction(|| checkpoint::write_owner_lsn(name, from));
            from
        }
    };
    labels::top_up(name, &mut labels);
    Streamer::new(mirror, loader, labels, owner, from).run();
}

/// Goes on with a wish for rejected rows to be tried again, if there is one.
fn retry(mirror: &str, retry: Retry, feed: &mut Feed) -> Retry {
    match retry {
        Retry::Idle => match shmem::find(mirror) {
            Some(slot) if slot.retries_wanted > slot.retries_done => {
                feed.retry_parked();
                failpoint::hit("rejected_noted");
                Retry::Reading(slot.retries_wanted)
            }
            _ => Retry::Idle,
        },
        Retry::Reading(wish) if feed.incomplete().is_empty() => {
            feed.seal_everything();
            Retry::Loading(wish, feed.received_lsn())
        }
        Retry::Loading(wish, position) if feed.durable_lsn() >= position && feed.has_told_of_rejected() => {
            shmem::update(mirror, |slot| slot.retries_done = slot.retries_done.max(wish));
            Retry::Idle
        }
        underway => underway,
    }
}

/// The loop of a streaming mirror.
struct Streamer {
    mirror: Mirror,
    decoder: Decoder,
    owner: Owner,
    horizon: Horizon,
    /// The last checkpoint, and when it was written.
    confirmed: Lsn,
    confirmed_at: Instant,
    /// What the row of the owner said at that checkpoint.
    owner_lsn: Lsn,
    sleep: Duration,
    longest_sleep: Duration,
    definition: DefinitionWatch,
    joining: Joining,
    /// A table has joined of which changes may have been left out: the log has to be read again from before them.
    begins_anew: bool,
    publication: PublicationWatch,
    retry: Retry,
    freed_memory: FreedMemory,
}

/// How long a worker sleeps between looks at the log when nothing happens: a tenth of the time that a change may wait for its
/// load. That time is counted from the look before, so it is not any longer for that.
fn longest_sleep(flush_interval: Duration) -> Duration {
    // Of a short interval not more than half: what is committed just after a look would else wait longer for the next one.
    let shortest = (flush_interval / 2).clamp(SHORTEST_SLEEP, Duration::from_millis(10));
    (flush_interval / 10).clamp(shortest, Duration::from_millis(50))
}

/// A wish for rejected rows to be tried again.
#[derive(Clone, Copy)]
enum Retry {
    /// There is none.
    Idle,
    /// The rows are read from the source, for wishes up to this one …
    Reading(u64),
    /// … and loaded; everything up to this position must be durable, and told.
    Loading(u64, Lsn),
}

impl Streamer {
    fn new(mirror: Mirror, mut loader: Loader, labels: LabelSequence, owner: Owner, from: Lsn) -> Self {
        loader.enter_phase(MirrorState::Streaming);
        session::transaction(|| catalog::mirror::write_state(&mirror.name, MirrorState::Streaming, None));
        session::report_activity(&format!("mirror {}: streaming from {from}", mirror.name));
        let feed = Feed::new(&mirror.name, Role::Mirror, &mirror.options, &mirror.tables, loader, labels);
        let publication = mirror.row.publication.as_deref();
        let longest_sleep = longest_sleep(mirror.options.flush_interval.length());
        let decoder = Decoder::start(&mirror.slot_name(), publication, from, feed);
        Self {
            joining: Joining::new(&mirror.name),
            publication: PublicationWatch::new(),
            retry: Retry::Idle,
            freed_memory: FreedMemory::keep(),
            mirror,
            decoder,
            owner_lsn: owner.written_lsn(),
            owner,
            horizon: Horizon::default(),
            confirmed: from,
            confirmed_at: Instant::now(),
            sleep: SHORTEST_SLEEP,
            longest_sleep,
            definition: DefinitionWatch::new(),
            begins_anew: false,
        }
    }

    fn run(mut self) {
        loop {
            session::reload_configuration_if_asked();
            if session::is_unwanted(&self.mirror.name) {
                return self.say_farewell();
            }
            if self.begins_anew || self.definition_was_mended() {
                self.say_why_it_restarts();
                shmem::update(&self.mirror.name, |slot| slot.restart_at_once = true);
                return self.decoder.feed().shut_down();
            }
            let position = self.position();
            let turned = match self.joining.look(&self.mirror, position) {
                Next::GoOn => self.turn(),
                Next::StandStill => self.wait_for_tables(),
                Next::ReadTables => self.read_tables(),
            };
            let has_decoded = match turned {
                Ok(has_decoded) => has_decoded,
                Err(stop) => return self.stand_still(stop),
            };
            self.sleep = if has_decoded { SHORTEST_SLEEP } else { (self.sleep * 2).min(self.longest_sleep) };
            let deadline = self.decoder.feed().time_to_next_seal();
            let sleep = deadline.map_or(self.sleep, |deadline| deadline.min(self.sleep));
            self.decoder.feed().wait(sleep);
        }
    }

    fn say_why_it_restarts(&self) {
        let name = &self.mirror.name;
        if self.begins_anew {
            log!(
                "dbmazz worker of mirror \"{name}\" will restart to read the log from before a table joined"
            );
        } else {
            start::log_restart(name);
        }
    }

    /// The catalogs of the present must not stay in the caches of decoding.
    fn definition_was_mended(&mut self) -> bool {
        let trouble_lasts = self.decoder.feed().trouble_lasts();
        self.definition.is_due(trouble_lasts)
            && session::with_present_catalogs(|| self.mirror.config_has_changed())
    }

    /// Returns whether there was anything to decode.
    fn turn(&mut self) -> Result<bool, Stop> {
        let end = self.horizon.advance();
        let before = self.decoder.feed().received_lsn();
        let until = Instant::now() + TURN;
        let position = self.decoder.decode_records(end, |feed| feed.is_time_for_a_pause(until));
        self.freed_memory.turn(position.0.saturating_sub(before.0));
        let feed = self.decoder.feed();
        self.retry = retry(&self.mirror.name, self.retry, feed);
        complete_rows(&self.mirror, feed);
        feed.turn(Instant::now());
        let is_letting_go = feed.is_letting_go();
        if feed.list_has_changed() {
            shmem::tables_changed(&self.mirror.name);
        }
        self.keep_promises()?;
        self.publication.look(&self.mirror);
        if !is_letting_go {
            self.joining.start_copy(&self.mirror);
        }
        Ok(position > before)
    }

    /// How far this worker has decoded.
    fn position(&mut self) -> Lsn {
        self.decoder.feed().received_lsn().max(self.confirmed)
    }

    /// Tables are about to join: loads go on, decoding waits for them.
    fn wait_for_tables(&mut self) -> Result<bool, Stop> {
        failpoint::hit("sync_standing");
        self.decoder.feed().turn(Instant::now());
        self.keep_promises()?;
        Ok(false)
    }

    /// The list of tables has changed. What is known of the present ones is written down first.
    fn read_tables(&mut self) -> Result<bool, Stop> {
        let promised = self.promised();
        if self.decoder.feed().has_news(promised) {
            self.checkpoint(promised);
        }
        let read = session::with_present_catalogs(|| Mirror::read(&self.mirror.name, self.mirror.database));
        let Some(mirror) = read else {
            // It is being paused or dropped, which will be noticed in a moment. Until then nothing is decoded: the list
            // counts as not read.
            self.mirror.tables_version = u64::MAX;
            return Ok(false);
        };
        self.mirror.follow(mirror);
        let has_joined = self.decoder.feed().set_tables(&self.mirror.tables);
        self.begins_anew = has_joined && self.decoder.may_lack_changes();
        // Others have loaded what joins now: the target says so before a checkpoint does.
        self.decoder.feed().target_was_changed();
        failpoint::hit("sync_tables_read");
        Ok(true)
    }

    /// What has become visible is claimed, written down, and shown.
    fn keep_promises(&mut self) -> Result<(), Stop> {
        self.keep_claim()?;
        self.checkpoint_if_due();
        self.decoder.feed().publish();
        Ok(())
    }

    /// The claim to the target is lost: whoever has it now must not find this worker writing beside it.
    fn stand_still(mut self, stop: Stop) {
        self.decoder.feed().shut_down();
        stop.write_down(&self.mirror.name);
    }

    /// Has the row of the owner written when loads have become visible since it was.
    fn keep_claim(&mut self) -> Result<(), Stop> {
        let feed = self.decoder.feed();
        if let Some(result) = feed.take_owner_outcome() {
            self.owner.take_outcome(result)?;
        }
        if let Some(step) = self.owner.next_step(feed.durable_lsn(), feed.changes_of_target()) {
            feed.hand_out_owner_step(step);
        }
        Ok(())
    }

    /// Everything that committed before is visible at the target, and its row of the owner says so.
    fn promised(&mut self) -> Lsn {
        let feed = self.decoder.feed();
        let (durable, changes) = (feed.durable_lsn(), feed.changes_of_target());
        self.owner.promised(durable, changes)
    }

    /// Writes a checkpoint when loads have become visible since the last one and the target says so, or when much log has
    /// passed without any.
    fn checkpoint_if_due(&mut self) {
        let promised = self.promised();
        let has_loaded = self.owner.written_lsn() > self.owner_lsn;
        let is_far = promised.bytes_since(self.confirmed) >= IDLE_CHECKPOINT_BYTES;
        let has_news = self.decoder.feed().has_news(promised);
        let lets_go = self.confirmed_at.elapsed() >= LETTING_GO_INTERVAL
            && self.decoder.log_to_let_go(promised) >= IDLE_CHECKPOINT_BYTES;
        let is_time = self.confirmed_at.elapsed() >= CHECKPOINT_INTERVAL;
        let has_moved = promised > self.confirmed;
        if has_news || (has_moved && is_time && (has_loaded || is_far || lets_go)) {
            self.checkpoint(promised);
        }
    }

    /// The order is the guarantee: visible at the target, the row of the owner says so (`promised`), checkpoint committed,
    /// slot told.
    fn checkpoint(&mut self, promised: Lsn) {
        let name = self.mirror.name.clone();
        let feed = self.decoder.feed();
        feed.reserve_labels();
        let news = feed.take_news(promised);
        let row = Checkpoint {
            confirmed_lsn: promised.max(self.confirmed),
            label_number: feed.settled_label(),
            owner_lsn: self.owner.written_lsn(),
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
        self.owner_lsn = row.owner_lsn;
        self.decoder.feed().checkpoint_written(row.confirmed_lsn);
    }

    /// Waits until the row of the owner says what is durable now.
    fn claim_what_was_loaded(&mut self, until: Instant) -> Result<(), Stop> {
        while Instant::now() < until {
            self.keep_claim()?;
            let feed = self.decoder.feed();
            let (durable, changes) = (feed.durable_lsn(), feed.changes_of_target());
            if self.owner.promised(durable, changes) == durable {
                return Ok(());
            }
            if let Some(step) = self.owner.step_now(durable, changes) {
                feed.hand_out_owner_step(step);
            }
            feed.turn(Instant::now());
            feed.wait(Duration::from_millis(20));
        }
        Ok(())
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
        if let Err(stop) = self.claim_what_was_loaded(until) {
            return self.stand_still(stop);
        }
        let promised = self.promised();
        if promised > self.confirmed {
            self.checkpoint(promised);
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
