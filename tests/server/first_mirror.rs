//! The first mirror: rows that are there are copied, changes follow, both sides are equal.

use crate::harness::{Comparison, Outcome, Pair};
use crate::on_a_pair;

/// A table of accounts with `rows` rows.
fn accounts(pair: &mut Pair, rows: u32) -> Outcome {
    pair.source.execute(&format!(
        "CREATE TABLE account (id bigint PRIMARY KEY, owner text, balance numeric(12,2) NOT NULL);
         INSERT INTO account SELECT n, 'owner ' || n, n * 1.25 FROM generate_series(1, {rows}) n"
    ))
}

/// Accounts that are mirrored and in step.
fn mirrored_accounts(pair: &mut Pair, rows: u32) -> Outcome {
    accounts(pair, rows)?;
    pair.start_mirror(&["account"])?;
    pair.wait_and_compare(&["account"])
}

#[test]
fn rows_that_are_there_are_copied() {
    on_a_pair(|pair| {
        accounts(pair, 5000)?;
        pair.start_mirror(&["account"])?;
        pair.wait_and_compare(&["account"])?;
        assert_eq!(pair.target.count("account")?, 5000);
        Ok(())
    });
}

#[test]
fn an_empty_table_is_mirrored_and_filled_later() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 0)?;
        pair.source.execute("INSERT INTO account VALUES (1, 'first', 1)")?;
        pair.wait_and_compare(&["account"])
    });
}

#[test]
fn inserts_updates_and_deletes_arrive() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 100)?;
        pair.source.execute("INSERT INTO account VALUES (101, 'new', 7.5), (102, NULL, -1)")?;
        pair.source.execute("UPDATE account SET balance = balance + 1 WHERE id <= 50")?;
        pair.source.execute("UPDATE account SET owner = NULL WHERE id = 60")?;
        pair.source.execute("DELETE FROM account WHERE id BETWEEN 70 AND 80")?;
        pair.wait_and_compare(&["account"])?;
        assert_eq!(pair.target.count("account")?, 91);
        Ok(())
    });
}

#[test]
fn many_changes_of_one_row_end_at_the_last() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 1)?;
        pair.source.execute(
            "BEGIN; UPDATE account SET owner = 'a' WHERE id = 1; DELETE FROM account WHERE id = 1;
             INSERT INTO account VALUES (1, 'b', 2); UPDATE account SET owner = 'c' WHERE id = 1; COMMIT;
             INSERT INTO account VALUES (2, 'short life', 0); DELETE FROM account WHERE id = 2;
             UPDATE account SET balance = 99 WHERE id = 1",
        )?;
        pair.wait_and_compare(&["account"])?;
        let table = pair.target.table("account");
        assert_eq!(pair.target.value(&format!("SELECT owner FROM {table} WHERE id = 1"))?, "c");
        Ok(())
    });
}

#[test]
fn a_change_of_the_key_moves_the_row() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 10)?;
        pair.source.execute("UPDATE account SET id = id + 1000 WHERE id <= 3")?;
        pair.source.execute("UPDATE account SET id = 500, owner = 'moved' WHERE id = 4")?;
        pair.wait_and_compare(&["account"])?;
        assert_eq!(pair.target.count("account")?, 10);
        Ok(())
    });
}

#[test]
fn two_keys_can_be_swapped_in_one_transaction() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 2)?;
        pair.source.execute(
            "BEGIN; UPDATE account SET id = -1 WHERE id = 1; UPDATE account SET id = 1 WHERE id = 2;
             UPDATE account SET id = 2 WHERE id = -1; COMMIT",
        )?;
        pair.wait_and_compare(&["account"])
    });
}

