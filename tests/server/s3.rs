//! Exports to S3 and back, against a real S3 server: signatures are checked, and connections are cut.

use std::fs;

use crate::harness::s3::{BUCKET, KEY, SECRET};
use crate::harness::{Database, Outcome, PATIENCE, Proxy, S3Server, Traffic, wait_for, wait_until};
use crate::shared_cluster;

/// A database with rows that make several parts of a file, and some that make a small one.
const ROWS: &str = "
    CREATE TABLE wide (id integer PRIMARY KEY, raw bytea);
    CREATE TABLE small (id integer, text text);
    ALTER TABLE wide ALTER raw SET STORAGE EXTERNAL;
    INSERT INTO wide SELECT i, (SELECT string_agg(decode(md5(i || '.' || j), 'hex'), '') FROM generate_series(1, 4096) j)
    FROM generate_series(1, 500) i;
    INSERT INTO small SELECT i, 'text ' || i FROM generate_series(1, 1000) i;";

fn database() -> Outcome<Database> {
    let mut database = Database::create(&shared_cluster())?;
    database.execute("CREATE EXTENSION dbmazz")?;
    Ok(database)
}

fn create_server(database: &mut Database, port: u16, secret: &str) -> Outcome {
    database.execute(&format!(
        "CREATE SERVER store FOREIGN DATA WRAPPER dbmazz_s3 OPTIONS (endpoint 'http://127.0.0.1:{port}', retry_timeout_s '20');
         CREATE USER MAPPING FOR CURRENT_USER SERVER store OPTIONS (access_key '{KEY}', secret '{secret}')"
    ))
}

fn checked(outcome: Outcome) {
    if let Err(failure) = outcome {
        panic!("{failure}\n{}", shared_cluster().end_of_log());
    }
}

fn digest(database: &mut Database) -> Outcome<String> {
    database.value(
        "SELECT (SELECT md5(string_agg(md5(w::text), '' ORDER BY id)) FROM wide w)
             || (SELECT md5(string_agg(s::text, '' ORDER BY id)) FROM small s)",
    )
}

fn export(database: &mut Database, prefix: &str) -> Outcome<String> {
    database.value(&format!(
        "SELECT dbmazz_export('s3://{BUCKET}/{prefix}', server => 'store', options => '{{\"compression\": \"none\"}}')"
    ))
}

#[test]
fn export_to_a_bucket_is_verified_and_comes_back() {
    let run = || -> Outcome {
        let server = S3Server::start()?;
        let (mut source, mut target) = (database()?, database()?);
        source.execute(ROWS)?;
        create_server(&mut source, server.port(), SECRET)?;
        create_server(&mut target, server.port(), SECRET)?;
        let id = export(&mut source, "daily/1")?;
        assert!(source.is_true(&format!("SELECT dbmazz_wait_export({id})"))?);
        assert!(server.path("daily/1/manifest.json").is_file());
        assert_eq!(server.unfinished()?, Vec::<String>::new());
        let verify = format!(
            "SELECT file, detail FROM dbmazz_verify_export('s3://{BUCKET}/daily/1', 'store') WHERE NOT ok"
        );
        assert!(source.rows(&verify)?.is_empty());
        let id =
            target.value(&format!("SELECT dbmazz_import('s3://{BUCKET}/daily/1', server => 'store')"))?;
        assert!(target.is_true(&format!("SELECT dbmazz_wait_export({id})"))?);
        assert_eq!(digest(&mut source)?, digest(&mut target)?);
        // One bit, far inside an object that was uploaded in parts.
        let file = "data/public/wide/000001.copy";
        let path = server.path(&format!("daily/1/{file}"));
        let mut bytes = fs::read(&path)?;
        assert!(bytes.len() > 9 << 20, "the object is too small to have parts");
        bytes[5_000_000] ^= 4;
        fs::write(&path, bytes)?;
        let wrong = source.rows(&verify)?;
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert_eq!(wrong[0][0].as_deref(), Some(file));
        Ok(())
    };
    checked(run());
}

