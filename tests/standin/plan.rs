//! How a load's members become a table's columns.

use crate::catalog::{Table, same_name};
use crate::columns_header::{Entry, Expression};
use crate::load_headers::{LoadHeaders, UpdateScope};
use crate::typing::ColumnType;
use crate::values::BinaryFormat;

/// The member and the pseudo column that tell upserts from deletes.
pub(crate) const OP: &str = "__op";

/// What a row does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    Upsert,
    Delete,
}

/// Where the kind of a row is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OpSource {
    /// All rows do the same.
    Constant(Op),
    /// A member of the row; an index into [`Plan::sources`].
    Member(usize),
}

/// A column that the load fills.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// Position in the table.
    pub(crate) column: usize,
    /// Index into [`Plan::sources`].
    pub(crate) source: usize,
    /// How text becomes bytes, for `to_binary`.
    pub(crate) binary: Option<BinaryFormat>,
}

/// A load, planned.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) table: Table,
    pub(crate) headers: LoadHeaders,
    /// The members of a row that matter, by their exact names.
    pub(crate) sources: Vec<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) op: OpSource,
}

impl Plan {
    /// Plans a load; the error is the message of the answer.
    pub(crate) fn new(table: Table, headers: LoadHeaders) -> Result<Self, String> {
        let mut plan = Self {
            table,
            headers,
            sources: Vec::new(),
            targets: Vec::new(),
            op: OpSource::Constant(Op::Upsert),
        };
        let entries = plan.entries()?;
        plan.op = plan.op_source(&entries)?;
        for entry in &entries {
            plan.add(entry, &entries)?;
        }
        plan.check_missing_columns()?;
        Ok(plan)
    }

