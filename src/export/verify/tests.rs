use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::checksum::{Checksum, Digesting};
use super::super::chunk::{Content, POST_DATA, PRE_DATA, file_name, large_objects_file};
use super::super::destination::{Existing, Local};
use super::super::manifest::tests::example;
use super::super::manifest::{Column, LargeObjects, SchemaFiles, Table, TableKind};
use super::super::rows::tests::binary_file;
use super::*;

/// An export by hand: two tables of two chunks each, two blobs, large objects.
struct Export {
    path: PathBuf,
    store: Local,
    manifest: Manifest,
}

impl Drop for Export {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Export {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dbmazz_verify_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let mut export = Self { store: Local::new(&path), path, manifest: example() };
        export.manifest.tables.clear();
        export.manifest.options.compression = Compression::Zstd;
        export.manifest.options.blobs = Blobs::External;
        export.manifest.schema = SchemaFiles {
            pre_data: export.put(PRE_DATA, b"CREATE TABLE a ();", Compression::None),
            post_data: export.put(POST_DATA, b"-- nothing", Compression::None),
        };
        let blobs = [export.put_blob(&[1; 5000]), export.put_blob(&[2; 5000])];
        for (table, blob) in [("a", &blobs[0]), ("b", &blobs[1])] {
            let chunks = (1..=2).map(|number| export.put_chunk(table, number, blob)).collect();
            let column = |name: &str, external| Column {
                name: name.to_owned(),
                type_name: "bytea".to_owned(),
                external,
            };
            export.manifest.tables.push(Table {
                schema: "public".to_owned(),
                name: table.to_owned(),
                oid: 1,
                kind: TableKind::Table,
                columns: vec![column("id", false), column("value", true)],
                chunks,
            });
        }
        let page = export.put_rows("large_objects/pages/000001.copy.zst", &[&[Some(b"1")]]);
        let objects = export.put_rows(&large_objects_file(Compression::Zstd), &[&[Some(b"1")]]);
        export.manifest.large_objects = Some(LargeObjects { objects, pages: vec![page], page_bytes: 2048 });
        export.put(MANIFEST, &export.manifest.to_json().unwrap(), Compression::None);
        export
    }

    fn put(&self, name: &str, content: &[u8], compression: Compression) -> File {
        let writer = self.store.create(name, Existing::Replace).unwrap();
        let digesting = Digesting::new(writer, Checksum::Xxh3);
        let mut encoder = compression.encoder(digesting, None).unwrap();
        encoder.write_all(content).unwrap();
        let (writer, checksum, compressed_bytes) = encoder.finish().unwrap().finish();
        writer.finish().unwrap();
        File { file: name.to_owned(), bytes: content.len() as u64, compressed_bytes, checksum }
    }

    fn put_rows(&self, name: &str, rows: &[&[Option<&[u8]>]]) -> Chunk {
        Chunk {
            file: self.put(name, &binary_file(rows), Compression::Zstd),
            chunk: 1,
            first_ctid: None,
            last_ctid: None,
            rows: rows.len() as u64,
            blobs: 0,
            snapshot_lsn: "0/1".to_owned(),
        }
    }

    fn put_chunk(&self, table: &str, number: u32, blob: &str) -> Chunk {
        let content = Content::Table { schema: "public", name: table };
        let name = file_name(content, number, Format::Binary, Compression::Zstd);
        let id = format!("{table} {number}");
        self.put_rows(&name, &[&[Some(id.as_bytes()), Some(blob.as_bytes())], &[None, None]])
    }

    fn put_blob(&self, value: &[u8]) -> String {
        let mut hasher = Checksum::Sha256.hasher();
        hasher.update(value);
        let reference = Reference { sha256: hasher.finish(), bytes: value.len() as u64 };
        self.put(&blob_name(&reference.sha256, Compression::Zstd), value, Compression::Zstd);
        reference.to_string()
    }

