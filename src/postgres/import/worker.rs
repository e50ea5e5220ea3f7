//! `dbmazz import worker`: does steps of one phase until none is left. It is connected as the user who asked.

use std::ffi::CString;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use super::attempt::{attempt, refuse_with};
use super::copy::{self, ChunkToLoad, Exported};
use super::leader::guarded;
use super::source::unreadable;
use super::statement::Runner;
use super::table::{self, Ending, Import, Kind, Step};
use super::{place, presence, references};
use crate::export::checked::{CheckedFile, Stop};
use crate::export::destination::Destination;
use crate::export::rows::Fields;
use crate::postgres::catalog::{as_extension, query};
use crate::postgres::store::{self, Access};
use crate::postgres::{failpoint, process, session};

/// Main function of `dbmazz import worker`. Its arguments are the database, the import, the phase and the user.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dbmazz_import_worker_main(argument: pg_sys::Datum) {
    let mut words = process::extra().split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<i64>().ok()).unwrap_or_default();
    let (id, phase, user) = (number(), number() as i32, number() as u32);
    process::enter(argument, Some(pg_sys::Oid::from(user)));
    // Rows come in any order, and triggers have fired where they come from.
    session::set(c"session_replication_role", c"replica");
    guarded(id, move || {
        session::transaction(|| presence::become_worker(id));
        let import = session::transaction(|| as_extension(|| table::read(id)));
        let Some(import) = import.filter(|import| import.state == "running") else { return };
        Worker::new(import).run(phase);
    });
}

struct Worker {
    import: Import,
    exported: Exported,
    store: Arc<dyn Destination>,
    statements: Runner,
}

impl Worker {
    fn new(import: Import) -> Self {
        let exported: Option<Exported> =
            import.exported.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let exported = exported.unwrap_or_else(|| error!("import {} has no plan", import.id));
        let store = session::transaction(|| {
            // Receive functions convert from it; the setting needs the catalogs.
            session::set(c"client_encoding", &CString::new(exported.encoding.as_str()).unwrap_or_default());
            store::open(&import.source, import.server.as_deref(), import.owner, Access::Read)
                .unwrap_or_else(|problem| problem.report())
        });
        Self { import, exported, store, statements: Runner::default() }
    }

    fn run(mut self, phase: i32) {
        while session::transaction(|| self.do_next(phase)) {}
    }

    /// Does a step, all of it in the transaction that is open; false when there is none.
    fn do_next(&mut self, phase: i32) -> bool {
        let id = self.import.id;
        let step = as_extension(|| if presence::has_leader(id) { table::take_step(id, phase) } else { None });
        let Some(step) = step else { return false };
        session::report_activity(&format!(
            "import {id}: {}",
            step.relation.as_deref().or(step.statement.as_deref()).unwrap_or("large objects")
        ));
        let ending = self.do_step(&step);
        failpoint::hit("import_step_done");
        as_extension(|| table::complete(id, step.step, &ending));
        true
    }

    fn do_step(&mut self, step: &Step) -> Ending {
        let relation = step.relation.as_deref().unwrap_or_default();
        let sql = step.statement.as_deref().unwrap_or_default();
        match step.kind {
            Kind::Statement | Kind::CreateTable => self.statements.run(&self.import, step),
            Kind::Chunk => {
                let chunk = chunk_of(step);
                Ending::Done(copy::load(&self.store, &self.exported, relation, step.place, &chunk))
            }
            Kind::MustBeEmpty => {
                refuse_rows(relation);
                Ending::Done(0)
            }
            Kind::References => references::broken(relation).map_or(Ending::Done(0), Ending::Failed),
            Kind::LargeObjects => Ending::Done(self.make_large_objects(&chunk_of(step))),
            Kind::Refresh => attempt(sql).map_or_else(
                |refusal| {
                    Ending::Failed(format!(
                        "could not refresh materialized view {relation}: {}",
                        refusal.message
                    ))
                },
                |()| Ending::Done(0),
            ),
        }
    }

