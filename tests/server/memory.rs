//! What the worker of a mirror keeps of the memory that it needed once.

use std::thread;
use std::time::Duration;

use crate::harness::{Outcome, PATIENCE, Pair, Settings, own_size, wait_until};
use crate::on_its_own_cluster;

/// Less than the reorder buffer holds before it spills (`logical_decoding_work_mem`).
const ROWS: u32 = 150_000;
const KEPT: u64 = 20 << 20;
const GIVEN_BACK: u64 = 15 << 20;

fn size_of_worker(pair: &mut Pair) -> Outcome<u64> {
    let pid = pair.stat("pid")?.unwrap_or_default();
    own_size(&pid)
}

#[test]
fn freed_memory_is_kept_while_there_is_work_and_given_back_after_it() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE tick (id int PRIMARY KEY, n int);
             INSERT INTO item VALUES (0, ''); INSERT INTO tick VALUES (1, 0)",
        )?;
        pair.start_mirror(&["item", "tick"])?;
        pair.wait()?;
        let idle = size_of_worker(pair)?;
        pair.source
            .execute(&format!("INSERT INTO item SELECT n, 'row ' || n FROM generate_series(1, {ROWS}) n"))?;
        pair.wait()?;
        let busy = size_of_worker(pair)?;
        println!("idle {} MB, after {ROWS} rows {} MB", idle >> 20, busy >> 20);
        assert!(busy > idle + KEPT, "{} MB are kept", (busy - idle) >> 20);
        // A little goes on, as on any server. What others do would be read as well, so the server is of its own.
        wait_until("memory is given back", PATIENCE, || {
            pair.source.execute("UPDATE tick SET n = n + 1")?;
            thread::sleep(Duration::from_millis(200));
            // The rest are buffers that will be needed again, of the mirror and of its load threads.
            Ok(size_of_worker(pair)? + GIVEN_BACK < busy)
        })?;
        pair.wait_and_compare(&["item", "tick"])
    });
}
