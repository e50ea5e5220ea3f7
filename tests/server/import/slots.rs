//! No background worker is free.

use super::{checked, database_in, import, wait_until_gone};
use crate::harness::{Cluster, HandExport, Outcome, Settings};

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
        let (state, error) = import(&mut target, &format!("'{}'", export.destination()))?;
        assert!(
            state == "failed" && error.contains("no slot for a background worker is free"),
            "{state}: {error}"
        );
        Ok(())
    };
    checked(run());
}
