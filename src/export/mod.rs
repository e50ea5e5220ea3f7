//! Exports: tables as files, in a directory or in S3, and back.
//!
//! Guarantees: an object that has its name is complete and durable; nothing half-written ever has a name that a reader
//! looks at; whatever is read back is compared with what the manifest says of it.
//!
//! * [`manifest`]: what an export consists of, written last.
//! * [`chunk`]: names of the files, and the frame of a file of rows.
//! * [`codec`]: compression of files, by the stream.
//! * [`checksum`]: digests of files.
//! * [`file`]: a file being written: compressed, digested, counted.
//! * [`foreign`]: files that no export has written.
//! * [`blob`]: values that are stored outside, once each.
//! * [`toast`]: values that PostgreSQL has compressed, by the piece.
//! * [`options`]: what an export is to be like.
//! * [`rows`], [`blob_read`]: the rows of a file, and values that are stored outside.
//! * [`checked`]: a file is compared with the manifest while it is read.
//! * [`verify`]: all files are.
//! * [`destination`]: where the files are: a directory of the server, or a bucket.
//!
//! All of it is pure: threads may call it, and none of it calls PostgreSQL.

pub mod blob;
pub mod blob_read;
pub mod checked;
pub mod checksum;
pub mod chunk;
pub mod codec;
pub mod destination;
pub mod file;
pub mod foreign;
pub mod manifest;
pub mod options;
pub mod rows;
pub mod toast;
pub mod verify;
