//! Whether one table can be mirrored: its kind, the caller's rights, its key and columns.

use std::ffi::CStr;

use pgrx::PgRelation;
use pgrx::spi::quote_qualified_identifier;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::sizes;
use crate::options::Options;
use crate::postgres::api::failure::Failure;
use crate::postgres::catalog::relation::{self, Columns, RelationProblem};
use crate::postgres::catalog::{as_extension, partition, server, source};
use crate::postgres::scan;
use crate::table::{TableSpec, TargetTable};

/// A table that may become one of a mirror.
pub(super) struct Candidate {
    /// The table.
    pub(super) relid: pg_sys::Oid,
    /// Whether pgoutput has to decode it.
    pub(super) filtered: bool,
    /// The column list of the publication.
    pub(super) columns: Option<Vec<i16>>,
    /// A partition of it that has a column list of its own.
    pub(super) listed_partition: Option<pg_sys::Oid>,
    /// What the publication says of it.
    pub(super) published: Option<String>,
}

impl Candidate {
    /// A table with all of its rows, columns and changes.
    pub(super) const fn whole(relid: pg_sys::Oid) -> Self {
        Self { relid, filtered: false, columns: None, listed_partition: None, published: None }
    }
}

const WRONG_KIND: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
const NOT_SUPPORTED: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;

/// Describes the table and its target, or says why it cannot be mirrored.
pub(super) fn describe(
    candidate: &Candidate,
    database: &str,
    options: &Options,
    role: pg_sys::Oid,
) -> Result<TableSpec, Failure> {
    let opened = open(candidate.relid)?;
    let relation = &opened.0;
    let names = Names::of(relation);
    kind(relation, &names, candidate)?;
    rights(relation, &names, role)?;
    let table = options.table_map.get(&names.plain).cloned().unwrap_or_else(|| names.table.clone());
    let target = TargetTable { database: database.to_owned(), table };
    let columns = candidate.columns.as_deref().map_or(Columns::All, Columns::Listed);
    // SAFETY: `opened` keeps the relation open until the end of this function.
    let described = unsafe { relation::describe(relation.as_ptr(), target, None, options, columns) };
    let spec = described.map_err(|problem| unfit(problem, &names))?;
    // SAFETY: as above.
    if unsafe { partition::is_partitioned(relation.as_ptr()) } {
        scan::check_partitions(&spec).map_err(|problem| unfit(problem, &names))?;
    }
    if let Some(partition) = candidate.listed_partition {
        return Err(listed(partition, &names));
    }
    if spec.is_appended() {
        appended(candidate, &names)?;
    }
    sizes::check(&spec, options)?;
    Ok(spec)
}

/// `schema.table` for messages and for commands.
struct Names {
    plain: String,
    quoted: String,
    schema: String,
    table: String,
}

impl Names {
    fn of(relation: &PgRelation) -> Self {
        // A name that is not UTF-8 is told as well as it can be, and refused when the columns are looked at.
        // SAFETY: the relation is open; its schema's name is null or a C string in the current memory context.
        let (schema, table) = unsafe {
            let form = &*relation.rd_rel;
            let schema = pg_sys::get_namespace_name(form.relnamespace);
            let schema = if schema.is_null() { c"" } else { CStr::from_ptr(schema) };
            let table = CStr::from_ptr(form.relname.data.as_ptr());
            (schema.to_string_lossy().into_owned(), table.to_string_lossy().into_owned())
        };
        let quoted = quote_qualified_identifier(&schema, &table);
        Self { plain: format!("{schema}.{table}"), quoted, schema, table }
    }
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// A relation of any kind, open under a lock until dropped.
struct Opened(PgRelation);

impl Drop for Opened {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The abort that follows closes it and gives the lock back.
            return;
        }
        // SAFETY: it was opened under this lock and has not been closed since.
        unsafe { pg_sys::relation_close(self.0.as_ptr(), LOCK) };
    }
}

fn open(relid: pg_sys::Oid) -> Result<Opened, Failure> {
    // SAFETY: answers null when there is no such relation; otherwise it is open under the lock, and closed by `Opened`.
    unsafe {
        let relation = pg_sys::try_relation_open(relid, LOCK);
        if !relation.is_null() {
            return Ok(Opened(PgRelation::from_pg(relation)));
        }
    }
    let message = format!("relation with OID {} does not exist", relid.to_u32());
    Err(Failure::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, message).hint("Name tables that exist."))
}

/// Ordinary and partitioned permanent tables of users only.
fn kind(relation: &PgRelation, names: &Names, candidate: &Candidate) -> Result<(), Failure> {
    // SAFETY: the relation is open.
    let form = unsafe { &*relation.rd_rel };
    let refuse = |code, kind: &str, hint: &str| {
        Err(Failure::new(code, format!("cannot mirror {kind} \"{}\"", names.plain)).hint(hint))
    };
    let system = "System catalogs and tables of extensions are not mirrored; name a table of yours.";
    if candidate.relid.to_u32() < pg_sys::FirstNormalObjectId {
        return refuse(WRONG_KIND, "system catalog", system);
    }
    if names.schema == "dbmazz" {
        return refuse(WRONG_KIND, "extension table", system);
    }
    match form.relkind.cast_unsigned() {
        pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE => {}
        pg_sys::RELKIND_VIEW => return refuse(WRONG_KIND, "view", "Name the tables that the view reads."),
        pg_sys::RELKIND_MATVIEW => {
            return refuse(WRONG_KIND, "materialized view", "Name the tables that the view reads.");
        }
        pg_sys::RELKIND_FOREIGN_TABLE => {
            return refuse(WRONG_KIND, "foreign table", "Mirror the table on the server where it is.");
        }
        _ => return refuse(WRONG_KIND, "relation", "Only tables can be mirrored."),
    }
    storage(relation, form, names)
}

