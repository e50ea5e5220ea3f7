//! A TCP proxy that can be told to let nothing through: a server that goes away and comes back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::Outcome;

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    /// Passes everything on.
    Flowing,
    /// Closes what is open and whatever comes.
    Cut,
    /// Accepts, and then nothing ever happens.
    Swallowed,
}

/// A port of 127.0.0.1 in front of another one.
pub(crate) struct Proxy {
    port: u16,
    traffic: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Starts to listen. The threads end with the process, or with their connections.
    pub(crate) fn to(port: u16) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self {
            port: listener.local_addr()?.port(),
            traffic: Arc::new(AtomicU8::new(Traffic::Flowing as u8)),
            open: Arc::default(),
        };
        let (traffic, open) = (Arc::clone(&proxy.traffic), Arc::clone(&proxy.open));
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                let state = traffic.load(Ordering::SeqCst);
                if state == Traffic::Cut as u8 {
                    continue;
                }
                keep(&open, &client);
                if state == Traffic::Flowing as u8
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", port))
                {
                    keep(&open, &server);
                    join(&client, &server);
                }
            }
        })?;
        Ok(proxy)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens to connections, those that are open included.
    pub(crate) fn set(&self, traffic: Traffic) {
        self.traffic.store(traffic as u8, Ordering::SeqCst);
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that is closed already is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn keep(open: &Mutex<Vec<TcpStream>>, stream: &TcpStream) {
    if let Ok(copy) = stream.try_clone() {
        open.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }
}

/// Copies in both directions until either side ends.
fn join(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            thread::spawn(move || pump(from, to));
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { break };
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
