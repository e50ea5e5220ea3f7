//! An export that dbmazz has not written: COPY and pg_dump make the files, the manifest is written down beside them. What
//! reads exports is so tested against another writer than its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dbmazz::export::checksum::Checksum;
use dbmazz::export::chunk::{Format, POST_DATA, PRE_DATA};
use dbmazz::export::codec::Compression;
use dbmazz::export::manifest::{
    Blobs, Chunk, Column, File, LargeObjects, MANIFEST, Manifest, Options, SchemaFiles, Sequence, Server,
    Table, TableKind, VERSION,
};

use super::{Database, Failure, Outcome};

/// An export in a directory that the server of its database can read.
pub(crate) struct HandExport {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
}

impl HandExport {
    /// Exports all tables of the schemas that are not the server's or the extension's, each in so many chunks.
    pub(crate) fn of(source: &mut Database, chunks: u32) -> Outcome<Self> {
        let path = source.cluster().make_directory(&format!("export_{}", source.name()))?;
        let mut export = Self { manifest: nothing(source)?, path };
        export.dump(source)?;
        export.copy_tables(source, chunks)?;
        export.copy_large_objects(source)?;
        let sequences = source.rows(
            "SELECT schemaname, sequencename, coalesce(last_value, start_value), last_value IS NOT NULL
             FROM pg_sequences WHERE schemaname <> 'dbmazz' ORDER BY 1, 2",
        )?;
        for row in sequences {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            export.manifest.sequences.push(Sequence {
                schema: text(0),
                name: text(1),
                last_value: text(2).parse()?,
                is_called: text(3) == "t",
            });
        }
        export.write_manifest()?;
        Ok(export)
    }

    /// Writes the manifest as it is now.
    pub(crate) fn write_manifest(&self) -> Outcome {
        let json = self.manifest.to_json().map_err(|problem| Failure::new(problem.to_string()))?;
        write(&self.path.join(MANIFEST), &json)
    }

    /// Where it is, as SQL takes it.
    pub(crate) fn destination(&self) -> String {
        self.path.display().to_string()
    }

    /// Changes one bit of a file.
    pub(crate) fn flip(&self, file: &str) -> Outcome {
        let path = self.path.join(file);
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // In place: the file stays the server's.
        Ok(fs::write(path, bytes)?)
    }

    fn dump(&mut self, source: &Database) -> Outcome {
        // As the server's, whose files the guard of the cluster removes.
        source.cluster().make_directory(&format!("export_{}/schema", source.name()))?;
        let section = |section: &str, file: &str| -> Outcome<File> {
            let mut command = source.cluster().client_program("pg_dump");
            let output = command.args(["--schema-only", "--section", section, source.name()]).output()?;
            if !output.status.success() {
                return Err(Failure::new(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
            write(&self.path.join(file), &output.stdout)?;
            self.describe(file)
        };
        let (before, after) = (section("pre-data", PRE_DATA)?, section("post-data", POST_DATA)?);
        self.manifest.schema = SchemaFiles { pre_data: before, post_data: after };
        Ok(())
    }

    fn copy_tables(&mut self, source: &mut Database, chunks: u32) -> Outcome {
        let tables = source.rows(
            "SELECT n.nspname, c.relname, c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
             WHERE c.relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema', 'dbmazz')
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
             ORDER BY 1, 2",
        )?;
        for row in tables {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            let (schema, name, kind) = (text(0), text(1), text(3));
            let columns = source.rows(&format!(
                "SET LOCAL search_path = pg_catalog; SELECT attname, format_type(atttypid, atttypmod), quote_ident(attname)
                 FROM pg_attribute WHERE attrelid = {} AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                 ORDER BY attnum",
                text(2)
            ))?;
            let list: Vec<String> = columns.iter().map(|row| row[2].clone().unwrap_or_default()).collect();
            let mut written = Vec::new();
            let chunks = if kind == "m" { 0 } else { chunks };
            for number in 1..=chunks {
                let part = format!("hashtid(ctid) % {chunks} IN ({0}, -{0})", number - 1);
                let file = format!("{schema}.{name}.{number}.copy");
                written.push(self.copy(
                    source,
                    &format!("SELECT {} FROM ONLY {schema}.\"{name}\" WHERE {part}", list.join(", ")),
                    &file,
                    number,
                )?);
            }
            let column = |row: &Vec<Option<String>>| Column {
                name: row[0].clone().unwrap_or_default(),
                type_name: row[1].clone().unwrap_or_default(),
                external: false,
            };
            self.manifest.tables.push(Table {
                schema,
                name,
                oid: text(2).parse()?,
                kind: if kind == "m" { TableKind::MaterializedView } else { TableKind::Table },
                columns: columns.iter().map(column).collect(),
                chunks: written,
            });
        }
        Ok(())
    }

    fn copy_large_objects(&mut self, source: &mut Database) -> Outcome {
        if source.value("SELECT count(*) FROM pg_largeobject_metadata")? == "0" {
            return Ok(());
        }
        let objects = "SELECT oid, pg_get_userbyid(lomowner)::text, lomacl::text,
             obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata";
        let objects = self.copy(source, objects, "objects.copy", 1)?;
        let pages = self.copy(source, "SELECT loid, pageno, data FROM pg_largeobject", "pages.copy", 1)?;
        self.manifest.large_objects = Some(LargeObjects { objects, pages: vec![pages], page_bytes: 2048 });
        Ok(())
    }

    fn copy(&self, source: &mut Database, query: &str, file: &str, number: u32) -> Outcome<Chunk> {
        let rows = source.value(&format!("SELECT count(*) FROM ({query}) q"))?;
        let path = self.path.join(file);
        source.execute(&format!("COPY ({query}) TO '{}' (FORMAT binary)", path.display()))?;
        Ok(Chunk {
            file: self.describe(file)?,
            chunk: number,
            first_ctid: None,
            last_ctid: None,
            rows: rows.parse()?,
            blobs: 0,
            snapshot_lsn: "0/1".to_owned(),
        })
    }

    fn describe(&self, file: &str) -> Outcome<File> {
        let bytes = fs::read(self.path.join(file))?;
        let mut hasher = Checksum::Xxh3.hasher();
        hasher.update(&bytes);
        let length = bytes.len() as u64;
        Ok(File { file: file.to_owned(), bytes: length, compressed_bytes: length, checksum: hasher.finish() })
    }
}

/// Readable for the server, whoever runs it.
fn write(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}

fn nothing(source: &mut Database) -> Outcome<Manifest> {
    let no_file = || File { file: String::new(), bytes: 0, compressed_bytes: 0, checksum: String::new() };
    Ok(Manifest {
        version: VERSION,
        dbmazz_version: "0.1.0".to_owned(),
        export_id: 1,
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        finished_at: "2026-01-01T00:00:01Z".to_owned(),
        consistent: true,
        snapshot_lsn: "0/1".to_owned(),
        snapshot_lsns: vec!["0/1".to_owned()],
        slot: None,
        server: Server {
            version: source.value("SHOW server_version")?,
            version_num: source.value("SHOW server_version_num")?.parse()?,
            system_identifier: "1".to_owned(),
            database: source.name().to_owned(),
            encoding: source.value("SHOW server_encoding")?,
        },
        options: Options {
            format: Format::Binary,
            compression: Compression::None,
            compression_level: None,
            checksum: Checksum::Xxh3,
            blobs: Blobs::Inline,
            blob_threshold: 1 << 20,
            chunk_size: 1 << 27,
        },
        schema: SchemaFiles { pre_data: no_file(), post_data: no_file() },
        tables: vec![],
        sequences: vec![],
        large_objects: None,
    })
}
