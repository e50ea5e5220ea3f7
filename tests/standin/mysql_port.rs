//! The MySQL port: logins, texts, prepared queries.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use opensrv_mysql::{
    AsyncMysqlIntermediary, AsyncMysqlShim, Column, ColumnFlags, ColumnType, ErrorKind, InitWriter,
    OkResponse, ParamParser, QueryResultWriter, StatementMetaWriter, ValueInner,
};
use rusqlite::types::Value;
use tokio::task::block_in_place;

use crate::auth::native_password;
use crate::faults::{Fault, Kind};
use crate::mysql_cells::{WireCell, column};
use crate::mysql_wire::{ErrorPackets, NextError};
use crate::select;
use crate::server::{Shared, lock};
use crate::sql_error::SqlError;
use crate::sql_tokens::{Token, tokenize};
use crate::statement::{self, Reply, Rows, Session, known_database};

/// Serves the listener on a thread of its own.
pub(crate) fn start(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::Builder::new()
        .name("mysql".into())
        .spawn(move || runtime.block_on(accept(shared, listener)))?;
    Ok(())
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let (reader, writer) = socket.into_split();
            let next_error = NextError::default();
            let writer = ErrorPackets::new(writer, next_error.clone());
            let port = Port {
                shared,
                session: Session::default(),
                next_error,
                prepared: HashMap::new(),
                last_id: 0,
            };
            // Whatever ends a connection, the client sees it end.
            let _ = AsyncMysqlIntermediary::run_on(port, reader, writer).await;
        });
    }
}

/// One connection.
struct Port {
    shared: Arc<Shared>,
    session: Session,
    next_error: NextError,
    prepared: HashMap<u32, Vec<Token>>,
    last_id: u32,
}

impl Port {
    fn use_database(&mut self, name: &str) -> Result<(), SqlError> {
        known_database(&self.shared, name)?;
        self.session.database = Some(name.into());
        Ok(())
    }

    /// Sends an error; the packet that the library writes is replaced on its way.
    async fn refuse(&self, error: SqlError, writer: QueryResultWriter<'_, ErrorPackets>) -> io::Result<()> {
        self.next_error.set(error);
        writer.error(ErrorKind::ER_UNKNOWN_ERROR, b"replaced".as_slice()).await
    }

    async fn send_rows(&self, rows: Rows, writer: QueryResultWriter<'_, ErrorPackets>) -> io::Result<()> {
        let columns: Vec<Column> = rows.columns.iter().map(column).collect();
        let mut out = writer.start(&columns).await?;
        for row in &rows.rows {
            for (cell, (_, ty)) in row.iter().zip(&rows.columns) {
                out.write_col(WireCell { cell, ty: *ty })?;
            }
            out.end_row().await?;
        }
        out.finish().await
    }

    async fn reply(
        &self,
        reply: Result<Reply, SqlError>,
        writer: QueryResultWriter<'_, ErrorPackets>,
    ) -> io::Result<()> {
        match reply {
            Ok(Reply::Rows(rows)) => self.send_rows(rows, writer).await,
            Ok(Reply::Done { affected }) => {
                writer.completed(OkResponse { affected_rows: affected, ..OkResponse::default() }).await
            }
            Err(error) => self.refuse(error, writer).await,
        }
    }

    /// A statement whose connection is cut before it is executed.
    fn execute_without_client(&self, sql: &str, late: Fault) {
        let (shared, mut session, sql) = (Arc::clone(&self.shared), self.session.clone(), sql.to_owned());
        std::thread::spawn(move || execute(&shared, &mut session, &sql, Some(late)));
    }

    fn prepare(&self, query: &str) -> Result<(Vec<Token>, Vec<Column>, usize), SqlError> {
        let tokens = tokenize(query).map_err(SqlError::syntax)?;
        if !tokens.first().is_some_and(|token| token.is_word("SELECT") || token.is_word("WITH")) {
            return Err(SqlError::analyzing(
                "This command is not supported in the prepared statement protocol yet",
            ));
        }
        let (columns, parameters) = select::prepare(&self.shared, &self.session, &tokens)?;
        Ok((tokens, columns.iter().map(column).collect(), parameters))
    }
}

/// Executes a statement to its end, and shows it meanwhile.
fn execute(
    shared: &Arc<Shared>,
    session: &mut Session,
    sql: &str,
    late: Option<Fault>,
) -> Result<Reply, SqlError> {
    let is_hidden = late.as_ref().is_some_and(|late| late.is("hidden"));
    let number = (!is_hidden).then(|| show(shared, sql));
    if let Some(late) = late {
        std::thread::sleep(late.lateness());
    }
    let reply = statement::run(shared, session, sql);
    if let Some(number) = number {
        lock(&shared.running).remove(&number);
    }
    reply
}

/// Puts a statement into the list of processes.
fn show(shared: &Shared, sql: &str) -> u64 {
    let mut running = lock(&shared.running);
    let number = running.last_key_value().map_or(1, |(last, _)| last + 1);
    running.insert(number, sql.to_owned());
    number
}

