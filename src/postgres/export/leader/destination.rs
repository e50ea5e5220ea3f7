//! The leader and the destination: it takes the place for itself, makes room there, and looks whether what is done is there.

use pgrx::prelude::*;

use super::super::assemble;
use super::super::place::{foreign_file, occupied};
use super::super::process::must;
use super::super::shared;
use super::{Leader, Stop};
use crate::export::foreign::{first_foreign, is_name_of_export};
use crate::export::manifest::MANIFEST;
use crate::export::verify::read_manifest;
use crate::postgres::{catalog, latch, session};

impl Leader {
    /// What is unfinished takes room, and a full disk may be why it is. An export that is done can have some too: of a worker
    /// that was ended and replaced, or an upload whose beginning was not answered and that was begun once more.
    pub(super) fn remove_unfinished(&self) {
        if let Err(problem) = self.destination.remove_unfinished() {
            warning!("could not remove unfinished files of export {}: {problem}", self.me.id);
        }
    }

    /// Keeps all others from writing there, those of other databases and servers too.
    pub(super) fn claim_destination(&mut self) -> Result<(), Stop> {
        let claim = self.destination.lock();
        // Who of this server has it is known by name.
        if let Some(directory) = self.destination.identity()
            && let Some(other) = shared::take_directory(self.me.id, self.me.database, directory)
        {
            let words = session::transaction(|| occupied(other, &self.row.destination));
            return Err(Stop::Failed(words));
        }
        let claim = must(claim);
        if claim.is_unguarded {
            log!("export {}: the file system of \"{}\" has no locks", self.me.id, self.row.destination);
        }
        self.claim = Some(claim);
        Ok(())
    }

    /// Nobody writes there any more. Before the end of the export is seen: who sees it may begin another one.
    pub(super) fn release_destination(&mut self) {
        shared::update(self.me.id, self.me.database, |place| place.directory = None);
        self.claim = None;
    }

    /// An export that begins makes room for itself, if it may; one that goes on looks whether what is done is there.
    pub(super) fn prepare_destination(&mut self) -> Result<(), Stop> {
        self.check_owner()?;
        must(self.destination.remove_unfinished());
        if self.row.planned {
            self.check_finished_chunks();
        }
        let id = self.me.id;
        if session::transaction(|| catalog::export::has_done_chunks(id)) {
            return Ok(());
        }
        let is_first_time = self.row.snapshot_lsns.is_empty();
        session::transaction(|| catalog::export::begin_anew(id));
        (self.row.planned, self.row.slot_name) = (false, None);
        (self.row.pre_data, self.row.post_data) = (None, None);
        self.make_room(is_first_time)
    }

    /// While an export was not running, another one may have taken its place.
    fn check_owner(&self) -> Result<(), Stop> {
        if self.row.snapshot_lsns.is_empty() || must(self.destination.size(MANIFEST)).is_none() {
            return Ok(());
        }
        let Ok(manifest) = read_manifest(&*self.destination) else { return Ok(()) };
        if manifest.export_id == self.row.id
            && session::transaction(|| assemble::is_of_this_database(&manifest.server))
        {
            return Ok(());
        }
        let place = &self.row.destination;
        Err(Stop::Hopeless(format!(
            "\"{place}\" has another export by now, of database \"{}\"",
            manifest.server.database
        )))
    }

    /// Removes what an export has left, if need be; nothing that is somebody else's. The manifest goes first: what is incomplete
    /// has none.
    fn make_room(&self, is_first_time: bool) -> Result<(), Stop> {
        let objects = must(self.destination.list(""));
        if is_first_time && !self.options.overwrite && !objects.is_empty() {
            return Err(Stop::Failed(format!("\"{}\" has files already", self.row.destination)));
        }
        if self.options.overwrite
            && let Some(foreign) = must(first_foreign(&*self.destination, &objects))
        {
            return Err(Stop::Failed(foreign_file(foreign, &self.row.destination)));
        }
        must(self.destination.remove(MANIFEST));
        for object in objects.iter().filter(|object| is_name_of_export(&object.name)) {
            must(self.destination.remove(&object.name));
            latch::serve_interrupts();
        }
        Ok(())
    }

    fn check_finished_chunks(&self) {
        for done in session::transaction(|| catalog::export::done_chunks(self.me.id)) {
            if must(self.destination.size(&done.file.file)) != Some(done.file.compressed_bytes) {
                let name = &done.file.file;
                log!("export {}: file \"{name}\" is not what it was and is written again", self.me.id);
                session::transaction(|| {
                    catalog::export::release_chunk(self.me.id, done.plan.relid, done.plan.chunk);
                });
            }
            latch::serve_interrupts();
        }
    }
}
