//! The body of a load, decompressed piece by piece, as a window in which rows are found.

use std::io::{self, Read};
use std::ops::Range;

use crate::load_headers::BodyShape;
use crate::ndjson::{self, Field, ScanError};
use crate::scanner::{Members, Scanner};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Compression {
    None,
    Lz4Frame,
    Gzip,
}

/// The window's first size: large enough that rows cut at its end do not matter, small enough for a core's cache.
const WINDOW_BYTES: usize = 256 << 10;

enum Source<'a> {
    /// The body is the window.
    Plain(&'a [u8]),
    /// The window is filled from a decompressor.
    Stream(Box<dyn Read + 'a>),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum ArrayPosition {
    Outside,
    First,
    AfterElement,
}

/// The rows of a body, one after another.
pub(crate) struct Body<'a> {
    source: Source<'a>,
    buffer: Vec<u8>,
    /// What of the window is filled and not yet read.
    unread: Range<usize>,
    /// Up to where the window is known to be UTF-8.
    checked: usize,
    at_end: bool,
    shape: BodyShape,
    position: ArrayPosition,
    decompressed: u64,
    scanner: Scanner,
}

impl<'a> Body<'a> {
    /// Opens a body. `buffer` is given back by [`Body::into_buffer`], so that the next load need not allocate.
    pub(crate) fn new(
        bytes: &'a [u8],
        compression: Compression,
        shape: BodyShape,
        mut buffer: Vec<u8>,
    ) -> Self {
        if buffer.len() < WINDOW_BYTES {
            buffer.resize(WINDOW_BYTES, 0);
        }
        let source = match compression {
            Compression::None => Source::Plain(bytes),
            Compression::Lz4Frame => Source::Stream(Box::new(lz4_flex::frame::FrameDecoder::new(bytes))),
            Compression::Gzip => Source::Stream(Box::new(flate2::read::MultiGzDecoder::new(bytes))),
        };
        let unread = 0..if compression == Compression::None { bytes.len() } else { 0 };
        let decompressed = unread.len() as u64;
        let at_end = compression == Compression::None;
        let position = ArrayPosition::Outside;
        let scanner = Scanner::default();
        Self { source, buffer, unread, checked: 0, at_end, shape, position, decompressed, scanner }
    }

    /// The bytes that ranges of fields point into.
    pub(crate) fn window(&self) -> &[u8] {
        window_of(&self.source, &self.buffer)
    }

    /// Bytes of the body without compression, as far as it was read.
    pub(crate) fn decompressed_bytes(&self) -> u64 {
        self.decompressed
    }

    /// The window's memory, for the next body.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Finds the next row: its place in the window, its members in `fields`. The error fails the whole load.
    #[inline]
    pub(crate) fn next_row(
        &mut self,
        fields: &mut Vec<Field>,
    ) -> Result<Option<(Range<usize>, Members)>, String> {
        loop {
            let Some(at) = self.row_start()? else { return Ok(None) };
            if self.checked < self.unread.end {
                self.check_utf8()?;
            }
            // Only what is known to be UTF-8 is scanned; a character cut at the end waits for the rest.
            let data = window_of(&self.source, &self.buffer).get(..self.checked).unwrap_or_default();
            match self.scanner.scan(data, at, fields) {
                Ok((end, members)) => {
                    self.unread.start = end;
                    if self.shape == BodyShape::Array {
                        self.position = ArrayPosition::AfterElement;
                    }
                    return Ok(Some((at..end, members)));
                }
                Err(ScanError::Malformed(message)) => return Err(message),
                Err(ScanError::Incomplete) if self.at_end => {
                    return Err("parse error: the body ends inside a row".into());
                }
                Err(ScanError::Incomplete) => self.fill()?,
            }
        }
    }

    /// Where the next row begins; `None` at the end of the body.
    fn row_start(&mut self) -> Result<Option<usize>, String> {
        loop {
            let Some((at, byte)) = self.next_byte()? else {
                return if self.position == ArrayPosition::Outside {
                    Ok(None)
                } else {
                    Err("parse error: the array is not closed".into())
                };
            };
            match (self.shape, self.position, byte) {
                (BodyShape::Objects, _, b'[') => {
                    return Err("The value is array type in json document stream, you can set strip_outer_array = true \
                                to parse each element of the array as individual rows, parse error"
                        .into());
                }
                (BodyShape::Objects, ..) => return Ok(Some(at)),
                (BodyShape::Array, ArrayPosition::Outside, b'[') => self.step(at, ArrayPosition::First),
                (BodyShape::Array, ArrayPosition::Outside, b'{') => {
                    return Err("The value should be array type in json document stream, parse error".into());
                }
                (BodyShape::Array, ArrayPosition::First | ArrayPosition::AfterElement, b']') => {
                    self.step(at, ArrayPosition::Outside);
                }
                (BodyShape::Array, ArrayPosition::First, _) => return Ok(Some(at)),
                (BodyShape::Array, ArrayPosition::AfterElement, b',') => {
                    self.unread.start = at + 1;
                    let next = self.next_byte()?.ok_or("parse error: the array is not closed")?;
                    return Ok(Some(next.0));
                }
                (BodyShape::Array, ..) => {
                    return Err(format!("parse error: illegal json started with [{}]", char::from(byte)));
                }
            }
        }
    }

