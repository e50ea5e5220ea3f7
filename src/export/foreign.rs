//! Files at a destination that no export has written: what takes the place of an export removes none of them.
//!
//! A manifest says which files are the export's. Where there is none, an export is unfinished: then its files are known by
//! their names, which have little room for anybody else's.

use std::collections::HashSet;

use super::chunk::{Format, POST_DATA, PRE_DATA};
use super::codec::Compression;
use super::destination::{Destination, Object, StoreError};
use super::manifest::{Blobs, MANIFEST, Manifest, ManifestError};
use crate::options::Choice as _;

/// The first of the objects that is not an export's.
///
/// # Errors
/// When the manifest cannot be read.
pub fn first_foreign<'a>(
    store: &dyn Destination,
    objects: &'a [Object],
) -> Result<Option<&'a str>, StoreError> {
    let mut names = objects.iter().map(|object| object.name.as_str());
    if !objects.iter().any(|object| object.name == MANIFEST) {
        return Ok(names.find(|name| !is_name_of_export(name)));
    }
    Ok(match read(store)? {
        Ok(manifest) => {
            let files: HashSet<&str> = manifest.files().map(|file| file.file.as_str()).collect();
            let has_blobs = manifest.options.blobs == Blobs::External;
            names.find(|name| *name != MANIFEST && !files.contains(name) && !(has_blobs && is_blob(name)))
        }
        // Somebody else's file can have that name too.
        Err(ManifestError::Malformed(_)) => names.find(|name| !is_name_of_export(name)),
        Err(_) => names.find(|name| *name != MANIFEST && !is_name_of_export(name)),
    })
}

/// The manifest that is there.
fn read(store: &dyn Destination) -> Result<Result<Manifest, ManifestError>, StoreError> {
    let mut json = Vec::new();
    let mut file = store.open(MANIFEST)?;
    file.read_to_end(&mut json).map_err(|error| StoreError::from_io(error, "read", MANIFEST))?;
    Ok(Manifest::parse(&json))
}

/// Whether an export that is not finished gives a file this name.
pub fn is_name_of_export(name: &str) -> bool {
    match name.split('/').collect::<Vec<_>>()[..] {
        ["schema", _] => name == PRE_DATA || name == POST_DATA,
        ["data", schema, table, chunk] => is_safe(schema) && is_safe(table) && is_chunk(chunk),
        ["large_objects", objects] => is_binary(objects, |stem| stem == "objects"),
        ["large_objects", "pages", pages] => is_binary(pages, is_number),
        _ => is_blob(name),
    }
}

fn is_blob(name: &str) -> bool {
    let ["blobs", first, rest] = name.split('/').collect::<Vec<_>>()[..] else { return false };
    let digits = |text: &str| text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let Some((stem, compression)) = rest.split_at_checked(62) else { return false };
    first.len() == 2 && digits(first) && digits(stem) && is_compression(compression)
}

fn is_chunk(file: &str) -> bool {
    is_binary(file, is_number) || is_of(file, Format::Csv, is_number)
}

fn is_binary(file: &str, is_stem: impl Fn(&str) -> bool) -> bool {
    is_of(file, Format::Binary, is_stem)
}

fn is_of(file: &str, format: Format, is_stem: impl Fn(&str) -> bool) -> bool {
    let split = file.split_once(format.extension());
    split.is_some_and(|(stem, compression)| is_stem(stem) && is_compression(compression))
}

fn is_number(stem: &str) -> bool {
    stem.len() >= 6 && stem.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_compression(extension: &str) -> bool {
    Compression::WORDS.iter().any(|(_, compression)| compression.extension() == extension)
}

/// A name of the catalog, as part of a file's name.
fn is_safe(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::chunk::{Content, blob_name, file_name, large_objects_file};

    #[test]
    fn names_of_an_export_are_known() {
        for (_, compression) in Compression::WORDS {
            let content = Content::Table { schema: "a.b", name: "größe" };
            for format in [Format::Binary, Format::Csv] {
                assert!(is_name_of_export(&file_name(content, 1_234_567, format, *compression)));
            }
            let pages = file_name(Content::LargeObjectPages, 1, Format::Binary, *compression);
            let blob = blob_name(&"ab".repeat(32), *compression);
            for name in [&pages, &blob, &large_objects_file(*compression)] {
                assert!(is_name_of_export(name), "{name}");
            }
        }
        assert!(is_name_of_export(PRE_DATA) && is_name_of_export(POST_DATA));
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "data/PG_VERSION",
            "data/base/1/1259",
            "data/base/1/000001.txt",
            "data/a/b/1.copy",
            "data/a/b/000001.copy.bz2",
            "data/a/b c/000001.copy",
            "data/a/b/c/000001.copy",
            "schema/tables.sql",
            "large_objects/1",
            "blobs/ab/cd",
            "blobs/ab",
            "manifest.json",
            "notes.txt",
        ] {
            assert!(!is_name_of_export(name), "{name}");
        }
    }
}
