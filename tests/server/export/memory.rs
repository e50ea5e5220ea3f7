//! What the processes of an export need, whatever the values are.

use std::path::Path;

use super::{import, place, start};
use crate::harness::{Outcome, PATIENCE, Pair, Settings, proportional_size, wait_until};
use crate::on_its_own_cluster;

/// For all processes of an export together.
const BOUND: u64 = 200 << 20;

#[test]
fn memory_is_bounded_whatever_the_values() {
    on_its_own_cluster(&Settings::default().set("shared_buffers", "16MB"), |pair| {
        // 104 MB each: one as it is, one compressed.
        pair.source.execute(
            "CREATE TABLE huge (id int, plain bytea, packed text);
             ALTER TABLE huge ALTER plain SET STORAGE EXTERNAL;
             INSERT INTO huge SELECT n, decode(repeat(md5(n::text), 100 << 16), 'hex'), repeat('compressible ' || n, 8000000) FROM generate_series(1, 3) n",
        )?;
        for (name, options) in [
            ("inline", r#"{"chunk_size": "100MB", "workers": 2}"#),
            ("external", r#"{"chunk_size": "100MB", "workers": 2, "blobs": "external"}"#),
        ] {
            let directory = place(pair, name)?;
            let most = most_memory(pair, &directory, options)?;
            println!("{name}: all processes together have {} MB", most >> 20);
            assert!(most > 0 && most < BOUND, "{name}: {} MB", most >> 20);
            let mut imported = import(pair, &directory)?;
            let sums = "SELECT string_agg(md5(plain) || md5(packed), ' ' ORDER BY id) FROM huge";
            assert_eq!(pair.source.value(sums)?, imported.value(sums)?);
        }
        Ok(())
    });
}

/// Exports, and measures all processes of it meanwhile.
fn most_memory(pair: &mut Pair, directory: &Path, options: &str) -> Outcome<u64> {
    let id = start(pair, directory, &["huge"], options)?;
    let mut most = 0;
    wait_until("it is written", PATIENCE, || {
        let pids =
            pair.source.rows("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dbmazz export%'")?;
        let all: u64 = pids.iter().flatten().flatten().filter_map(|pid| proportional_size(pid).ok()).sum();
        most = most.max(all);
        pair.source.is_true(&format!("SELECT state = 'done' FROM dbmazz.export WHERE export_id = {id}"))
    })?;
    Ok(most)
}
