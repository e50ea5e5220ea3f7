//! What the columns of a mirrored table are, as a text that is kept, and what has to be done at the target when they change.
//!
//! A column is its number (`attnum`), which PostgreSQL never gives to another one: a column of another name and the same
//! number was renamed, one of the same name and another number is another column. The mirror keeps the definition that the
//! target has; changes bring the one of their own time, and the two are compared here.
//!
//! Why rows of an *older* definition may come to a newer target: after a crash the log is read again from the checkpoint,
//! and the target may have been altered since. Such a row is written under the names that its columns have by now, without
//! those that are gone, and without naming those that came later: these get their default at the target, which is what
//! `ALTER TABLE … ADD COLUMN` gave to every row of that time. Where the target cannot have such a default, or a column
//! would take the name of another one, the table is copied again instead, so this holds for every change that is altered.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::table::{AddedColumn, Column, TableSpec};

/// A column of a definition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DefinedColumn {
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// Its name at the source.
    pub name: String,
    /// `pg_type.oid` of the base type.
    pub type_oid: u32,
    /// Its modifier.
    pub typmod: i32,
    /// Its name at the target.
    pub target_name: String,
    /// Its type at the target.
    pub target_type: String,
}

impl DefinedColumn {
    fn of(column: &Column) -> Self {
        Self {
            attnum: column.source.attnum,
            name: column.source.name.clone(),
            type_oid: column.source.type_oid,
            typmod: column.source.typmod,
            target_name: column.name.clone(),
            target_type: column.target_type.clone(),
        }
    }

    /// Whether values of both are written in the same way into the same column.
    fn has_type_of(&self, other: &Self) -> bool {
        (self.type_oid, self.typmod, &self.target_type) == (other.type_oid, other.typmod, &other.target_type)
    }

    /// Whether this column becomes the other one by a longer or wider type, so that each value keeps its meaning.
    fn widens_to(&self, wider: &Self, evidence: Evidence) -> bool {
        // No modifier is no limit.
        let keeps_all = wider.typmod == -1 || self.typmod != -1 && self.typmod <= wider.typmod;
        keeps_all
            && is_widened(self.type_oid, wider.type_oid, evidence)
            && widens(&self.target_type, &wider.target_type)
    }

    fn is_called_like(&self, other: &Self) -> bool {
        self.target_name.to_lowercase() == other.target_name.to_lowercase()
    }
}

/// The columns of a table, those of the key first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Definition {
    /// How many columns make the key.
    pub key_len: usize,
    /// The columns.
    pub columns: Vec<DefinedColumn>,
}

/// A change of a target table. Doing it twice is doing it once.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlterStep {
    /// `ADD COLUMN`, which may be null.
    Add {
        /// Its name.
        column: String,
        /// Its type.
        target_type: String,
        /// What rows have that are there already, and rows that do not name it.
        default: Option<String>,
    },
    /// `DROP COLUMN`.
    Drop {
        /// Its name.
        column: String,
    },
    /// `RENAME COLUMN`.
    Rename {
        /// Its name so far.
        from: String,
        /// Its name from now on.
        to: String,
    },
    /// `SWAP WITH` a table that was filled beside it; that one has the old rows then.
    Swap {
        /// The table, of the same database.
        with: String,
        /// What its comment says, and that of no other table.
        mark: String,
    },
    /// `DROP TABLE` of that one, with the old rows.
    DropSwapped {
        /// The table.
        table: String,
        /// What the comment of the other one says, which has its place.
        mark: String,
    },
    /// `DROP TABLE`, of one that was to take the place of another one, and whose copy was given up.
    DropCopy,
    /// `MODIFY COLUMN`: a wider type.
    Modify {
        /// Its name.
        column: String,
        /// Its type from now on.
        target_type: String,
    },
}

/// What shows another definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// A row that has it. What was done to the other rows, the log does not say.
    Row,
    /// A statement that gave columns other types, and each value what the types' own cast makes of it.
    TypesAlone,
}

/// What follows from another definition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DefinitionChange {
    /// The target is altered; nothing to do when there are no steps. New columns have no default yet.
    Alter(Vec<AlterStep>),
    /// The rows have to be copied again, for this reason.
    CopyAgain(String),
}