#[test]
fn wrong_secret_and_missing_bucket_are_said_at_once_and_without_secrets() {
    let run = || -> Outcome {
        let server = S3Server::start()?;
        let mut source = database()?;
        source.execute("CREATE TABLE small (id integer)")?;
        create_server(&mut source, server.port(), "hunter2hunter2")?;
        let error =
            source.error_of(&format!("SELECT dbmazz_export('s3://{BUCKET}/x', server => 'store')"))?;
        assert!(error.message().contains("SignatureDoesNotMatch"), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        source.execute(&format!(
            "ALTER USER MAPPING FOR CURRENT_USER SERVER store OPTIONS (SET secret '{SECRET}')"
        ))?;
        let error = source.error_of("SELECT dbmazz_export('s3://missing/x', server => 'store')")?;
        assert!(error.message().contains("NoSuchBucket"), "{error:?}");
        assert!(!shared_cluster().log().contains("X-Amz-Signature"));
        for wrong in [
            "CREATE SERVER other FOREIGN DATA WRAPPER dbmazz_s3 OPTIONS (url 'http://x')",
            "CREATE SERVER other FOREIGN DATA WRAPPER dbmazz_s3 OPTIONS (endpoint 'x')",
            "CREATE USER MAPPING FOR PUBLIC SERVER store OPTIONS (password 'x')",
            "SELECT dbmazz_export('s3://exports/x')",
            "SELECT dbmazz_export('/tmp/x', server => 'store')",
        ] {
            source.error_of(wrong)?;
        }
        let error = source.error_of("ALTER SERVER store OPTIONS (ADD nonsense '1')")?;
        assert!(error.hint().is_some_and(|hint| hint.contains("endpoint, region, path_style")), "{error:?}");
        Ok(())
    };
    checked(run());
}

#[test]
fn connections_that_are_cut_in_the_middle_are_made_again() {
    let run = || -> Outcome {
        let server = S3Server::start()?;
        let proxy = Proxy::to(server.port())?;
        let (mut source, mut target) = (database()?, database()?);
        source.execute(ROWS)?;
        create_server(&mut source, proxy.port(), SECRET)?;
        create_server(&mut target, proxy.port(), SECRET)?;
        let id = export(&mut source, "cut")?;
        for _ in 0..3 {
            wait_until("a part arrives", PATIENCE, || {
                Ok(!server.unfinished()?.is_empty() || server.path("cut/manifest.json").exists())
            })?;
            proxy.set(Traffic::Cut);
            proxy.set(Traffic::Flowing);
        }
        assert!(source.is_true(&format!("SELECT dbmazz_wait_export({id})"))?);
        // An upload whose beginning was not answered is begun again. This server does not list what has been begun, so nobody
        // knows of it; it has no part.
        assert_eq!(server.parts()?, Vec::<String>::new());
        let id = target.value(&format!("SELECT dbmazz_import('s3://{BUCKET}/cut', server => 'store')"))?;
        proxy.set(Traffic::Cut);
        proxy.set(Traffic::Flowing);
        assert!(target.is_true(&format!("SELECT dbmazz_wait_export({id})"))?);
        assert_eq!(digest(&mut source)?, digest(&mut target)?);
        Ok(())
    };
    checked(run());
}

#[test]
fn cancelled_export_leaves_no_part_behind() {
    let run = || -> Outcome {
        let server = S3Server::start()?;
        let mut source = database()?;
        source.execute(ROWS)?;
        create_server(&mut source, server.port(), SECRET)?;
        let id = source.value(&format!(
            "SELECT dbmazz_export('s3://{BUCKET}/cancelled', server => 'store', options => '{{\"compression\": \"none\", \"max_rate\": \"6MB\"}}')"
        ))?;
        wait_until("an upload is begun", PATIENCE, || Ok(!server.unfinished()?.is_empty()))?;
        source.execute(&format!("SELECT dbmazz_cancel_export({id})"))?;
        // An upload that is being begun at this moment may stay, as above.
        wait_until("no part is left", PATIENCE, || Ok(server.parts()?.is_empty()))?;
        assert!(!server.path("cancelled/manifest.json").exists());
        source.execute(&format!("SELECT dbmazz_resume_export({id})"))?;
        let state = format!(
            "SELECT state FROM dbmazz_progress_export WHERE export_id = {id} AND state IN ('starting', 'running')"
        );
        wait_for("it goes on", PATIENCE, || source.value_or_null(&state))?;
        source.execute(&format!("SELECT dbmazz_cancel_export({id})"))
    };
    checked(run());
}
