//! A private PostgreSQL cluster: its own directory, port and socket, trust authentication, superuser `postgres`.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::account::Account;
use super::guard::Guard;
use super::{Action, Failpoint, Failure, Installation, Outcome, Progress};

/// What the configuration file of a cluster says beyond the defaults of the tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets one parameter; a later one of the same name wins, as in the file.
    #[must_use]
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The modes of `pg_ctl stop`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StopMode {
    /// Sessions are ended, the rest is written.
    Fast,
    /// Nothing is written: the next start recovers, as after a crash.
    Immediate,
}

impl StopMode {
    const fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// A running cluster. It is stopped and removed when dropped, and when this process dies.
pub(crate) struct Cluster {
    installation: Installation,
    account: Account,
    directory: PathBuf,
    port: AtomicU16,
    databases: AtomicU32,
    /// Last, because its drop removes the directory.
    _guard: Guard,
}

impl Cluster {
    /// A cluster with dbmazz preloaded and logical WAL.
    ///
    /// # Errors
    ///
    /// When initdb or the start fails; the message carries the end of the log.
    pub(crate) fn start(settings: &Settings) -> Outcome<Self> {
        let installation = Installation::find()?;
        let account = Account::for_servers()?;
        let directory = account.directory()?;
        let guard = Guard::watch(account, &directory, &installation.program("pg_ctl"))?;
        let cluster =
            Self { installation, account, directory, port: 0.into(), databases: 0.into(), _guard: guard };
        cluster.initialize(settings)?;
        cluster.start_on_a_free_port()?;
        Ok(cluster)
    }

    /// Another cluster of the same installation, that is not started; `fill` puts the files into its data directory.
    pub(super) fn beside(&self, fill: impl FnOnce(&Self) -> Outcome) -> Outcome<Self> {
        let (installation, account) = (self.installation.clone(), self.account);
        let directory = account.directory()?;
        let guard = Guard::watch(account, &directory, &installation.program("pg_ctl"))?;
        let other =
            Self { installation, account, directory, port: 0.into(), databases: 0.into(), _guard: guard };
        fill(&other)?;
        let socket_directory = other.directory.display().to_string();
        other.configure(&Settings::default().set("unix_socket_directories", &socket_directory))?;
        Ok(other)
    }

    /// Runs a program under the account that owns the files.
    pub(super) fn run_as_owner(&self, what: &str, program: &Path, arguments: &[&str]) -> Outcome {
        run(what, self.account.command(program).args(arguments))
    }

    /// The port on 127.0.0.1. It stays the same over restarts.
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Where the cluster's files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a directory that goes when the cluster goes, whoever writes into it.
    pub(crate) fn make_directory(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir(&path)?;
        self.account.own(&path)?;
        Ok(path)
    }