impl Definition {
    /// The definition of a table as it is described.
    pub fn of(spec: &TableSpec) -> Self {
        Self { key_len: spec.key_len, columns: spec.columns.iter().map(DefinedColumn::of).collect() }
    }

    /// Reads what [`fmt::Display`] has written. None when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let key_len = lines.next()?.strip_prefix("key ")?.parse().ok()?;
        let columns = lines.map(parse_column).collect::<Option<Vec<_>>>()?;
        Some(Self { key_len, columns })
    }

    /// The column of a number.
    pub fn column(&self, attnum: i16) -> Option<&DefinedColumn> {
        self.columns.iter().find(|column| column.attnum == attnum)
    }

    /// Whether one of these is a column of the target by this definition.
    pub fn has_any_of(&self, target_names: &[String]) -> bool {
        let is_one = |name: &str| target_names.iter().any(|there| there.eq_ignore_ascii_case(name));
        self.columns.iter().any(|column| is_one(&column.target_name))
    }

    fn key(&self) -> &[DefinedColumn] {
        self.columns.get(..self.key_len).unwrap_or_default()
    }

    fn is_key(&self, column: &DefinedColumn) -> bool {
        self.key().iter().any(|key| key.attnum == column.attnum)
    }

    /// What makes a target of this definition one of `new`.
    pub fn change_to(&self, new: &Self, evidence: Evidence) -> DefinitionChange {
        if let Some(reason) = self.copied_again_for(new, evidence) {
            return DefinitionChange::CopyAgain(reason);
        }
        let dropped = self.columns.iter().filter(|old| new.column(old.attnum).is_none());
        let dropped = dropped.map(|old| AlterStep::Drop { column: old.target_name.clone() });
        let renamed = self.columns.iter().filter_map(|old| {
            let renamed = new.column(old.attnum).filter(|new| new.target_name != old.target_name)?;
            Some(AlterStep::Rename { from: old.target_name.clone(), to: renamed.target_name.clone() })
        });
        // Under the new name.
        let modified = new
            .columns
            .iter()
            .filter(|new| self.column(new.attnum).is_some_and(|old| old.target_type != new.target_type));
        let modified = modified.map(|new| AlterStep::Modify {
            column: new.target_name.clone(),
            target_type: new.target_type.clone(),
        });
        let added = new.columns.iter().filter(|new| self.column(new.attnum).is_none());
        let added = added.map(|new| AlterStep::Add {
            column: new.target_name.clone(),
            target_type: new.target_type.clone(),
            default: None,
        });
        DefinitionChange::Alter(dropped.chain(renamed).chain(modified).chain(added).collect())
    }

    fn copied_again_for(&self, new: &Self, evidence: Evidence) -> Option<String> {
        let same_key = self.key().len() == new.key().len()
            && self.key().iter().zip(new.key()).all(|(old, new)| old.attnum == new.attnum);
        if !same_key {
            return Some("its key has changed".to_owned());
        }
        // Rows that are there already would have no value in one, and a mark would be lost with one.
        let added = |definition: &Self| AddedColumn::ALL.map(|it| definition.column(it.attnum()).is_some());
        if added(self) != added(new) {
            return Some("other columns are added by the mirror's options".to_owned());
        }
        for column in &new.columns {
            let Some(old) = self.column(column.attnum) else { continue };
            let cannot_be_modified = self.is_key(column) && old.target_type != column.target_type;
            if !old.has_type_of(column) && (cannot_be_modified || !old.widens_to(column, evidence)) {
                return Some(format!("the type of column \"{}\" has changed", column.name));
            }
        }
        let of_the_key = self.key().iter().zip(new.key());
        if of_the_key.clone().any(|(old, new)| old.target_name != new.target_name) {
            return Some("a column of its key has been renamed".to_owned());
        }
        // Steps that are done again after a crash could take one for the other.
        let takes_a_name = |new: &&DefinedColumn| {
            self.columns.iter().any(|old| old.attnum != new.attnum && old.is_called_like(new))
        };
        let taken = new.columns.iter().find(takes_a_name)?;
        Some(format!("column \"{}\" has the name that another column had", taken.name))
    }

    /// A table as `spec` describes it, for rows that go into a target of this definition: columns that this one lacks are
    /// left out, the others have the names of this one. None when the rows do not fit into it.
    pub fn narrowed(&self, spec: &TableSpec) -> Option<TableSpec> {
        let row = Self::of(spec);
        let same_key = self.key().iter().map(|it| it.attnum).eq(row.key().iter().map(|it| it.attnum));
        if !same_key {
            return None;
        }
        let mut columns = Vec::with_capacity(spec.columns.len());
        for (column, defined) in spec.columns.iter().zip(&row.columns) {
            let Some(at_target) = self.column(defined.attnum) else { continue };
            if !at_target.has_type_of(defined) && !defined.widens_to(at_target, Evidence::TypesAlone) {
                return None;
            }
            columns.push(Column { name: at_target.target_name.clone(), ..column.clone() });
        }
        Some(TableSpec { columns, ..spec.clone() })
    }
}

