//! Values that are stored outside come back in: a chunk is read as if they had been in it all along.
//!
//! Memory does not grow with the values: a blob goes through piece by piece, and is compared with the reference on its way.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::checksum::{Checksum, Digesting};
use super::chunk::{Reference, blob_name, looks_like_reference};
use super::codec::{Compression, Decoder};
use super::destination::Destination;
use super::rows::{Field, Fields};

/// No reference is longer: prefix, digest, colon, and a number of 64 bits.
pub const MAX_REFERENCE_BYTES: usize = 12 + 64 + 1 + 20;

/// The reference that a field has in place of its value.
///
/// # Errors
/// Those of the reader; `InvalidData` when it begins like a reference and is none.
pub fn reference_in(value: &[u8]) -> io::Result<Option<Reference>> {
    if !looks_like_reference(value) {
        return Ok(None);
    }
    let malformed = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
    let text = str::from_utf8(value).map_err(malformed_utf8)?;
    text.parse().map(Some).map_err(malformed)
}

fn malformed_utf8(_: std::str::Utf8Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, super::chunk::MalformedReference)
}

/// A blob being read, before compression; its end is an error when it is not what the reference says.
pub struct Blob {
    content: Digesting<Decoder<Box<dyn Read + Send>>>,
    sha256: String,
    /// None when nobody has said.
    bytes: Option<u64>,
    /// Set when the end has been compared.
    is_compared: bool,
}

impl Blob {
    /// Opens the blob that a reference names.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(
        store: &dyn Destination,
        reference: &Reference,
        compression: Compression,
    ) -> io::Result<Self> {
        let blob = Self::of_any_size(store, &reference.sha256, compression)?;
        Ok(Self { bytes: Some(reference.bytes), ..blob })
    }

    /// Opens a blob by its hash alone.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of_any_size(store: &dyn Destination, sha256: &str, compression: Compression) -> io::Result<Self> {
        let file = store.open(&blob_name(sha256, compression))?;
        let content = Digesting::new(compression.decoder(file)?, Checksum::Sha256);
        Ok(Self { content, sha256: sha256.to_owned(), bytes: None, is_compared: false })
    }

    fn compare(&mut self) -> io::Result<()> {
        if self.is_compared {
            return Ok(());
        }
        self.is_compared = true;
        let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let (name, has) = (&self.sha256, Digesting::bytes(&self.content));
        if let Some(should) = self.bytes.filter(|bytes| *bytes != has) {
            return wrong(format!("blob {name} has {has} bytes instead of {should}"));
        }
        if self.content.digest() != *name {
            return wrong(format!("blob {name} has other content than its name says"));
        }
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A longer blob than the reference says is noticed at its next read, not by the length of the value.
        let length = self.content.read(buffer)?;
        if length == 0 && !buffer.is_empty() {
            self.compare()?;
        }
        Ok(length)
    }
}

/// A binary chunk with the values of its blobs in place.
pub struct Inlined<R> {
    fields: Fields<R>,
    store: Arc<dyn Destination>,
    compression: Compression,
    /// Whether values of the column may be outside, by its number.
    external: Vec<bool>,
    column: usize,
    /// Bytes made here that are to be given out next.
    ready: Cursor<Vec<u8>>,
    then: Then,
}

/// What comes when `ready` has been given out.
enum Then {
    Tuple,
    Field,
    /// So many bytes of the chunk, and another field.
    Value(u64),
    /// So many bytes of a blob, and another field.
    Blob(Box<Blob>, u64),
    End,
}

impl<R: Read> Inlined<R> {
    /// Around the bytes of a chunk, before compression. `external` says for each column whether its values may be outside.
    ///
    /// # Errors
    /// When the chunk is not in the binary format.
    pub fn new(
        chunk: R,
        external: Vec<bool>,
        store: Arc<dyn Destination>,
        compression: Compression,
    ) -> io::Result<Self> {
        let fields = Fields::new(chunk)?;
        let ready = Cursor::new(super::chunk::BINARY_HEADER.to_vec());
        Ok(Self { fields, store, compression, external, column: 0, ready, then: Then::Tuple })
    }

    fn give(&mut self, bytes: &[u8], then: Then) {
        let ready = self.ready.get_mut();
        ready.clear();
        ready.extend_from_slice(bytes);
        self.ready.set_position(0);
        self.then = then;
    }

    fn next_tuple(&mut self) -> io::Result<()> {
        self.column = 0;
        match self.fields.next_tuple()? {
            None => self.give(super::chunk::BINARY_TRAILER, Then::End),
            Some(count) => self.give(&count.to_be_bytes(), Then::Field),
        }
        Ok(())
    }

    fn next_field(&mut self) -> io::Result<()> {
        let Some(field) = self.fields.next_field()? else {
            self.then = Then::Tuple;
            return Ok(());
        };
        let is_external = self.external.get(self.column).copied().unwrap_or_default();
        self.column += 1;
        if !is_external {
            let length = field.bytes.map_or(-1, u32::cast_signed);
            self.give(&length.to_be_bytes(), Then::Value(field.bytes.unwrap_or_default().into()));
            return Ok(());
        }
        self.give_external(field)
    }

