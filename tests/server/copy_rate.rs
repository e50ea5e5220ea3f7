//! `snapshot_max_rate`: how fast a copy may read.

use std::time::{Duration, Instant};

use crate::harness::{Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// The processes of a copy keep to the rate together: two of them that each kept to it would take half of the time.
#[test]
fn a_copy_reads_no_faster_than_it_may() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, repeat('v', 900) FROM generate_series(1, 8000) n",
        )?;
        let bytes = pair.source.value("SELECT pg_table_size('item')")?.parse::<u32>()?;
        let began = Instant::now();
        let options =
            r#"{"snapshot_max_rate": "2000kB", "snapshot_chunk_size": "1MB", "snapshot_workers": 2}"#;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", options)?;
        pair.wait()?;
        let took = began.elapsed();
        // Nobody waits for what the two read last.
        let least = Duration::from_secs_f64((f64::from(bytes) - 2.2e6) / 2.048e6);
        assert!(took >= least, "{took:?} for {bytes} bytes, {least:?} at least");
        assert!(least > Duration::from_secs(2), "{least:?}");
        pair.wait_and_compare(&["item"])
    });
}

/// A mirror that is being paused does not wait until what was read is paid for.
#[test]
fn a_slow_copy_ends_at_once_and_goes_on() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, repeat('v', 900) FROM generate_series(1, 4000) n",
        )?;
        let slow = r#"{"snapshot_max_rate": "1kB", "snapshot_chunk_size": "1MB"}"#;
        pair.start_mirror_with("tables => ARRAY['item']::regclass[]", slow)?;
        let copied = "SELECT EXISTS (SELECT FROM dbmazz.snapshot_chunk WHERE state = 'r')";
        wait_until("a chunk is copied", PATIENCE, || pair.source.is_true(copied))?;
        pair.call("dbmazz_pause_mirror")?;
        let gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                        AND backend_type ~ '^dbmazz (mirror|snapshot)')";
        wait_until("no worker", PATIENCE, || pair.source.is_true(gone))?;
        drop_limit(pair)?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])
    });
}

fn drop_limit(pair: &mut Pair) -> Outcome {
    pair.source.execute("UPDATE dbmazz.mirror SET options = options - 'snapshot_max_rate'")
}