    fn findings(&self) -> BTreeMap<String, (bool, String)> {
        let found = Mutex::new(BTreeMap::new());
        let stop = Arc::new(AtomicBool::new(false));
        verify(&self.store, 3, &stop, &|finding| {
            let last = found.lock().unwrap().insert(finding.file, (finding.ok, finding.detail));
            assert!(last.is_none(), "a file has two findings");
        })
        .unwrap();
        found.into_inner().unwrap()
    }

    /// What is wrong, file by file.
    fn wrong(&self) -> Vec<(String, String)> {
        let found = self.findings().into_iter();
        found.filter(|(_, (ok, _))| !ok).map(|(file, (_, detail))| (file, detail)).collect()
    }

    fn names(&self) -> Vec<String> {
        self.store.list("").unwrap().into_iter().map(|object| object.name).collect()
    }
}

const CHUNK: &str = "data/public/a/000001.copy.zst";

#[test]
fn export_as_it_was_written_has_one_good_finding_per_file() {
    let export = Export::new("good");
    let found = export.findings();
    assert_eq!(export.wrong(), []);
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), export.names());
    assert!(found[CHUNK].1.ends_with("2 rows"), "{:?}", found[CHUNK]);
}

#[test]
fn one_flipped_bit_in_any_file_is_named() {
    let export = Export::new("flipped");
    for name in export.names() {
        let path = export.path.join(&name);
        let good = fs::read(&path).unwrap();
        for at in [4, good.len() / 2, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let wrong = export.wrong();
            assert!(wrong.len() == 1 && wrong[0].0 == name, "byte {at} of {name}: {wrong:?}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(export.wrong().len(), 1, "{name} is cut");
        fs::remove_file(&path).unwrap();
        let wrong = export.wrong();
        assert!(wrong.iter().any(|(file, _)| *file == name), "{name} is missing: {wrong:?}");
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(export.wrong(), []);
}

#[test]
fn files_that_changed_places_are_named_with_each_other() {
    let export = Export::new("swapped");
    let other = "data/public/b/000001.copy.zst";
    let paths = [CHUNK, other].map(|name| export.path.join(name));
    let contents = paths.clone().map(|path| fs::read(path).unwrap());
    fs::write(&paths[0], &contents[1]).unwrap();
    fs::write(&paths[1], &contents[0]).unwrap();
    let wrong = export.wrong();
    assert_eq!(wrong.len(), 2);
    assert_eq!(wrong[0], (CHUNK.to_owned(), format!("has the content of \"{other}\"")));
    assert_eq!(wrong[1], (other.to_owned(), format!("has the content of \"{CHUNK}\"")));
}

#[test]
fn files_that_nobody_wrote_are_named() {
    let export = Export::new("extra");
    export.put("data/public/a/000003.copy.zst", b"x", Compression::None);
    export.put("notes.txt", b"x", Compression::None);
    export.put("blobs/ab/cd", b"x", Compression::None);
    let wrong: Vec<String> = export.wrong().into_iter().map(|(file, _)| file).collect();
    assert_eq!(wrong, ["blobs/ab/cd", "data/public/a/000003.copy.zst", "notes.txt"]);
}

#[test]
fn rows_that_the_manifest_does_not_count_are_named() {
    let mut export = Export::new("rows");
    export.manifest.tables[0].chunks[0].rows = 3;
    export.put(MANIFEST, &export.manifest.to_json().unwrap(), Compression::None);
    assert_eq!(export.wrong(), [(CHUNK.to_owned(), "has 2 rows instead of 3".to_owned())]);
}

#[test]
fn directory_without_a_manifest_is_no_export() {
    let export = Export::new("none");
    fs::remove_file(export.path.join(MANIFEST)).unwrap();
    let wrong = export.wrong();
    assert_eq!(wrong, [(MANIFEST.to_owned(), "\"manifest.json\" does not exist".to_owned())]);
}
