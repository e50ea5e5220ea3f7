//! A bucket of S3, or of anything that speaks its protocol.
//!
//! Signing is a crate's, requests are plain HTTP. A request that may succeed when repeated is repeated, with longer pauses
//! each time, until [`S3Config::retry_timeout`] is over; everything else is an error at once, which says what the server
//! said and never a key.
//!
//! ```text
//! write ─► part ─► rendezvous ─► upload threads ─► UploadPart …  ─► CompleteMultipartUpload
//! read  ◄─ bounded channel ◄─ download thread ◄─ GET, range by range, of one version of the object
//! ```
//!
//! The thread that uses the destination waits on channels only, in short pieces, and breathes between them ([`Host`]).

mod client;
mod config;
mod download;
mod upload;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::{Destination, Existing, Host, Object, ObjectWriter, StoreError, check_name};
use client::Client;
pub use config::{S3Config, validate_mapping_options, validate_server_options};
pub use upload::abort_all_unfinished;

/// Objects of a bucket whose names begin with a prefix.
pub struct S3 {
    config: Arc<S3Config>,
    client: Arc<Client>,
    host: Arc<dyn Host>,
}

impl S3 {
    /// The objects below `prefix`, which is empty or ends with `/`. Nobody is asked anything yet.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(
        config: S3Config,
        bucket: &str,
        prefix: &str,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let config = Arc::new(S3Config { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..config });
        let client = Arc::new(Client::new(&config)?);
        Ok(Self { config, client, host })
    }

    /// Does something in another thread.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Client) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let client = Arc::clone(&self.client);
        run_beside(&*self.host, &self.config, move || work(&client))
    }
}

impl Destination for S3 {
    fn create(&self, name: &str, existing: Existing) -> Result<Box<dyn ObjectWriter>, StoreError> {
        check_name(name)?;
        let writer = upload::S3Writer::new(&self.config, name, existing, Arc::clone(&self.host))?;
        Ok(Box::new(writer))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        check_name(name)?;
        let reader = download::S3Reader::open(&self.client, &self.config, name, &self.host)?;
        Ok(Box::new(reader))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.ask(move |client| client.size(&name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(move |client| client.list(&prefix))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.ask(move |client| client.delete(&name))
    }

    fn remove_unfinished(&self) -> Result<(), StoreError> {
        self.ask(|client| {
            for (key, id) in client.unfinished()? {
                client.abort_upload(&key, &id)?;
            }
            Ok(())
        })
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

/// Runs `work` in a thread, and breathes until it is done.
fn run_beside<T: Send + 'static>(
    host: &dyn Host,
    config: &S3Config,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (send, receive) = bounded(1);
    let work = move || {
        // Nobody listens any more when the waiting thread has unwound.
        let _ = send.send(work());
    };
    host.spawn("dbmazz s3", Box::new(work)).map_err(|problem| no_thread(config, &problem))?;
    wait_for(host, config, &receive)?
}

/// Takes from a channel, and breathes meanwhile.
fn wait_for<T>(host: &dyn Host, config: &S3Config, channel: &Receiver<T>) -> Result<T, StoreError> {
    loop {
        match channel.recv_timeout(BREATH) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => host.breathe(),
            Err(RecvTimeoutError::Disconnected) => {
                let reason = "a thread has ended unexpectedly".to_owned();
                return Err(StoreError::Unreachable { endpoint: config.endpoint.clone(), reason });
            }
        }
    }
}

fn no_thread(config: &S3Config, problem: &std::io::Error) -> StoreError {
    let reason = format!("could not start a thread: {problem}");
    StoreError::Unreachable { endpoint: config.endpoint.clone(), reason }
}

/// The longest wait without a breath.
const BREATH: Duration = Duration::from_millis(20);
