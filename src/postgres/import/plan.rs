//! From a manifest and two scripts to steps.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::attempt::refuse;
use super::copy::{ChunkToLoad, Exported};
use super::options::ImportOptions;
use super::script::{self, Name, Statement, What};
use super::table::{self, Import, Kind, Step};
use crate::export::checked::{CheckedFile, Stop};
use crate::export::chunk::Format;
use crate::export::codec::Compression;
use crate::export::destination::Destination;
use crate::export::manifest::{Chunk, Column, File, LargeObjects, Manifest, Sequence, Table, TableKind};
use crate::export::verify::read_manifest;
use crate::postgres::catalog::query;
use crate::postgres::encoding;
use crate::postgres::store::{self, Access};

/// The last phase.
pub(super) const LAST_PHASE: i32 = 7;

const BEFORE_ROWS: i32 = 0;
const EMPTY: i32 = 1;
const ROWS: i32 = 2;
const SEQUENCES: i32 = 3;
const INDEXES: i32 = 4;
const AFTER_INDEXES: i32 = 5;
const FOREIGN_KEYS: i32 = 6;
const LAST: i32 = LAST_PHASE;

/// Whether steps of a phase do not need each other.
pub(super) const fn is_parallel(phase: i32) -> bool {
    matches!(phase, ROWS | INDEXES | FOREIGN_KEYS)
}

/// Writes down the steps of an import. In a transaction of its leader; raises an error when it cannot be done.
pub(super) fn write_down(import: &Import, options: &ImportOptions) {
    let store = store::open(&import.source, import.server.as_deref(), import.owner, Access::Read)
        .unwrap_or_else(|problem| problem.report());
    let manifest = read_manifest(&*store)
        .unwrap_or_else(|problem| error!("could not import \"{}\": {problem}", import.source));
    let mut plan = Plan::new(&manifest, import, options);
    if options.schema {
        let scripts = [&manifest.schema.pre_data, &manifest.schema.post_data]
            .map(|file| script::parse(&read_script(&store, file, &manifest)));
        plan.take_scripts(&scripts);
    } else if let Some(missing) = plan.tables.iter().find(|table| !plan.existing.contains(&name_of(table))) {
        let name = quoted(&name_of(missing));
        refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation {name} does not exist, and the schema is not to be imported"),
        );
    }
    plan.take_rows();
    let exported = Exported { options: manifest.options.clone(), encoding: manifest.server.encoding.clone() };
    let exported = serde_json::to_string(&exported).unwrap_or_else(|problem| error!("{problem}"));
    table::plan(import.id, &exported, &plan.steps);
}

fn read_script(store: &Arc<dyn Destination>, file: &File, manifest: &Manifest) -> String {
    let fail = |problem: String| -> ! { unreadable(file, &problem) };
    let mut bytes = Vec::new();
    let checked = CheckedFile::open(&**store, file, manifest.options.checksum, &Stop::default())
        .unwrap_or_else(|problem| fail(problem.to_string()));
    let read = checked.content(Compression::None).and_then(|mut content| content.read_to_end(&mut bytes));
    checked.finish().unwrap_or_else(|difference| fail(difference.to_string()));
    read.unwrap_or_else(|problem| fail(problem.to_string()));
    let same = manifest.server.encoding == encoding::name();
    match String::from_utf8(bytes) {
        Ok(text) if text.is_ascii() || (same && !encoding::needs_conversion()) => text,
        _ => fail(format!(
            "it is in encoding {} and has other characters than those of ASCII, the database is in {}",
            manifest.server.encoding,
            encoding::name()
        )),
    }
}

/// Raises an error about a file of the export.
pub(super) fn unreadable(file: &File, problem: &str) -> ! {
    let code = PgSqlErrorCode::ERRCODE_DATA_CORRUPTED;
    refuse(code, format!("could not read file \"{}\": {problem}", file.file))
}