    fn give_external(&mut self, field: Field) -> io::Result<()> {
        let length = field.bytes.map_or(-1, u32::cast_signed).to_be_bytes();
        let Some(value) = self.fields.read_short(field, MAX_REFERENCE_BYTES)? else {
            self.give(&length, Then::Value(field.bytes.unwrap_or_default().into()));
            return Ok(());
        };
        let Some(reference) = reference_in(&value)? else {
            self.give(&[&length[..], &value].concat(), Then::Field);
            return Ok(());
        };
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidData, "a blob is too long for a value");
        let length = i32::try_from(reference.bytes).map_err(too_long)?;
        let blob = Blob::open(&*self.store, &reference, self.compression)?;
        self.give(&length.to_be_bytes(), Then::Blob(Box::new(blob), reference.bytes));
        Ok(())
    }
}

impl<R: Read> Read for Inlined<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let given = self.ready.read(buffer)?;
            if given > 0 {
                return Ok(given);
            }
            match &mut self.then {
                Then::End => return Ok(0),
                Then::Tuple => self.next_tuple()?,
                Then::Field | Then::Value(0) => self.next_field()?,
                Then::Value(left) => return pass(self.fields.bytes(), left, buffer),
                Then::Blob(blob, 0) => {
                    // There must be nothing more, and the digest must be right.
                    if blob.read(&mut [0])? != 0 {
                        blob.compare()?;
                    }
                    self.then = Then::Field;
                }
                Then::Blob(blob, left) => {
                    return pass(blob, left, buffer);
                }
            }
        }
    }
}

/// Reads at most `left` bytes, which it counts; an end before that is an error.
fn pass(from: &mut impl Read, left: &mut u64, buffer: &mut [u8]) -> io::Result<usize> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    let Some(room) = buffer.get_mut(..most) else { return Ok(0) };
    match from.read(room)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        given => {
            *left -= given as u64;
            Ok(given)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::destination::{Existing, Local};
    use super::super::rows::tests::binary_file;
    use super::*;

    struct Scratch(std::path::PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> (Scratch, Local) {
        let path = std::env::temp_dir().join(format!("dbmazz_blob_{name}_{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        (Scratch(path.clone()), Local::new(&path))
    }

    fn put(store: &Local, value: &[u8]) -> Reference {
        let mut hasher = Checksum::Sha256.hasher();
        hasher.update(value);
        let reference = Reference { sha256: hasher.finish(), bytes: value.len() as u64 };
        write(store, &reference, value);
        reference
    }

    fn write(store: &Local, reference: &Reference, value: &[u8]) {
        let name = blob_name(&reference.sha256, Compression::Zstd);
        let mut encoder =
            Compression::Zstd.encoder(store.create(&name, Existing::Replace).unwrap(), None).unwrap();
        encoder.write_all(value).unwrap();
        encoder.finish().unwrap().finish().unwrap();
    }

    fn inlined(store: &Local, chunk: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        let store = Arc::new(store.clone());
        let mut inlined = Inlined::new(chunk, vec![false, true], store, Compression::Zstd)?;
        inlined.read_to_end(&mut read)?;
        Ok(read)
    }

    #[test]
    fn chunk_reads_as_if_its_blobs_were_inside() {
        let (_scratch, store) = scratch("inside");
        let value: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let text = put(&store, &value).to_string();
        let nothing = put(&store, b"").to_string();
        let reference = Some(text.as_bytes());
        let outside = binary_file(&[
            &[Some(b"1"), reference],
            &[reference, Some(b"dbmazz")],
            &[None, None],
            &[Some(b"2"), Some(nothing.as_bytes())],
        ]);
        let inside = binary_file(&[
            &[Some(b"1"), Some(&value)],
            &[reference, Some(b"dbmazz")],
            &[None, None],
            &[Some(b"2"), Some(b"")],
        ]);
        assert_eq!(inlined(&store, &outside).unwrap(), inside);
    }

    #[test]
    fn blob_that_is_not_what_its_name_says_is_an_error() {
        let (_scratch, store) = scratch("wrong");
        let reference = put(&store, &[7; 1000]);
        let text = reference.to_string();
        let chunk = binary_file(&[&[None, Some(text.as_bytes())]]);
        assert!(inlined(&store, &chunk).is_ok());
        let mut other = [7; 1000];
        other[500] ^= 1;
        for wrong in [&other[..], &other[..999], &[[7; 1000], [7; 1000]].concat()] {
            write(&store, &reference, wrong);
            assert!(inlined(&store, &chunk).is_err());
        }
        store.remove(&blob_name(&reference.sha256, Compression::Zstd)).unwrap();
        assert!(inlined(&store, &chunk).unwrap_err().to_string().contains("does not exist"));
        let malformed = binary_file(&[&[None, Some(b"dbmazz-blob:zz")]]);
        assert_eq!(inlined(&store, &malformed).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