#[async_trait]
impl AsyncMysqlShim<ErrorPackets> for Port {
    type Error = io::Error;

    fn version(&self) -> String {
        "8.0.33".into()
    }

    async fn authenticate(&self, _: &str, username: &[u8], salt: &[u8], auth_data: &[u8]) -> bool {
        let password = lock(&self.shared.password).clone();
        let is_password = auth_data == native_password(salt, password.as_bytes());
        let is_let_in = username == self.shared.args.user.as_bytes()
            && is_password
            && self.shared.faults.strike(Kind::WrongPassword, "").is_none();
        if !is_let_in {
            let user = String::from_utf8_lossy(username);
            let using = if auth_data.is_empty() { "NO" } else { "YES" };
            let message = format!("Access denied for user '{user}' (using password: {using})");
            self.next_error.set(SqlError::new(1045, message));
        }
        is_let_in
    }

    async fn on_init<'a>(
        &'a mut self,
        name: &'a str,
        writer: InitWriter<'a, ErrorPackets>,
    ) -> io::Result<()> {
        match block_in_place(|| self.use_database(name)) {
            Ok(()) => writer.ok().await,
            Err(error) => {
                self.next_error.set(error);
                writer.error(ErrorKind::ER_BAD_DB_ERROR, b"replaced".as_slice()).await
            }
        }
    }

    async fn on_query<'a>(
        &'a mut self,
        sql: &'a str,
        writer: QueryResultWriter<'a, ErrorPackets>,
    ) -> io::Result<()> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let changes = ["TRUNCATE", "CREATE"].contains(&word.as_str());
        let cut = changes.then(|| self.shared.faults.strike(Kind::CutStatement, "")).flatten();
        if cut.as_ref().and_then(Fault::text) == Some("before") {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let late = self.shared.faults.strike_if(Kind::LateStatement, "", |fault| fault.is_about(sql));
        let late = match late {
            Some(late) if late.is("cut") => {
                self.execute_without_client(sql, late);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            other => other,
        };
        let shared = Arc::clone(&self.shared);
        let reply = block_in_place(|| execute(&shared, &mut self.session, sql, late));
        if cut.is_some() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.reply(reply, writer).await
    }

    async fn on_prepare<'a>(
        &'a mut self,
        query: &'a str,
        writer: StatementMetaWriter<'a, ErrorPackets>,
    ) -> io::Result<()> {
        let (tokens, columns, parameters) = match block_in_place(|| self.prepare(query)) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.next_error.set(error);
                return writer.error(ErrorKind::ER_UNKNOWN_ERROR, b"replaced".as_slice()).await;
            }
        };
        let mark = Column {
            table: String::new(),
            column: "?".into(),
            coltype: ColumnType::MYSQL_TYPE_VAR_STRING,
            colflags: ColumnFlags::empty(),
        };
        self.last_id += 1;
        self.prepared.insert(self.last_id, tokens);
        writer.reply(self.last_id, &vec![mark; parameters], &columns).await
    }

    async fn on_execute<'a>(
        &'a mut self,
        id: u32,
        parameters: ParamParser<'a>,
        writer: QueryResultWriter<'a, ErrorPackets>,
    ) -> io::Result<()> {
        let parameters: Vec<Value> =
            parameters.into_iter().map(|p| parameter(p.value.into_inner())).collect();
        let Some(tokens) = self.prepared.get(&id) else {
            return self.refuse(SqlError::syntax("unknown statement"), writer).await;
        };
        let rows = block_in_place(|| select::run(&self.shared, &self.session, tokens, &parameters));
        self.reply(rows.map(Reply::Rows), writer).await
    }

    async fn on_close<'a>(&'a mut self, id: u32)
    where
        ErrorPackets: 'async_trait,
    {
        self.prepared.remove(&id);
    }
}

fn parameter(value: ValueInner<'_>) -> Value {
    match value {
        ValueInner::NULL => Value::Null,
        ValueInner::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Blob(bytes.to_vec()),
        },
        ValueInner::Int(value) => Value::Integer(value),
        ValueInner::UInt(value) => {
            i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Integer)
        }
        ValueInner::Double(value) => Value::Real(value),
        ValueInner::Date(packed) | ValueInner::Time(packed) | ValueInner::Datetime(packed) => {
            Value::Text(date(packed))
        }
    }
}

/// A packed date as text.
fn date(packed: &[u8]) -> String {
    let byte = |index: usize| packed.get(index).copied().unwrap_or(0);
    let year = u16::from_le_bytes([byte(0), byte(1)]);
    let date = format!("{year:04}-{:02}-{:02}", byte(2), byte(3));
    if packed.len() <= 4 {
        return date;
    }
    let time = format!("{date} {:02}:{:02}:{:02}", byte(4), byte(5), byte(6));
    let micros = u32::from_le_bytes([byte(7), byte(8), byte(9), byte(10)]);
    if micros == 0 { time } else { format!("{time}.{micros:06}") }
}
