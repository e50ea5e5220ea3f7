//! The rows inside a file of COPY, without their types: how many there are, and where each field begins.
//!
//! A binary file is a header, tuples of counted fields, and a tuple of -1 fields; nothing may follow. What is not of this form is
//! an error of kind `InvalidData`, what ends too early one of kind `UnexpectedEof`.

use std::io::{self, BufReader, Read};

use super::chunk::Format;

/// Counts the rows of a file, which is read to its end.
///
/// # Errors
/// Those of the reader, and when the file is not of the format.
pub fn count_rows(file: impl Read, format: Format) -> io::Result<u64> {
    match format {
        Format::Binary => {
            let mut fields = Fields::new(file)?;
            while fields.next_tuple()?.is_some() {
                while let Some(field) = fields.next_field()? {
                    fields.skip(field)?;
                }
            }
            Ok(fields.tuples())
        }
        Format::Csv => count_csv_rows(file),
    }
}

/// A row ends with a line, but for lines inside quotes.
fn count_csv_rows(mut file: impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut rows, mut quoted, mut ended) = (0, false, true);
    loop {
        let bytes = match file.read(&mut buffer)? {
            0 => break,
            length => buffer.get(..length).unwrap_or_default(),
        };
        for at in memchr::memchr2_iter(b'"', b'\n', bytes) {
            match bytes.get(at) {
                Some(b'"') => quoted = !quoted,
                _ => rows += u64::from(!quoted),
            }
        }
        ended = bytes.last() == Some(&b'\n') && !quoted;
    }
    if ended {
        Ok(rows)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last row has no end"))
    }
}

/// A binary file of COPY, field by field.
pub struct Fields<R> {
    file: BufReader<R>,
    fields_left: u16,
    tuples: u64,
}

/// A field of a tuple. Its bytes are next in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// How many bytes it has; none for NULL.
    pub bytes: Option<u32>,
}

impl<R: Read> Fields<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Those of the reader, and when the file is not in the binary format.
    pub fn new(file: R) -> io::Result<Self> {
        let mut fields =
            Self { file: BufReader::with_capacity(BUFFER_BYTES, file), fields_left: 0, tuples: 0 };
        if &fields.array::<11>()? != SIGNATURE {
            return Err(invalid("it does not begin as a binary file of COPY does"));
        }
        let flags = u32::from_be_bytes(fields.array()?);
        let extension = u32::from_be_bytes(fields.array()?);
        if flags != 0 || extension != 0 {
            return Err(invalid("its header has flags or an extension that are not known"));
        }
        Ok(fields)
    }

    /// Goes on to the next tuple; the number of its fields, or none at the end of the file.
    ///
    /// # Errors
    /// Those of the reader; when there is something behind the end; when fields of the last tuple have been left out.
    pub fn next_tuple(&mut self) -> io::Result<Option<u16>> {
        debug_assert_eq!(self.fields_left, 0, "all fields of a tuple are read");
        match i16::from_be_bytes(self.array()?) {
            -1 => match self.file.read(&mut [0])? {
                0 => Ok(None),
                _ => Err(invalid("it goes on behind its end")),
            },
            fields => {
                self.fields_left =
                    u16::try_from(fields).map_err(|_| invalid("a row has less than no field"))?;
                self.tuples += 1;
                Ok(Some(self.fields_left))
            }
        }
    }

    /// Goes on to the next field of the tuple; none when it has no more.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn next_field(&mut self) -> io::Result<Option<Field>> {
        let Some(left) = self.fields_left.checked_sub(1) else { return Ok(None) };
        self.fields_left = left;
        let bytes = match i32::from_be_bytes(self.array()?) {
            -1 => None,
            bytes => Some(u32::try_from(bytes).map_err(|_| invalid("a field has less than no bytes"))?),
        };
        Ok(Some(Field { bytes }))
    }

    /// Passes over the bytes of a field.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn skip(&mut self, field: Field) -> io::Result<()> {
        let bytes = u64::from(field.bytes.unwrap_or_default());
        // Within the buffer in most cases: no copy.
        let buffered = self.file.buffer().len();
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= buffered => io::BufRead::consume(&mut self.file, bytes),
            _ => {
                let skipped = io::copy(&mut self.file.by_ref().take(bytes), &mut io::sink())?;
                if skipped < bytes {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(())
    }

    /// Reads the bytes of a field that has at most `most`; none when it has more, or is NULL.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read_short(&mut self, field: Field, most: usize) -> io::Result<Option<Vec<u8>>> {
        let bytes = field.bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes.filter(|bytes| *bytes <= most) else { return Ok(None) };
        let mut value = vec![0; bytes];
        self.file.read_exact(&mut value)?;
        Ok(Some(value))
    }

    /// The file, at the bytes of the field that comes next.
    pub(super) fn bytes(&mut self) -> &mut BufReader<R> {
        &mut self.file
    }

    /// Tuples so far.
    pub fn tuples(&self) -> u64 {
        self.tuples
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
pub(super) mod tests {
    use super::super::chunk::{BINARY_HEADER, BINARY_TRAILER};
    use super::*;

    /// A binary file of these rows.
    pub(in crate::export) fn binary_file(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut file = BINARY_HEADER.to_vec();
        for row in rows {
            file.extend((row.len() as i16).to_be_bytes());
            for field in *row {
                file.extend(field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
                file.extend(field.unwrap_or_default());
            }
        }
        file.extend(BINARY_TRAILER);
        file
    }

    #[test]
    fn rows_are_counted_in_both_formats() {
        let long = vec![b'x'; 3 * BUFFER_BYTES];
        let file = binary_file(&[&[Some(b"1"), None], &[], &[Some(&long), Some(b"")]]);
        assert_eq!(count_rows(file.as_slice(), Format::Binary).unwrap(), 3);
        let csv = "1,\"a\nb \"\"q\"\"\n\"\n2,\n\n";
        assert_eq!(count_rows(csv.as_bytes(), Format::Csv).unwrap(), 3);
        assert_eq!(count_rows([].as_slice(), Format::Csv).unwrap(), 0);
        assert!(count_rows("1\n\"2\n".as_bytes(), Format::Csv).is_err());
    }

    #[test]
    fn every_cut_and_addition_is_an_error() {
        let mut file = binary_file(&[&[Some(b"abc"), None], &[Some(b"d"), Some(b"e")]]);
        for length in 0..file.len() {
            assert!(count_rows(&file[..length], Format::Binary).is_err(), "cut to {length} bytes");
        }
        file.push(0);
        assert!(count_rows(file.as_slice(), Format::Binary).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = count_rows(bytes.as_slice(), Format::Binary);
            let mut file = BINARY_HEADER.to_vec();
            file.extend(&bytes);
            let _ = count_rows(file.as_slice(), Format::Binary);
            let _ = count_rows(bytes.as_slice(), Format::Csv);
        }
    }
}
