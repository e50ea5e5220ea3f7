//! Statements that outlive their session, and how none of them undoes what came after it.
//!
//! A frontend executes a statement that it has read to its end, though its client has gone, whether the connection was cut or
//! the process killed. Whoever takes the work up looks at the table, finds it as it was before, and sends the same again: the
//! earlier statement comes to its turn afterwards. So before a statement about a table is sent, and before a table is looked
//! at that is to be kept, every statement about it that another session is executing must have ended ([`wait_for_others`]):
//! the list of processes has them all, of the same user without any right.
//!
//! | statement that is late | what it could do | and why it does not |
//! |---|---|---|
//! | TRUNCATE | empty the table after newer loads | waited for |
//! | ADD, DROP, RENAME, MODIFY COLUMN | the next column of the name, gone or of another type | waited for |
//! | SWAP WITH | put the old rows, or half a copy, into the target's place | each copy has a name of its own, which is dropped when the copy is given up or in place: then the statement finds no table |
//! | DROP TABLE | the table that was made anew since, gone | waited for; of copies the name is not used again |
//! | CREATE TABLE | the table with the columns of before | never `IF NOT EXISTS`: who comes second is told, and compares |
//!
//! **What cannot be told**: a statement that lies in a socket which the frontend has not read yet, or that another frontend
//! (a follower, before it was gone) has passed on to the leader, is in no list. It would have to be held up there for longer
//! than a worker takes to start. Of SWAP this does not matter, by the names. A late TRUNCATE, DROP or ALTER of this kind would
//! be executed; StarRocks has no statement that depends on what its table is.

use super::ddl::qualified;
use super::sql::SqlSession;
use crate::sink::StatementError;
use crate::table::TargetTable;

/// How statements begin that change a table as a whole.
const CHANGES: [&str; 4] = ["TRUNCATE TABLE", "ALTER TABLE", "DROP TABLE", "CREATE TABLE"];

/// Sees to it that no other session is executing a statement that changes the table.
///
/// # Errors
/// As a statement in progress, which may pass, while one is. When the server cannot be reached.
pub(super) fn wait_for_others(
    session: &mut SqlSession,
    target: &TargetTable,
    statement: &str,
) -> Result<(), StatementError> {
    match running(session, target)? {
        None => Ok(()),
        Some(earlier) => {
            let kind: Vec<&str> = earlier.split_whitespace().take(2).collect();
            let message = format!("an earlier {} has not ended: operation is in progress", kind.join(" "));
            Err(StatementError::Refused { statement: statement.to_owned(), code: 0, message })
        }
    }
}

/// The statement about a table that another session is executing. A server that does not tell is taken at its word.
pub(super) fn running(
    session: &mut SqlSession,
    target: &TargetTable,
) -> Result<Option<String>, StatementError> {
    let processes = match session.query("SHOW FULL PROCESSLIST") {
        Ok(processes) => processes,
        Err(StatementError::Refused { .. }) => return Ok(None),
        Err(problem) => return Err(problem),
    };
    // An idle session may still show its last statement.
    let executing = processes.iter().filter(|process| {
        process.named("Command").is_some_and(|command| command.eq_ignore_ascii_case("query"))
    });
    let name = qualified(target);
    Ok(executing.filter_map(|process| process.named("Info")).find(|info| changes(info, &name)))
}

/// Whether a statement changes the table of this name, as statements of this program do.
fn changes(statement: &str, name: &str) -> bool {
    let words: Vec<&str> = statement.split_whitespace().take(2).collect();
    let begin = words.join(" ");
    CHANGES.iter().any(|change| change.eq_ignore_ascii_case(&begin)) && statement.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_other_tables_are_not_waited_for() {
        let name = "`shop`.`orders`";
        assert!(changes("TRUNCATE TABLE `shop`.`orders`", name));
        assert!(changes("alter  table `shop`.`orders` DROP COLUMN `a`", name));
        assert!(changes("DROP TABLE IF EXISTS `shop`.`orders`", name));
        assert!(!changes("TRUNCATE TABLE `shop`.`orders_2`", name));
        assert!(!changes("SELECT 1 FROM `shop`.`orders`", name));
        assert!(!changes("SHOW CREATE TABLE `shop`.`orders`", name));
    }
}
