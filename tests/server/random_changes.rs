//! Random transactions over a handful of keys, so that batches are full of repetitions, key changes and unchanged
//! TOAST values; in small loads, with interruptions. `DBMAZZ_TEST_SEED` repeats a run.

use crate::harness::{Outcome, Pair, Random};
use crate::on_a_pair;

const TABLES: [&str; 2] = ["leaf", "word"];
const ROUNDS: u32 = 8;
const TRANSACTIONS: u32 = 40;

pub(crate) fn create_tables(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE leaf (id int, part int, v text, big text, n numeric, PRIMARY KEY (id, part));
         ALTER TABLE leaf ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE word (id text PRIMARY KEY, at timestamptz, big text, other text);
         ALTER TABLE word ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;
         INSERT INTO leaf SELECT n, 0, 'v', repeat('start', 1000), n FROM generate_series(1, 20) n",
    )
}

/// A transaction of one to six statements, sometimes rolled back in part or whole.
pub(crate) fn transaction(random: &mut Random) -> String {
    let mut sql = String::from("BEGIN;");
    for _ in 0..=random.below(5) {
        match random.below(8) {
            0 => sql.push_str(&format!("SAVEPOINT s; {} ROLLBACK TO s;", statement(random))),
            1 => sql.push_str(&format!("SAVEPOINT s; {} RELEASE s;", statement(random))),
            _ => sql.push_str(&statement(random)),
        }
    }
    sql.push_str(if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" });
    sql
}

/// A change of a key writes the large values anew: one that is not in the log puts its table into error, by design.
fn statement(random: &mut Random) -> String {
    let (id, other, number) = (random.below(25), random.below(25), random.below(1_000_000));
    match random.below(12) {
        0 | 1 => format!(
            "INSERT INTO leaf VALUES ({id}, {}, 'i{number}', repeat('big{number}', 700), {number}.50)
             ON CONFLICT (id, part) DO UPDATE SET v = excluded.v;",
            number % 2
        ),
        2 => format!("UPDATE leaf SET v = 'u{number}' WHERE id = {id};"),
        3 => format!("UPDATE leaf SET big = repeat('new{number}', 700), n = NULL WHERE id = {id};"),
        4 => format!("UPDATE leaf SET n = n + 1 WHERE id <> {id};"),
        5 => format!("DELETE FROM leaf WHERE id = {id} AND part = {};", number % 2),
        6 => format!(
            "UPDATE leaf SET id = {other}, big = big || '' WHERE id = {id} AND part = 0
             AND NOT EXISTS (SELECT FROM leaf l WHERE l.id = {other} AND l.part = 0);"
        ),
        7 | 8 => format!(
            "INSERT INTO word VALUES ('w{id}', now(), repeat('a{number}', 800), repeat('b', {}))
             ON CONFLICT (id) DO UPDATE SET at = now(), other = 'short {number}';",
            number % 9000
        ),
        9 => format!("UPDATE word SET big = NULL WHERE id = 'w{id}';"),
        10 => format!("DELETE FROM word WHERE id = 'w{id}';"),
        _ if number % 40 == 0 => "TRUNCATE word;".to_owned(),
        _ => format!(
            "UPDATE word SET id = 'w{other}', big = big || '', other = other || '' WHERE id = 'w{id}'
             AND NOT EXISTS (SELECT FROM word w WHERE w.id = 'w{other}');"
        ),
    }
}

/// Something that must not matter.
pub(crate) fn interrupt(pair: &mut Pair, random: &mut Random) -> Outcome {
    match random.below(6) {
        0 => {
            pair.call("dbmazz_pause_mirror")?;
            pair.call("dbmazz_resume_mirror")
        }
        1 => pair.source.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{}' AND pid IS NOT NULL",
            pair.mirror()
        )),
        2 => pair.source.execute("VACUUM leaf, word"),
        _ => Ok(()),
    }
}

#[test]
fn both_sides_are_equal_after_any_changes() {
    on_a_pair(|pair| {
        let mut random = Random::announced("random changes");
        create_tables(pair)?;
        pair.start_mirror_with("tables => ARRAY['leaf', 'word']::regclass[]", r#"{"batch_max_rows": 7}"#)?;
        for _ in 0..ROUNDS {
            for _ in 0..TRANSACTIONS {
                let sql = transaction(&mut random);
                pair.source.execute(&sql)?;
            }
            interrupt(pair, &mut random)?;
            pair.wait_and_compare(&TABLES)?;
        }
        Ok(())
    });
}

#[test]
fn one_large_transaction_is_cut_into_many_loads() {
    on_a_pair(|pair| {
        create_tables(pair)?;
        pair.start_mirror_with(
            "tables => ARRAY['leaf', 'word']::regclass[]",
            r#"{"batch_max_rows": 1000, "memory_limit": "8MB"}"#,
        )?;
        pair.wait()?;
        pair.source.execute(
            "BEGIN; INSERT INTO leaf SELECT n, 1, 'v' || n, NULL, n FROM generate_series(1, 50000) n;
             UPDATE leaf SET v = 'u' WHERE id % 3 = 0; DELETE FROM leaf WHERE id % 5 = 0;
             INSERT INTO word SELECT 'w' || n, now(), NULL, NULL FROM generate_series(1, 20000) n; COMMIT",
        )?;
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn interleaved_transactions_arrive_in_the_order_of_their_commits() {
    on_a_pair(|pair| {
        create_tables(pair)?;
        pair.start_mirror(&TABLES)?;
        pair.wait()?;
        let mut other = pair.source.another_session()?;
        for n in 0..20 {
            other.execute(&format!("BEGIN; UPDATE leaf SET v = 'first {n}' WHERE id = 1"))?;
            pair.source.execute(&format!("BEGIN; UPDATE leaf SET v = 'second {n}' WHERE id = 2"))?;
            other.execute(&format!("INSERT INTO word VALUES ('o{n}', now(), NULL, NULL); COMMIT"))?;
            pair.source.execute(&format!(
                "UPDATE leaf SET v = 'after {n}' WHERE id = 1; UPDATE word SET other = 'x' WHERE id = 'o{n}'; COMMIT"
            ))?;
        }
        pair.wait_and_compare(&TABLES)
    });
}

#[test]
fn a_prepared_transaction_arrives_when_it_is_committed() {
    on_a_pair(|pair| {
        create_tables(pair)?;
        pair.start_mirror(&TABLES)?;
        pair.wait()?;
        let name = pair.source.name().to_owned();
        pair.source
            .execute(&format!("BEGIN; UPDATE leaf SET v = 'prepared'; PREPARE TRANSACTION 'a_{name}'"))?;
        pair.source.execute(&format!(
            "BEGIN; INSERT INTO word VALUES ('never', NULL, NULL, NULL); PREPARE TRANSACTION 'b_{name}'"
        ))?;
        pair.wait_and_compare(&TABLES)?;
        pair.source.execute(&format!("COMMIT PREPARED 'a_{name}'"))?;
        pair.source.execute(&format!("ROLLBACK PREPARED 'b_{name}'"))?;
        pair.wait_and_compare(&TABLES)
    });
}
