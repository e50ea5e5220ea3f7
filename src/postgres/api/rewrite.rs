//! Whether a rewrite of a table gives its columns other types and nothing else, and whether an ALTER TYPE makes other texts of
//! the values that are there.
//!
//! PL/pgSQL is not told what such a statement says, so a second event trigger, which fires first, looks at the statement and
//! remembers what it saw until the other one asks, in the same command.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

static OF_TYPES_ALONE: AtomicBool = AtomicBool::new(false);
static VALUES_CHANGE: AtomicBool = AtomicBool::new(false);

/// Whether each command of the ALTER TABLE that rewrites a table at the moment is an ALTER COLUMN … TYPE without USING: then
/// every value is what the types' own cast makes of it.
#[pg_extern(sql = false)]
fn rewrite_is_of_types_alone() -> bool {
    OF_TYPES_ALONE.swap(false, Ordering::Relaxed)
}

/// Whether values of the type that is being altered are printed otherwise from now on: a label of an enum has another name, or a
/// composite type another number of attributes.
#[pg_extern(sql = false)]
fn values_of_type_change() -> bool {
    VALUES_CHANGE.swap(false, Ordering::Relaxed)
}

/// The event trigger of rewrites.
///
/// # Safety
///
/// Called by the server, for the event `table_rewrite`.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dbmazz_look_at_rewrite(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server gives a call of its own; `context` says what kind of call it is.
    let is_of_types_alone = unsafe { is_of_types(statement_of((*call).context)) };
    OF_TYPES_ALONE.store(is_of_types_alone, Ordering::Relaxed);
    pg_sys::Datum::null()
}

/// The event trigger of changed types.
///
/// # Safety
///
/// Called by the server, for the event `ddl_command_end`.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dbmazz_look_at_type(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server gives a call of its own; `context` says what kind of call it is.
    let values_change = unsafe { changes_values(statement_of((*call).context)) };
    VALUES_CHANGE.store(values_change, Ordering::Relaxed);
    pg_sys::Datum::null()
}

static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// What PostgreSQL asks before it calls the function.
#[unsafe(no_mangle)]
pub(super) extern "C" fn pg_finfo_dbmazz_look_at_rewrite() -> *const pg_sys::Pg_finfo_record {
    &raw const RECORD
}

/// Likewise.
#[unsafe(no_mangle)]
pub(super) extern "C" fn pg_finfo_dbmazz_look_at_type() -> *const pg_sys::Pg_finfo_record {
    &raw const RECORD
}

/// The statement that an event trigger is called for; null if it is none.
///
/// # Safety
///
/// `context` is that of a function call.
unsafe fn statement_of(context: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the tag of a node says what it is.
    unsafe {
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return std::ptr::null_mut();
        }
        (*context.cast::<pg_sys::EventTriggerData>()).parsetree
    }
}

/// # Safety
///
/// `statement` is one, or null.
unsafe fn changes_values(statement: *mut pg_sys::Node) -> bool {
    if statement.is_null() {
        return false;
    }
    // SAFETY: the tag of a node says what it is.
    unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_AlterEnumStmt => {
                !(*statement.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null()
            }
            pg_sys::NodeTag::T_AlterTableStmt => true,
            _ => false,
        }
    }
}

/// # Safety
///
/// `statement` is the one that is running, or null.
unsafe fn is_of_types(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag of each node says what it is; the lists are those of the statement that is running.
    unsafe {
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_AlterTableStmt {
            return false;
        }
        let commands = (*statement.cast::<pg_sys::AlterTableStmt>()).cmds;
        if commands.is_null() {
            return false;
        }
        let count = usize::try_from((*commands).length).unwrap_or_default();
        let commands = std::slice::from_raw_parts((*commands).elements, count);
        commands.iter().all(|command| is_plain(command.ptr_value.cast()))
    }
}

/// # Safety
///
/// `command` is one of an ALTER TABLE.
unsafe fn is_plain(command: *mut pg_sys::AlterTableCmd) -> bool {
    // SAFETY: the caller vouches for the command; of this kind it has the definition of a column.
    unsafe {
        (*command).subtype == pg_sys::AlterTableType::AT_AlterColumnType
            && !(*command).def.is_null()
            && (*(*command).def.cast::<pg_sys::ColumnDef>()).raw_default.is_null()
    }
}
