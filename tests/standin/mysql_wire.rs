//! Error packets with StarRocks' own codes.
//!
//! The protocol library sends only the codes that MySQL has. So the next error is put down here, and the error packet that
//! passes is replaced by one that says it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

use crate::server::lock;
use crate::sql_error::SqlError;

/// The error that the next error packet has to say.
#[derive(Clone, Default)]
pub(crate) struct NextError(Arc<Mutex<Option<SqlError>>>);

impl NextError {
    /// Puts an error down.
    pub(crate) fn set(&self, error: SqlError) {
        *lock(&self.0) = Some(error);
    }

    fn take(&self) -> Option<SqlError> {
        lock(&self.0).take()
    }
}

/// The socket, with error packets replaced.
pub(crate) struct ErrorPackets {
    socket: OwnedWriteHalf,
    next: NextError,
    /// Bytes that are accepted and not yet written.
    pending: Vec<u8>,
}

const ERROR: u8 = 0xFF;

impl ErrorPackets {
    /// Wraps the writing half of a connection.
    pub(crate) fn new(socket: OwnedWriteHalf, next: NextError) -> Self {
        Self { socket, next, pending: Vec::new() }
    }

    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match Pin::new(&mut self.socket).poll_write(context, &self.pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => drop(self.pending.drain(..count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The error packet with the sequence number of the one that it replaces.
fn packet(sequence: u8, error: &SqlError) -> Vec<u8> {
    let mut payload = vec![ERROR];
    payload.extend(error.code.to_le_bytes());
    payload.extend(b"#HY000");
    payload.extend(error.message.as_bytes().iter().take(60_000));
    let [a, b, c, ..] = (payload.len() as u64).to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend(payload);
    packet
}

impl AsyncWrite for ErrorPackets {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Kept until the flush, or until enough has come together.
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > 1 << 16
            && let Poll::Ready(Err(error)) = self.poll_pending(context)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// The library writes each packet as its header and its payload.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let is_error = |payload: &IoSlice<'_>| payload.first() == Some(&ERROR);
        let next = if slices.last().is_some_and(is_error) { self.next.take() } else { None };
        if let (Some(header), Some(error)) = (slices.first(), next) {
            let replaced = packet(header.get(3).copied().unwrap_or(1), &error);
            self.pending.extend(replaced);
            return Poll::Ready(Ok(length));
        }
        for slice in slices {
            self.pending.extend_from_slice(slice);
        }
        if self.pending.len() > 1 << 16
            && let Poll::Ready(Err(error)) = self.poll_pending(context)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_pending(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.socket).poll_flush(context),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_pending(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.socket).poll_shutdown(context),
            other => other,
        }
    }
}