    fn step(&mut self, at: usize, position: ArrayPosition) {
        self.unread.start = at + 1;
        self.position = position;
    }

    /// The next byte that is no white space.
    fn next_byte(&mut self) -> Result<Option<(usize, u8)>, String> {
        loop {
            let data = self.window().get(..self.unread.end).unwrap_or_default();
            let at = ndjson::skip_space(data, self.unread.start);
            if let Some(byte) = data.get(at) {
                return Ok(Some((at, *byte)));
            }
            self.unread.start = at;
            if self.at_end {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn check_utf8(&mut self) -> Result<(), String> {
        let fresh = self.window().get(self.checked..self.unread.end).unwrap_or_default();
        match simdutf8::compat::from_utf8(fresh) {
            Ok(_) => self.checked = self.unread.end,
            Err(error) if error.error_len().is_none() && !self.at_end => self.checked += error.valid_up_to(),
            Err(_) => return Err("parse error: The input is not valid UTF-8".into()),
        }
        Ok(())
    }

    /// Moves what is unread to the front and reads more behind it.
    fn fill(&mut self) -> Result<(), String> {
        let Source::Stream(stream) = &mut self.source else { return Ok(()) };
        self.buffer.copy_within(self.unread.clone(), 0);
        self.checked = self.checked.saturating_sub(self.unread.start);
        self.unread = 0..self.unread.len();
        if self.unread.end > self.buffer.len() / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        while self.unread.end < self.buffer.len() {
            let space = self.buffer.get_mut(self.unread.end..).unwrap_or_default();
            match stream.read(space) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(count) => {
                    self.unread.end += count;
                    self.decompressed += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("could not decompress the body: {error}, parse error")),
            }
        }
        Ok(())
    }
}

fn window_of<'w>(source: &'w Source<'_>, buffer: &'w [u8]) -> &'w [u8] {
    match source {
        Source::Plain(bytes) => bytes,
        Source::Stream(_) => buffer,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rows(bytes: &[u8], compression: Compression, shape: BodyShape) -> Result<Vec<String>, String> {
        let mut body = Body::new(bytes, compression, shape, Vec::new());
        let (mut fields, mut found) = (Vec::new(), Vec::new());
        while let Some((row, _)) = body.next_row(&mut fields)? {
            found.push(String::from_utf8(body.window()[row].to_vec()).unwrap());
        }
        Ok(found)
    }

    fn objects(text: &str) -> Result<Vec<String>, String> {
        rows(text.as_bytes(), Compression::None, BodyShape::Objects)
    }

    #[test]
    fn objects_need_no_newline_between_them() {
        assert_eq!(objects("{\"a\":1}{\"a\":2}\n\n {\"a\":3}\n").unwrap().len(), 3);
        assert_eq!(objects("  \n").unwrap().len(), 0);
    }

    #[test]
    fn array_needs_its_header_and_header_its_array() {
        let array = |text: &str| rows(text.as_bytes(), Compression::None, BodyShape::Array);
        assert_eq!(array("[{\"a\":1},\n{\"a\":2}]").unwrap().len(), 2);
        assert_eq!(array("[]").unwrap().len(), 0);
        assert!(objects("[{\"a\":1}]").unwrap_err().contains("strip_outer_array"));
        assert!(array("{\"a\":1}").unwrap_err().contains("should be array"));
        assert!(array("[{\"a\":1}").is_err());
        assert!(array("[{\"a\":1},").is_err());
        assert!(array("[{\"a\":1}{\"a\":1}]").is_err());
    }

    #[test]
    fn bad_bytes_fail_the_load() {
        assert!(objects("x").unwrap_err().contains("illegal json started with [x]"));
        assert!(objects("{\"a\":1} {\"a\":").unwrap_err().contains("parse error"));
        let bad_utf8 = b"{\"a\":\"\xff\"}";
        assert!(rows(bad_utf8, Compression::None, BodyShape::Objects).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn compressed_rows_survive_every_window_border() {
        let mut text = String::new();
        for id in 0..40_000 {
            text.push_str(&format!("{{\"id\":{id},\"note\":\"{}é😀\"}}\n", "x".repeat(id % 37)));
        }
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(text.as_bytes()).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let wanted: Vec<&str> = text.lines().collect();
        for (bytes, compression) in
            [(lz4.finish().unwrap(), Compression::Lz4Frame), (gzip.finish().unwrap(), Compression::Gzip)]
        {
            let found = rows(&bytes, compression, BodyShape::Objects).unwrap();
            assert!(found == wanted, "{compression:?}");
            assert!(rows(&bytes[..bytes.len() / 2], compression, BodyShape::Objects).is_err());
        }
    }

    #[test]
    fn row_larger_than_the_window_is_read() {
        let row = format!("{{\"a\":\"{}\"}}", "é".repeat(WINDOW_BYTES));
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(row.as_bytes()).unwrap();
        let found = rows(&lz4.finish().unwrap(), Compression::Lz4Frame, BodyShape::Objects).unwrap();
        assert_eq!(found, [row]);
    }
}
