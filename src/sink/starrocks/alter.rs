//! Changing columns of a target table, one step at a time, each until it is done.
//!
//! A step waits until nobody else is executing a statement about the table, and looks whether the table is already as it
//! should be: the step may have been taken before, by a worker that could not write that down, or may just be ([`fence`]). A
//! server alters at once or by a job that waits for older loads; loads that come after a step see the new columns.
//!
//! An exchange of two tables is never half done, whatever is late: the new one is the one with the mark. The other one is
//! dropped only while the new one is in place, and afterwards it is looked at again: from then on no statement finds both.

use std::thread;
use std::time::{Duration, Instant};

use super::columns::quote_identifier;
use super::ddl::{comment_says, describe, drop_statement, is_there, qualified, quote_literal};
use super::fence;
use super::sql::SqlSession;
use crate::definition::AlterStep;
use crate::sink::{StatementError, Watch};
use crate::table::TargetTable;

/// How often a job is looked after.
const GLANCE: Duration = Duration::from_millis(50);
/// After this time the session is given up and a new one looks on.
const PATIENCE: Duration = Duration::from_secs(120);

/// Takes a step, unless it has been taken.
///
/// # Errors
/// When the server refuses or cannot be reached, or the worker goes down. As a statement in progress, which may pass, when
/// the server has not done it in time; as undone, when the table that was to be put in place is gone.
pub(super) fn take_step(
    session: &mut SqlSession,
    target: &TargetTable,
    step: &AlterStep,
    watch: &dyn Watch,
) -> Result<(), StatementError> {
    let begin = Instant::now();
    let statement = statement(target, step, &default_of(session, target, step)?);
    let mut is_executed = false;
    while begin.elapsed() < PATIENCE {
        if watch.stopped() {
            return Err(StatementError::Stopped);
        }
        match work_on(session, target)? {
            Work::Running => {}
            _ if is_taken(session, target, step)? => return Ok(()),
            Work::Cancelled(message) if is_executed => {
                return Err(StatementError::Refused { statement, code: 0, message });
            }
            _ if is_executed => {}
            _ => {
                session.execute(&statement)?;
                is_executed = true;
                continue;
            }
        }
        thread::sleep(GLANCE);
    }
    let message = "the table has not been altered in time: operation is in progress".to_owned();
    Err(StatementError::Refused { statement, code: 0, message })
}

/// The default that a column has which is about to be modified: it must be repeated.
fn default_of(
    session: &mut SqlSession,
    target: &TargetTable,
    step: &AlterStep,
) -> Result<Option<String>, StatementError> {
    let AlterStep::Modify { column, .. } = step else { return Ok(None) };
    let columns = describe(session, target)?;
    Ok(columns.into_iter().find(|there| there.name == *column).and_then(|there| there.default))
}

/// The statement of a step.
fn statement(target: &TargetTable, step: &AlterStep, present_default: &Option<String>) -> String {
    let table = qualified(target);
    match step {
        AlterStep::Add { column, target_type, default } => {
            let (column, default) = (quote_identifier(column), default_clause(default));
            format!("ALTER TABLE {table} ADD COLUMN {column} {target_type} NULL{default}")
        }
        AlterStep::Swap { with, .. } => format!("ALTER TABLE {table} SWAP WITH {}", quote_identifier(with)),
        AlterStep::DropSwapped { table, .. } => drop_statement(&beside(target, table)),
        AlterStep::DropCopy => drop_statement(target),
        AlterStep::Modify { column, target_type } => {
            let (column, default) = (quote_identifier(column), default_clause(present_default));
            format!("ALTER TABLE {table} MODIFY COLUMN {column} {target_type} NULL{default}")
        }
        AlterStep::Drop { column } => format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(column)),
        AlterStep::Rename { from, to } => {
            let (from, to) = (quote_identifier(from), quote_identifier(to));
            format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
        }
    }
}

/// Another table of the same database.
fn beside(target: &TargetTable, table: &str) -> TargetTable {
    TargetTable { table: table.to_owned(), ..target.clone() }
}

fn default_clause(default: &Option<String>) -> String {
    default.as_deref().map(|text| format!(" DEFAULT {}", quote_literal(text))).unwrap_or_default()
}

