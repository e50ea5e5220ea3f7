//! Exports that are cancelled, killed, or run out of disk go on where they were.

use std::path::Path;
use std::process::Command;

use super::{assert_equal, import, manifest, place, restore, resume, start, unfinished, wait};
use crate::harness::{
    Action, Failure, Outcome, PATIENCE, Pair, Random, Settings, StopMode, wait_for, wait_until,
};
use crate::{on_a_pair, on_its_own_cluster};

#[test]
fn an_export_that_is_killed_ten_times_goes_on() {
    on_its_own_cluster(&Settings::default(), |pair| {
        let mut random = Random::announced("an_export_that_is_killed_ten_times_goes_on");
        pair.source.execute(
            "CREATE TABLE kept AS SELECT n AS id, repeat(md5(n::text), 10) AS v FROM generate_series(1, 60000) n",
        )?;
        let directory = place(pair, "killed")?;
        // Some 40 chunks: the last blow falls when no more than 13 are done.
        let options = r#"{"chunk_size": "512kB", "workers": 2, "max_rate": "4MB"}"#;
        let id = start(pair, &directory, &["kept"], options)?;
        for round in 0..10 {
            let least = round + random.below(4);
            kill_one_of(pair, id, least, if round % 3 == 2 { "TERM" } else { "KILL" })?;
            assert!(!directory.join("manifest.json").exists(), "done before the blow of round {round}");
            go_on(pair, id)?;
        }
        wait(pair, id)?;
        let mut imported = import(pair, &directory)?;
        assert_equal(pair, &mut imported, &["kept"])
    });
}

/// Sends a signal to one of the export's processes when so many chunks are done.
fn kill_one_of(pair: &mut Pair, id: i64, least: u64, signal: &str) -> Outcome {
    let progress =
        format!("SELECT chunks_done >= {least} FROM dbmazz_progress_export WHERE export_id = {id}");
    wait_until("it has written something", PATIENCE, || pair.source.is_true(&progress))?;
    let any =
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dbmazz export%' ORDER BY random() LIMIT 1";
    let pid = wait_for("it has a process", PATIENCE, || pair.source.value_or_null(any))?;
    let pid: i32 = pid.parse().map_err(|_| Failure::new("no process number"))?;
    pair.source.cluster().signal(pid, signal)
}

/// Resumes an export, as soon as there is a server and nobody has it any more.
fn go_on(pair: &mut Pair, id: i64) -> Outcome {
    wait_until("the export can be resumed", PATIENCE, || {
        // The server may be about to go, or away.
        let is_there = pair.source.reconnect().and_then(|()| pair.source.value("SELECT 1")).is_ok();
        let cancel = format!("SELECT dbmazz_cancel_export({id})");
        Ok(is_there && pair.source.execute(&cancel).is_ok() && resume(pair, id).is_ok())
    })
}

#[test]
fn a_cancelled_export_leaves_no_manifest_and_goes_on() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE slow AS SELECT n AS id, repeat(md5(n::text), 10) AS v FROM generate_series(1, 20000) n",
        )?;
        let directory = place(pair, "cancelled")?;
        let id = start(
            pair,
            &directory,
            &["slow"],
            r#"{"chunk_size": "512kB", "workers": 1, "max_rate": "1MB"}"#,
        )?;
        let running = format!(
            "SELECT state = 'running' AND rows_done > 0 FROM dbmazz_progress_export WHERE export_id = {id}"
        );
        wait_until("it writes", PATIENCE, || pair.source.is_true(&running))?;
        let copying = "SELECT EXISTS (SELECT FROM pg_stat_progress_copy WHERE command = 'COPY TO' AND datname = current_database())";
        wait_until("it is shown", PATIENCE, || pair.source.is_true(copying))?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        assert!(error.message().contains("was cancelled"), "{error}");
        assert_eq!(unfinished(&directory)?, "");
        assert!(!directory.join("manifest.json").exists());
        let left = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'dbmazz export%' AND datname = current_database())";
        assert!(pair.source.is_true(left)?, "processes are left");
        pair.source.execute(&format!(
            "UPDATE dbmazz.export SET options = options - 'max_rate' WHERE export_id = {id}; SELECT dbmazz_resume_export({id})"
        ))?;
        wait(pair, id)?;
        let mut restored = restore(pair, &directory)?;
        assert_equal(pair, &mut restored, &["slow"])
    });
}

