//! An object being written: one request when it is small, parts in several threads when it is not.
//!
//! Memory is bounded: one part is filled, and one is in each thread. A part is handed over when a thread is free for it,
//! which is what slows the writer down. Parts grow with the object, so that 10,000 of them, the most that S3 takes, are enough
//! for the largest that it takes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};

use super::super::{Existing, Host, ObjectWriter, StoreError};
use super::client::Client;
use super::config::S3Config;
use super::{BREATH, no_thread, run_beside, wait_for};

/// An object of a bucket being written.
pub(super) struct S3Writer {
    config: Arc<S3Config>,
    /// Its own: what is in flight ends with it.
    client: Arc<Client>,
    host: Arc<dyn Host>,
    name: String,
    existing: Existing,
    buffer: Vec<u8>,
    written: u64,
    upload: Option<Upload>,
}

/// An upload in parts.
struct Upload {
    id: String,
    parts: Option<Sender<Part>>,
    results: Receiver<Result<Sent, StoreError>>,
    threads: Vec<JoinHandle<()>>,
    sent: u16,
    etags: BTreeMap<u16, String>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

/// A part that has arrived: its number, what the server calls it, and the buffer.
type Sent = (u16, String, Vec<u8>);

struct Part {
    number: u16,
    bytes: Vec<u8>,
}

impl S3Writer {
    pub(super) fn new(
        config: &Arc<S3Config>,
        name: &str,
        existing: Existing,
        host: Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            config: Arc::clone(config),
            client: Arc::new(Client::new(config)?),
            host,
            name: name.to_owned(),
            existing,
            buffer: Vec::new(),
            written: 0,
            upload: None,
        })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if self.upload.is_some() {
            return Ok(());
        }
        let (client, name) = (Arc::clone(&self.client), self.name.clone());
        let config = Arc::clone(&self.config);
        let id = run_beside(&*self.host, &self.config, move || {
            let id = client.begin_upload(&name)?;
            // Written down before anybody could be interrupted.
            remember(&config, &client, &name, &id);
            Ok(id)
        })?;
        let (parts, take) = bounded::<Part>(0);
        let (tell, results) = unbounded();
        let mut upload = Upload {
            id,
            parts: Some(parts),
            results,
            threads: vec![],
            sent: 0,
            etags: BTreeMap::new(),
            spare: vec![],
        };
        for _ in 0..THREADS {
            let (client, name, id) = (Arc::clone(&self.client), self.name.clone(), upload.id.clone());
            let (take, tell) = (take.clone(), tell.clone());
            let work = move || {
                for part in take {
                    let result = client.put_part(&name, &id, part.number, &part.bytes);
                    let failed = result.is_err();
                    let _ = tell.send(result.map(|etag| (part.number, etag, part.bytes)));
                    if failed {
                        break;
                    }
                }
            };
            let thread = self.host.spawn("dbmazz s3", Box::new(work));
            upload.threads.push(thread.map_err(|problem| no_thread(&self.config, &problem))?);
        }
        self.upload = Some(upload);
        Ok(())
    }

    /// Hands the buffer over as a part.
    fn send_part(&mut self) -> Result<(), StoreError> {
        self.begin()?;
        let bytes = std::mem::take(&mut self.buffer);
        let host = Arc::clone(&self.host);
        let Some(upload) = &mut self.upload else { return Ok(()) };
        if upload.sent == MOST_PARTS {
            return Err(StoreError::TooLarge { name: self.name.clone() });
        }
        upload.sent += 1;
        let mut part = Part { number: upload.sent, bytes };
        loop {
            upload.collect()?;
            let Some(parts) = &upload.parts else { return Ok(()) };
            match parts.send_timeout(part, BREATH) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(back)) => {
                    part = back;
                    host.breathe();
                }
                Err(SendTimeoutError::Disconnected(_)) => {
                    upload.collect()?;
                    let reason = "a thread has ended unexpectedly".to_owned();
                    return Err(StoreError::Unreachable { endpoint: self.config.endpoint.clone(), reason });
                }
            }
        }
        self.buffer = upload.spare.pop().unwrap_or_default();
        Ok(())
    }

    /// How many bytes the part has that is being filled: twice as many after each thousand.
    fn part_bytes(&self) -> usize {
        let sent = self.upload.as_ref().map_or(0, |upload| upload.sent);
        FIRST_PART_BYTES << (sent / PARTS_OF_A_SIZE)
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, StoreError> {
        if self.buffer.len() >= self.part_bytes() {
            self.send_part()?;
        }
        let room = self.part_bytes() - self.buffer.len();
        let some = bytes.get(..room).unwrap_or(bytes);
        // Small objects take no more than they need; large ones a whole part.
        if self.upload.is_some() && self.buffer.capacity() < self.part_bytes() {
            let more = self.part_bytes() - self.buffer.len();
            self.buffer.try_reserve_exact(more).map_err(|_| StoreError::OutOfMemory { bytes: more })?;
        }
        self.buffer.try_reserve(some.len()).map_err(|_| StoreError::OutOfMemory { bytes: some.len() })?;
        self.buffer.extend_from_slice(some);
        self.written += some.len() as u64;
        Ok(some.len())
    }

    fn finish_parts(&mut self) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        upload.parts = None;
        while upload.etags.len() < usize::from(upload.sent) {
            let result = wait_for(&*self.host, &self.config, &upload.results)?;
            upload.note(result)?;
        }
        let etags: Vec<String> = upload.etags.values().cloned().collect();
        let (client, name, id) = (Arc::clone(&self.client), self.name.clone(), upload.id.clone());
        let (written, existing) = (self.written, self.existing);
        run_beside(&*self.host, &self.config, move || {
            client.complete_upload(&name, &id, &etags, written, existing)?;
            forget(&id);
            Ok(())
        })?;
        self.upload = None;
        Ok(())
    }
}

