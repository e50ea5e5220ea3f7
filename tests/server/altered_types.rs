//! ALTER TYPE of types that mirrored tables have columns of: values that are printed otherwise come to the target anew.

use crate::harness::{Comparison, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

fn copies(pair: &mut Pair) -> Outcome<String> {
    let mirror = pair.mirror().to_owned();
    pair.source.value(&format!(
        "SELECT count(*) FROM dbmazz_event WHERE mirror = '{mirror}' AND message ~ 'will be copied again'"
    ))
}

fn wait_for_copies(pair: &mut Pair, count: &str) -> Outcome {
    wait_until("the tables are to be copied again", PATIENCE, || Ok(copies(pair)? == count))
}

#[test]
fn a_label_of_a_key_gets_another_name() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
             CREATE TABLE day (mood mood PRIMARY KEY, v int); INSERT INTO day VALUES ('sad', 1), ('ok', 2)",
        )?;
        pair.start_mirror(&["day"])?;
        pair.wait_and_compare(&["day"])?;
        pair.source.execute(
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
             UPDATE day SET v = 10 WHERE v = 1; DELETE FROM day WHERE v = 10; INSERT INTO day VALUES ('glad', 7)",
        )?;
        wait_for_copies(pair, "1")?;
        pair.wait_and_compare(&["day"])?;
        pair.source.execute("INSERT INTO day VALUES ('blue', 8)")?;
        pair.wait_and_compare(&["day"])
    });
}

/// Whatever contains the values: arrays, domains, composites, ranges, and these in each other; a partitioned table too.
#[test]
fn values_within_others_are_printed_otherwise() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TYPE mood AS ENUM ('a', 'b');
             CREATE TYPE pair AS (x int, m mood);
             CREATE DOMAIN some_mood AS mood;
             CREATE TYPE moods AS RANGE (subtype = mood);
             CREATE TABLE in_array (id int PRIMARY KEY, v mood[]);
             CREATE TABLE in_composite (id int PRIMARY KEY, v pair);
             CREATE TABLE in_domain (id int PRIMARY KEY, v some_mood);
             CREATE TABLE in_range (id int PRIMARY KEY, v moods);
             CREATE TABLE in_both (id int PRIMARY KEY, v pair[]);
             CREATE TABLE parted (id int PRIMARY KEY, v mood) PARTITION BY HASH (id);
             CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO in_array VALUES (1, '{a,b}'); INSERT INTO in_composite VALUES (1, (1, 'a'));
             INSERT INTO in_domain VALUES (1, 'a'); INSERT INTO in_range VALUES (1, '[a,b]');
             INSERT INTO in_both VALUES (1, ARRAY[(1, 'a')::pair]); INSERT INTO parted VALUES (1, 'a');
             INSERT INTO other VALUES (1, 'a')",
        )?;
        let tables = ["in_array", "in_composite", "in_domain", "in_range", "in_both", "parted", "other"];
        pair.start_mirror(&tables)?;
        pair.wait_and_compare(&tables)?;
        pair.source.execute("ALTER TYPE mood RENAME VALUE 'a' TO 'first'")?;
        wait_for_copies(pair, "6")?;
        pair.wait_and_compare(&tables)?;
        pair.source.execute("ALTER TYPE pair ADD ATTRIBUTE y text; INSERT INTO in_both VALUES (2, NULL)")?;
        wait_for_copies(pair, "8")?;
        pair.wait_and_compare(&tables)
    });
}

/// Where rows stay as they are nothing is copied.
#[test]
fn a_new_label_and_another_name_of_the_type_change_nothing() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE pair AS (x int, y int);
             CREATE TABLE item (id int PRIMARY KEY, v mood, p pair); INSERT INTO item VALUES (1, 'a', (1, 2))",
        )?;
        pair.start_mirror(&["item"])?;
        pair.wait_and_compare(&["item"])?;
        pair.source.execute("ALTER TYPE mood ADD VALUE 'c' BEFORE 'b'")?;
        pair.source.execute(
            "INSERT INTO item VALUES (2, 'c', (3, 4)); ALTER TYPE mood RENAME TO humour;
             ALTER TYPE pair RENAME ATTRIBUTE x TO z; ALTER TYPE pair OWNER TO CURRENT_USER",
        )?;
        pair.source.execute("BEGIN; ALTER TYPE humour RENAME VALUE 'a' TO 'first'; ROLLBACK")?;
        pair.source.execute("UPDATE item SET p.z = 9 WHERE id = 2")?;
        pair.wait()?;
        pair.compare(&Comparison::of("item"))?;
        assert_eq!(copies(pair)?, "0");
        Ok(())
    });
}
