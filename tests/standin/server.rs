//! The three listeners and what they share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::args::Args;
use crate::arrivals::Arrivals;
use crate::counts::Counts;
use crate::error_log::ErrorLog;
use crate::faults::{Faults, Kind};
use crate::labels::Labels;
use crate::load::Scratch;
use crate::request_log::RequestLog;
use crate::storage::Storage;
use crate::{backend, frontend, mysql_port};

/// The ports that are listened on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) fe: u16,
    pub(crate) be: u16,
    pub(crate) mysql: u16,
}

/// The state of the cluster.
pub(crate) struct Shared {
    pub(crate) args: Args,
    pub(crate) ports: Ports,
    pub(crate) password: Mutex<String>,
    pub(crate) faults: Faults,
    pub(crate) labels: Labels,
    pub(crate) counts: Counts,
    pub(crate) arrivals: Arrivals,
    pub(crate) requests: RequestLog,
    pub(crate) error_log: ErrorLog,
    pub(crate) storage: Storage,
    /// What connections that have ended leave to others: fresh memory costs as much as reading into it.
    pub(crate) scratch: Mutex<Vec<Scratch>>,
    /// Statements that are being executed, by a number of their own.
    pub(crate) running: Mutex<BTreeMap<u64, String>>,
    backend_sockets: Mutex<HashMap<u64, TcpStream>>,
    next_socket: AtomicU64,
}

/// Locks, also after another thread panicked: tests want to see what is there.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now in UTC, as StarRocks prints it.
pub(crate) fn now_text() -> String {
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Civil date from days since 1970, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Binds the ports and serves them on threads of their own.
pub(crate) fn start(args: Args) -> Result<Ports, Box<dyn std::error::Error>> {
    if let Some(directory) = &args.data_dir {
        std::fs::create_dir_all(directory)?;
    }
    let storage = Storage::open(args.data_dir.as_deref())?;
    let labels = Labels::default();
    labels.restore(storage.lock().kept_labels()?);
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let (fe, be, mysql) = (bind(args.fe_port)?, bind(args.be_port)?, bind(args.mysql_port)?);
    let ports =
        Ports { fe: fe.local_addr()?.port(), be: be.local_addr()?.port(), mysql: mysql.local_addr()?.port() };
    let shared = Arc::new(Shared {
        password: Mutex::new(args.password.clone()),
        args,
        ports,
        faults: Faults::default(),
        labels,
        counts: Counts::default(),
        arrivals: Arrivals::default(),
        requests: RequestLog::default(),
        error_log: ErrorLog::default(),
        storage,
        scratch: Mutex::default(),
        running: Mutex::default(),
        backend_sockets: Mutex::new(HashMap::new()),
        next_socket: AtomicU64::new(0),
    });
    let for_fe = Arc::clone(&shared);
    spawn("fe", move || accept(&fe, &for_fe, |shared, stream| frontend::serve(&shared, stream)))?;
    let for_be = Arc::clone(&shared);
    spawn("be", move || accept_backend(be, &for_be))?;
    mysql_port::start(shared, mysql)?;
    Ok(ports)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(run).map(|_| ())
}

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    serve: impl Fn(Arc<Shared>, TcpStream) + Copy + Send + 'static,
) {
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(shared);
        // A connection that gets no thread is closed, which the client sees.
        let _ = spawn("fe-connection", move || serve(shared, stream));
    }
}

/// Accepts on the backend's port; while `close_be` is armed the port is closed.
fn accept_backend(mut listener: TcpListener, shared: &Arc<Shared>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, shared.ports.be));
    loop {
        let accepted = listener.accept();
        if shared.faults.is_armed(Kind::CloseBe) {
            drop(accepted);
            drop(listener);
            shared.faults.wait_until_cleared(Kind::CloseBe);
            listener = match TcpListener::bind(address) {
                Ok(listener) => listener,
                Err(error) => {
                    eprintln!("starrocks_standin: could not open the backend's port again: {error}");
                    std::process::exit(1);
                }
            };
            continue;
        }
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(shared);
        let _ = spawn("be-connection", move || shared.serve_backend(stream));
    }
}

impl Shared {
    fn serve_backend(&self, stream: TcpStream) {
        let id = self.next_socket.fetch_add(1, Ordering::Relaxed);
        if let Ok(copy) = stream.try_clone() {
            lock(&self.backend_sockets).insert(id, copy);
        }
        backend::serve(self, stream);
        lock(&self.backend_sockets).remove(&id);
    }

    /// Cuts every connection to the backend.
    pub(crate) fn cut_backend_connections(&self) {
        for stream in lock(&self.backend_sockets).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Makes the backend's listener look at the faults.
    pub(crate) fn wake_backend_listener(&self) {
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.be));
    }

    /// The password that logins must have, unless every login is to fail.
    pub(crate) fn check_login(&self, header: Option<&str>) -> Result<(), crate::auth::Refusal> {
        let outcome = crate::auth::check(header, &self.args.user, &lock(&self.password));
        if outcome.is_ok() && self.faults.strike(Kind::WrongPassword, "").is_some() {
            return Err(crate::auth::Refusal::Denied { user: self.args.user.clone() });
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_printed_as_a_datetime() {
        let now = now_text();
        assert_eq!(crate::temporal::parse(&now).map(|value| value.text()), Some(now));
    }
}
