//! What is at the destination already, and who else writes there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{export, place, start, wait, wrong_files};
use crate::harness::{Outcome, Pair};
use crate::{on_a_pair, shared_cluster};

const SLOW: &str = r#"{"chunk_size": "64kB", "workers": 1, "max_rate": "1MB"}"#;

fn fill(pair: &mut Pair) -> Outcome {
    pair.source.execute(
        "CREATE TABLE filled AS SELECT n, repeat(md5(n::text), 10) AS v FROM generate_series(1, 5000) n",
    )
}

fn call(directory: &Path, options: &str) -> String {
    format!(
        "SELECT dbmazz_export('{}', '{{filled}}'::regclass[], options => '{options}')",
        directory.display()
    )
}

/// Makes a file as somebody else would, where the server can write and remove all the same.
fn write_foreign(directory: &Path, name: &str) -> Outcome {
    let path = directory.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "mine")?;
    Command::new("chmod").args(["-R", "a+rwX"]).arg(directory).status()?;
    Ok(())
}

#[test]
fn overwrite_removes_what_an_export_has_written_and_nothing_else() {
    on_a_pair(|pair| {
        fill(pair)?;
        let directory = place(pair, "foreign")?;
        let overwrite = r#"{"overwrite": true}"#;
        // There is no export at all.
        for name in
            ["data/PG_VERSION", "data/base/1/1259", "schema/tables.sql", "blobs/ab/cd", "manifest.json"]
        {
            write_foreign(&directory, name)?;
            let error = pair.source.error_of(&call(&directory, overwrite))?;
            assert!(error.message().contains(&format!("\"{name}\"")), "{error}");
            assert!(directory.join(name).exists(), "{name} is gone");
            fs::remove_file(directory.join(name))?;
        }
        // There is one that is not finished, and one that is.
        write_foreign(&directory, "data/public/older/000001.copy.zst")?;
        export(pair, &directory, &["filled"], overwrite)?;
        assert!(!directory.join("data/public/older/000001.copy.zst").exists());
        export(pair, &directory, &["filled"], overwrite)?;
        write_foreign(&directory, "data/public/other/000001.copy.zst")?;
        let error = pair.source.error_of(&call(&directory, overwrite))?;
        assert!(error.message().contains("data/public/other/000001.copy.zst"), "{error}");
        assert!(directory.join("manifest.json").exists());
        fs::remove_file(directory.join("data/public/other/000001.copy.zst"))?;
        assert_eq!(wrong_files(pair, &directory)?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn one_export_at_a_time_writes_to_a_directory() {
    on_a_pair(|pair| {
        let mut other = Pair::new(&shared_cluster())?;
        fill(pair)?;
        fill(&mut other)?;
        let directory = place(pair, "occupied")?;
        let id = start(pair, &directory, &["filled"], SLOW)?;
        let begun = format!("SELECT rows_done > 0 FROM dbmazz_progress_export WHERE export_id = {id}");
        crate::harness::wait_until("it writes", crate::harness::PATIENCE, || pair.source.is_true(&begun))?;
        let beside = directory.with_file_name("link");
        symlink(&directory, &beside)?;
        let dots = directory.to_string_lossy().replace("/export", "//./export/");
        for (path, options) in [
            (directory.as_path(), "{}"),
            (directory.as_path(), r#"{"overwrite": true}"#),
            (beside.as_path(), r#"{"overwrite": true}"#),
            (Path::new(&dots), r#"{"overwrite": true}"#),
        ] {
            for database in [&mut pair.source, &mut other.source] {
                let error = database.error_of(&call(path, options))?;
                assert!(error.message().contains(&format!("export {id} ")), "{}: {error}", path.display());
                assert!(error.message().contains("is writing to"), "{error}");
            }
        }
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))
    });
}

/// Both find the directory free when they are called.
#[test]
fn of_two_databases_that_begin_at_once_one_exports() {
    on_a_pair(|pair| {
        let mut other = Pair::new(&shared_cluster())?;
        fill(pair)?;
        fill(&mut other)?;
        let directory = place(pair, "race")?;
        for pair in [&mut *pair, &mut other] {
            pair.source.execute("BEGIN")?;
        }
        let ids =
            [start(pair, &directory, &["filled"], SLOW)?, start(&mut other, &directory, &["filled"], SLOW)?];
        for pair in [&mut *pair, &mut other] {
            pair.source.execute("COMMIT")?;
        }
        let outcomes = [wait(pair, ids[0]), wait(&mut other, ids[1])];
        let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(failures.len(), 1, "{failures:?}");
        let words = failures[0].to_string();
        assert!(words.contains("is writing to") || words.contains("has files already"), "{words}");
        assert_eq!(wrong_files(pair, &directory)?, Vec::<String>::new());
        Ok(())
    });
}

/// While an export was stopped another one has taken its place.
#[test]
fn an_export_whose_place_was_taken_does_not_go_on() {
    on_a_pair(|pair| {
        fill(pair)?;
        let directory = place(pair, "taken")?;
        let id = start(pair, &directory, &["filled"], SLOW)?;
        let begun = format!("SELECT chunks_done > 0 FROM dbmazz_progress_export WHERE export_id = {id}");
        crate::harness::wait_until("it writes", crate::harness::PATIENCE, || pair.source.is_true(&begun))?;
        pair.source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        export(pair, &directory, &["filled"], r#"{"overwrite": true}"#)?;
        super::resume(pair, id)?;
        let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id}, '1 min')"))?;
        assert!(error.message().contains("has another export by now"), "{error}");
        assert_eq!(wrong_files(pair, &directory)?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_destination_that_cannot_be_made_is_named() {
    on_a_pair(|pair| {
        fill(pair)?;
        let directory = place(pair, "dangling")?;
        symlink("/nonexistent/place", &directory)?;
        let id = start(pair, &directory, &["filled"], "{}")?;
        let error = pair.source.error_of(&format!("SELECT dbmazz_wait_export({id}, '1 min')"))?;
        assert!(error.message().contains(&*directory.to_string_lossy()), "{error}");
        Ok(())
    });
}
