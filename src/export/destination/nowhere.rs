//! A destination that only counts what it is given: for estimates.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Destination, Existing, Object, ObjectWriter, StoreError};

/// Keeps nothing.
#[derive(Debug, Default)]
pub struct Nowhere {
    bytes: Arc<AtomicU64>,
}

impl Nowhere {
    /// How many bytes all objects together would have.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

struct NoObject(Arc<AtomicU64>);

impl Write for NoObject {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectWriter for NoObject {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }

    fn abort(self: Box<Self>) {}
}

impl Destination for Nowhere {
    fn create(&self, _: &str, _: Existing) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(NoObject(Arc::clone(&self.bytes))))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Err(StoreError::Missing { name: name.to_owned() })
    }

    fn size(&self, _: &str) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    fn list(&self, _: &str) -> Result<Vec<Object>, StoreError> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove_unfinished(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}