/// Changes of the table must be in the log, in a form that can be decoded.
fn storage(relation: &PgRelation, form: &pg_sys::FormData_pg_class, names: &Names) -> Result<(), Failure> {
    let plain = &names.plain;
    match form.relpersistence.cast_unsigned() {
        pg_sys::RELPERSISTENCE_UNLOGGED => {
            return Err(Failure::new(WRONG_KIND, format!("cannot mirror unlogged table \"{plain}\""))
                .detail("Its changes are not in the log.")
                .hint(format!("ALTER TABLE {} SET LOGGED.", names.quoted)));
        }
        pg_sys::RELPERSISTENCE_TEMP => {
            return Err(Failure::new(WRONG_KIND, format!("cannot mirror temporary table \"{plain}\""))
                .detail("Its changes are not in the log, and only this session sees it.")
                .hint("Name a permanent table."));
        }
        _ => {}
    }
    // What a partitioned table has is in its partitions, which are looked at later.
    // SAFETY: the relation is open.
    if unsafe { relation::is_like_heap(relation.as_ptr()) || partition::is_partitioned(relation.as_ptr()) } {
        return Ok(());
    }
    let message = format!("cannot mirror table \"{plain}\": its access method does not work like heap");
    Err(Failure::new(NOT_SUPPORTED, message)
        .detail("Its changes cannot be decoded from the log.")
        .hint("Leave the table out of the mirror, or ALTER TABLE … SET ACCESS METHOD heap."))
}

/// The workers read past permissions and row security, so both are looked at here, for the mirror's owner.
fn rights(relation: &PgRelation, names: &Names, role: pg_sys::Oid) -> Result<(), Failure> {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: look into the system caches, for a relation that is open; neither raises an error when it says no.
    let (may_select, security) = unsafe {
        let may_select =
            pg_sys::pg_class_aclcheck(relation.oid(), role, select) == pg_sys::AclResult::ACLCHECK_OK;
        (may_select, pg_sys::check_enable_rls(relation.oid(), role, true))
    };
    let role_name = pgrx::spi::quote_identifier(server::role_name(role));
    if !may_select {
        return Err(Failure::new(code, format!("permission denied for table \"{}\"", names.plain))
            .hint(format!("GRANT SELECT ON {} TO {role_name}.", names.quoted)));
    }
    if security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
        let message = format!("cannot mirror table \"{}\": row-level security hides rows of it", names.plain);
        return Err(Failure::new(code, message)
            .detail(format!("Its policies apply to role {role_name}, and a mirror has all rows."))
            .hint(format!(
                "Start the mirror as the owner of the table, or ALTER ROLE {role_name} BYPASSRLS."
            )));
    }
    Ok(())
}

/// A table without a key can be appended to, unless somebody expects more of it.
fn appended(candidate: &Candidate, names: &Names) -> Result<(), Failure> {
    if as_extension(|| source::has_deferrable_key(candidate.relid)) {
        return Err(deferrable_key(names));
    }
    if candidate.filtered {
        let message = format!("cannot mirror table \"{}\": it has no key", names.plain);
        return Err(Failure::new(NOT_SUPPORTED, message)
            .detail("Its publication has a row filter, a column list, or leaves operations out.")
            .hint(format!(
                "ALTER TABLE {} ADD PRIMARY KEY (…), or mirror the table without a publication.",
                names.quoted
            )));
    }
    Ok(())
}

/// All partitions go into one table, which has all columns.
fn listed(partition: pg_sys::Oid, names: &Names) -> Failure {
    let message = format!(
        "cannot mirror table \"{}\": partition \"{}\" has a column list of its own in the publication",
        names.plain,
        partition::name(partition)
    );
    Failure::new(NOT_SUPPORTED, message).hint(format!(
        "ALTER PUBLICATION … SET (publish_via_partition_root = true), with the column list at {}.",
        names.quoted
    ))
}

fn deferrable_key(names: &Names) -> Failure {
    let message = format!("cannot mirror table \"{}\": its primary key is DEFERRABLE", names.plain);
    Failure::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail("A key that is checked at commit does not identify a row before.")
        .hint(format!(
            "Make a unique index on the same columns and ALTER TABLE {} REPLICA IDENTITY USING INDEX ….",
            names.quoted
        ))
}

fn unfit(problem: RelationProblem, names: &Names) -> Failure {
    let table = &names.plain;
    let code = match &problem {
        RelationProblem::NoKey(_)
        | RelationProblem::KeyNotPublished { .. }
        | RelationProblem::OtherIdentity { .. }
        | RelationProblem::Gone => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        _ => NOT_SUPPORTED,
    };
    let hint = problem.hint(&names.quoted);
    Failure::new(code, format!("cannot mirror table \"{table}\": {problem}")).hint(hint)
}
