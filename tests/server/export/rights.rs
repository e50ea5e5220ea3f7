//! Who may export, and where to.

use std::path::Path;

use super::{export, place};
use crate::harness::{Outcome, Pair};
use crate::on_a_pair;

#[test]
fn rights_and_places_are_checked() {
    on_a_pair(|pair| {
        let directory = place(pair, "rights")?;
        let path = directory.display().to_string();
        let role = format!("role_{}", pair.source.name());
        pair.source.execute(&format!(
            "CREATE TABLE seen (id int); CREATE TABLE hidden (id int); CREATE TABLE secret (id int);
             ALTER TABLE secret ENABLE ROW LEVEL SECURITY; CREATE VIEW v AS SELECT 1 AS a;
             CREATE ROLE {role}; GRANT SELECT ON seen, secret TO {role};
             GRANT EXECUTE ON FUNCTION dbmazz_export TO {role}; SET ROLE {role}"
        ))?;
        let call =
            |tables: &str, path: &str| format!("SELECT dbmazz_export('{path}', '{tables}'::regclass[])");
        let refused = |pair: &mut Pair, tables: &str, path: &str, words: &str| {
            let error = pair.source.error_of(&call(tables, path))?;
            assert!(error.message().contains(words), "{error}");
            Outcome::Ok(())
        };
        refused(pair, "{seen}", &path, "permission denied")?;
        pair.source
            .execute(&format!("RESET ROLE; GRANT pg_write_server_files TO {role}; SET ROLE {role}"))?;
        refused(pair, "{hidden}", &path, "permission denied for table")?;
        refused(pair, "{secret}", &path, "row-level security")?;
        pair.source.execute("RESET ROLE")?;
        refused(pair, "{v}", &path, "cannot export")?;
        refused(pair, "{seen}", "relative/path", "absolute")?;
        refused(pair, "{seen}", "/tmp/../etc", "..")?;
        let bad =
            format!("SELECT dbmazz_export('{path}', '{{seen}}'::regclass[], options => '{{\"colour\": 1}}')");
        assert!(pair.source.error_of(&bad)?.hint().is_some_and(|hint| hint.contains("blob_threshold")));
        pair.source.execute(&format!("SET ROLE {role}"))?;
        export(pair, &directory, &["seen"], "{}")?;
        refused(pair, "{seen}", &path, "has files already")?;
        export(pair, &directory, &["seen"], r#"{"overwrite": true}"#)?;
        pair.source.execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"))?;
        let within =
            format!("BEGIN; SELECT dbmazz_wait_export(dbmazz_export('{path}2', '{{seen}}'::regclass[]))");
        let error = pair.source.error_of(&within)?;
        assert!(error.message().contains("cannot wait"), "{error}");
        pair.source.execute("ROLLBACK")?;
        assert!(!Path::new(&format!("{path}2")).exists());
        Ok(())
    });
}
