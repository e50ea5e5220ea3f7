//! The table `dbmazz_owner` of the target database, over the MySQL protocol: one small Primary Key table, one row per
//! mirror. What its rows mean is in [`crate::owner`].
//!
//! Statements and not loads, because a step reads before it writes and needs no label. An INSERT may answer before its row
//! is visible, so the row is read back. Between reading and writing somebody else may claim; the next step of either
//! finds out.

use std::sync::Arc;

use bytes::Bytes;

use super::columns::quote_identifier;
use super::config::StarRocksConfig;
use super::ddl::{self, quote_literal};
use super::sql::SqlSession;
use crate::lsn::Lsn;
use crate::owner::{OwnerRow, OwnerStep, is_own};
use crate::sink::{Label, Load, LoadShape, StatementError};
use crate::table::TargetTable;

/// The table's name.
const TABLE: &str = "dbmazz_owner";
/// How often a row that was just written is looked for.
const LOOKS: u32 = 20;

/// Does a step; returns the row that was there before.
///
/// # Errors
/// When the server refuses or cannot be reached, or the written row does not become visible.
pub(super) fn step(
    session: &mut SqlSession,
    database: &str,
    replication_num: Option<u32>,
    step: &OwnerStep,
) -> Result<Option<OwnerRow>, StatementError> {
    let table = format!("{}.{}", quote_identifier(database), quote_identifier(TABLE));
    match step {
        OwnerStep::Look { mirror } => {
            ddl::create_database(session, database)?;
            create_table(session, &table, replication_num)?;
            read(session, &table, mirror)
        }
        OwnerStep::Claim(row) => {
            let found = read(session, &table, &row.mirror)?;
            write(session, &table, row)?;
            Ok(found)
        }
        OwnerStep::Advance { row, known } => {
            let found = read(session, &table, &row.mirror)?;
            if found.as_ref().is_some_and(|found| is_own(found, &row.server, known)) {
                write(session, &table, row)?;
            }
            Ok(found)
        }
        OwnerStep::Release { mirror, server } => {
            let found = read(session, &table, mirror)?;
            if found.as_ref().is_some_and(|found| found.server == *server) {
                let mirror = quote_literal(mirror);
                session.execute(&format!("DELETE FROM {table} WHERE `mirror` = {mirror}"))?;
            }
            Ok(found)
        }
    }
}

/// A load that changes nothing: it deletes a row of no mirror.
pub(super) fn load_of_nothing(database: &str, label: &Label) -> Load {
    const ROW: &[u8] =
        b"{\"mirror\":\"\",\"incarnation\":\"\",\"server\":\"\",\"commit_lsn\":\"\",\"__op\":1}\n";
    let target = TargetTable { database: database.to_owned(), table: TABLE.to_owned() };
    let columns = "`mirror`,`incarnation`,`server`,`commit_lsn`,`__op`".to_owned();
    Load {
        label: label.clone(),
        shape: Arc::new(LoadShape { target, columns, partial: false }),
        buffer: Bytes::from_static(ROW),
        live: std::iter::once(0..ROW.len()).collect(),
        rows: 1,
    }
}

/// Gives back what a mirror has in its target besides its tables, if this server has its row: the tables that were being
/// filled to take the places of others, and then the row. Asks once. Where there is no table of rows there is nothing to
/// give back.
///
/// # Errors
/// When the server refuses or cannot be reached. A table that cannot be dropped keeps the row from nothing.
pub fn release_claim(
    config: &StarRocksConfig,
    mirror: &str,
    server: &str,
    copies: &[TargetTable],
) -> Result<(), StatementError> {
    let mut session = SqlSession::connect(config)?;
    let table = format!("{}.{}", quote_identifier(&config.database), quote_identifier(TABLE));
    let found = match read(&mut session, &table, mirror) {
        Err(StatementError::Refused { message, .. }) if message.to_ascii_lowercase().contains("unknown") => {
            None
        }
        other => other?,
    };
    if found.is_none_or(|found| found.server != server) {
        return Ok(());
    }
    let dropped: Vec<_> = copies.iter().map(|copy| ddl::drop_copy(&mut session, copy)).collect();
    let release = OwnerStep::Release { mirror: mirror.to_owned(), server: server.to_owned() };
    step(&mut session, &config.database, None, &release)?;
    dropped.into_iter().collect()
}

/// Whether the rows can be read. A table that is not there yet is one that the first mirror makes.
///
/// # Errors
/// When the server refuses.
pub(super) fn check(session: &mut SqlSession, database: &str) -> Result<(), StatementError> {
    let table = format!("{}.{}", quote_identifier(database), quote_identifier(TABLE));
    match session.query(&format!("SELECT `commit_lsn` FROM {table} LIMIT 1")) {
        Err(StatementError::Refused { message, .. }) if message.to_ascii_lowercase().contains("unknown") => {
            Ok(())
        }
        other => other.map(drop),
    }
}

fn create_table(
    session: &mut SqlSession,
    table: &str,
    replication_num: Option<u32>,
) -> Result<(), StatementError> {
    let create = |replicas: Option<u32>| {
        let replicas =
            replicas.map(|count| format!(", \"replication_num\" = \"{count}\"")).unwrap_or_default();
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n  `mirror` VARCHAR(40) NOT NULL,\n  `incarnation` VARCHAR(16) NOT \
             NULL,\n  `server` VARCHAR(64) NOT NULL,\n  `commit_lsn` VARCHAR(20) NOT NULL\n) PRIMARY KEY \
             (`mirror`)\nCOMMENT 'who mirrors into this database, and how far'\nDISTRIBUTED BY HASH (`mirror`) BUCKETS \
             1\nPROPERTIES (\"enable_persistent_index\" = \"true\"{replicas})"
        )
    };
    match session.execute(&create(replication_num)) {
        // Nobody said how many replicas, and the server's own default is more than it has backends.
        Err(StatementError::Refused { message, .. })
            if replication_num.is_none() && ddl::names_replication(&message) =>
        {
            session.execute(&create(Some(1)))
        }
        other => other,
    }
}

fn read(session: &mut SqlSession, table: &str, mirror: &str) -> Result<Option<OwnerRow>, StatementError> {
    let statement = format!(
        "SELECT `incarnation`, `server`, `commit_lsn` FROM {table} WHERE `mirror` = {}",
        quote_literal(mirror)
    );
    let rows = session.query(&statement)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let parsed = || {
        Some(OwnerRow {
            mirror: mirror.to_owned(),
            incarnation: u64::from_str_radix(&row.at(0)?, 16).ok()?,
            server: row.at(1)?,
            commit_lsn: row.at(2)?.parse::<Lsn>().ok()?,
        })
    };
    let reason = "no incarnation, server and position".to_owned();
    parsed().map(Some).ok_or(StatementError::Malformed { statement, reason })
}

fn write(session: &mut SqlSession, table: &str, row: &OwnerRow) -> Result<(), StatementError> {
    session.execute(&format!(
        "INSERT INTO {table} (`mirror`, `incarnation`, `server`, `commit_lsn`) VALUES ({}, '{:016x}', {}, '{}')",
        quote_literal(&row.mirror),
        row.incarnation,
        quote_literal(&row.server),
        row.commit_lsn
    ))?;
    for _ in 0..LOOKS {
        if read(session, table, &row.mirror)?.as_ref() == Some(row) {
            return Ok(());
        }
    }
    // Not final: the step is done again.
    let reason = format!("the row of mirror \"{}\" in {table} is not visible yet", row.mirror);
    Err(StatementError::Unreachable { endpoint: session.endpoint().to_owned(), reason })
}

#[cfg(test)]
mod tests;