/// Types of the source of which the second one has all values of the first one, written alike. PostgreSQL changes no row
/// from a text to another one (where it did, the table would be rewritten); integers it does, as it was told.
fn is_widened(from: u32, to: u32, evidence: Evidence) -> bool {
    const TEXT: u32 = 25;
    const VARCHAR: u32 = 1043;
    const SMALLINT: u32 = 21;
    const INTEGER: u32 = 23;
    const BIGINT: u32 = 20;
    match (from, to) {
        (VARCHAR, TEXT) | (TEXT, VARCHAR) => true,
        (SMALLINT, INTEGER | BIGINT) | (INTEGER, BIGINT) => evidence == Evidence::TypesAlone,
        _ => from == to,
    }
}

/// Whether StarRocks can make a column of one type one of the other, or it is one already.
fn widens(from: &str, to: &str) -> bool {
    let integers = |text: &str| ["SMALLINT", "INT", "BIGINT"].iter().position(|name| *name == text);
    if from == to || integers(from).zip(integers(to)).is_some_and(|(from, to)| from < to) {
        return true;
    }
    let length = |text: &str| text.strip_prefix("VARCHAR(")?.strip_suffix(')')?.parse::<u32>().ok();
    if let (Some(from), Some(to)) = (length(from), length(to)) {
        return from <= to;
    }
    let digits = |text: &str| {
        let (precision, scale) = text.strip_prefix("DECIMAL(")?.strip_suffix(')')?.split_once(',')?;
        Some((precision.parse::<u32>().ok()?, scale.parse::<u32>().ok()?))
    };
    // Another scale is another number of digits to be shown, and PostgreSQL rounds anew.
    matches!((digits(from), digits(to)), (Some((from, one)), Some((to, other))) if from <= to && one == other)
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.key_len)?;
        for DefinedColumn { attnum, name, type_oid, typmod, target_name, target_type } in &self.columns {
            let (name, target_name) = (quoted(name), quoted(target_name));
            write!(f, "\n{attnum} {name} {type_oid} {typmod} -> {target_name} {target_type}")?;
        }
        Ok(())
    }
}

/// A name as a string of JSON: no line break, and its end can be found.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

fn parse_column(line: &str) -> Option<DefinedColumn> {
    let (attnum, rest) = line.split_once(' ')?;
    let (name, rest) = parse_name(rest)?;
    let (source, rest) = rest.strip_prefix(' ')?.split_once(" -> ")?;
    let (type_oid, typmod) = source.split_once(' ')?;
    let (target_name, rest) = parse_name(rest)?;
    Some(DefinedColumn {
        attnum: attnum.parse().ok()?,
        name,
        type_oid: type_oid.parse().ok()?,
        typmod: typmod.parse().ok()?,
        target_name,
        target_type: rest.strip_prefix(' ')?.to_owned(),
    })
}

/// The quoted name that a text begins with, and what follows it.
fn parse_name(text: &str) -> Option<(String, &str)> {
    let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let name = names.next()?.ok()?;
    Some((name, text.get(names.byte_offset()..)?))
}

#[cfg(test)]
mod tests;
