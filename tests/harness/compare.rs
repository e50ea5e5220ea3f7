//! Source and target side by side, row by row.

use std::fmt::Write as _;

use super::database::TextRow;
use super::normal_form::normal_form;
use super::target::quoted;
use super::{Database, Failure, Outcome, Target};

/// A table of the source and the table of the target that must have the same rows.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    source: &'a str,
    target: &'a str,
    columns: Option<&'a [&'a str]>,
    filter: &'a str,
    target_filter: &'a str,
}

/// A column as both sides know it.
struct Column {
    name: String,
    type_name: String,
    is_key: bool,
}

/// A row ready to be compared: the key, which orders, then the other columns.
type Normal = Vec<Option<String>>;

impl<'a> Comparison<'a> {
    /// A table and its namesake: `sales.orders` is compared with `orders`.
    pub(crate) fn of(table: &'a str) -> Self {
        let target = table.rsplit('.').next().unwrap_or(table);
        Self { source: table, target, columns: None, filter: "true", target_filter: "" }
    }

    /// With a table of another name.
    #[must_use]
    pub(crate) fn with_target(mut self, table: &'a str) -> Self {
        self.target = table;
        self
    }

    /// Only these columns.
    #[must_use]
    pub(crate) fn columns(mut self, columns: &'a [&'a str]) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Only the rows of the source for which this is true; the target must have no others.
    #[must_use]
    pub(crate) fn rows_where(mut self, filter: &'a str) -> Self {
        self.filter = filter;
        self
    }

    /// Only the rows of the target for which this is true.
    #[must_use]
    pub(crate) fn target_where(mut self, filter: &'a str) -> Self {
        self.target_filter = filter;
        self
    }

    /// Compares, and returns how many rows there are.
    ///
    /// # Errors
    ///
    /// The first difference, in words.
    pub(crate) fn check(&self, source: &mut Database, target: &mut Target) -> Outcome<usize> {
        let columns = self.columns_of(source)?;
        let key_len = columns.iter().filter(|column| column.is_key).count();
        let left = self.source_rows(source, &columns)?;
        let right = self.target_rows(target, &columns)?;
        let Some(difference) = first_difference(&columns, key_len, &left, &right) else {
            return Ok(left.len());
        };
        Err(Failure::new(format!(
            "table \"{}\" differs ({} rows at the source, {} at the target): {difference}",
            self.source,
            left.len(),
            right.len()
        )))
    }

    /// The columns to compare, those of the primary key first; generated ones are not mirrored. Without a key all columns make
    /// the key.
    fn columns_of(&self, source: &mut Database) -> Outcome<Vec<Column>> {
        let rows = source.rows(&format!(
            "SELECT a.attname, a.atttypid::regtype::text, coalesce(a.attnum = ANY (i.indkey), false)
             FROM pg_catalog.pg_attribute a
             LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
             WHERE a.attrelid = '{}'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
             ORDER BY 3 DESC, a.attnum",
            self.source.replace('\'', "''")
        ))?;
        let mut columns: Vec<Column> = rows.into_iter().filter_map(column).collect();
        if let Some(wanted) = self.columns {
            columns.retain(|column| wanted.contains(&column.name.as_str()));
        }
        if !columns.iter().any(|column| column.is_key) {
            columns.iter_mut().for_each(|column| column.is_key = true);
        }
        Ok(columns)
    }

    fn source_rows(&self, source: &mut Database, columns: &[Column]) -> Outcome<Vec<Normal>> {
        let names: Vec<_> =
            columns.iter().map(|column| format!("\"{}\"", column.name.replace('"', "\"\""))).collect();
        let rows = source.rows(&format!(
            "SELECT {} FROM {} WHERE {}",
            names.join(", "),
            self.source,
            self.filter
        ))?;
        Ok(sorted(columns, rows))
    }

    /// Bytes come in hexadecimal digits; everything else is text.
    fn target_rows(&self, target: &mut Target, columns: &[Column]) -> Outcome<Vec<Normal>> {
        let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
        let filter = if self.target_filter.is_empty() { "" } else { " WHERE " };
        let sql = format!(
            "SELECT {} FROM {}{filter}{}",
            names.join(", "),
            target.table(self.target),
            self.target_filter
        );
        let mut rows = target.rows(&sql)?;
        if columns.iter().any(|column| column.type_name == "bytea") {
            let in_hexadecimal = target.rows_in_hexadecimal(&sql)?;
            for (row, hexadecimal) in rows.iter_mut().zip(in_hexadecimal) {
                let cells = row.iter_mut().zip(hexadecimal).zip(columns);
                for ((cell, hexadecimal), _) in cells.filter(|(_, column)| column.type_name == "bytea") {
                    *cell = hexadecimal;
                }
            }
        }
        Ok(sorted(columns, rows))
    }
}

fn column(row: TextRow) -> Option<Column> {
    let mut values = row.into_iter().flatten();
    Some(Column { name: values.next()?, type_name: values.next()?, is_key: values.next()? == "t" })
}

fn sorted(columns: &[Column], rows: Vec<TextRow>) -> Vec<Normal> {
    let normal = |row: TextRow| {
        let cells = row.into_iter().zip(columns);
        cells.map(|(cell, column)| cell.map(|text| normal_form(&column.type_name, &text))).collect()
    };
    let mut rows: Vec<Normal> = rows.into_iter().map(normal).collect();
    rows.sort_unstable();
    rows
}

fn first_difference(columns: &[Column], key_len: usize, left: &[Normal], right: &[Normal]) -> Option<String> {
    for position in 0..left.len().max(right.len()) {
        let (source, target) = (left.get(position), right.get(position));
        if source == target {
            continue;
        }
        let key = |row: Option<&Normal>| row.map(|row| row.iter().take(key_len).cloned().collect::<Vec<_>>());
        return Some(match (key(source), key(target)) {
            (Some(source), Some(target)) if source == target => {
                cells(columns, left.get(position)?, right.get(position)?)
            }
            (Some(source), Some(target)) if source < target => missing(columns, &source),
            (Some(source), None) => missing(columns, &source),
            (_, Some(target)) => format!("row {} is at the target alone", shown(columns, &target)),
            (None, None) => return None,
        });
    }
    None
}

fn missing(columns: &[Column], key: &[Option<String>]) -> String {
    format!("row {} is missing at the target", shown(columns, key))
}

fn cells(columns: &[Column], source: &Normal, target: &Normal) -> String {
    let mut text = format!("row {}:", shown(columns, &source.iter().take(1).cloned().collect::<Vec<_>>()));
    for ((column, source), target) in
        columns.iter().zip(source).zip(target).filter(|((_, left), right)| left != right)
    {
        let _ = write!(
            text,
            " column \"{}\" is {} at the source, {} at the target;",
            column.name,
            brief(source),
            brief(target)
        );
    }
    text
}

fn shown(columns: &[Column], key: &[Option<String>]) -> String {
    let parts = columns.iter().zip(key).map(|(column, value)| format!("{}={}", column.name, brief(value)));
    parts.collect::<Vec<_>>().join(", ")
}

fn brief(value: &Option<String>) -> String {
    let Some(text) = value else { return "NULL".to_owned() };
    let start: String = text.chars().take(80).collect();
    if start.len() < text.len() {
        format!("{start:?}… ({} bytes)", text.len())
    } else {
        format!("{start:?}")
    }
}
