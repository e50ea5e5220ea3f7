//! An object being read: a thread fetches range after range, of the version that was there at the beginning.

use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::super::{Host, StoreError};
use super::client::Client;
use super::config::S3Config;
use super::{no_thread, run_beside, wait_for};

/// An object of a bucket being read.
pub(super) struct S3Reader {
    config: Arc<S3Config>,
    host: Arc<dyn Host>,
    ranges: Receiver<Result<Vec<u8>, StoreError>>,
    current: io::Cursor<Vec<u8>>,
    left: u64,
}

impl S3Reader {
    pub(super) fn open(
        client: &Arc<Client>,
        config: &Arc<S3Config>,
        name: &str,
        host: &Arc<dyn Host>,
    ) -> Result<Self, StoreError> {
        let (asked, of) = (Arc::clone(client), name.to_owned());
        let found = run_beside(&**host, config, move || asked.head(&of))?;
        let (size, etag) = found.ok_or_else(|| StoreError::Missing { name: name.to_owned() })?;
        // One range waits, one is being fetched, one is being read.
        let (send, ranges) = bounded(1);
        let (client, name) = (Arc::clone(client), name.to_owned());
        let work = move || {
            let mut from = 0;
            while from < size {
                let to = (from + RANGE_BYTES).min(size);
                let range = client.get(&name, &etag, from, to);
                let failed = range.is_err();
                // Nobody listens any more when the reader has been dropped.
                if send.send(range).is_err() || failed {
                    break;
                }
                from = to;
            }
        };
        host.spawn("dbmazz s3", Box::new(work)).map_err(|problem| no_thread(config, &problem))?;
        let (config, host) = (Arc::clone(config), Arc::clone(host));
        Ok(Self { config, host, ranges, current: io::Cursor::default(), left: size })
    }
}

impl Read for S3Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.current.read(buffer)?;
            if length > 0 || buffer.is_empty() || self.left == 0 {
                return Ok(length);
            }
            let range = wait_for(&*self.host, &self.config, &self.ranges)??;
            self.left = self.left.saturating_sub(range.len() as u64);
            self.current = io::Cursor::new(range);
        }
    }
}

const RANGE_BYTES: u64 = 4 << 20;