impl Upload {
    fn collect(&mut self) -> Result<(), StoreError> {
        while let Ok(result) = self.results.try_recv() {
            self.note(result)?;
        }
        Ok(())
    }

    fn note(&mut self, result: Result<Sent, StoreError>) -> Result<(), StoreError> {
        let (number, etag, mut buffer) = result?;
        self.etags.insert(number, etag);
        buffer.clear();
        if self.spare.is_empty() {
            self.spare.push(buffer);
        }
        Ok(())
    }
}

impl Write for S3Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.write_some(bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for S3Writer {
    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.upload.is_some() {
            return self.finish_parts();
        }
        let (client, name, existing) = (Arc::clone(&self.client), self.name.clone(), self.existing);
        let bytes = std::mem::take(&mut self.buffer);
        run_beside(&*self.host, &self.config, move || client.put(&name, &bytes, existing))
    }

    fn abort(self: Box<Self>) {}
}

impl Drop for S3Writer {
    /// The last requests are made in this thread and give up soon: a process may be about to end.
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        self.client.stop();
        upload.parts = None;
        for thread in upload.threads.drain(..) {
            let _ = thread.join();
        }
        let aborted = Client::for_the_end(&self.config)
            .and_then(|client| client.abort_upload(&client.key(&self.name), &upload.id));
        // What could not be aborted stays in the list, for the end of the process.
        if aborted.is_ok() {
            forget(&upload.id);
        }
    }
}

/// An upload that has been begun by this process, and neither completed nor aborted.
struct Unfinished {
    config: Arc<S3Config>,
    /// Whose requests the parts are.
    client: Arc<Client>,
    key: String,
    id: String,
}

static UNFINISHED: Mutex<Vec<Unfinished>> = Mutex::new(Vec::new());

fn remember(config: &Arc<S3Config>, client: &Arc<Client>, name: &str, id: &str) {
    let (config, client, key) = (Arc::clone(config), Arc::clone(client), client.key(name));
    let upload = Unfinished { config, client, key, id: id.to_owned() };
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(upload);
}

fn forget(id: &str) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|upload| upload.id != id);
}

/// Aborts the uploads that this process has begun and not ended, each within seconds. For the end of a process that does not
/// unwind.
pub fn abort_all_unfinished() {
    let uploads = std::mem::take(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner));
    for upload in uploads {
        upload.client.stop();
        if let Ok(client) = Client::for_the_end(&upload.config) {
            let _ = client.abort_upload(&upload.key, &upload.id);
        }
    }
}

const THREADS: usize = 2;
const FIRST_PART_BYTES: usize = 8 << 20;
const PARTS_OF_A_SIZE: u16 = 1_000;
const MOST_PARTS: u16 = 10_000;