struct Plan<'a> {
    manifest: &'a Manifest,
    options: &'a ImportOptions,
    tables: Vec<&'a Table>,
    /// Whether all tables of the export are to be imported.
    is_whole: bool,
    /// Tables that are to be imported and that are there already: nothing of their definition is touched.
    existing: HashSet<Name>,
    steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    fn new(manifest: &'a Manifest, import: &'a Import, options: &'a ImportOptions) -> Self {
        let tables = chosen(manifest, import.tables.as_deref());
        let existing = tables.iter().map(|table| name_of(table)).filter(is_there).collect();
        let is_whole = import.tables.is_none();
        Self { manifest, options, tables, is_whole, existing, steps: vec![] }
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
        });
        self.steps.last_mut().unwrap_or_else(|| error!("a step is missing"))
    }

    fn add_statement(&mut self, phase: i32, statement: &Statement, bytes: i64) {
        let step = self.add(phase, Kind::Statement, statement.about.as_ref().map(quoted));
        step.statement = Some(statement.text.clone());
        step.settings.clone_from(&statement.settings);
        step.bytes = bytes;
    }

    /// Statements of the schema, each in its phase.
    fn take_scripts<'s>(&mut self, scripts: &'s [Vec<Statement>; 2]) {
        let wanted = Wanted::new(self, &scripts[0], &scripts[1]);
        let sizes: HashMap<Name, i64> =
            self.tables.iter().map(|table| (name_of(table), bytes_of(table))).collect();
        let [before, after] = scripts;
        let wanted_of = |script: &'s [Statement], plan: &Self| -> Vec<&'s Statement> {
            script.iter().filter(|it| wanted.has(plan, it)).collect()
        };
        for statement in wanted_of(before, self) {
            self.add_statement(BEFORE_ROWS, statement, 0);
        }
        for statement in wanted_of(after, self) {
            let size =
                statement.about.as_ref().and_then(|about| sizes.get(about)).copied().unwrap_or_default();
            match statement.what {
                What::Index(_) => self.add_statement(INDEXES, statement, size),
                What::ForeignKey(_) => self.add_statement(FOREIGN_KEYS, statement, size),
                What::Ornament => self.add_statement(LAST, statement, 0),
                _ => self.add_statement(AFTER_INDEXES, statement, 0),
            }
        }
        let views = self.tables.iter().filter(|table| table.kind == TableKind::MaterializedView);
        let views: Vec<Name> =
            views.map(|view| name_of(view)).filter(|it| !self.existing.contains(it)).collect();
        for view in views {
            let name = quoted(&view);
            self.add(AFTER_INDEXES, Kind::Statement, Some(name.clone())).statement =
                Some(format!("REFRESH MATERIALIZED VIEW {name}"));
        }
    }

    /// Tables are empty or emptied, filled, and their sequences set.
    fn take_rows(&mut self) {
        let tables: Vec<&Table> =
            self.tables.iter().copied().filter(|table| table.kind == TableKind::Table).collect();
        let existing: Vec<String> = tables
            .iter()
            .map(|table| name_of(table))
            .filter(|it| self.existing.contains(it))
            .map(|it| quoted(&it))
            .collect();
        if self.options.truncate && !existing.is_empty() {
            let list: Vec<String> = existing.iter().map(|name| format!("ONLY {name}")).collect();
            self.add(EMPTY, Kind::Statement, None).statement = Some(format!("TRUNCATE {}", list.join(", ")));
        } else {
            for name in &existing {
                self.add(EMPTY, Kind::MustBeEmpty, Some(name.clone()));
            }
        }
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
        for name in &existing {
            for statement in broken_references(name) {
                self.add(LAST, Kind::MustFindNothing, Some(name.clone())).statement = Some(statement);
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

/// Which statements of a script are to be done.
struct Wanted {
    /// Relations that statements may be about; none for all.
    relations: Option<HashSet<Name>>,
    schemas: HashSet<String>,
    type_names: String,
}

impl Wanted {
    fn new(plan: &Plan<'_>, before: &[Statement], after: &[Statement]) -> Self {
        let mut relations: HashSet<Name> = plan.tables.iter().map(|table| name_of(table)).collect();
        let schemas = plan.tables.iter().map(|table| table.schema.clone()).collect();
        let columns = plan.tables.iter().flat_map(|table| &table.columns);
        let type_names = columns.map(|column| format!("{}\n", column.type_name)).collect();
        for statement in before {
            if let (What::SequenceOwner(table), Some(sequence)) = (&statement.what, &statement.about)
                && relations.contains(table)
                && !plan.existing.contains(table)
            {
                relations.insert(sequence.clone());
            }
        }
        // `ALTER INDEX … ATTACH PARTITION` is about the index.
        for statement in after {
            if let (What::Index(index), Some(table)) = (&statement.what, &statement.about)
                && relations.contains(table)
                && !plan.existing.contains(table)
            {
                relations.insert((table.0.clone(), index.clone()));
            }
        }
        Self { relations: (!plan.is_whole).then_some(relations), schemas, type_names }
    }

    fn has(&self, plan: &Plan<'_>, statement: &Statement) -> bool {
        if statement.about.as_ref().is_some_and(|about| plan.existing.contains(about)) {
            return false;
        }
        let Some(relations) = &self.relations else { return true };
        match (&statement.what, &statement.about) {
            (What::Schema(schema), _) => self.schemas.contains(schema),
            (What::Type(name), _) => self.type_names.contains(name.as_str()),
            (What::ForeignKey(target), Some(about)) => {
                relations.contains(about) && (relations.contains(target) || is_there(target))
            }
            (_, Some(about)) => relations.contains(about),
            (_, None) => false,
        }
    }
}

/// The tables that were asked for, `schema.name` or a name that only one has.
fn chosen<'a>(manifest: &'a Manifest, names: Option<&[String]>) -> Vec<&'a Table> {
    let Some(names) = names else { return manifest.tables.iter().collect() };
    let mut chosen: Vec<&Table> = vec![];
    for name in names {
        let is_it = |table: &&Table| {
            *name == table.name
                || *name == format!("{}.{}", table.schema, table.name)
                || *name == quoted(&name_of(table))
        };
        let found: Vec<&Table> = manifest.tables.iter().filter(is_it).collect();
        match found.as_slice() {
            [table] => chosen.push(table),
            [] => refuse(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" is not part of the export"),
            ),
            _ => refuse(
                PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                format!("table name \"{name}\" is ambiguous in the export; it must be qualified"),
            ),
        }
    }
    chosen.dedup_by_key(|table| table.oid);
    chosen
}

