//! The definitions: pg_dump's sections, under the export's snapshot.
//!
//! ```text
//! pg_dump ─► archive ─┬─► pg_restore --section=pre-data  ─► schema/pre-data.sql
//!                     └─► pg_restore --section=post-data ─► schema/post-data.sql
//! ```
//!
//! So the catalogs are read once. All run as children of the leader. Threads hand on what they write; the leader, which alone may
//! use the destination, takes the pieces of the scripts. The children never outlive the leader: they are killed at its end, however
//! that comes. A script is complete when all have said that they did well.

use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::super::catalog::export::Section;
use super::super::catalog::{self, server};
use super::super::signal::SignalsBlocked;
use super::process::must;
use crate::export::chunk::{POST_DATA, PRE_DATA};
use crate::export::codec::Compression;
use crate::export::destination::{Destination, Existing};
use crate::export::file::{ExportFile, Writing};
use crate::export::manifest::File;

/// What is read at once, and how many of that may wait.
const PIECE: usize = 64 << 10;
const PIECES: usize = 8;

/// Of what a program says no more than this is repeated.
const MOST_WORDS: u64 = 2_000;

/// The children that are killed with this process: pg_dump, and pg_restore for each section.
static CHILDREN: [AtomicI32; 3] = [AtomicI32::new(0), AtomicI32::new(0), AtomicI32::new(0)];

/// Settings of the session of pg_dump.
const SETTINGS: &str = "-c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
     -c default_transaction_read_only=off";

/// What pg_dump is to dump.
pub(super) struct Dump<'a> {
    /// The exported snapshot.
    pub(super) snapshot: &'a str,
    /// Whose rights count.
    pub(super) role: pg_sys::Oid,
    /// Tables by schema and name; all of the database without them.
    pub(super) tables: Option<&'a [(String, String)]>,
}

/// Definitions being written.
pub(super) struct Definitions {
    dump: Running,
    scripts: Vec<Script>,
}

/// The script of a section.
struct Script {
    section: Section,
    restore: Running,
    pieces: Receiver<Vec<u8>>,
    is_read: bool,
    file: ExportFile,
}

impl Definitions {
    /// Starts the programs that write these sections.
    pub(super) fn start(
        sections: &[Section],
        dump: &Dump<'_>,
        destination: &dyn Destination,
        writing: Writing,
    ) -> Self {
        let (mut scripts, mut inputs) = (Vec::new(), Vec::new());
        for section in sections {
            let (script, input) = Script::start(*section, destination, writing);
            scripts.push(script);
            inputs.extend(input);
        }
        let mut dump = Running::start("pg_dump", 0, |command| give_arguments(command, dump));
        let archive = dump.child.stdout.take();
        in_thread("dbmazz schema", archive.map(|archive| move || hand_out(archive, inputs)));
        Self { dump, scripts }
    }

    /// Takes what is there. Returns the files that are complete now.
    pub(super) fn poll(&mut self) -> Vec<(Section, File)> {
        for script in &mut self.scripts {
            script.read();
        }
        let mut complete = Vec::new();
        // Of an archive that is cut pg_restore has a complaint too, but not the reason.
        if self.dump.has_done_well() {
            for mut script in std::mem::take(&mut self.scripts) {
                if script.is_read && script.restore.has_done_well() {
                    complete.push((script.section, must(script.file.finish())));
                } else {
                    self.scripts.push(script);
                }
            }
        }
        complete
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_done(&self) -> bool {
        self.scripts.is_empty()
    }
}

impl Script {
    fn start(
        section: Section,
        destination: &dyn Destination,
        writing: Writing,
    ) -> (Self, Option<ChildStdin>) {
        let (name, word, at) = match section {
            Section::PreData => (PRE_DATA, "pre-data", 1),
            Section::PostData => (POST_DATA, "post-data", 2),
        };
        let plain = Writing { compression: Compression::None, level: None, ..writing };
        let file = must(ExportFile::create(destination, name, Existing::Replace, plain));
        let mut restore = Running::start("pg_restore", at, |command| {
            command.arg(format!("--section={word}")).arg("--file=-").stdin(Stdio::piped());
        });
        let (to_leader, pieces) = bounded(PIECES);
        let (input, out) = (restore.child.stdin.take(), restore.child.stdout.take());
        in_thread("dbmazz script", out.map(|out| move || send_pieces(out, &to_leader)));
        (Self { section, restore, pieces, is_read: false, file }, input)
    }

    fn read(&mut self) {
        loop {
            match self.pieces.try_recv() {
                Ok(piece) => must(self.file.write(&piece)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.is_read = true,
            }
        }
    }
}

/// A program of the server's that is running, or was.
struct Running {
    name: &'static str,
    /// Its place among those that are killed.
    at: usize,
    child: Child,
    words: Option<JoinHandle<String>>,
    is_over: bool,
}

impl Running {
    fn start(name: &'static str, at: usize, arrange: impl FnOnce(&mut Command)) -> Self {
        let program = program(name);
        let mut command = command(&program);
        arrange(&mut command);
        let mut child = command.spawn().unwrap_or_else(|problem| {
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
                format!("could not run \"{}\": {problem}", program.display()),
                "pg_dump and pg_restore write the definitions of an export; they must be in the server's own directory of programs."
            );
            unreachable!("an ERROR does not return")
        });
        CHILDREN[at].store(child.id().cast_signed(), Ordering::SeqCst);
        let words = in_thread("dbmazz words", child.stderr.take().map(|words| move || listen(words)));
        Self { name, at, child, words: Some(words), is_over: false }
    }