    /// Makes the large objects without their pages, which are loaded like rows.
    fn make_large_objects(&self, load: &ChunkToLoad) -> u64 {
        // SAFETY: reads the current role.
        if !unsafe { pg_sys::superuser() } {
            let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
            refuse_with(code, "only superusers can import large objects", "", WITHOUT_LARGE_OBJECTS);
        }
        let file = &load.chunk.file;
        let fail = |problem: String| -> ! { unreadable(file, &problem) };
        let checked = CheckedFile::open(&*self.store, file, self.exported.options.checksum, &Stop::default())
            .unwrap_or_else(|problem| fail(problem.to_string()));
        let made = checked.content(self.exported.options.compression).and_then(|content| {
            let mut fields = Fields::new(content)?;
            while fields.next_tuple()?.is_some() {
                let mut values = [None, None, None, None];
                for value in &mut values {
                    if let Some(field) = fields.next_field()? {
                        *value = fields.read_short(field, 1 << 20)?;
                    }
                }
                make_large_object(&values);
            }
            Ok(fields.tuples())
        });
        checked.finish().unwrap_or_else(|difference| fail(difference.to_string()));
        let made = made.unwrap_or_else(|problem| fail(problem.to_string()));
        if made != load.chunk.rows {
            fail(format!("has {made} large objects instead of {}", load.chunk.rows));
        }
        made
    }
}

const WITHOUT_LARGE_OBJECTS: &str = "The option {\"large_objects\": false} leaves them out.";

/// An object of these columns: OID, owner, ACL, description.
fn make_large_object(values: &[Option<Vec<u8>>; 4]) {
    let [oid, owner, acl, description] = values;
    let oid =
        oid.as_deref().and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes).unwrap_or_default();
    let text =
        |value: &Option<Vec<u8>>| value.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let run = |sql: String| {
        attempt(&sql).unwrap_or_else(|refusal| {
            let message = format!("could not import large object {oid}: {}", refusal.message);
            refuse_with(refusal.code, message, "", WITHOUT_LARGE_OBJECTS)
        });
    };
    // One that has this number would get pages of another one.
    run(format!("SELECT pg_catalog.lo_create({oid})"));
    if let Some(owner) = text(owner) {
        // Roles of another server need not be here.
        let owner = pgrx::spi::quote_identifier(&owner);
        let _ = attempt(&format!("ALTER LARGE OBJECT {oid} OWNER TO {owner}"));
    }
    if let Some(acl) = text(acl) {
        let _ = attempt(&format!(
            "UPDATE pg_catalog.pg_largeobject_metadata SET lomacl = {}::pg_catalog.aclitem[] WHERE oid = {oid}",
            quote_literal(&acl)
        ));
    }
    if let Some(description) = text(description) {
        run(format!("COMMENT ON LARGE OBJECT {oid} IS {}", quote_literal(&description)));
    }
}

fn chunk_of(step: &Step) -> ChunkToLoad {
    let chunk = step.chunk.as_deref().and_then(|json| serde_json::from_str(json).ok());
    chunk.unwrap_or_else(|| error!("step {} of the import cannot be read", step.step))
}

/// Raises an error when a table has rows; a partitioned one has those of its partitions.
fn refuse_rows(relation: &str) {
    let kind = query::row(
        "SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)",
        &[relation.into()],
        |row| row.must::<i8>(1).cast_unsigned(),
    );
    let only = match kind {
        Some(b'p') => "",
        Some(_) => "ONLY ",
        None => {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
            refuse_with(code, format!("relation {relation} does not exist any more"), "", place::START_OVER)
        }
    };
    if query::exists(&format!("SELECT FROM {only}{relation} LIMIT 1"), &[]) {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        let hint = "The option {\"truncate\": true} empties the tables first.";
        refuse_with(code, format!("{relation} has rows already"), "", hint);
    }
}