#[test]
fn a_table_that_is_rewritten_between_is_written_anew() {
    // Its failpoint would strike the exports of other tests.
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE finished AS SELECT n AS id, 'gone' AS gone, repeat(md5(n::text), 20) AS kept FROM generate_series(1, 5500) n;
             CREATE TABLE rewritten AS SELECT n AS id, repeat(md5(n::text), 10) AS v FROM generate_series(1, 5000) n",
        )?;
        let directory = place(pair, "rewritten")?;
        let point = pair.source.cluster().arm("export_chunk_durable", Action::Wait, 5)?;
        let id =
            start(pair, &directory, &["finished", "rewritten"], r#"{"chunk_size": "1MB", "workers": 1}"#)?;
        point.wait_until_reached()?;
        // Larger chunks come first; the last one of all is the smaller table's.
        let done = |table: &str| {
            format!(
                "SELECT bool_and(state = 'r') FROM dbmazz.export_chunk WHERE export_id = {id} AND relid = '{table}'::regclass"
            )
        };
        assert!(pair.source.is_true(&done("finished"))? && !pair.source.is_true(&done("rewritten"))?);
        // Definitions are written beside the rows, and are those of before.
        let defined = format!(
            "SELECT pre_data IS NOT NULL AND post_data IS NOT NULL FROM dbmazz.export WHERE export_id = {id}"
        );
        wait_until("the definitions are written", PATIENCE, || pair.source.is_true(&defined))?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        drop(point);
        pair.source.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        pair.source.execute(
            "ALTER TABLE rewritten ADD w float8 DEFAULT random(); ALTER TABLE finished DROP gone; UPDATE finished SET kept = 'new'",
        )?;
        resume(pair, id)?;
        wait(pair, id)?;
        let mut restored = restore(pair, &directory)?;
        assert_equal(pair, &mut restored, &["finished", "rewritten"])
    });
}

#[test]
fn a_server_that_stops_leaves_an_export_to_be_resumed() {
    on_its_own_cluster(&Settings::default(), |pair| {
        pair.source.execute(
            "CREATE TABLE slow AS SELECT n AS id, repeat(md5(n::text), 10) AS v FROM generate_series(1, 20000) n",
        )?;
        let directory = place(pair, "stopped")?;
        let id = start(
            pair,
            &directory,
            &["slow"],
            r#"{"chunk_size": "512kB", "workers": 2, "max_rate": "2MB"}"#,
        )?;
        let running = format!("SELECT chunks_done > 1 FROM dbmazz_progress_export WHERE export_id = {id}");
        wait_until("it writes", PATIENCE, || pair.source.is_true(&running))?;
        pair.source.cluster().restart(StopMode::Fast)?;
        pair.source.reconnect()?;
        let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
        assert!(error.message().contains("interrupted") || error.message().contains("failed"), "{error}");
        resume(pair, id)?;
        wait(pair, id)?;
        let manifest = manifest(&directory)?;
        assert_eq!((manifest.consistent, manifest.snapshot_lsns.len()), (false, 2));
        let mut restored = restore(pair, &directory)?;
        assert_equal(pair, &mut restored, &["slow"])
    });
}

#[test]
fn a_full_disk_is_an_error_and_the_export_goes_on() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE big AS SELECT n AS id, repeat(md5(n::text), 10) AS v FROM generate_series(1, 30000) n",
        )?;
        let mount = pair.source.cluster().make_directory(&format!("{}_full", pair.source.name()))?;
        let mounted = |options: &str| {
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&mount).output()
        };
        if !mounted("size=3m,mode=777")?.status.success() {
            eprintln!(
                "a_full_disk_is_an_error_and_the_export_goes_on: left out, nothing can be mounted here"
            );
            return Ok(());
        }
        let outcome = fill_and_go_on(pair, &mount, &mounted);
        let _ = Command::new("umount").arg("-l").arg(&mount).output();
        outcome
    });
}

fn fill_and_go_on(
    pair: &mut Pair,
    mount: &Path,
    mounted: &dyn Fn(&str) -> std::io::Result<std::process::Output>,
) -> Outcome {
    let directory = mount.join("export");
    let id =
        start(pair, &directory, &["big"], r#"{"chunk_size": "1MB", "compression": "none", "workers": 2}"#)?;
    let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id})"))?;
    assert!(error.message().contains("No space left"), "{error}");
    assert!(!directory.join("manifest.json").exists());
    assert_eq!(unfinished(mount)?, "");
    let done = format!("SELECT chunks_done FROM dbmazz_progress_export WHERE export_id = {id}");
    assert_ne!(pair.source.value(&done)?, "0", "nothing was written before the disk was full");
    mounted("remount,size=100m")?;
    resume(pair, id)?;
    wait(pair, id)?;
    let mut restored = restore(pair, &directory)?;
    assert_equal(pair, &mut restored, &["big"])
}
