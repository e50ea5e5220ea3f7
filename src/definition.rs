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

use crate::table::{Column, TableSpec};

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

    fn key(&self) -> &[DefinedColumn] {
        self.columns.get(..self.key_len).unwrap_or_default()
    }

    /// What makes a target of this definition one of `new`.
    pub fn change_to(&self, new: &Self) -> DefinitionChange {
        if let Some(reason) = self.copied_again_for(new) {
            return DefinitionChange::CopyAgain(reason);
        }
        let dropped = self.columns.iter().filter(|old| new.column(old.attnum).is_none());
        let dropped = dropped.map(|old| AlterStep::Drop { column: old.target_name.clone() });
        let renamed = self.columns.iter().filter_map(|old| {
            let renamed = new.column(old.attnum).filter(|new| new.target_name != old.target_name)?;
            Some(AlterStep::Rename { from: old.target_name.clone(), to: renamed.target_name.clone() })
        });
        let added = new.columns.iter().filter(|new| self.column(new.attnum).is_none());
        let added = added.map(|new| AlterStep::Add {
            column: new.target_name.clone(),
            target_type: new.target_type.clone(),
            default: None,
        });
        DefinitionChange::Alter(dropped.chain(renamed).chain(added).collect())
    }

    fn copied_again_for(&self, new: &Self) -> Option<String> {
        let same_key = self.key().len() == new.key().len()
            && self.key().iter().zip(new.key()).all(|(old, new)| old.attnum == new.attnum);
        if !same_key {
            return Some("its key has changed".to_owned());
        }
        for column in &new.columns {
            let Some(old) = self.column(column.attnum) else { continue };
            if !old.has_type_of(column) {
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
            if !at_target.has_type_of(defined) {
                return None;
            }
            columns.push(Column { name: at_target.target_name.clone(), ..column.clone() });
        }
        Some(TableSpec { columns, ..spec.clone() })
    }
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