    /// The entries of the header, or every column of the table.
    fn entries(&self) -> Result<Vec<Entry>, String> {
        let Some(entries) = self.headers.columns.clone() else {
            if self.headers.update == UpdateScope::ListedColumns {
                return Err(
                    "Partial update must name its columns: columns header not in partial update columns"
                        .into(),
                );
            }
            let all = self.table.columns.iter();
            return Ok(all.map(|column| Entry { name: column.name.clone(), expression: None }).collect());
        };
        for (index, entry) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|earlier| same_name(&earlier.name, &entry.name)) {
                return Err(format!("Duplicate column: {}", entry.name));
            }
        }
        Ok(entries)
    }

    fn op_source(&mut self, entries: &[Entry]) -> Result<OpSource, String> {
        let listed = entries.iter().find(|entry| entry.name == OP);
        match listed.map(|entry| &entry.expression) {
            // A JSON member of this name counts even if the header does not list it.
            None | Some(None) => Ok(OpSource::Member(self.source(OP))),
            Some(Some(Expression::Constant(value))) => match value.as_str() {
                "upsert" | "0" => Ok(OpSource::Constant(Op::Upsert)),
                "delete" | "1" => Ok(OpSource::Constant(Op::Delete)),
                other => Err(format!("Invalid op type {other}")),
            },
            Some(Some(_)) => Err("the expression of __op is not supported by this stand-in".into()),
        }
    }

    fn source(&mut self, name: &str) -> usize {
        if let Some(index) = self.sources.iter().position(|source| source == name) {
            return index;
        }
        self.sources.push(name.into());
        self.sources.len() - 1
    }

    fn add(&mut self, entry: &Entry, entries: &[Entry]) -> Result<(), String> {
        if entry.name == OP {
            return Ok(());
        }
        let Some(column) = self.table.position(&entry.name) else {
            let feeds = |other: &Entry| matches!(&other.expression, Some(Expression::ToBinary { field, .. }) if same_name(field, &entry.name));
            if entry.expression.is_none() && entries.iter().any(feeds) {
                return Ok(());
            }
            return Err(format!("Mapping column is not in table. column: {}", entry.name));
        };
        let (source, binary) = match &entry.expression {
            None => (self.source(&entry.name), None),
            Some(Expression::ToBinary { field, format }) => {
                let is_binary =
                    self.table.columns.get(column).map(|c| matches!(c.ty, ColumnType::VarBinary(_)));
                if is_binary != Some(true) {
                    return Err(format!(
                        "to_binary fills VARBINARY columns only in this stand-in, not {}",
                        entry.name
                    ));
                }
                let named = entries.iter().find(|e| e.expression.is_none() && same_name(&e.name, field));
                let named = named.ok_or_else(|| format!("Column '{field}' cannot be resolved"))?;
                (self.source(&named.name), Some(*format))
            }
            Some(Expression::Constant(_)) => {
                return Err(format!(
                    "a constant for column {} is not supported by this stand-in",
                    entry.name
                ));
            }
        };
        self.targets.push(Target { column, source, binary });
        Ok(())
    }

    fn check_missing_columns(&self) -> Result<(), String> {
        for (position, column) in self.table.columns.iter().enumerate() {
            if self.targets.iter().any(|target| target.column == position) {
                continue;
            }
            let is_key = position < self.table.key_columns;
            match self.headers.update {
                UpdateScope::ListedColumns if is_key => {
                    return Err(format!("key column {} not in partial update columns", column.name));
                }
                UpdateScope::FullRows if !column.is_nullable && column.default.is_none() => {
                    return Err(format!("Column has no default value. column: {}", column.name));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Column;
    use crate::http::{Framing, Head};

    pub(crate) fn orders() -> Table {
        let column = |storage_id: u32, name: &str, ty, is_nullable| Column {
            name: name.into(),
            ty,
            is_nullable,
            default: None,
            comment: String::new(),
            storage_id,
        };
        Table {
            id: 1,
            database: "shop".into(),
            name: "orders".into(),
            columns: vec![
                column(1, "id", ColumnType::BigInt, false),
                column(2, "Note", ColumnType::Varchar(10), true),
                column(3, "photo", ColumnType::VarBinary(100), true),
            ],
            key_columns: 1,
            distribution: vec!["id".into()],
            comment: String::new(),
            properties: BTreeMap::new(),
            generation: 0,
            retired_names: Vec::new(),
            next_storage_id: 4,
        }
    }

    pub(crate) fn plan_of(table: Table, headers: &[(&str, &str)]) -> Result<Plan, String> {
        let mut all = vec![("format".to_owned(), "json".to_owned())];
        all.extend(headers.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let head = Head { method: "PUT".into(), target: "/".into(), minor_version: 1, headers: all };
        Plan::new(table, LoadHeaders::parse(&head, Framing::Length(0))?)
    }

    fn columns(value: &str) -> Result<Plan, String> {
        plan_of(orders(), &[("columns", value)])
    }

    #[test]
    fn columns_are_found_without_case_and_members_with_it() {
        let plan = columns("ID, note").unwrap();
        assert_eq!(plan.sources, ["__op", "ID", "note"]);
        let positions: Vec<usize> = plan.targets.iter().map(|target| target.column).collect();
        assert_eq!(positions, [0, 1]);
    }

    #[test]
    fn to_binary_reads_its_field() {
        let plan = columns("id, h, photo=to_binary(h,'hex'), __op='delete'").unwrap();
        assert_eq!(plan.op, OpSource::Constant(Op::Delete));
        let photo = plan.targets.last().unwrap();
        assert_eq!((plan.sources[photo.source].as_str(), photo.binary), ("h", Some(BinaryFormat::Hex)));
        assert!(columns("id, photo=to_binary(h,'hex')").is_err());
        assert!(columns("id, h, note=to_binary(h,'hex')").is_err());
    }

    #[test]
    fn unknown_and_doubled_columns_are_refused() {
        assert!(columns("id, nope").unwrap_err().contains("not in table. column: nope"));
        assert!(columns("id, ID").unwrap_err().contains("Duplicate column"));
    }

    #[test]
    fn missing_columns_need_a_default_or_a_partial_update() {
        assert!(columns("note").unwrap_err().contains("no default value"));
        let partial = |columns| plan_of(orders(), &[("partial_update", "true"), ("columns", columns)]);
        assert!(partial("note").unwrap_err().contains("not in partial update columns"));
        assert!(partial("id").is_ok());
        assert!(plan_of(orders(), &[("partial_update", "true")]).is_err());
    }
}
