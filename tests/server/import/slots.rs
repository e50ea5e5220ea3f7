//! No background worker is free.

use super::{checked, database_in, ended, import, start, wait_until_gone};
use crate::harness::{Cluster, HandExport, Outcome, PATIENCE, Settings, wait_for};

#[test]
fn import_without_a_worker_ends() {
    let run = || -> Outcome {
        // One for the launcher, one for logical replication, one for the leader.
        let settings = Settings::default().set("max_worker_processes", "3");
        let cluster = std::sync::Arc::new(Cluster::start(&settings)?);
        let (mut source, mut target) = (database_in(&cluster), database_in(&cluster));
        source.execute("CREATE TABLE t (id integer)")?;
        let export = HandExport::of(&mut source, 1)?;
        let timed = format!(r#"'{}', options => '{{"timeout": "2s"}}'"#, export.destination());
        let (state, error) = import(&mut target, &timed)?;
        assert!(state == "failed" && error.contains("longer than its timeout"), "{state}: {error}");
        wait_until_gone(&mut target)?;
        // The postmaster may give the slot of a process back a moment after its end; then not even a leader has one.
        let begun = "SELECT import_id FROM dbmazz.import WHERE options = '{}' AND state <> 'starting'";
        let id = wait_for("the import has a leader", PATIENCE, || {
            // Refused while it has one.
            let _ = start(&mut target, &format!("'{}'", export.destination()));
            target.value_or_null(begun)
        })?;
        let (state, error) = ended(&mut target, &id)?;
        assert!(
            state == "failed" && error.contains("no slot for a background worker is free"),
            "{state}: {error}"
        );
        Ok(())
    };
    checked(run());
}
