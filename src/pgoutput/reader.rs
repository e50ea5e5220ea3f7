//! A cursor over one message.

use super::error::ParseError;

/// What is left of a message. Every read is checked and borrows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn left(&self) -> &'a [u8] {
        self.rest
    }

    /// The message must end here.
    pub(super) const fn end(&self) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ParseError::TrailingBytes(self.rest.len())) }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, ParseError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, ParseError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, ParseError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A count of columns: an `int16` that is not negative.
    pub(super) fn count(&mut self) -> Result<u16, ParseError> {
        let count = i16::from_be_bytes(self.array()?);
        u16::try_from(count).map_err(|_| ParseError::NegativeLength(i32::from(count)))
    }

    /// A length: an `int32` that is not negative.
    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, ParseError> {
        let length = self.i32()?;
        usize::try_from(length).map_err(|_| ParseError::NegativeLength(length))
    }

    /// A value preceded by its length.
    #[inline]
    pub(super) fn counted(&mut self) -> Result<&'a [u8], ParseError> {
        let length = self.length()?;
        self.take(length)
    }

    /// A name that ends with a zero byte.
    pub(super) fn name(&mut self) -> Result<&'a str, ParseError> {
        simdutf8::basic::from_utf8(self.name_in_any_encoding()?).map_err(|_| ParseError::NameNotUtf8)
    }

    /// The same for a name that nobody reads.
    pub(super) fn name_in_any_encoding(&mut self) -> Result<&'a [u8], ParseError> {
        let end = memchr::memchr(0, self.rest).ok_or(ParseError::UnterminatedName)?;
        let name = self.take(end)?;
        self.u8()?;
        Ok(name)
    }

    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(ParseError::Truncated { wanted: bytes, left: self.rest.len() })?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(ParseError::Truncated { wanted: N, left: self.rest.len() })?;
        self.rest = rest;
        Ok(*taken)
    }
}
