//! From a manifest and two scripts to steps.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::attempt::refuse_with;
use super::choice::{self, Choice};
use super::copy::{ChunkToLoad, Exported};
use super::options::ImportOptions;
use super::place;
use super::script::{Name, Statement, What};
use super::source::Source;
use super::table::{self, Import, Kind, Step};
use super::wanted::Wanted;
use crate::export::chunk::Format;
use crate::export::manifest::{
    Blobs, Chunk, Column, File, LargeObjects, Manifest, Sequence, Table, TableKind,
};
use crate::postgres::catalog::query;

/// The last phase.
pub(super) const LAST_PHASE: i32 = 8;

/// The phase of what must be there before the rows.
pub(super) const BEFORE_ROWS: i32 = 0;
const EMPTY: i32 = 1;
/// The phase of the rows.
pub(super) const ROWS: i32 = 2;
const SEQUENCES: i32 = 3;
const INDEXES: i32 = 4;
const AFTER_INDEXES: i32 = 5;
const FOREIGN_KEYS: i32 = 6;
const LAST: i32 = 7;
const REFRESH: i32 = LAST_PHASE;

/// Whether steps of a phase do not need each other.
pub(super) const fn is_parallel(phase: i32) -> bool {
    matches!(phase, ROWS | INDEXES | FOREIGN_KEYS)
}

/// Writes down the steps of an import. In a transaction of its leader; raises an error when it cannot be done.
pub(super) fn write_down(source: &Source, import: &Import, options: &ImportOptions) {
    let manifest = &source.manifest;
    let is_known =
        |name: &String| manifest.tables.iter().any(|table| choice::is_called(&name_of(table), name));
    let asks_for_more = import.tables.iter().flatten().any(|name| !is_known(name));
    let read = |file: &File, is_needed: bool| if is_needed { source.script(file) } else { vec![] };
    let scripts = [
        read(&manifest.schema.pre_data, options.schema || asks_for_more),
        read(&manifest.schema.post_data, options.schema),
    ];
    let choice = match &import.tables {
        None => Choice::all(manifest),
        Some(names) => Choice::of(manifest, names, &scripts[0]),
    };
    let mut plan = Plan::new(manifest, choice, &scripts, import, options);
    plan.check();
    if options.schema {
        plan.take_scripts(&scripts);
    }
    plan.take_rows(&scripts[0]);
    let exported = Exported {
        options: manifest.options.clone(),
        encoding: manifest.server.encoding.clone(),
        manifest: source.digest(),
    };
    let exported = serde_json::to_string(&exported).unwrap_or_else(|problem| error!("{problem}"));
    table::plan(import.id, &exported, &plan.steps);
}

