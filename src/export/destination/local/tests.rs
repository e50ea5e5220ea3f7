use std::os::unix::fs::symlink;

use super::*;

/// A directory that goes with the test.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dbmazz_local_{name}_{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        Self { path }
    }

    fn store(&self) -> Local {
        Local::new(&self.path.join("deep/export"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn put(store: &Local, name: &str, text: &str, existing: Existing) -> Result<(), StoreError> {
    let mut writer = store.create(name, existing)?;
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish()
}

fn text(store: &Local, name: &str) -> String {
    let mut text = String::new();
    store.open(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn names(store: &Local, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|object| object.name).collect()
}

#[test]
fn finished_objects_are_listed_and_read_back() {
    let scratch = Scratch::new("finished");
    let store = scratch.store();
    assert!(store.list("").unwrap().is_empty());
    assert!(store.free_bytes().unwrap().is_some_and(|bytes| bytes > 0));
    put(&store, "manifest.json", "{}", Existing::Keep).unwrap();
    put(&store, "blobs/ab/cdef", "blob", Existing::Keep).unwrap();
    assert_eq!(names(&store, ""), ["blobs/ab/cdef", "manifest.json"]);
    assert_eq!(names(&store, "blobs/"), ["blobs/ab/cdef"]);
    assert_eq!(text(&store, "blobs/ab/cdef"), "blob");
    assert_eq!(store.size("manifest.json").unwrap(), Some(2));
    store.remove("manifest.json").unwrap();
    store.remove("manifest.json").unwrap();
    assert_eq!(store.size("manifest.json").unwrap(), None);
    assert_eq!(store.size("nowhere/x").unwrap(), None);
    assert!(matches!(store.open("manifest.json"), Err(StoreError::Missing { .. })));
}

#[test]
fn unfinished_object_is_never_seen() {
    let scratch = Scratch::new("unfinished");
    let store = scratch.store();
    let mut dropped = store.create("a/x", Existing::Keep).unwrap();
    dropped.write_all(b"half").unwrap();
    assert!(names(&store, "").is_empty());
    drop(dropped);
    let files = || fs::read_dir(store.root.join("a")).unwrap().count();
    assert_eq!(files(), 0);
    // What a killed process leaves.
    let left = store.create("a/y", Existing::Keep).unwrap();
    assert_eq!((names(&store, "").len(), files()), (0, 1));
    store.remove_unfinished().unwrap();
    assert_eq!(files(), 0);
    drop(left);
}

#[test]
fn object_is_replaced_only_when_asked() {
    let scratch = Scratch::new("replaced");
    let store = scratch.store();
    put(&store, "x", "old", Existing::Keep).unwrap();
    assert!(matches!(put(&store, "x", "new", Existing::Keep), Err(StoreError::Exists { .. })));
    assert_eq!(text(&store, "x"), "old");
    put(&store, "x", "new", Existing::Replace).unwrap();
    assert_eq!(text(&store, "x"), "new");
    assert_eq!(fs::read_dir(&store.root).unwrap().count(), 1);
}

#[test]
fn symbolic_links_lead_nowhere() {
    let scratch = Scratch::new("links");
    let store = scratch.store();
    put(&store, "x", "inside", Existing::Keep).unwrap();
    let outside = scratch.path.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "outside").unwrap();
    symlink(outside.join("secret"), store.root.join("file")).unwrap();
    symlink(&outside, store.root.join("directory")).unwrap();
    assert!(store.open("file").is_err());
    assert!(store.open("directory/secret").is_err());
    assert!(store.create("directory/new", Existing::Keep).is_err());
    assert!(store.remove("directory/secret").is_err());
    put(&store, "file", "replaced", Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "outside");
    // The link itself is shown, what is behind it is not.
    assert_eq!(names(&store, ""), ["directory", "file", "x"]);
}

#[test]
fn full_disk_is_an_error_of_the_writer() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let scratch = Scratch::new("full");
    let store = scratch.store();
    let (directory, leaf) = store.directory_of("x", Way::Create).unwrap();
    let leaf = leaf.to_owned();
    let mut writer = LocalWriter {
        file: full,
        directory,
        temporary: None,
        leaf,
        path: "/export/x".to_owned(),
        existing: Existing::Keep,
        written: 0,
        on_its_way: 0,
    };
    let error = StoreError::from_io(writer.write_all(b"x").unwrap_err(), "write", "x");
    assert!(error.to_string().starts_with("could not write \"/export/x\": No space left"), "{error}");
}

/// The disk is told to begin several times meanwhile.
#[test]
fn a_file_of_many_pieces_is_read_back_whole() {
    let scratch = Scratch::new("many_pieces");
    let store = scratch.store();
    let piece: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = store.create("many", Existing::Keep).unwrap();
    for _ in 0..40 {
        writer.write_all(&piece).unwrap();
    }
    writer.finish().unwrap();
    let mut bytes = Vec::new();
    store.open("many").unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 40 * piece.len());
    assert!(bytes.chunks(piece.len()).all(|read| read == piece));
}
