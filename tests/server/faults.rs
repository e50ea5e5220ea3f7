//! What goes wrong at the target while the mirror runs: it says so, loses nothing, and goes on by itself.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Control, Fault, Outcome, PATIENCE, Pair, Proxy, StarRocks, Traffic, wait_until};
use crate::loads::assert_loads_are_sound;
use crate::{on_a_pair, shared_cluster};

/// Writes all kinds of changes that a repeated or lost load would show.
fn write_some(pair: &mut Pair, round: u32) -> Outcome {
    let first = round * 1000;
    pair.source.execute(&format!(
        "INSERT INTO item SELECT n, 'round {round}' FROM generate_series({first}, {first} + 499) n;
         UPDATE item SET v = v || '!' WHERE id % 7 = 0;
         DELETE FROM item WHERE id % 11 = 5"
    ))
}

fn mirrored_items(pair: &mut Pair) -> Outcome {
    pair.source
        .execute("CREATE TABLE item (id int PRIMARY KEY, v text); INSERT INTO item VALUES (0, 'first')")?;
    pair.start_mirror(&["item"])?;
    pair.wait_and_compare(&["item"])
}

/// Waits until the mirror is `retrying` and has told one of these reasons.
fn wait_until_retrying(pair: &mut Pair, reasons: &[&str]) -> Outcome {
    let mut seen = String::new();
    let waited = wait_until("mirror is retrying and says why", PATIENCE, || {
        let (state, reason) = (pair.stat("state")?, pair.stat("last_error")?.unwrap_or_default());
        let lower = reason.to_lowercase();
        seen = format!("state {}, last_error {reason:?}", state.as_deref().unwrap_or("unrecorded"));
        Ok(state.as_deref() == Some("retrying") && reasons.iter().any(|word| lower.contains(word)))
    });
    waited.map_err(|failure| failure.while_doing(format_args!("see a reason among {reasons:?} ({seen})")))
}

/// A fault that lasts until it is cleared, and the words by which it must be told.
fn survives(test: &str, fault: &Fault, reasons: &[&str]) {
    on_a_pair(|pair| {
        let Some(control) = pair.control(test) else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(fault)?;
        write_some(pair, 1)?;
        wait_until_retrying(pair, reasons)?;
        write_some(pair, 2)?;
        control.clear()?;
        pair.wait_and_compare(&["item"])?;
        pair.wait_for_state("streaming")
    });
}

/// A fault that strikes a few loads and is gone.
fn passes(test: &str, faults: &[Fault]) {
    on_a_pair(|pair| {
        let Some(control) = pair.control(test) else { return Ok(()) };
        mirrored_items(pair)?;
        for (fault, round) in faults.iter().zip(1..) {
            control.set(fault)?;
            write_some(pair, round)?;
            pair.wait_and_compare(&["item"])?;
        }
        assert_no_label_was_used_twice(control)
    });
}

/// The stand-in keeps no two finished transactions under one label; that none was refused as taken shows in its log.
fn assert_no_label_was_used_twice(control: Control) -> Outcome {
    let log = control.log()?.to_string();
    assert!(!log.contains("has already been used"), "a label was used for other rows");
    Ok(())
}

#[test]
fn a_wrong_password_is_retried_until_it_is_right() {
    survives(
        "wrong password",
        &Fault::lasting("wrong_password"),
        &["denied", "401", "password", "credential"],
    );
}

#[test]
fn no_backend_is_retried() {
    survives("no backend", &Fault::lasting("no_backend"), &["backend"]);
}

#[test]
fn a_backend_that_refuses_connections_is_retried() {
    survives(
        "backend down",
        &Fault::lasting("close_be"),
        &["could not", "connect", "refused", "closed", "reset"],
    );
}

#[test]
fn a_redirect_to_a_dead_host_is_retried() {
    survives(
        "dead host",
        &Fault::lasting("redirect_dead_host"),
        &["could not", "connect", "resolve", "refused"],
    );
}

#[test]
fn a_redirect_loop_is_bounded_and_retried() {
    survives("redirect loop", &Fault::lasting("redirect_loop"), &["redirect"]);
}

#[test]
fn an_fe_that_answers_500_is_retried() {
    survives("FE 500", &Fault::lasting("http_500").with("fe"), &["500"]);
}

#[test]
fn a_backend_that_answers_500_is_retried() {
    survives("BE 500", &Fault::lasting("http_500").with("be"), &["500"]);
}

#[test]
fn too_many_versions_is_retried() {
    survives("too many versions", &Fault::lasting("too_many_versions"), &["version"]);
}

#[test]
fn a_connection_cut_before_the_commit_loses_nothing() {
    passes("cut before commit", &[Fault::once("cut_before_commit"), Fault::once("cut_before_commit")]);
}

#[test]
fn a_connection_cut_after_the_commit_doubles_nothing() {
    passes("cut after commit", &[Fault::once("cut_after_commit"), Fault::once("cut_after_commit")]);
}

#[test]
fn a_publish_timeout_is_waited_for() {
    passes("publish timeout", &[Fault::once("publish_timeout"), Fault::once("publish_timeout")]);
}

#[test]
fn an_unknown_outcome_of_the_commit_is_asked_for() {
    passes("commit unknown", &[Fault::once("fail_commit_unknown")]);
}

#[test]
fn a_label_that_exists_on_a_retry_is_a_success() {
    passes("label exists", &[Fault::once("cut_after_commit"), Fault::once("label_exists_as_fail")]);
}

#[test]
fn an_answer_that_takes_long_is_waited_for() {
    passes("slow", &[Fault::once("delay_answer").with(1500), Fault::once("delay_continue").with(1000)]);
}

#[test]
fn a_restart_of_starrocks_is_survived() {
    passes("restart", &[Fault::once("restart")]);
}

