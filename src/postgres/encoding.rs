//! Databases whose encoding is not UTF8.
//!
//! Values are converted on the main thread, where the server's conversion functions may be called, by [`Conversion`]: those
//! of a tuple and those of pgoutput, which is told to leave them as they are. SQL_ASCII says nothing about its bytes: they go
//! on as they are, and the encoder refuses what is not UTF-8. Names must be ASCII wherever a conversion is
//! needed, and so are our own texts made.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt::Write as _;

use pgrx::pg_sys;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

/// `MAX_CONVERSION_GROWTH` of pg_wchar.h.
const GROWTH: usize = 4;

/// What is longer is too long for the target in any encoding; only this much of it is converted.
const MOST_BYTES: usize = 64 << 20;

fn database_encoding() -> i32 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

/// Whether texts of this database have to be converted.
pub(super) fn needs_conversion() -> bool {
    !matches!(database_encoding(), UTF8 | SQL_ASCII)
}

/// What `client_encoding` must be for pgoutput to write texts as they are: a conversion inside pgoutput that fails would
/// stop all tables.
pub(super) fn client_encoding() -> &'static CStr {
    // SAFETY: the answer is a constant of the server.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }
}

/// The name of the database's encoding.
pub(super) fn name() -> String {
    client_encoding().to_string_lossy().into_owned()
}

/// One of our own texts, in a form that this database can hold and show: what is not ASCII is escaped where the encoding
/// is another one.
pub(super) fn own_text(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || !needs_conversion() {
        return Cow::Borrowed(text);
    }
    let escape = |character: char| {
        if character.is_ascii() { character.to_string() } else { character.escape_unicode().to_string() }
    };
    Cow::Owned(text.replace('…', "...").chars().map(escape).collect())
}

/// JSON of ours in the same way: what is not ASCII can only be within strings, and is written as six letters there.
pub(super) fn own_json(text: &str) -> Cow<'_, str> {
    // Escaped twice: jsonb would look for the character in the database's encoding.
    if needs_conversion() { escaped(text, "\\\\u") } else { Cow::Borrowed(text) }
}

/// A key as it begins a line, for a table: JSON that people can read, and that [`key_of_text`] reads back.
pub(super) fn text_of_key(key: &[u8]) -> String {
    let text = format!("{}}}", String::from_utf8_lossy(key));
    if needs_conversion() { escaped(&text, "\\u").into_owned() } else { text }
}

/// The key of such a text.
pub(super) fn key_of_text(text: &str) -> Option<Box<[u8]>> {
    let text = text.strip_suffix('}')?;
    if !needs_conversion() {
        return Some(text.as_bytes().into());
    }
    let mut key = String::with_capacity(text.len());
    let mut units = Vec::new();
    let mut rest = text;
    while let Some((plain, tail)) = rest.split_once('\\') {
        let digits = tail.strip_prefix('u').and_then(|tail| tail.get(..4));
        let unit =
            digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).filter(|unit| *unit >= 0x80);
        if !plain.is_empty() || unit.is_none() {
            key.push_str(&String::from_utf16(&units).ok()?);
            units.clear();
            key.push_str(plain);
        }
        match unit {
            Some(unit) => {
                units.push(unit);
                rest = tail.get(5..)?;
            }
            // Another escape, which a line has too: of a quote, a backslash, a control character.
            None => {
                key.push('\\');
                let letter = tail.chars().next()?;
                key.push(letter);
                rest = tail.get(letter.len_utf8()..)?;
            }
        }
    }
    key.push_str(&String::from_utf16(&units).ok()?);
    key.push_str(rest);
    Some(key.into_bytes().into())
}

fn escaped<'a>(text: &'a str, escape: &str) -> Cow<'a, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{escape}{unit:04x}");
        }
    }
    Cow::Owned(out)
}

/// The server's function that turns texts of this database into UTF-8.
pub(super) struct Conversion {
    function: pg_sys::Oid,
    from: i32,
}

impl Conversion {
    /// The conversion of this database, inside a transaction; `Ok(None)` when none is needed.
    ///
    /// # Errors
    ///
    /// The server has no function for it.
    pub(super) fn of_database() -> Result<Option<Self>, NoConversion> {
        if !needs_conversion() {
            return Ok(None);
        }
        let from = database_encoding();
        // SAFETY: looks into the system caches.
        let function = unsafe { pg_sys::FindDefaultConversionProc(from, UTF8) };
        if function == pg_sys::InvalidOid { Err(NoConversion) } else { Ok(Some(Self { function, from })) }
    }

    /// The text in UTF-8, in the current memory context; none when it has a character that UTF-8 has not, or is not valid.
    pub(super) fn to_utf8<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        // All encodings of databases have ASCII as it is.
        if text.is_ascii() {
            return Some(text);
        }
        let source = text.get(..MOST_BYTES).unwrap_or(text);
        let room = source.len() * GROWTH + 2;
        // SAFETY: the function is that of the database's encoding. It reads `source` only and writes at most `GROWTH` bytes
        // for each one of it, and a zero behind. What is allocated here stays until the caller resets the context, which
        // is after the row, and so after `text` itself.
        unsafe {
            let flags = pg_sys::MCXT_ALLOC_HUGE as i32;
            let converted = pg_sys::palloc_extended(room, flags).cast::<u8>();
            let done = pg_sys::pg_do_encoding_conversion_buf(
                self.function,
                self.from,
                UTF8,
                source.as_ptr().cast_mut(),
                i32::try_from(source.len()).ok()?,
                converted,
                i32::try_from(room).ok()?,
                true,
            );
            let is_whole = usize::try_from(done).is_ok_and(|done| done == source.len());
            // Of a text that was cut the last character may be missing.
            if !is_whole && source.len() == text.len() {
                return None;
            }
            Some(CStr::from_ptr(converted.cast()).to_bytes())
        }
    }
}

/// There is no function that converts the database's encoding to UTF8.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoConversion;