/// What is decided so far.
pub(super) struct Plan<'a> {
    manifest: &'a Manifest,
    options: &'a ImportOptions,
    pub(super) tables: Vec<&'a Table>,
    /// Partitioned tables that were asked for.
    pub(super) partitioned: HashSet<Name>,
    /// Whether all tables of the export are to be imported.
    pub(super) is_whole: bool,
    /// Tables that are there, and of which kind.
    there: HashMap<Name, u8>,
    /// Those of them that are as they are to be: nothing of their definition is touched. Others were created by an import
    /// that is not done.
    pub(super) existing: HashSet<Name>,
    steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    fn new(
        manifest: &'a Manifest,
        choice: Choice<'a>,
        scripts: &[Vec<Statement>],
        import: &Import,
        options: &'a ImportOptions,
    ) -> Self {
        let Choice { tables, partitioned } = choice;
        let created = scripts.iter().flatten().filter(|statement| statement.what == What::Table);
        let names =
            tables.iter().map(|table| name_of(table)).chain(created.filter_map(|it| it.about.clone()));
        let there: HashMap<Name, u8> =
            names.filter_map(|name| Some((name.clone(), kind_of(&name)?))).collect();
        let unfinished = place::unfinished();
        let existing = there.keys().filter(|name| !unfinished.contains(&quoted(name))).cloned().collect();
        let is_whole = import.tables.is_none();
        Self { manifest, options, tables, partitioned, is_whole, there, existing, steps: vec![] }
    }

    /// Raises an error about what could not go well.
    fn check(&self) {
        let rows = self.tables.iter().filter(|table| table.kind == TableKind::Table);
        for table in rows {
            let name = quoted(&name_of(table));
            match self.there.get(&name_of(table)) {
                Some(b'r' | b'p') => {}
                Some(_) => refuse_with(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("{name} is there and is not a table"),
                    "",
                    "Rename it, or leave the table out.",
                ),
                None if self.options.schema => {}
                None => refuse_with(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                    format!("relation {name} does not exist, and the schema is not to be imported"),
                    "",
                    "Create the table, or leave the option \"schema\" out.",
                ),
            }
            let options = &self.manifest.options;
            let is_outside = table.columns.iter().any(|column| column.external);
            if options.format == Format::Csv && options.blobs == Blobs::External && is_outside {
                refuse_with(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("cannot import {name}: its files are CSV with values outside"),
                    "",
                    "Export it in the format \"binary\", or with the option {\"blobs\": \"inline\"}.",
                );
            }
        }
    }

    fn add(&mut self, phase: i32, kind: Kind, relation: Option<String>) -> &mut Step {
        let step = i32::try_from(self.steps.len()).unwrap_or(i32::MAX);
        let settings = String::new();
        self.steps.push(Step {
            step,
            phase,
            kind,
            relation,
            statement: None,
            settings,
            chunk: None,
            bytes: 0,
            place: None,
        });
        self.steps.last_mut().unwrap_or_else(|| error!("a step is missing"))
    }

    fn add_statement(&mut self, phase: i32, statement: &Statement, bytes: i64) {
        let kind = match statement.what {
            What::Table | What::MaterializedView => Kind::CreateTable,
            _ => Kind::Statement,
        };
        let step = self.add(phase, kind, statement.about.as_ref().map(quoted));
        step.statement = Some(statement.text.clone());
        step.settings.clone_from(&statement.settings);
        step.bytes = bytes;
    }

    /// Statements of the schema, each in its phase.
    fn take_scripts(&mut self, scripts: &[Vec<Statement>; 2]) {
        let wanted = Wanted::new(self, &scripts[0], &scripts[1]);
        let [before, after] = scripts.each_ref().map(|script| {
            script.iter().filter(|statement| wanted.has(self, statement)).collect::<Vec<&Statement>>()
        });
        for statement in &before {
            self.add_statement(BEFORE_ROWS, statement, 0);
        }
        self.check_functions(&before, &after);
        self.take_statements_after_rows(&after);
        for view in self.views_to_fill(scripts) {
            let name = quoted(&view);
            self.add(REFRESH, Kind::Refresh, Some(name.clone())).statement =
                Some(format!("REFRESH MATERIALIZED VIEW {name}"));
        }
    }

    fn take_statements_after_rows(&mut self, statements: &[&Statement]) {
        let sizes: HashMap<Name, i64> =
            self.tables.iter().map(|table| (name_of(table), bytes_of(table))).collect();
        // Views that need a primary key are made here; what is on them follows them.
        let views = statements.iter().filter(|statement| statement.what == What::MaterializedView);
        let views: HashSet<&Name> = views.filter_map(|statement| statement.about.as_ref()).collect();
        for statement in statements {
            let about = statement.about.as_ref();
            let size = about.and_then(|about| sizes.get(about)).copied().unwrap_or_default();
            match &statement.what {
                What::Ornament => self.add_statement(LAST, statement, 0),
                _ if about.is_some_and(|about| views.contains(about)) => {
                    self.add_statement(AFTER_INDEXES, statement, 0);
                }
                What::Index(_) => self.add_statement(INDEXES, statement, size),
                What::ForeignKey(_) => self.add_statement(FOREIGN_KEYS, statement, size),
                _ => self.add_statement(AFTER_INDEXES, statement, 0),
            }
        }
    }

    /// Triggers come after the rows: that the function of one is missing is said before them.
    fn check_functions(&self, before: &[&Statement], after: &[&Statement]) {
        for trigger in after {
            let What::Trigger(function) = &trigger.what else { continue };
            let is_created =
                before.iter().any(|it| matches!(&it.what, What::Function(name) if name == function));
            if !is_created && !is_function(function) {
                let relation = trigger.about.as_ref().map(quoted).unwrap_or_default();
                refuse_with(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                    format!("function {} of a trigger of {relation} does not exist", quoted(function)),
                    "",
                    NOT_ALONE,
                );
            }
        }
    }

    /// Materialized views that have no rows yet. pg_dump creates them in an order in which each has what it reads.
    fn views_to_fill(&self, scripts: &[Vec<Statement>]) -> Vec<Name> {
        let known = self.tables.iter().filter(|table| table.kind == TableKind::MaterializedView);
        let known: HashSet<Name> = known.map(|view| name_of(view)).collect();
        let created = scripts.iter().flatten().filter(|statement| statement.what == What::MaterializedView);
        let names = created.filter_map(|statement| statement.about.clone());
        names.filter(|name| known.contains(name) && !self.existing.contains(name)).collect()
    }

    /// Tables are empty or emptied, filled, and their sequences set.
    fn take_rows(&mut self, before: &[Statement]) {
        let tables: Vec<&Table> =
            self.tables.iter().copied().filter(|table| table.kind == TableKind::Table).collect();
        self.take_emptiness(&tables);
        for table in &tables {
            for chunk in &table.chunks {
                self.add_chunk(&quoted(&name_of(table)), self.manifest.options.format, &table.columns, chunk);
            }
        }
        for sequence in &self.manifest.sequences {
            let statement = set_sequence(sequence, (!self.is_whole).then_some(&tables));
            self.add(SEQUENCES, Kind::Statement, None).statement = Some(statement);
        }
        if let Some(objects) = self.manifest.large_objects.as_ref()
            && self.is_whole
            && self.options.large_objects
        {
            self.take_large_objects(objects);
        }
        self.take_references(&tables, before);
    }

    /// Tables that are there are emptied if that was asked for. All others must be empty, also those that are to be
    /// created: somebody else may do that first.
    fn take_emptiness(&mut self, tables: &[&Table]) {
        let names: Vec<Name> = tables.iter().map(|table| name_of(table)).collect();
        let (emptied, others): (Vec<&Name>, Vec<&Name>) =
            names.iter().partition(|name| self.options.truncate && self.there.contains_key(*name));
        if !emptied.is_empty() {
            let only = |name: &&Name| if self.there.get(*name) == Some(&b'p') { "" } else { "ONLY " };
            let list: Vec<String> =
                emptied.iter().map(|name| format!("{}{}", only(name), quoted(name))).collect();
            self.add(EMPTY, Kind::Statement, None).statement = Some(format!("TRUNCATE {}", list.join(", ")));
        }
        for name in others {
            self.add(EMPTY, Kind::MustBeEmpty, Some(quoted(name)));
        }
    }

    /// Foreign keys that are there before the rows: those of tables that are there, also when it is a partition that comes
    /// to them.
    fn take_references(&mut self, tables: &[&Table], before: &[Statement]) {
        let attached: HashSet<Name> = before
            .iter()
            .filter(|statement| statement.about.as_ref().is_some_and(|whole| self.there.contains_key(whole)))
            .filter_map(|it| if let What::Attach(part) = &it.what { Some(part.clone()) } else { None })
            .collect();
        for name in tables.iter().map(|table| name_of(table)) {
            if self.there.contains_key(&name) || attached.contains(&name) {
                self.add(LAST, Kind::References, Some(quoted(&name)));
            }
        }
    }

    fn take_large_objects(&mut self, objects: &LargeObjects) {
        if objects.page_bytes != pg_sys::BLCKSZ / 4 {
            error!("the large objects have pages of {} bytes, this server has others", objects.page_bytes);
        }
        let load = ChunkToLoad { format: Format::Binary, columns: vec![], chunk: objects.objects.clone() };
        self.add(EMPTY, Kind::LargeObjects, None).chunk = Some(json(&load));
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            external: false,
        };
        let columns = [column("loid", "oid"), column("pageno", "integer"), column("data", "bytea")];
        for pages in &objects.pages {
            self.add_chunk("pg_catalog.pg_largeobject", Format::Binary, &columns, pages);
        }
    }

    fn add_chunk(&mut self, relation: &str, format: Format, columns: &[Column], chunk: &Chunk) {
        let load = ChunkToLoad { format, columns: columns.to_vec(), chunk: chunk.clone() };
        let step = self.add(ROWS, Kind::Chunk, Some(relation.to_owned()));
        step.chunk = Some(json(&load));
        step.bytes = i64::try_from(chunk.file.bytes).unwrap_or(i64::MAX);
    }
}