#[test]
fn a_transaction_over_several_tables_arrives_whole() {
    on_a_pair(|pair| {
        accounts(pair, 10)?;
        pair.source.execute(
            "CREATE SCHEMA sales; CREATE TABLE sales.entry (account bigint, line int, amount int, PRIMARY KEY (account, line))",
        )?;
        pair.start_mirror(&["account", "sales.entry"])?;
        pair.source.execute(
            "BEGIN; INSERT INTO sales.entry SELECT n, l, n * l FROM generate_series(1, 10) n, generate_series(1, 20) l;
             UPDATE account SET balance = balance - 1; DELETE FROM sales.entry WHERE line = 7; COMMIT",
        )?;
        pair.wait_and_compare(&["account", "sales.entry"])?;
        assert_eq!(pair.target.count("entry")?, 190);
        Ok(())
    });
}

#[test]
fn what_is_rolled_back_does_not_arrive() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 10)?;
        pair.source
            .execute("BEGIN; INSERT INTO account VALUES (11, 'never', 0); DELETE FROM account; ROLLBACK")?;
        pair.source.execute(
            "BEGIN; INSERT INTO account VALUES (12, 'kept', 0);
             SAVEPOINT s; INSERT INTO account VALUES (13, 'dropped', 0); UPDATE account SET owner = 'wrong'; ROLLBACK TO s;
             INSERT INTO account VALUES (14, 'kept too', 0);
             SAVEPOINT t; INSERT INTO account VALUES (15, 'released', 0); RELEASE t; COMMIT",
        )?;
        pair.wait_and_compare(&["account"])?;
        assert_eq!(pair.target.count("account")?, 13);
        Ok(())
    });
}

#[test]
fn every_table_of_the_database_is_mirrored_when_none_is_named() {
    on_a_pair(|pair| {
        accounts(pair, 10)?;
        pair.source.execute(
            "CREATE TABLE other (a text, b text, PRIMARY KEY (b, a)); INSERT INTO other VALUES ('x', 'y')",
        )?;
        pair.start_mirror_with("", "{}")?;
        pair.wait_and_compare(&["account", "other"])
    });
}

#[test]
fn without_a_snapshot_only_changes_arrive() {
    on_a_pair(|pair| {
        accounts(pair, 10)?;
        pair.start_mirror_with("tables => ARRAY['account']::regclass[], snapshot => false", "{}")?;
        pair.wait()?;
        pair.source.execute("INSERT INTO account VALUES (11, 'new', 1)")?;
        pair.source.execute("UPDATE account SET owner = 'touched' WHERE id = 3")?;
        pair.wait()?;
        pair.compare(&Comparison::of("account").rows_where("id IN (3, 11)"))
    });
}

#[test]
fn truncate_empties_the_target_and_later_rows_stay() {
    on_a_pair(|pair| {
        mirrored_accounts(pair, 500)?;
        pair.source.execute(
            "BEGIN; INSERT INTO account VALUES (1001, 'before', 0); TRUNCATE account;
             INSERT INTO account VALUES (1002, 'after', 0); COMMIT",
        )?;
        pair.source.execute("INSERT INTO account VALUES (1003, 'later', 0)")?;
        pair.wait_and_compare(&["account"])?;
        assert_eq!(pair.target.count("account")?, 2);
        Ok(())
    });
}

#[test]
fn an_unchanged_toast_value_is_not_lost() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE document (id int PRIMARY KEY, title text, body text, extra text);
             ALTER TABLE document ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
             INSERT INTO document SELECT n, 't' || n, repeat('body ' || n, 2000), repeat('extra ' || n, 2000)
             FROM generate_series(1, 20) n",
        )?;
        pair.start_mirror(&["document"])?;
        pair.wait()?;
        pair.source.execute("UPDATE document SET title = 'renamed' WHERE id <= 10")?;
        pair.source.execute("UPDATE document SET body = repeat('new', 3000) WHERE id = 11")?;
        pair.source.execute(
            "BEGIN; INSERT INTO document VALUES (21, 'new', repeat('x', 9000), NULL);
             UPDATE document SET title = 'in the same transaction' WHERE id IN (1, 21);
             UPDATE document SET extra = 'short' WHERE id = 1; UPDATE document SET title = 'last' WHERE id = 1;
             DELETE FROM document WHERE id = 2; COMMIT",
        )?;
        pair.wait_and_compare(&["document"])
    });
}