#[test]
fn nonsense_instead_of_an_answer_is_not_believed() {
    passes(
        "nonsense",
        &[
            Fault::once("garbage_answer").with("be"),
            Fault::once("garbage_answer").with("fe"),
            Fault::once("garbage_bytes"),
        ],
    );
}

#[test]
fn a_label_that_is_forgotten_at_once_does_no_harm() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("forgotten labels") else { return Ok(()) };
        mirrored_items(pair)?;
        control.keep_labels(0)?;
        for (kind, round) in ["cut_after_commit", "publish_timeout", "fail_commit_unknown"].iter().zip(1..) {
            control.set(&Fault::once(kind))?;
            write_some(pair, round)?;
            pair.wait_and_compare(&["item"])?;
        }
        assert_loads_are_sound(pair)
    });
}

#[test]
fn a_truncate_that_is_cut_off_is_repeated_before_anything_else() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("truncate cut off") else { return Ok(()) };
        mirrored_items(pair)?;
        for (when, round) in ["before", "after"].into_iter().zip(1..) {
            control.set(&Fault::once("cut_statement").with(when))?;
            write_some(pair, round)?;
            pair.source.execute("TRUNCATE item")?;
            write_some(pair, round + 2)?;
            pair.wait_and_compare(&["item"])?;
        }
        Ok(())
    });
}

#[test]
fn a_truncate_of_a_worker_that_died_does_not_strike_later_rows() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("late truncate") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(&Fault::once("late_statement").with(json!({"ms": 5000})))?;
        pair.source.execute("TRUNCATE item")?;
        write_some(pair, 1)?;
        wait_until("the table is being emptied", PATIENCE, || is_truncating(pair))?;
        pair.source.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM dbmazz_stat_mirror WHERE mirror = '{}'",
            pair.mirror()
        ))?;
        pair.wait_and_compare(&["item"])?;
        wait_until("no TRUNCATE is left", PATIENCE, || Ok(!is_truncating(pair)?))?;
        pair.wait_and_compare(&["item"])
    });
}

fn is_truncating(pair: &mut Pair) -> Outcome<bool> {
    let running = pair.target.rows("SHOW FULL PROCESSLIST")?;
    Ok(running.iter().flatten().flatten().any(|cell| cell.starts_with("TRUNCATE")))
}

#[test]
fn a_copy_goes_on_after_faults() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("copy with faults") else { return Ok(()) };
        pair.source.execute(
            "CREATE TABLE item (id int PRIMARY KEY, v text);
             INSERT INTO item SELECT n, repeat('v', 100) || n FROM generate_series(1, 60000) n",
        )?;
        for kind in ["cut_before_commit", "cut_after_commit", "too_many_versions"] {
            control.set(&Fault::once(kind))?;
        }
        pair.start_mirror_with(
            "tables => ARRAY['item']::regclass[]",
            r#"{"snapshot_chunk_size": "1MB", "batch_max_rows": 5000}"#,
        )?;
        pair.source.execute(
            "UPDATE item SET v = 'changed' WHERE id % 100 = 0; DELETE FROM item WHERE id % 1000 = 1",
        )?;
        pair.wait_and_compare(&["item"])
    });
}

/// A pair whose HTTP port is behind a proxy.
fn behind_a_proxy(test: impl FnOnce(&mut Pair, &Proxy) -> Outcome) -> Outcome {
    let starrocks = StarRocks::start()?;
    let proxy = Proxy::to(starrocks.fe_port())?;
    let mut pair = Pair::without_server(&shared_cluster(), starrocks)?;
    pair.create_server("starrocks", &pair.server_options_through(proxy.port(), pair.starrocks.sql_port()))?;
    if pair.control("FE behind a proxy").is_none() {
        return Ok(());
    }
    test(&mut pair, &proxy).map_err(|failure| match pair.views() {
        Ok(views) => failure.while_doing(format_args!("go through the proxy\n{views}")),
        Err(_) => failure,
    })
}

#[test]
fn an_fe_that_goes_away_and_comes_back_is_survived() -> Outcome {
    behind_a_proxy(|pair, proxy| {
        mirrored_items(pair)?;
        proxy.set(Traffic::Cut);
        write_some(pair, 1)?;
        wait_until_retrying(pair, &["could not", "connect", "reset", "closed"])?;
        write_some(pair, 2)?;
        proxy.set(Traffic::Flowing);
        pair.wait_and_compare(&["item"])
    })
}

#[test]
fn a_password_that_is_changed_on_both_sides_is_picked_up() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("password change") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set_password("changed")?;
        write_some(pair, 1)?;
        wait_until_retrying(pair, &["denied", "401", "password", "credential"])?;
        pair.source.execute(
            "ALTER USER MAPPING FOR CURRENT_USER SERVER starrocks OPTIONS (SET password 'changed')",
        )?;
        pair.wait_and_compare(&["item"])
    });
}

#[test]
fn pause_and_drop_do_not_wait_for_a_target_that_hangs() {
    on_a_pair(|pair| {
        let Some(control) = pair.control("hang") else { return Ok(()) };
        mirrored_items(pair)?;
        control.set(&Fault::lasting("hang"))?;
        write_some(pair, 1)?;
        let hanging = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dbmazz mirror'
                       AND datname = current_database()";
        wait_until("a load is on its way", PATIENCE, || {
            Ok(pair.stat("queued_bytes")?.as_deref() != Some("0"))
        })?;
        pair.call("dbmazz_pause_mirror")?;
        let bound = Duration::from_secs(10);
        wait_until("worker gone", bound, || Ok(pair.source.value(hanging)? == "0"))?;
        control.clear()?;
        pair.call("dbmazz_resume_mirror")?;
        pair.wait_and_compare(&["item"])
    });
}
