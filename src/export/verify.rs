//! Every file of an export is read and compared with the manifest: size, checksum, rows, what is missing, what is there
//! besides, what has been exchanged; and every value that is stored outside with the hash that is its name.
//!
//! ```text
//! manifest, list of files ─► files of the manifest, in parallel ─► blobs that they refer to, and blobs that are there
//! ```
//!
//! One finding per file. It runs in threads of its own and can be given up at any time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::blob_read::{Blob, MAX_REFERENCE_BYTES, reference_in};
use super::checked::{CheckedFile, Difference, Stop};
use super::chunk::{Format, Reference, blob_name};
use super::codec::Compression;
use super::destination::{Destination, Object, StoreError};
use super::manifest::{Blobs, Chunk, File, MANIFEST, Manifest};
use super::rows::{Fields, count_rows};

/// What is known of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Its name.
    pub file: String,
    /// Whether it is as it was written.
    pub ok: bool,
    /// What is wrong with it, or what has been compared.
    pub detail: String,
}

/// Verifies an export with so many threads; findings come in no order. The calling thread is blocked meanwhile, and its
/// threads have its signal mask.
///
/// # Errors
/// When the destination cannot be asked what is there. All that is wrong with files is a finding.
pub fn verify(
    store: &dyn Destination,
    threads: usize,
    stop: &Stop,
    report: &(dyn Fn(Finding) + Sync),
) -> Result<(), StoreError> {
    let objects = store.list("")?;
    let manifest = match read_manifest(store) {
        Ok(manifest) => manifest,
        Err(problem) => {
            report(Finding { file: MANIFEST.to_owned(), ok: false, detail: problem });
            return Ok(());
        }
    };
    report(Finding { file: MANIFEST.to_owned(), ok: true, detail: "its own checksum is right".to_owned() });
    let verification = Verification::new(store, &manifest, objects, stop, report);
    let files = verification.files();
    verification.in_parallel(threads, &files, |job| verification.verify_file(job));
    let blobs = verification.blobs();
    verification.in_parallel(threads, &blobs, |job| verification.verify_blob(job));
    verification.report_extra();
    Ok(())
}

/// Reads the manifest of an export.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn read_manifest(store: &dyn Destination) -> Result<Manifest, String> {
    let mut json = Vec::new();
    let mut file = store.open(MANIFEST).map_err(|problem| problem.to_string())?;
    file.read_to_end(&mut json).map_err(|problem| problem.to_string())?;
    Manifest::parse(&json).map_err(|problem| problem.to_string())
}

struct Verification<'a> {
    store: &'a dyn Destination,
    manifest: &'a Manifest,
    /// What is there, by name.
    sizes: BTreeMap<String, u64>,
    /// Which file should have which digest, to recognize files that were exchanged.
    by_checksum: HashMap<&'a str, &'a str>,
    /// Values outside that chunks refer to: their bytes, by hash.
    references: Mutex<HashMap<String, u64>>,
    stop: &'a Stop,
    report: &'a (dyn Fn(Finding) + Sync),
}

/// A file of the manifest.
struct FileJob<'a> {
    file: &'a File,
    compression: Compression,
    rows: Option<Rows<'a>>,
}

/// What a file of rows must have.
struct Rows<'a> {
    chunk: &'a Chunk,
    format: Format,
    /// Which columns may have references; empty when none.
    external: Vec<bool>,
}

/// A value outside: there, referred to, or both.
struct BlobJob {
    name: String,
    reference: Option<Reference>,
    size: Option<u64>,
}

impl<'a> Verification<'a> {
    fn new(
        store: &'a dyn Destination,
        manifest: &'a Manifest,
        objects: Vec<Object>,
        stop: &'a Stop,
        report: &'a (dyn Fn(Finding) + Sync),
    ) -> Self {
        Self {
            store,
            manifest,
            sizes: objects.into_iter().map(|object| (object.name, object.size)).collect(),
            by_checksum: manifest.files().map(|file| (file.checksum.as_str(), file.file.as_str())).collect(),
            references: Mutex::default(),
            stop,
            report,
        }
    }

