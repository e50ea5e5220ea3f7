//! Changing columns of a target table, one step at a time, each until it is done.
//!
//! A step looks first whether the table is already as it should be: it may have been taken before, by a worker that could
//! not write that down. A server alters at once or by a job that waits for older loads; loads that come after a step see
//! the new columns.

use std::thread;
use std::time::{Duration, Instant};

use super::columns::quote_identifier;
use super::ddl::{describe, qualified, quote_literal};
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
/// the server has not done it in time.
pub(super) fn take_step(
    session: &mut SqlSession,
    target: &TargetTable,
    step: &AlterStep,
    watch: &dyn Watch,
) -> Result<(), StatementError> {
    let begin = Instant::now();
    let statement = statement(target, step);
    let mut is_executed = false;
    while begin.elapsed() < PATIENCE {
        if watch.stopped() {
            return Err(StatementError::Stopped);
        }
        match last_job(session, target)? {
            Job::Running => {}
            _ if is_taken(session, target, step)? => return Ok(()),
            Job::Cancelled(message) if is_executed => {
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

/// The statement of a step.
fn statement(target: &TargetTable, step: &AlterStep) -> String {
    let table = qualified(target);
    match step {
        AlterStep::Add { column, target_type, default } => {
            let default = default.as_deref().map(|text| format!(" DEFAULT {}", quote_literal(text)));
            let column = quote_identifier(column);
            format!(
                "ALTER TABLE {table} ADD COLUMN {column} {target_type} NULL{}",
                default.unwrap_or_default()
            )
        }
        AlterStep::Drop { column } => format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(column)),
        AlterStep::Rename { from, to } => {
            let (from, to) = (quote_identifier(from), quote_identifier(to));
            format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
        }
    }
}

fn is_taken(
    session: &mut SqlSession,
    target: &TargetTable,
    step: &AlterStep,
) -> Result<bool, StatementError> {
    let columns = describe(session, target)?;
    let has = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let has_exactly = |name: &str| columns.iter().any(|column| column.name == name);
    Ok(match step {
        AlterStep::Add { column, .. } => has(column),
        AlterStep::Drop { column } => !has(column),
        AlterStep::Rename { from, to } => has_exactly(to) && !has_exactly(from),
    })
}

/// What became of the last schema change of a table.
enum Job {
    /// There was none, or it is done, or the server does not say.
    Ended,
    Running,
    Cancelled(String),
}

fn last_job(session: &mut SqlSession, target: &TargetTable) -> Result<Job, StatementError> {
    let jobs = session.query(&format!(
        "SHOW ALTER TABLE COLUMN FROM {} WHERE TableName = {} ORDER BY CreateTime DESC LIMIT 1",
        quote_identifier(&target.database),
        quote_literal(&target.table),
    ));
    let jobs = match jobs {
        Err(StatementError::Refused { .. }) => return Ok(Job::Ended),
        other => other?,
    };
    let Some(job) = jobs.first() else { return Ok(Job::Ended) };
    Ok(match job.named("State").unwrap_or_default().to_ascii_uppercase().as_str() {
        "FINISHED" | "" => Job::Ended,
        "CANCELLED" => Job::Cancelled(job.named("Msg").unwrap_or_default()),
        _ => Job::Running,
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
        for (step, expected) in cases {
            assert_eq!(statement(&target, &step), format!("ALTER TABLE `shop`.`or``ders` {expected}"));
        }
    }
}