/// Schema and name of a table of the manifest.
pub(super) fn name_of(table: &Table) -> Name {
    (table.schema.clone(), table.name.clone())
}

/// As SQL has it.
pub(super) fn quoted(name: &Name) -> String {
    if name.0.is_empty() { quote_identifier(&name.1) } else { quote_qualified_identifier(&name.0, &name.1) }
}

fn bytes_of(table: &Table) -> i64 {
    let bytes = table.chunks.iter().map(|chunk| chunk.file.bytes).sum::<u64>();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whether there is something that rows can be read from.
pub(super) fn is_there(name: &Name) -> bool {
    kind_of(name).is_some_and(|kind| matches!(kind, b'r' | b'p' | b'm' | b'f' | b'v'))
}

/// The `relkind` of what has this name.
fn kind_of(name: &Name) -> Option<u8> {
    query::row(
        "SELECT c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2",
        &[name.0.clone().into(), name.1.clone().into()],
        |row| row.must::<i8>(1).cast_unsigned(),
    )
}

fn is_function(name: &Name) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = $1 AND p.proname = $2",
        &[name.0.clone().into(), name.1.clone().into()],
    )
}

/// What an import of some tables does not bring.
pub(super) const NOT_ALONE: &str = "Tables that are not all of a database come with what belongs to them alone. Create what else they need, or import the schema by psql or with all of the export; then the rows come with the option {\"schema\": false}.";

/// Sets a sequence, if it is there; of an import of some tables only when it is one of theirs.
fn set_sequence(sequence: &Sequence, of: Option<&Vec<&Table>>) -> String {
    let literal = |text: &str| pgrx::spi::quote_literal(text);
    let name = literal(&quoted(&(sequence.schema.clone(), sequence.name.clone())));
    let only = of.map_or(String::new(), |tables| {
        let tables: Vec<String> = tables
            .iter()
            .map(|table| format!("pg_catalog.to_regclass({})", literal(&quoted(&name_of(table)))))
            .collect();
        format!(
            " AND EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.oid
                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                   AND d.refobjid = ANY (ARRAY[{}]::pg_catalog.oid[]))",
            tables.join(", ")
        )
    });
    format!(
        "SELECT pg_catalog.setval(s.oid::pg_catalog.regclass, {}, {}) FROM pg_catalog.pg_class s
         WHERE s.oid = pg_catalog.to_regclass({name}) AND s.relkind = 'S'{only}",
        sequence.last_value, sequence.is_called
    )
}

fn json(load: &ChunkToLoad) -> String {
    serde_json::to_string(load).unwrap_or_else(|problem| error!("{problem}"))
}