    /// The installation that runs it.
    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// A client program with host, port and user set: of the same installation, or, where that has none, the one on
    /// the path.
    pub(crate) fn client_program(&self, name: &str) -> Command {
        let own = self.installation.program(name);
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from(name) });
        command.env_remove("PGOPTIONS").env("PGHOST", "127.0.0.1").env("PGUSER", "postgres");
        command.env("PGPORT", self.port().to_string());
        command
    }

    /// A name that no other database of this cluster has.
    pub(crate) fn unused_database_name(&self) -> String {
        format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Stops the cluster and says how long that took.
    pub(crate) fn stop(&self, mode: StopMode) -> Outcome<Duration> {
        let began = Instant::now();
        self.control(
            &format!("stopping PostgreSQL ({})", mode.word()),
            &["stop", "-m", mode.word(), "-t", "60"],
        )?;
        Ok(began.elapsed())
    }

    /// Starts it again after a stop.
    pub(crate) fn start_again(&self) -> Outcome {
        let log = self.log_path();
        let log = log.to_str().ok_or_else(|| Failure::new("the directory's name is not UTF-8"))?;
        self.control("starting PostgreSQL", &["start", "-t", "60", "-l", log])
    }

    /// Stops it in the given mode and starts it again.
    pub(crate) fn restart(&self, mode: StopMode) -> Outcome {
        self.stop(mode)?;
        self.start_again()
    }

    /// Adds lines to the configuration file; they count from the next start, or from a reload.
    pub(crate) fn configure(&self, settings: &Settings) -> Outcome {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf"))?;
        for (name, value) in &settings.0 {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    /// The id of the process that all others are children of.
    pub(crate) fn postmaster(&self) -> Outcome<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid"))?;
        Ok(file.lines().next().unwrap_or_default().parse()?)
    }

    /// Sends a signal to one process of the cluster, by its id.
    pub(crate) fn signal(&self, pid: i32, signal: &str) -> Outcome {
        let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status()?;
        if !status.success() {
            return Err(Failure::new(format!("could not send {signal} to process {pid}")));
        }
        Ok(())
    }

    /// The server's log, whole.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path())
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The last part of the server's log, for the report of a failed test.
    pub(crate) fn end_of_log(&self) -> String {
        const LENGTH: u64 = 20_000;
        let read = || -> Outcome<String> {
            let mut file = fs::File::open(self.log_path())?;
            let from = file.metadata()?.len().saturating_sub(LENGTH);
            file.seek(SeekFrom::Start(from))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        read().unwrap_or_else(|error| format!("(could not read the log: {error})"))
    }

    /// Makes a process fail that passes a point of its code.
    pub(crate) fn arm(&self, point: &str, action: Action, passes: u64) -> Outcome<Failpoint> {
        Failpoint::arm(self.account, &self.data(), point, action, passes)
    }

    /// What a server with assertions said when one of them failed; crash tests would not notice by themselves.
    pub(crate) fn failed_assertion(&self) -> Option<String> {
        self.log().lines().find(|line| line.starts_with("TRAP: ")).map(str::to_owned)
    }

    /// Where its data are.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn initialize(&self, settings: &Settings) -> Outcome {
        let mut initdb = self.account.command(self.installation.program("initdb"));
        initdb.args(["-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-U", "postgres", "--no-sync", "-D"]);
        initdb.arg(self.data());
        run("initializing a PostgreSQL cluster", &mut initdb)?;
        let socket_directory = self.directory.display().to_string();
        self.configure(&defaults().set("unix_socket_directories", &socket_directory))?;
        self.configure(settings)?;
        self.configure(&settings_of_the_run())
    }

    /// Another process may take the port between our look and the server's bind; then the next one is tried.
    pub(super) fn start_on_a_free_port(&self) -> Outcome {
        let mut attempts_left = 3;
        loop {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            self.configure(&Settings::default().set("port", &port.to_string()))?;
            self.port.store(port, Ordering::Relaxed);
            attempts_left -= 1;
            match self.start_again() {
                Err(_) if self.log().contains("could not access file \"dbmazz\"") => {
                    let bindir = self.installation.program("");
                    return Err(Failure::new(format!(
                        "dbmazz is not installed in the PostgreSQL of \"{}\": run make install",
                        bindir.display()
                    )));
                }
                Err(failure) if attempts_left == 0 || !self.log().contains("Address already in use") => {
                    return Err(failure);
                }
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    pub(super) fn control(&self, what: &str, arguments: &[&str]) -> Outcome {
        let mut pg_ctl = self.account.command(self.installation.program("pg_ctl"));
        pg_ctl.args(arguments).arg("-w").arg("-D").arg(self.data());
        run(what, &mut pg_ctl)
            .map_err(|failure| Failure::new(format!("{}\n{}", failure.message(), self.end_of_log())))
    }
}

/// Logical WAL and room for the mirrors of many tests at once. A test's data need not survive the machine.
fn defaults() -> Settings {
    Settings::default()
        .set("listen_addresses", "127.0.0.1")
        .set("shared_preload_libraries", "dbmazz")
        .set("wal_level", "logical")
        .set("max_worker_processes", "100")
        .set("max_replication_slots", "60")
        .set("max_wal_senders", "10")
        .set("max_connections", "200")
        .set("max_prepared_transactions", "10")
        .set("fsync", "off")
        .set("log_line_prefix", "%m [%p] %b %d ")
        .set("log_checkpoints", "off")
}

/// `DBMAZZ_TEST_SETTINGS`, as `name=value` with commas between: what a whole run of the tests is made under.
fn settings_of_the_run() -> Settings {
    let given = std::env::var("DBMAZZ_TEST_SETTINGS").unwrap_or_default();
    let pairs = given.split(',').filter_map(|setting| setting.split_once('='));
    pairs.fold(Settings::default(), |settings, (name, value)| settings.set(name.trim(), value.trim()))
}

/// Runs a program to its end, with a word when it takes long. Its output is shown only when it fails.
///
/// Output goes to a file and not to a pipe: `pg_ctl start` leaves a postmaster behind that would hold the pipe open.
fn run(what: &str, command: &mut Command) -> Outcome {
    let mut output = tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
        .map_err(|error| Failure::from(error).while_doing(what))?;
    let mut progress = Progress::new(what);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick();
        std::thread::sleep(Duration::from_millis(10));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_string(&mut text)?;
    Err(Failure::new(format!("{what}: {status}\n{text}")))
}

/// A file without a name: removed as soon as it is open.
fn tempfile() -> Outcome<fs::File> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("dbmazz-output-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = fs::OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}
