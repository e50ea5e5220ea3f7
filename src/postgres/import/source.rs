//! The export that an import reads: its manifest and its scripts.

use std::io::Read;
use std::sync::Arc;

use pgrx::prelude::*;

use super::attempt::refuse;
use super::script::{self, Statement};
use super::table::Import;
use crate::export::checked::{CheckedFile, Stop};
use crate::export::checksum::Checksum;
use crate::export::codec::Compression;
use crate::export::destination::Destination;
use crate::export::manifest::{File, Manifest};
use crate::export::verify::read_manifest;
use crate::postgres::encoding;
use crate::postgres::store::{self, Access};

/// What an import reads.
pub(super) struct Source {
    store: Arc<dyn Destination>,
    pub(super) manifest: Manifest,
}

impl Source {
    /// Raises an error when there is no export.
    pub(super) fn open(import: &Import) -> Self {
        let store = store::open(&import.source, import.server.as_deref(), import.owner, Access::Read)
            .unwrap_or_else(|problem| problem.report());
        let manifest = read_manifest(&*store)
            .unwrap_or_else(|problem| error!("could not import \"{}\": {problem}", import.source));
        Self { store, manifest }
    }

    /// Of the manifest: another export has another one.
    pub(super) fn digest(&self) -> String {
        let json = self.manifest.to_json().unwrap_or_else(|problem| error!("{problem}"));
        let mut hasher = Checksum::Sha256.hasher();
        hasher.update(&json);
        hasher.finish()
    }

    /// The statements of a script. Inside a transaction.
    pub(super) fn script(&self, file: &File) -> Vec<Statement> {
        script::parse(&read_script(&self.store, file, &self.manifest))
    }
}

fn read_script(store: &Arc<dyn Destination>, file: &File, manifest: &Manifest) -> String {
    let fail = |problem: String| -> ! { unreadable(file, &problem) };
    let mut bytes = Vec::new();
    let checked = CheckedFile::open(&**store, file, manifest.options.checksum, &Stop::default())
        .unwrap_or_else(|problem| fail(problem.to_string()));
    let read = checked.content(Compression::None).and_then(|mut content| content.read_to_end(&mut bytes));
    checked.finish().unwrap_or_else(|difference| fail(difference.to_string()));
    read.unwrap_or_else(|problem| fail(problem.to_string()));
    let same = manifest.server.encoding == encoding::name();
    match String::from_utf8(bytes) {
        Ok(text) if text.is_ascii() || (same && !encoding::needs_conversion()) => text,
        _ => fail(format!(
            "it is in encoding {} and has other characters than those of ASCII, the database is in {}",
            manifest.server.encoding,
            encoding::name()
        )),
    }
}

/// Raises an error about a file of the export.
pub(super) fn unreadable(file: &File, problem: &str) -> ! {
    let code = PgSqlErrorCode::ERRCODE_DATA_CORRUPTED;
    refuse(code, format!("could not read file \"{}\": {problem}", file.file))
}
