//! Which statements of a script are to be done.

use std::collections::{HashMap, HashSet};

use super::plan::{Plan, is_there, name_of, quoted};
use super::script::{Name, Statement, What};

/// What belongs to the tables that are to be imported, and is not there.
pub(super) struct Wanted {
    /// Relations that statements may be about; none for all.
    relations: Option<HashSet<Name>>,
    /// Whose an index is.
    tables_of_indexes: HashMap<Name, Name>,
    schemas: HashSet<String>,
    types: HashSet<Name>,
}

impl Wanted {
    pub(super) fn new(plan: &Plan<'_>, before: &[Statement], after: &[Statement]) -> Self {
        let names = plan.tables.iter().map(|table| name_of(table)).chain(plan.partitioned.iter().cloned());
        let mut relations: HashSet<Name> = names.collect();
        let types = types(plan, before);
        let schemas = relations.iter().chain(&types).map(|name| name.0.clone()).collect();
        for statement in before {
            if let (What::SequenceOwner(table), Some(sequence)) = (&statement.what, &statement.about)
                && relations.contains(table)
                && !plan.existing.contains(table)
            {
                relations.insert(sequence.clone());
            }
        }
        // `ALTER INDEX … ATTACH PARTITION` is about the index.
        let mut tables_of_indexes = HashMap::new();
        for statement in after {
            if let (What::Index(index), Some(table)) = (&statement.what, &statement.about) {
                let index = (table.0.clone(), index.clone());
                if relations.contains(table) {
                    relations.insert(index.clone());
                }
                tables_of_indexes.insert(index, table.clone());
            }
        }
        let relations = (!plan.is_whole).then_some(relations);
        Self { relations, tables_of_indexes, schemas, types }
    }

    pub(super) fn has(&self, plan: &Plan<'_>, statement: &Statement) -> bool {
        !self.is_there(plan, statement) && self.belongs_here(statement)
    }

    /// Tables that are there stay as they are, but for partitions that come to them.
    fn is_there(&self, plan: &Plan<'_>, statement: &Statement) -> bool {
        let Some(about) = &statement.about else { return false };
        let table = self.tables_of_indexes.get(about).unwrap_or(about);
        match &statement.what {
            What::Attach(part) => plan.existing.contains(table) && plan.existing.contains(part),
            _ => plan.existing.contains(table),
        }
    }

    fn belongs_here(&self, statement: &Statement) -> bool {
        // Views are filled at the end.
        if statement.what == What::Refresh {
            return false;
        }
        let Some(relations) = &self.relations else { return true };
        match (&statement.what, &statement.about) {
            (What::Schema(schema), _) => self.schemas.contains(schema),
            (What::Type(name), _) => self.types.contains(name),
            (What::ForeignKey(target), Some(about)) => {
                relations.contains(about) && (relations.contains(target) || is_there(target))
            }
            (What::Attach(part), Some(whole)) => relations.contains(whole) && relations.contains(part),
            (_, Some(about)) => relations.contains(about),
            (_, None) => false,
        }
    }
}

/// The types of the columns, and those that they are made of: these come before them in the script.
fn types(plan: &Plan<'_>, before: &[Statement]) -> HashSet<Name> {
    let columns = plan.tables.iter().flat_map(|table| &table.columns);
    let mut texts: String = columns.map(|column| format!("{}\n", column.type_name)).collect();
    let mut types = HashSet::new();
    for statement in before.iter().rev() {
        if let What::Type(name) = &statement.what
            && texts.contains(&quoted(name))
        {
            types.insert(name.clone());
            texts.push_str(&statement.text);
        }
    }
    types
}
