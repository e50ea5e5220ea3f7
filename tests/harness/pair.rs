//! One database on each side, and the steps of the quick start between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    Cluster, Comparison, Control, Database, Failure, Outcome, PATIENCE, StarRocks, Target, wait_until,
};

/// A source database with the extension and a server in it, and the target database behind that server.
pub(crate) struct Pair {
    /// The session of the source.
    pub(crate) source: Database,
    /// The session of the target.
    pub(crate) target: Target,
    /// Where the target is.
    pub(crate) starrocks: StarRocks,
    mirror: String,
}

impl Pair {
    /// A new database, a new stand-in, and `CREATE EXTENSION`, `CREATE SERVER`, `CREATE USER MAPPING`.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Outcome<Self> {
        Self::with(cluster, StarRocks::start()?)
    }

    /// The same with a StarRocks that is there already.
    pub(crate) fn with(cluster: &Arc<Cluster>, starrocks: StarRocks) -> Outcome<Self> {
        let mut pair = Self::without_server(cluster, starrocks)?;
        pair.create_server("starrocks", &pair.server_options())?;
        Ok(pair)
    }

    /// Both databases and the extension, but no server yet.
    pub(crate) fn without_server(cluster: &Arc<Cluster>, starrocks: StarRocks) -> Outcome<Self> {
        Self::between(Database::create(cluster)?, starrocks)
    }

    /// A pair whose source database has this encoding, and the locale C.
    pub(crate) fn in_encoding(cluster: &Arc<Cluster>, encoding: &str) -> Outcome<Self> {
        let clause = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        let mut pair = Self::between(Database::create_with(cluster, &clause)?, StarRocks::start()?)?;
        pair.create_server("starrocks", &pair.server_options())?;
        Ok(pair)
    }

    fn between(mut source: Database, starrocks: StarRocks) -> Outcome<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
        source.execute("CREATE EXTENSION dbmazz")?;
        let target = Target::of(&starrocks, &format!("dbmazz_test_{}_{number}", std::process::id()))?;
        let mirror = format!("m_{}", source.name());
        Ok(Self { source, target, starrocks, mirror })
    }

    /// The name of the mirror that the shorthands mean. Mirrors are unique in a cluster, so each pair has its own.
    pub(crate) fn mirror(&self) -> &str {
        &self.mirror
    }

    /// The options of a server that leads to this StarRocks.
    pub(crate) fn server_options(&self) -> String {
        self.server_options_through(self.starrocks.fe_port(), self.starrocks.sql_port())
    }

    /// The same through other ports, those of proxies for instance.
    pub(crate) fn server_options_through(&self, fe_port: u16, sql_port: u16) -> String {
        let host = self.starrocks.host();
        let database = self.target.database();
        format!(
            "load_url 'http://{host}:{fe_port}', sql_host '{host}', sql_port '{sql_port}', database '{database}', \
             replication_num '1'"
        )
    }

    /// `CREATE SERVER` and the user mapping of the session's user.
    pub(crate) fn create_server(&mut self, name: &str, options: &str) -> Outcome {
        let (user, password) = (self.starrocks.user().to_owned(), self.starrocks.password().to_owned());
        self.source.execute(&format!(
            "CREATE SERVER {name} FOREIGN DATA WRAPPER dbmazz_starrocks OPTIONS ({options});
             CREATE USER MAPPING FOR CURRENT_USER SERVER {name} OPTIONS (user '{user}', password '{password}')"
        ))
    }

    /// Starts the pair's mirror of these tables with the defaults of the tests: a short flush interval.
    pub(crate) fn start_mirror(&mut self, tables: &[&str]) -> Outcome {
        self.start_mirror_with(&format!("tables => {}", regclasses(tables)), "{}")
    }

    /// Starts the pair's mirror with these named arguments and options, in the words of SQL. Asks again, as a user would,
    /// when a TRUNCATE of several of its tables took them in another order and PostgreSQL broke the deadlock.
    pub(crate) fn start_mirror_with(&mut self, arguments: &str, options: &str) -> Outcome {
        let sql = self.start_statement(arguments, options);
        match self.source.execute(&sql) {
            Err(failure) if failure.to_string().contains("SQLSTATE 40P01") => self.source.execute(&sql),
            outcome => outcome,
        }
    }

    /// The statement of [`Pair::start_mirror_with`].
    pub(crate) fn start_statement(&self, arguments: &str, options: &str) -> String {
        let comma = if arguments.is_empty() { "" } else { ", " };
        format!(
            "SELECT dbmazz_start_mirror('{}', 'starrocks'{comma}{arguments}, \
             options => '{{\"flush_interval\": \"100ms\"}}'::jsonb || '{options}'::jsonb)",
            self.mirror
        )
    }

    /// Calls a function of one argument, the mirror: `pair.call("dbmazz_pause_mirror")`.
    pub(crate) fn call(&mut self, function: &str) -> Outcome {
        self.source.execute(&format!("SELECT {function}('{}')", self.mirror))
    }

    /// Waits until all that is committed is visible at the target.
    ///
    /// # Errors
    ///
    /// When that does not come true; the message shows the views.
    pub(crate) fn wait(&mut self) -> Outcome {
        let sql =
            format!("SELECT dbmazz_wait_mirror('{}', timeout => '{} s')", self.mirror, PATIENCE.as_secs());
        if self.source.is_true(&sql)? {
            return Ok(());
        }
        let views = self.views()?;
        Err(Failure::new(format!("mirror \"{}\" did not come into step\n{views}", self.mirror)))
    }

    /// Waits, and compares these tables with their namesakes.
    pub(crate) fn wait_and_compare(&mut self, tables: &[&str]) -> Outcome {
        self.wait()?;
        tables.iter().try_for_each(|table| self.compare(&Comparison::of(table)))
    }

    /// Compares as they are now.
    pub(crate) fn compare(&mut self, comparison: &Comparison<'_>) -> Outcome {
        comparison.check(&mut self.source, &mut self.target).map(drop)
    }

    /// One column of the mirror's row in `dbmazz_stat_mirror`.
    pub(crate) fn stat(&mut self, column: &str) -> Outcome<Option<String>> {
        let sql = format!("SELECT {column} FROM dbmazz_stat_mirror WHERE mirror = '{}'", self.mirror);
        self.source.value_or_null(&sql)
    }

    /// The state of a table of the mirror, a letter.
    pub(crate) fn table_state(&mut self, table: &str) -> Outcome<Option<String>> {
        let sql = format!(
            "SELECT state FROM dbmazz_stat_table WHERE mirror = '{}' AND relation = '{table}'::regclass",
            self.mirror
        );
        self.source.value_or_null(&sql)
    }

    /// Whether an event of the mirror says something that matches this regular expression.
    pub(crate) fn has_event(&mut self, pattern: &str) -> Outcome<bool> {
        let mirror = &self.mirror;
        self.source.is_true(&format!(
            "SELECT EXISTS (SELECT FROM dbmazz_event WHERE mirror = '{mirror}' AND message ~ '{pattern}')"
        ))
    }

    /// Waits until the mirror is in this state.
    pub(crate) fn wait_for_state(&mut self, state: &str) -> Outcome {
        let what = format!("mirror \"{}\" in state {state}", self.mirror);
        let waited = wait_until(&what, PATIENCE, || Ok(self.stat("state")?.as_deref() == Some(state)));
        waited.map_err(|failure| match self.views() {
            Ok(views) => Failure::new(format!("{}\n{views}", failure.message())),
            Err(_) => failure,
        })
    }

    /// The control interface; `None`, with a word, where there is a real cluster.
    pub(crate) fn control(&self, test: &str) -> Option<Control> {
        let control = self.starrocks.control();
        if control.is_none() {
            println!("{test}: skipped, a real StarRocks cannot be told to fail");
        }
        control
    }

    /// Whether the source's server is older than what a test is about; says so if it is.
    pub(crate) fn is_before(&self, major: u32, test: &str, what: &str) -> bool {
        let here = self.source.cluster().installation().major();
        if here < major {
            println!("{test}: skipped, {what} came with PostgreSQL {major}, this is {here}");
        }
        here < major
    }

    /// Everything that an administrator could look at, for the message of a failure.
    pub(crate) fn views(&mut self) -> Outcome<String> {
        let mut text = String::new();
        for view in ["dbmazz_stat_mirror", "dbmazz_stat_table", "dbmazz_progress_snapshot"] {
            for row in self.source.rows(&format!("SELECT to_jsonb(v) FROM {view} v"))? {
                text.push_str(&format!("  {view}: {}\n", row.into_iter().flatten().collect::<String>()));
            }
        }
        for row in self.source.rows("SELECT to_jsonb(v) FROM dbmazz_event v LIMIT 20")? {
            text.push_str(&format!("  dbmazz_event: {}\n", row.into_iter().flatten().collect::<String>()));
        }
        Ok(text)
    }

    /// Lets go of everything on the server, so that the next tests find free slots and workers.
    fn clean_up(&mut self) -> Outcome {
        self.source.execute("SET statement_timeout = '30s'")?;
        for row in self.source.rows("SELECT mirror FROM dbmazz_stat_mirror")? {
            let mirror = row.into_iter().flatten().collect::<String>();
            self.source.execute(&format!("SELECT dbmazz_drop_mirror('{mirror}', true)"))?;
        }
        if self.starrocks.control().is_none() {
            let database = super::target::quoted(self.target.database());
            self.target.execute(&format!("DROP DATABASE IF EXISTS {database}"))?;
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The server may have restarted its processes meanwhile, and ours with them.
            let views = self.views().or_else(|_| self.source.reconnect().and_then(|()| self.views()));
            let views = views.unwrap_or_else(|failure| format!("(no views: {failure})"));
            eprintln!("{views}--- end of the server's log\n{}", self.source.cluster().end_of_log());
        }
        // A test may have stopped its server, or dropped the extension: then there is nothing to let go of.
        let _ = self.clean_up();
    }
}

/// `ARRAY['a','b']::regclass[]`
pub(crate) fn regclasses(tables: &[&str]) -> String {
    let quoted: Vec<_> = tables.iter().map(|table| format!("'{}'", table.replace('\'', "''"))).collect();
    format!("ARRAY[{}]::regclass[]", quoted.join(", "))
}
