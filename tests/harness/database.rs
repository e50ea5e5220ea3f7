//! One database of a cluster, with a session in it.

use std::sync::Arc;

use postgres::error::DbError;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{Cluster, Failure, Outcome};

/// A row in text form; NULL is `None`.
pub(crate) type TextRow = Vec<Option<String>>;

/// A session whose output formats do not depend on anyone's settings.
pub(crate) struct Database {
    cluster: Arc<Cluster>,
    name: String,
    client: Client,
}

impl Database {
    /// Makes a database with a name of its own and connects to it.
    pub(crate) fn create(cluster: &Arc<Cluster>) -> Outcome<Self> {
        Self::create_with(cluster, "")
    }

    /// The same with a clause of `CREATE DATABASE`.
    pub(crate) fn create_with(cluster: &Arc<Cluster>, clause: &str) -> Outcome<Self> {
        let name = cluster.unused_database_name();
        Self::connect(cluster, "postgres")?.execute(&format!("CREATE DATABASE {name} {clause}"))?;
        Self::connect(cluster, &name)
    }

    /// Connects to a database that is there.
    pub(crate) fn connect(cluster: &Arc<Cluster>, name: &str) -> Outcome<Self> {
        let client = connect(cluster.port(), name)?;
        Ok(Self { cluster: Arc::clone(cluster), name: name.to_owned(), client })
    }

    /// A second session in the same database.
    pub(crate) fn another_session(&self) -> Outcome<Self> {
        Self::connect(&self.cluster, &self.name)
    }

    /// Connects again, after the server was away.
    pub(crate) fn reconnect(&mut self) -> Outcome {
        self.client = connect(self.cluster.port(), &self.name)?;
        Ok(())
    }

    /// Moves the session to another database of the cluster.
    pub(crate) fn become_another(&mut self, name: &str) -> Outcome {
        self.client = connect(self.cluster.port(), name)?;
        self.name = name.to_owned();
        Ok(())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Runs one or more statements.
    pub(crate) fn execute(&mut self, sql: &str) -> Outcome {
        self.client.batch_execute(sql).map_err(|error| told(error, sql))
    }

    /// The rows of a query, as text.
    pub(crate) fn rows(&mut self, sql: &str) -> Outcome<Vec<TextRow>> {
        let messages = self.client.simple_query(sql).map_err(|error| told(error, sql))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of the first row; `None` for NULL and for no row.
    pub(crate) fn value_or_null(&mut self, sql: &str) -> Outcome<Option<String>> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// The first column of the first row.
    ///
    /// # Errors
    ///
    /// When there is none, or it is NULL.
    pub(crate) fn value(&mut self, sql: &str) -> Outcome<String> {
        self.value_or_null(sql)?.ok_or_else(|| Failure::new(format!("no value: {sql}")))
    }

    /// Whether a query's first value is true.
    pub(crate) fn is_true(&mut self, sql: &str) -> Outcome<bool> {
        Ok(self.value_or_null(sql)?.as_deref() == Some("t"))
    }

    /// The error that a statement must raise.
    ///
    /// # Errors
    ///
    /// When it succeeds, or fails without an answer of the server.
    pub(crate) fn error_of(&mut self, sql: &str) -> Outcome<DbError> {
        match self.client.batch_execute(sql) {
            Ok(()) => Err(Failure::new(format!("should have failed, but did not: {sql}"))),
            Err(error) => match error.as_db_error() {
                Some(db_error) => Ok(db_error.clone()),
                None => Err(told(error, sql)),
            },
        }
    }
}

fn connect(port: u16, name: &str) -> Outcome<Client> {
    let client = Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .dbname(name)
        .application_name("dbmazz test")
        .options("-c TimeZone=UTC -c DateStyle=ISO -c extra_float_digits=1 -c bytea_output=hex -c statement_timeout=180s")
        .connect(NoTls);
    client.map_err(|error| Failure::from(error).while_doing(format_args!("connect to database \"{name}\"")))
}

#[track_caller]
fn told(error: postgres::Error, sql: &str) -> Failure {
    let shown: String = sql.chars().take(400).collect();
    Failure::new(format!("{}\n  STATEMENT: {shown}", Failure::from(error).message()))
}