/// The row under the new key is nowhere at the target, and the log does not have the value.
#[test]
fn a_changed_key_with_an_unchanged_toast_value_is_right_or_loud() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE document (id int PRIMARY KEY, title text, body text);
             ALTER TABLE document ALTER body SET STORAGE EXTERNAL;
             INSERT INTO document SELECT n, 't' || n, repeat('body ' || n, 2000) FROM generate_series(1, 5) n",
        )?;
        pair.start_mirror(&["document"])?;
        pair.wait()?;
        pair.source.execute("UPDATE document SET id = id + 100 WHERE id <= 3")?;
        if pair.wait().is_ok() {
            return pair.compare(&Comparison::of("document"));
        }
        assert_eq!(pair.table_state("document")?.as_deref(), Some("e"));
        let reason = "SELECT last_error FROM dbmazz_stat_table WHERE relation = 'document'::regclass";
        assert!(pair.source.value(reason)?.contains("key"));
        Ok(())
    });
}

#[test]
fn a_changed_key_under_replica_identity_full_takes_its_toast_value_along() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE document (id int PRIMARY KEY, title text, body text);
             ALTER TABLE document ALTER body SET STORAGE EXTERNAL; ALTER TABLE document REPLICA IDENTITY FULL;
             INSERT INTO document SELECT n, 't' || n, repeat('body ' || n, 2000) FROM generate_series(1, 5) n",
        )?;
        pair.start_mirror(&["document"])?;
        pair.wait()?;
        pair.source.execute(
            "UPDATE document SET id = id + 100 WHERE id <= 3; UPDATE document SET title = 'x' WHERE id = 101",
        )?;
        pair.wait_and_compare(&["document"])
    });
}

#[test]
fn odd_names_are_mirrored() {
    on_a_pair(|pair| {
        pair.source.execute(
            r#"CREATE TABLE "Order" ("select" int PRIMARY KEY, "with space" text, "Quote""d" text, "größe" int);
               INSERT INTO "Order" VALUES (1, 'a', 'b', 3)"#,
        )?;
        pair.start_mirror(&["\"Order\""])?;
        pair.source.execute(r#"INSERT INTO "Order" VALUES (2, 'c', 'd', 4); UPDATE "Order" SET "größe" = 5 WHERE "select" = 1"#)?;
        pair.wait()?;
        pair.compare(&Comparison::of("\"Order\"").with_target("Order"))
    });
}

#[test]
fn table_map_names_the_target_table() {
    on_a_pair(|pair| {
        accounts(pair, 10)?;
        pair.start_mirror_with(
            "tables => ARRAY['account']::regclass[]",
            r#"{"table_map": {"public.account": "bank_account"}}"#,
        )?;
        pair.wait()?;
        pair.compare(&Comparison::of("account").with_target("bank_account"))?;
        assert!(!pair.target.has("account")?);
        Ok(())
    });
}

#[test]
fn column_map_sets_the_target_type() {
    on_a_pair(|pair| {
        accounts(pair, 10)?;
        pair.start_mirror_with(
            "tables => ARRAY['account']::regclass[]",
            r#"{"column_map": {"public.account.balance": "DECIMAL(20,4)"}}"#,
        )?;
        pair.wait_and_compare(&["account"])?;
        let database = pair.target.database().to_owned();
        let column_type = pair.target.value(&format!(
            "SELECT column_type FROM information_schema.columns
             WHERE table_schema = '{database}' AND table_name = 'account' AND column_name = 'balance'"
        ))?;
        assert_eq!(column_type.to_ascii_lowercase().replace(' ', ""), "decimal(20,4)");
        Ok(())
    });
}
