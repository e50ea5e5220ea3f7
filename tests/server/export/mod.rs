//! Exports: files that plain PostgreSQL can load, of one state of the database, whatever happens meanwhile.
//!
//! * [`contents`]: everything that a database has comes back.
//! * [`damage`]: files that are not as they were written.
//! * [`interrupted`]: cancelled, killed, out of disk, and resumed.
//! * [`late`]: tables that come or go between the call and the snapshot.
//! * [`load`]: beside clients that write.
//! * [`memory`]: values of 100 MB.
//! * [`occupied`]: what is at the destination already, and who else writes there.
//! * [`plan`]: chunks and estimates.
//! * [`points`]: each failpoint.
//! * [`rights`]: who may, and where to.
//! * [`settings`]: what a database says of its sessions, and its encoding.
//! * [`slot`]: what goes on from an export.

mod contents;
mod damage;
mod interrupted;
mod late;
mod load;
mod memory;
mod occupied;
mod plan;
pub(crate) mod points;
mod rights;
mod settings;
mod slot;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dbmazz::export::manifest::{Chunk, Manifest, Table};

use crate::harness::{Database, Failure, Outcome, Pair};

/// A directory that is not there yet, in one that the server may write into.
fn place(pair: &Pair, name: &str) -> Outcome<PathBuf> {
    Ok(pair.source.cluster().make_directory(&format!("{}_{name}", pair.source.name()))?.join("export"))
}

fn start(pair: &mut Pair, directory: &Path, tables: &[&str], options: &str) -> Outcome<i64> {
    let tables = match tables {
        [] => "NULL".to_owned(),
        tables => format!("ARRAY[{}]::regclass[]", quoted(tables)),
    };
    let directory = directory.display();
    let id = pair
        .source
        .value(&format!("SELECT dbmazz_export('{directory}', {tables}, options => '{options}')"))?;
    id.parse().map_err(|_| Failure::new("an export has no number"))
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    names.join(", ")
}

fn wait(pair: &mut Pair, id: i64) -> Outcome {
    match pair.source.is_true(&format!("SELECT dbmazz_wait_export({id}, '2 min')"))? {
        true => Ok(()),
        false => Err(Failure::new("the export is not done in two minutes")),
    }
}

fn resume(pair: &mut Pair, id: i64) -> Outcome {
    pair.source.execute(&format!("SELECT dbmazz_resume_export({id})"))
}

/// Exports and waits.
fn export(pair: &mut Pair, directory: &Path, tables: &[&str], options: &str) -> Outcome<Manifest> {
    let id = start(pair, directory, tables, options)?;
    wait(pair, id)?;
    manifest(directory)
}

fn manifest(directory: &Path) -> Outcome<Manifest> {
    let json = fs::read(directory.join("manifest.json"))?;
    Manifest::parse(&json).map_err(|problem| Failure::new(problem.to_string()))
}

/// The bytes of a file of an export.
fn unpacked(directory: &Path, manifest: &Manifest, chunk: &Chunk) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(directory.join(&chunk.file.file))?;
    std::io::copy(&mut manifest.options.compression.decoder(file)?, &mut bytes)?;
    assert_eq!(bytes.len() as u64, chunk.file.bytes, "{}", chunk.file.file);
    Ok(bytes)
}

/// Runs psql with input.
fn psql(database: &Database, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command: Command = database.cluster().client_program("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database.name()]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| Failure::new("psql has no input"))?;
    // It may have said why it does not take all of it.
    let _ = std::io::Write::write_all(&mut stdin, input);
    drop(stdin);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("psql {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn sql_name(table: &Table) -> String {
    format!("\"{}\".\"{}\"", table.schema.replace('"', "\"\""), table.name.replace('"', "\"\""))
}

/// Restores an export into a new database with nothing but psql.
fn restore(pair: &Pair, directory: &Path) -> Outcome<Database> {
    let manifest = manifest(directory)?;
    let cluster = pair.source.cluster();
    let encoding = &manifest.server.encoding;
    let clause = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let target = Database::create_with(cluster, &clause)?;
    let file = |name: &str| directory.join(name).display().to_string();
    psql(&target, &["-f", &file(&manifest.schema.pre_data.file)], b"")?;
    for table in &manifest.tables {
        if table.kind != dbmazz::export::manifest::TableKind::Table {
            continue;
        }
        let columns: Vec<_> =
            table.columns.iter().map(|column| format!("\"{}\"", column.name.replace('"', "\"\""))).collect();
        let columns = if columns.is_empty() { String::new() } else { format!("({})", columns.join(", ")) };
        let (name, format) = (sql_name(table), manifest.options.format.copy_option());
        for chunk in &table.chunks {
            let copy = format!("COPY {name} {columns} FROM STDIN ({format}, ENCODING '{encoding}')");
            psql(&target, &["-c", &copy], &unpacked(directory, &manifest, chunk)?)?;
        }
    }
    psql(&target, &["-f", &file(&manifest.schema.post_data.file)], b"")?;
    Ok(target)
}

/// Names of files that nobody has finished.
fn unfinished(directory: &Path) -> Outcome<String> {
    let all = Command::new("find").arg(directory).args(["-name", ".dbmazz*"]).output()?;
    Ok(String::from_utf8_lossy(&all.stdout).into_owned())
}

/// Files of an export that are not as they were written, as `dbmazz_verify_export` names them.
fn wrong_files(pair: &mut Pair, directory: &Path) -> Outcome<Vec<String>> {
    let verify = format!(
        "SELECT file FROM dbmazz_verify_export('{}') WHERE NOT ok ORDER BY file",
        directory.display()
    );
    Ok(pair.source.rows(&verify)?.into_iter().flatten().flatten().collect())
}

/// Verifies an export, and brings all of it into a new database with `dbmazz_import`.
fn import(pair: &mut Pair, directory: &Path) -> Outcome<Database> {
    assert_eq!(wrong_files(pair, directory)?, Vec::<String>::new());
    let mut target = Database::create(pair.source.cluster())?;
    target.execute("CREATE EXTENSION dbmazz")?;
    let id = target.value(&format!("SELECT dbmazz_import('{}')", directory.display()))?;
    match target.is_true(&format!("SELECT dbmazz_wait_export({id}, '2 min')"))? {
        true => Ok(target),
        false => Err(Failure::new("the import is not done in two minutes")),
    }
}

/// What is in a table, in an order that does not depend on places.
fn contents(database: &mut Database, table: &str) -> Outcome<String> {
    database.value(&format!(
        "SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') FROM ONLY {table} t"
    ))
}

fn assert_equal(pair: &mut Pair, restored: &mut Database, tables: &[&str]) -> Outcome {
    for table in tables {
        assert_eq!(contents(&mut pair.source, table)?, contents(restored, table)?, "{table}");
    }
    Ok(())
}
