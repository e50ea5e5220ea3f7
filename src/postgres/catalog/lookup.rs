//! Finding a row of a user's table by the key that a load has for it.

use std::ffi::CStr;
use std::fmt::Write as _;

use pgrx::pg_sys;
use serde_json::Value;

use super::{partition, query};
use crate::postgres::encoding;
use crate::sink::starrocks::field_name;
use crate::table::{Kind, TableSpec};

/// How rows of one table are found.
pub(in crate::postgres) struct Lookup {
    /// `SELECT tableoid, ctid FROM ONLY …`; from all partitions of a partitioned table.
    select: String,
    key: Vec<KeyColumn>,
}

/// A column of the key.
struct KeyColumn {
    /// Its name in a line.
    field: String,
    /// The condition up to the value.
    condition: String,
    /// Its type.
    type_name: String,
    /// What a value lacks in a line of what the type's input function wants.
    prefix: &'static str,
}

impl Lookup {
    /// For an open relation and its description.
    ///
    /// # Errors
    ///
    /// When a type of the key cannot be compared.
    pub(in crate::postgres) fn new(spec: &TableSpec, relation: pg_sys::Relation) -> Result<Self, String> {
        // SAFETY: the caller has the relation open; names are copied at once.
        let (schema, table, only) = unsafe {
            let only = if partition::is_partitioned(relation) { "" } else { "ONLY " };
            let form = &*(*relation).rd_rel;
            let schema = pg_sys::get_namespace_name(form.relnamespace);
            if schema.is_null() {
                return Err("its schema is gone".to_owned());
            }
            let table = CStr::from_ptr(form.relname.data.as_ptr());
            (quoted(CStr::from_ptr(schema)), quoted(table), only)
        };
        let key = spec.key().iter().enumerate().map(|(number, column)| {
            let name = column.source.name.replace('"', "\"\"");
            let equals = equality(column.source.type_oid)?;
            let condition = format!("\"{name}\" {equals} ");
            Ok(KeyColumn {
                field: field_name(spec, number),
                condition,
                type_name: type_name(column.source.type_oid),
                prefix: if column.kind == Kind::HexText { "\\x" } else { "" },
            })
        });
        Ok(Self {
            select: format!("SELECT tableoid, ctid FROM {only}{schema}.{table} WHERE "),
            key: key.collect::<Result<_, String>>()?,
        })
    }

    /// The row that has this key, the beginning of a line without its closing brace, under the active snapshot, and the relation
    /// that it is in. Whoever fetches it must do that under the same one: a later version of the row is invisible to an earlier
    /// snapshot.
    ///
    /// # Errors
    ///
    /// When the key is none of this table.
    pub(in crate::postgres) fn find(
        &self,
        key: &[u8],
    ) -> Result<Option<(pg_sys::Oid, pg_sys::ItemPointerData)>, String> {
        let malformed = || format!("could not read the key {}", String::from_utf8_lossy(key));
        let document = [key, b"}"].concat();
        let values: serde_json::Map<String, Value> =
            serde_json::from_slice(&document).map_err(|_| malformed())?;
        let mut sql = self.select.clone();
        for (number, KeyColumn { field, condition, type_name, prefix }) in self.key.iter().enumerate() {
            let text = match values.get(field).ok_or_else(malformed)? {
                Value::String(text) => format!("{prefix}{text}"),
                other => other.to_string(),
            };
            let and = if number == 0 { "" } else { " AND " };
            // Writing to a string cannot fail.
            let _ = write!(sql, "{and}{condition}{}", literal(&text, type_name));
        }
        Ok(query::row_of_active_snapshot(&sql, |row| (row.must(1), row.must(2))))
    }
}

/// The operator of a type's own ordering that a unique index goes by, with its schema.
fn equality(type_oid: u32) -> Result<String, String> {
    // SAFETY: looks into caches; what they hand out is copied before the next question.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid.into(), pg_sys::TYPECACHE_EQ_OPR as i32);
        let operator = (*entry).eq_opr;
        let name = pg_sys::get_opname(operator);
        if name.is_null() {
            return Err("a type of its key has no equality".to_owned());
        }
        let procedure = pg_sys::get_opcode(operator);
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(procedure));
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        if schema.is_null() {
            return Err("a type of its key has no equality".to_owned());
        }
        Ok(format!("OPERATOR({}.{name})", quoted(CStr::from_ptr(schema))))
    }
}

fn quoted(name: &CStr) -> String {
    format!("\"{}\"", name.to_string_lossy().replace('"', "\"\""))
}

/// The type with its schema, without a limit: `character` alone would be one character.
fn type_name(type_oid: u32) -> String {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    // SAFETY: looks into caches; the answer is a C string in the current memory context.
    let name = unsafe { CStr::from_ptr(pg_sys::format_type_extended(type_oid.into(), -1, flags as _)) };
    name.to_string_lossy().into_owned()
}

/// A text as an SQL literal of the type, which an operator of all composite types would not give it. In a database of another
/// encoding the statement cannot hold it; the server converts it.
fn literal(text: &str, type_name: &str) -> String {
    if !text.is_ascii() && encoding::needs_conversion() {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        return format!("pg_catalog.convert_from(pg_catalog.decode('{digits}', 'hex'), 'UTF8')::{type_name}");
    }
    format!("E'{}'::{type_name}", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