fn is_taken(
    session: &mut SqlSession,
    target: &TargetTable,
    step: &AlterStep,
) -> Result<bool, StatementError> {
    match step {
        AlterStep::Swap { mark, .. } => return comment_says(session, target, mark),
        AlterStep::DropSwapped { table, mark } => return is_swapped(session, target, table, mark),
        AlterStep::DropCopy => return Ok(!is_there(session, target)?),
        _ => {}
    }
    let columns = describe(session, target)?;
    let has = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let has_exactly = |name: &str| columns.iter().any(|column| column.name == name);
    Ok(match step {
        AlterStep::Add { column, target_type, default } => {
            let there = columns.iter().find(|there| there.name.eq_ignore_ascii_case(column));
            if there.is_some_and(|there| !there.holds(target_type) || there.default != *default) {
                return Err(occupied(target, step, column));
            }
            there.is_some()
        }
        AlterStep::Drop { column } => !has(column),
        AlterStep::Rename { from, to } => has_exactly(to) && !has_exactly(from),
        AlterStep::Modify { column, target_type } => {
            columns.iter().any(|there| there.name == *column && there.holds(target_type))
        }
        AlterStep::Swap { .. } | AlterStep::DropSwapped { .. } | AlterStep::DropCopy => false,
    })
}

/// A column of the name that is not the one to be added: the rows that are there have something else in it.
fn occupied(target: &TargetTable, step: &AlterStep, column: &str) -> StatementError {
    let message = format!("there is a column \"{column}\" already, of another type or with another default");
    StatementError::Refused { statement: statement(target, step, &None), code: 0, message }
}

/// Whether a table is in its place for good: the one that was there is gone. A SWAP that was sent twice may have been executed
/// twice; as long as both are there that can be mended, by the step before.
fn is_swapped(
    session: &mut SqlSession,
    target: &TargetTable,
    table: &str,
    mark: &str,
) -> Result<bool, StatementError> {
    let is_gone = !is_there(session, &beside(target, table))?;
    if comment_says(session, target, mark)? {
        return Ok(is_gone);
    }
    let statement = format!("ALTER TABLE {} SWAP WITH {}", qualified(target), quote_identifier(table));
    let reason = "it was executed twice".to_owned();
    if is_gone {
        return Err(StatementError::Undone { statement, reason });
    }
    Err(StatementError::Refused { statement, code: 0, message: format!("{reason}: try again") })
}

/// What is being done to a table.
enum Work {
    /// Nothing, or the server does not say.
    None,
    Running,
    /// The last schema change has been given up.
    Cancelled(String),
}

/// The statements first: one that is executed may begin a job.
fn work_on(session: &mut SqlSession, target: &TargetTable) -> Result<Work, StatementError> {
    if fence::running(session, target)?.is_some() {
        return Ok(Work::Running);
    }
    let jobs = session.query(&format!(
        "SHOW ALTER TABLE COLUMN FROM {} WHERE TableName = {} ORDER BY CreateTime DESC LIMIT 1",
        quote_identifier(&target.database),
        quote_literal(&target.table),
    ));
    let jobs = match jobs {
        Err(StatementError::Refused { .. }) => return Ok(Work::None),
        other => other?,
    };
    let Some(job) = jobs.first() else { return Ok(Work::None) };
    Ok(match job.named("State").unwrap_or_default().to_ascii_uppercase().as_str() {
        "FINISHED" | "" => Work::None,
        "CANCELLED" => Work::Cancelled(job.named("Msg").unwrap_or_default()),
        _ => Work::Running,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_what_they_change() {
        let target = TargetTable { database: "shop".to_owned(), table: "or`ders".to_owned() };
        let add = |default: Option<&str>| AlterStep::Add {
            column: "no`te".to_owned(),
            target_type: "VARCHAR(40)".to_owned(),
            default: default.map(str::to_owned),
        };
        let cases = [
            (add(None), "ADD COLUMN `no``te` VARCHAR(40) NULL"),
            (add(Some("it's")), "ADD COLUMN `no``te` VARCHAR(40) NULL DEFAULT 'it\\'s'"),
            (AlterStep::Drop { column: "a".to_owned() }, "DROP COLUMN `a`"),
            (AlterStep::Rename { from: "a".to_owned(), to: "b".to_owned() }, "RENAME COLUMN `a` TO `b`"),
        ];
        let swap = AlterStep::Swap { with: "x`y".to_owned(), mark: "m".to_owned() };
        assert_eq!(statement(&target, &swap, &None), "ALTER TABLE `shop`.`or``ders` SWAP WITH `x``y`");
        let drop = AlterStep::DropSwapped { table: "x`y".to_owned(), mark: "m".to_owned() };
        assert_eq!(statement(&target, &drop, &None), "DROP TABLE IF EXISTS `shop`.`x``y`");
        let modify = AlterStep::Modify { column: "a".to_owned(), target_type: "VARCHAR(80)".to_owned() };
        let modified = statement(&target, &modify, &Some("x".to_owned()));
        assert!(modified.ends_with(" MODIFY COLUMN `a` VARCHAR(80) NULL DEFAULT 'x'"), "{modified}");
        for (step, expected) in cases {
            assert_eq!(statement(&target, &step, &None), format!("ALTER TABLE `shop`.`or``ders` {expected}"));
        }
    }
}