    /// Whether it has ended; raises an error when it has ended badly.
    fn has_done_well(&mut self) -> bool {
        if !self.is_over
            && let Ok(Some(status)) = self.child.try_wait()
        {
            CHILDREN[self.at].store(0, Ordering::SeqCst);
            self.check(status);
            self.is_over = true;
        }
        self.is_over
    }

    fn check(&mut self, status: ExitStatus) {
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        if !status.success() {
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                format!("{} failed with {status}", self.name),
                format!("It said: {}", words.trim())
            );
        }
    }
}

/// Runs what is to be done in a thread that no signal reaches.
fn in_thread<T: Send + 'static>(
    name: &str,
    work: Option<impl FnOnce() -> T + Send + 'static>,
) -> JoinHandle<T> {
    let _born_without_signals = SignalsBlocked::enter();
    let builder = std::thread::Builder::new().name(name.to_owned());
    let started = work.and_then(|work| builder.spawn(work).ok());
    started.unwrap_or_else(|| error!("could not start a thread"))
}

/// Gives each of the inputs all of the archive. One that wants no more has its reasons, and says them.
fn hand_out(mut archive: ChildStdout, mut inputs: Vec<ChildStdin>) {
    let mut piece = vec![0; PIECE];
    while let Ok(read @ 1..) = archive.read(&mut piece) {
        let bytes = piece.get(..read).unwrap_or_default();
        inputs.retain_mut(|input| input.write_all(bytes).is_ok());
    }
}

fn send_pieces(mut out: ChildStdout, to_leader: &Sender<Vec<u8>>) {
    loop {
        let mut piece = vec![0; PIECE];
        match out.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => piece.truncate(read),
        }
        if to_leader.send(piece).is_err() {
            return;
        }
    }
}

fn listen(mut words: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = words.by_ref().take(MOST_WORDS).read_to_end(&mut text);
    let _ = std::io::copy(&mut words, &mut std::io::sink());
    String::from_utf8_lossy(&text).into_owned()
}

/// Kills what still runs. Called when the leader ends.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn kill_children(_code: i32, _argument: pg_sys::Datum) {
    for child in &CHILDREN {
        let pid = child.swap(0, Ordering::SeqCst);
        if pid > 0 {
            // SAFETY: the process was started here and has not been waited for, so its number is still its own.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// A program of this very server: beside its own one.
fn program(name: &str) -> PathBuf {
    // SAFETY: set when the server starts, a C string in an array of the server.
    let postgres = unsafe { CStr::from_ptr((&raw const pg_sys::my_exec_path).cast()) };
    Path::new(&*postgres.to_string_lossy()).with_file_name(name)
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let is_of_libpq = name.to_string_lossy().starts_with("PG") && name != "PGPASSFILE";
        if is_of_libpq {
            command.env_remove(name);
        }
    }
    // With settings of the database's own each statement of pg_dump's could be a transaction that waits for those of others.
    command.env("PGOPTIONS", SETTINGS);
    // SAFETY: called between fork and exec; the one thing that is done is a system call. When the leader ends without a word,
    // the child ends too.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command
}

fn give_arguments(command: &mut Command, dump: &Dump<'_>) {
    command
        .args(["--schema-only", "--no-password", "--format=custom", "--compress=0"])
        .arg(format!("--snapshot={}", dump.snapshot))
        .arg(format!("--role={}", catalog::server::role_name(dump.role)))
        .arg(format!("--dbname={}", connection()));
    for (schema, name) in dump.tables.into_iter().flatten() {
        command.arg(format!("--table={}.{}", pattern(schema), pattern(name)));
    }
}

/// A name as a pattern that nothing else matches.
fn pattern(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// This database, through the socket, as the superuser that every cluster has.
fn connection() -> String {
    // SAFETY: settings of the server, which do not change while it runs.
    let (directories, port) = unsafe {
        let directories = pg_sys::Unix_socket_directories;
        let directories = if directories.is_null() {
            String::new()
        } else {
            CStr::from_ptr(directories).to_string_lossy().into_owned()
        };
        (directories, pg_sys::PostPortNumber)
    };
    let first = directories.split(',').map(str::trim).find(|directory| !directory.is_empty());
    let host = first.unwrap_or("localhost").trim_matches('"');
    let user = server::role_name(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID));
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!(
        "host={} port={port} user={} dbname={} application_name='dbmazz export'",
        quoted(host),
        quoted(&user),
        quoted(&server::current_database())
    )
}
