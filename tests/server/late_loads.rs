//! A load that a busy backend begins when its worker is gone already, and newer rows have come: its rows must not go on top.

use std::time::Duration;

use crate::harness::{Control, Fault, Outcome, PATIENCE, Pair, wait_until};
use crate::on_a_pair;

/// How long the backend has the load in hand.
const HELD: Duration = Duration::from_secs(4);

/// A mirror whose worker is ended while the backend has a load of it in hand.
fn worker_is_gone_before_its_load(pair: &mut Pair, control: Control) -> Outcome {
    pair.source.execute(
        "CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item SELECT n, 'v' FROM generate_series(1, 9) n",
    )?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])?;
    let held = u64::try_from(HELD.as_millis())?;
    control.set(&Fault::once("delay_begin").on_table("item").with(held))?;
    pair.source.execute("UPDATE item SET v = 'late' WHERE id < 5")?;
    wait_until("the backend has the load", PATIENCE, || Ok(!control.has_faults()?))?;
    let mirror = pair.mirror().to_owned();
    pair.source.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{mirror}';
         UPDATE item SET v = 'newer'"
    ))
}

fn stays_equal_when_it_is_begun(pair: &mut Pair, control: Control) -> Outcome {
    pair.wait_and_compare(&["item"])?;
    let is_refused = || Ok(control.log()?.to_string().contains("Label Already Exists"));
    assert!(!is_refused()?, "the load was begun too early for this to be a test");
    wait_until("the load is begun, and refused", PATIENCE, is_refused)?;
    pair.wait_and_compare(&["item"])
}

#[test]
fn after_a_restart_of_the_worker() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late load") else { return Ok(()) };
        worker_is_gone_before_its_load(pair, control)?;
        stays_equal_when_it_is_begun(pair, control)
    });
}

#[test]
fn into_the_table_of_another_mirror() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late load and drop") else { return Ok(()) };
        worker_is_gone_before_its_load(pair, control)?;
        pair.call("dbmazz_drop_mirror")?;
        pair.start_mirror(&["item"])?;
        stays_equal_when_it_is_begun(pair, control)
    });
}

/// Nobody can use the label up without the table that this is done with.
#[test]
fn where_somebody_has_dropped_the_table_of_owners() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late load without dbmazz_owner") else { return Ok(()) };
        worker_is_gone_before_its_load(pair, control)?;
        let owner = pair.target.table("dbmazz_owner");
        pair.target.execute(&format!("DROP TABLE {owner}"))?;
        pair.call("dbmazz_drop_mirror")?;
        pair.start_mirror(&["item"])?;
        stays_equal_when_it_is_begun(pair, control)
    });
}
