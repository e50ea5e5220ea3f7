//! Partitions that come and go while their table is being copied, and when processes end at that moment.

use crate::harness::{Action, Fault, Outcome, PATIENCE, Pair, Settings, wait_until};
use crate::{on_a_pair, on_its_own_cluster};

/// Small chunks, few at a time.
const OPTIONS: &str = r#"{"snapshot_chunk_size": "64kB", "snapshot_workers": 2, "batch_max_rows": 200}"#;

fn create(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE sale (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM (0) TO (10);
         CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM (10) TO (20);
         CREATE TABLE sale_3 PARTITION OF sale FOR VALUES FROM (20) TO (30);
         INSERT INTO sale SELECT n, n % 30, repeat('v' || n, 10) FROM generate_series(1, 9000) n;
         CREATE TABLE loose (LIKE sale); INSERT INTO loose SELECT n, 35, 'l' FROM generate_series(1, 900) n",
    )
}

const CHANGES: &str = "UPDATE sale SET v = 'changed' WHERE id % 7 = 0; UPDATE sale SET day = (day + 10) % 30 WHERE id % 9 = 0;
    DELETE FROM sale WHERE id % 11 = 0; INSERT INTO sale SELECT n, n % 30, 'new' FROM generate_series(20001, 20100) n";

/// What may happen to the partitions of a table.
const EVENTS: [&str; 6] = [
    "ALTER TABLE sale ATTACH PARTITION loose FOR VALUES FROM (30) TO (40)",
    "ALTER TABLE sale DETACH PARTITION sale_2",
    "DROP TABLE sale_3",
    "TRUNCATE sale_1",
    "CREATE TABLE sale_4 PARTITION OF sale FOR VALUES FROM (30) TO (40); INSERT INTO sale VALUES (1, 31, 'new')",
    "TRUNCATE sale; INSERT INTO sale SELECT n, n % 30, 'again' FROM generate_series(1, 500) n",
];

/// Holds the copy up in its midst, and lets it go on when `meanwhile` is done.
fn during_the_copy(pair: &mut Pair, meanwhile: impl FnOnce(&mut Pair) -> Outcome) -> Outcome {
    let Some(control) = pair.control("copy of partitions") else { return Ok(()) };
    control.set(&Fault::lasting("hang").on_table("sale"))?;
    let copying = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'd')";
    wait_until("a chunk is being copied", PATIENCE, || pair.source.is_true(copying))?;
    meanwhile(pair)?;
    control.clear()
}

#[test]
fn the_first_copy_converges_whatever_becomes_of_the_partitions() {
    for event in EVENTS {
        on_a_pair(|pair| {
            create(pair)?;
            let Some(control) = pair.control("first copy") else { return Ok(()) };
            control.set(&Fault::lasting("hang").on_table("sale"))?;
            pair.start_mirror_with("tables => ARRAY['sale']::regclass[]", OPTIONS)?;
            during_the_copy(pair, |pair| {
                pair.source.execute(CHANGES)?;
                pair.source.execute(event)
            })?;
            pair.source.execute("UPDATE sale SET v = 'later' WHERE id % 5 = 0")?;
            pair.wait_and_compare(&["sale"])
        });
    }
}

#[test]
fn a_copy_beside_the_stream_converges_whatever_becomes_of_the_partitions() {
    for event in EVENTS {
        on_a_pair(|pair| {
            create(pair)?;
            pair.start_mirror_with("tables => ARRAY['sale']::regclass[]", OPTIONS)?;
            pair.wait()?;
            let mirror = pair.mirror().to_owned();
            pair.source.execute(&format!("SELECT dbmazz_resync_table('{mirror}', 'sale')"))?;
            during_the_copy(pair, |pair| {
                pair.source.execute(CHANGES)?;
                pair.source.execute(event)
            })?;
            pair.source.execute("UPDATE sale SET v = 'later' WHERE id % 5 = 0")?;
            pair.wait_and_compare(&["sale"])
        });
    }
}

#[test]
fn the_end_of_the_worker_at_an_attach_or_detach_is_survived() {
    on_its_own_cluster(&Settings::default(), |pair| {
        create(pair)?;
        pair.start_mirror_with("tables => ARRAY['sale']::regclass[]", OPTIONS)?;
        pair.wait()?;
        let points = [
            "stream_transaction_decoded",
            "checkpoint_before_commit",
            "checkpoint_committed",
            "sync_plan_committed",
        ];
        for point in points {
            for (event, undo) in [
                (EVENTS[0], "ALTER TABLE sale DETACH PARTITION loose"),
                (EVENTS[1], "ALTER TABLE sale ATTACH PARTITION sale_2 FOR VALUES FROM (10) TO (20)"),
            ] {
                let cluster = std::sync::Arc::clone(pair.source.cluster());
                let failpoint = cluster.arm(point, Action::Error, 0)?;
                pair.source.execute(event)?;
                pair.source.execute("UPDATE sale SET v = 'meanwhile' WHERE id % 3 = 0")?;
                failpoint.wait_until_reached()?;
                pair.wait_and_compare(&["sale"])?;
                pair.source.execute(undo)?;
                pair.wait_and_compare(&["sale"])?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_row_that_the_log_does_not_have_whole_is_read_from_its_partition() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE doc (id int, kind int, body text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
             CREATE TABLE doc_1 PARTITION OF doc FOR VALUES IN (1);
             CREATE TABLE doc_2 (body text, kind int NOT NULL, id int NOT NULL);
             ALTER TABLE doc ATTACH PARTITION doc_2 FOR VALUES IN (2);
             ALTER TABLE doc_1 ALTER body SET STORAGE EXTERNAL; ALTER TABLE doc_2 ALTER body SET STORAGE EXTERNAL;
             INSERT INTO doc SELECT n, n % 2 + 1, repeat('body ' || n, 900) FROM generate_series(1, 40) n",
        )?;
        pair.start_mirror(&["doc"])?;
        pair.wait()?;
        pair.source.execute("UPDATE doc SET id = id + 100")?;
        pair.wait_and_compare(&["doc"])
    });
}

#[test]
fn a_thousand_partitions_are_copied_and_followed() {
    on_a_pair(|pair| {
        pair.source.execute("CREATE TABLE sale (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")?;
        // Alone: it commits now and then, so as not to hold a thousand locks.
        pair.source.execute(
            "DO $$ BEGIN
                 FOR n IN 0..999 LOOP
                     EXECUTE format('CREATE TABLE sale_%s PARTITION OF sale FOR VALUES FROM (%s) TO (%s)', n, n * 10, n * 10 + 10);
                     IF n % 100 = 99 THEN COMMIT; END IF;
                 END LOOP;
             END $$",
        )?;
        pair.source.execute("INSERT INTO sale SELECT n, 'v' || n FROM generate_series(0, 9999) n")?;
        let since = std::time::Instant::now();
        pair.start_mirror(&["sale"])?;
        pair.wait_and_compare(&["sale"])?;
        println!("copied in {:?}, with {:?} loads", since.elapsed(), pair.stat("loads_total")?);
        pair.source
            .execute("UPDATE sale SET v = 'changed' WHERE id % 3 = 0; DELETE FROM sale WHERE id % 7 = 0")?;
        pair.wait_and_compare(&["sale"])?;
        pair.source.execute("CREATE TABLE sale_more PARTITION OF sale FOR VALUES FROM (20000) TO (30000); INSERT INTO sale VALUES (20001, 'more')")?;
        pair.wait_and_compare(&["sale"])
    });
}