    /// Does all jobs, each once, in so many threads.
    fn in_parallel<J: Sync>(&self, threads: usize, jobs: &[J], work: impl Fn(&J) + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..threads.clamp(1, jobs.len().max(1)) {
                scope.spawn(|| {
                    while !self.stop.load(Ordering::Relaxed)
                        && let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        work(job);
                    }
                });
            }
        });
    }

    /// The files of the manifest. The largest come first, so that no thread is left alone with one at the end.
    fn files(&self) -> Vec<FileJob<'a>> {
        let options = &self.manifest.options;
        let schema = [&self.manifest.schema.pre_data, &self.manifest.schema.post_data];
        let mut jobs: Vec<FileJob<'a>> = schema
            .into_iter()
            .map(|file| FileJob { file, compression: Compression::None, rows: None })
            .collect();
        let job = |chunk: &'a Chunk, format, external| FileJob {
            file: &chunk.file,
            compression: options.compression,
            rows: Some(Rows { chunk, format, external }),
        };
        for table in &self.manifest.tables {
            let external: Vec<bool> = match options.blobs {
                Blobs::Inline => vec![],
                Blobs::External => table.columns.iter().map(|column| column.external).collect(),
            };
            jobs.extend(table.chunks.iter().map(|chunk| job(chunk, options.format, external.clone())));
        }
        if let Some(objects) = &self.manifest.large_objects {
            let chunks = std::iter::once(&objects.objects).chain(&objects.pages);
            jobs.extend(chunks.map(|chunk| job(chunk, Format::Binary, vec![])));
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.file.compressed_bytes));
        jobs
    }

    fn verify_file(&self, job: &FileJob<'_>) {
        let found = match self.sizes.get(&job.file.file) {
            None => Err("is missing".to_owned()),
            Some(_) => self.look_at(job),
        };
        self.tell(&job.file.file, found);
    }

    fn look_at(&self, job: &FileJob<'_>) -> Result<String, String> {
        let checksum = self.manifest.options.checksum;
        let file = CheckedFile::open(self.store, job.file, checksum, self.stop)
            .map_err(|problem| problem.to_string())?;
        let bytes = file.content_bytes();
        let rows = file.content(job.compression).and_then(|content| self.rows_of(job, content));
        // What is wrong with the file explains what is wrong with its content.
        file.finish().map_err(|difference| self.explain(&difference, &job.file.file))?;
        let rows = rows.map_err(|problem| format!("is no file of its form: {problem}"))?;
        let (is, should) = (*bytes.borrow(), job.file.bytes);
        if is != should {
            return Err(format!("has {is} bytes before compression instead of {should}"));
        }
        match &job.rows {
            None => Ok(format!("{} bytes", job.file.compressed_bytes)),
            Some(expected) if expected.chunk.rows != rows => {
                Err(format!("has {rows} rows instead of {}", expected.chunk.rows))
            }
            Some(_) => Ok(format!("{} bytes, {rows} rows", job.file.compressed_bytes)),
        }
    }

    /// Reads the content to its end, counts its rows, and takes note of the blobs that it refers to.
    fn rows_of(&self, job: &FileJob<'_>, mut content: impl Read) -> io::Result<u64> {
        let Some(rows) = &job.rows else {
            io::copy(&mut content, &mut io::sink())?;
            return Ok(0);
        };
        if rows.format != Format::Binary || !rows.external.contains(&true) {
            return count_rows(content, rows.format);
        }
        let mut fields = Fields::new(content)?;
        let mut found = HashMap::new();
        while fields.next_tuple()?.is_some() {
            let mut column = 0;
            while let Some(field) = fields.next_field()? {
                let is_external = rows.external.get(column).copied().unwrap_or_default();
                column += 1;
                if !is_external {
                    fields.skip(field)?;
                    continue;
                }
                match fields.read_short(field, MAX_REFERENCE_BYTES)? {
                    None => fields.skip(field)?,
                    Some(value) => {
                        if let Some(reference) = reference_in(&value)? {
                            found.insert(reference.sha256, reference.bytes);
                        }
                    }
                }
            }
        }
        self.references.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(fields.tuples())
    }

    /// Says whose content a file has, if it is another one's.
    fn explain(&self, difference: &Difference, file: &str) -> String {
        let (Difference::Checksum { is } | Difference::Size { checksum: is, .. }) = difference else {
            return difference.to_string();
        };
        match self.by_checksum.get(is.as_str()) {
            Some(other) if *other != file => format!("has the content of \"{other}\""),
            _ => difference.to_string(),
        }
    }

    /// The blobs that are there, and those that should be.
    fn blobs(&self) -> Vec<BlobJob> {
        let references = std::mem::take(&mut *self.references.lock().unwrap_or_else(PoisonError::into_inner));
        let compression = self.manifest.options.compression;
        let mut jobs: BTreeMap<String, BlobJob> = references
            .into_iter()
            .map(|(sha256, bytes)| {
                let name = blob_name(&sha256, compression);
                let reference = Some(Reference { sha256, bytes });
                (name.clone(), BlobJob { name, reference, size: None })
            })
            .collect();
        for (name, size) in self.sizes.range("blobs/".to_owned()..).take_while(|(name, _)| is_blob(name)) {
            let job = BlobJob { name: name.clone(), reference: None, size: None };
            jobs.entry(name.clone()).or_insert(job).size = Some(*size);
        }
        jobs.into_values().collect()
    }

    fn verify_blob(&self, job: &BlobJob) {
        let found = match (&job.reference, job.size) {
            (None, _) => self.look_at_orphan(job),
            (Some(_), None) => Err("is missing, and there are values that refer to it".to_owned()),
            (Some(reference), Some(size)) => self.read_blob(reference).map(|()| format!("{size} bytes")),
        };
        self.tell(&job.name, found);
    }

    /// A chunk that was written again under another snapshot may leave one behind: no harm, if it is what it says.
    fn look_at_orphan(&self, job: &BlobJob) -> Result<String, String> {
        let compression = self.manifest.options.compression;
        let digits: String = job.name.trim_start_matches("blobs/").replace('/', "");
        let sha256 = digits.strip_suffix(compression.extension()).unwrap_or(&digits).to_owned();
        if self.manifest.options.blobs == Blobs::Inline || blob_name(&sha256, compression) != job.name {
            return Err("is not in the manifest".to_owned());
        }
        let mut blob =
            Blob::of_any_size(self.store, &sha256, compression).map_err(|problem| problem.to_string())?;
        io::copy(&mut blob, &mut io::sink()).map_err(|problem| problem.to_string())?;
        Ok("no value refers to it".to_owned())
    }

    fn read_blob(&self, reference: &Reference) -> Result<(), String> {
        let mut blob = Blob::open(self.store, reference, self.manifest.options.compression)
            .map_err(|problem| problem.to_string())?;
        io::copy(&mut blob, &mut io::sink()).map_err(|problem| problem.to_string())?;
        Ok(())
    }

    fn report_extra(&self) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let known: HashSet<&str> = self.manifest.files().map(|file| file.file.as_str()).collect();
        for name in self.sizes.keys() {
            if name != MANIFEST && !is_blob(name) && !known.contains(name.as_str()) {
                self.tell(name, Err("is not in the manifest".to_owned()));
            }
        }
    }

    fn tell(&self, file: &str, found: Result<String, String>) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let ok = found.is_ok();
        let (Ok(detail) | Err(detail)) = found;
        (self.report)(Finding { file: file.to_owned(), ok, detail });
    }
}

fn is_blob(name: &str) -> bool {
    name.starts_with("blobs/")
}

#[cfg(test)]
mod tests;