fn name_of(table: &Table) -> Name {
    (table.schema.clone(), table.name.clone())
}

fn quoted(name: &Name) -> String {
    if name.0.is_empty() { quote_identifier(&name.1) } else { quote_qualified_identifier(&name.0, &name.1) }
}

fn bytes_of(table: &Table) -> i64 {
    let bytes = table.chunks.iter().map(|chunk| chunk.file.bytes).sum::<u64>();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn is_there(name: &Name) -> bool {
    query::exists(
        "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'm', 'f', 'v')",
        &[name.0.clone().into(), name.1.clone().into()],
    )
}

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

/// Queries that find rows without the row that they refer to: triggers do not fire for imported rows.
fn broken_references(relation: &str) -> Vec<String> {
    query::rows(
        "SELECT pg_catalog.format(
             'SELECT %L FROM %s f WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s) LIMIT 1',
             'foreign key ' || pg_catalog.quote_ident(k.conname), k.conrelid::pg_catalog.regclass,
             (SELECT pg_catalog.string_agg(pg_catalog.format('f.%I IS NOT NULL', a.attname), ' AND ')
              FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
             k.confrelid::pg_catalog.regclass,
             (SELECT pg_catalog.string_agg(pg_catalog.format('p.%I = f.%I', r.attname, a.attname), ' AND ')
              FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) AS u (own, other)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.own
              JOIN pg_catalog.pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.other))
         FROM pg_catalog.pg_constraint k
         WHERE k.conrelid = pg_catalog.to_regclass($1) AND k.contype = 'f' AND k.convalidated",
        &[relation.into()],
        |row| row.must(1),
    )
}

fn json(load: &ChunkToLoad) -> String {
    serde_json::to_string(load).unwrap_or_else(|problem| error!("{problem}"))
}
