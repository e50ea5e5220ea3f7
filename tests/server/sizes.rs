//! Values that the target would refuse for their length are found before a mirror is started, where statistics or a sample
//! show them.

use crate::on_a_pair;

#[test]
fn key_that_statistics_show_to_be_too_long_is_refused() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE page (url text PRIMARY KEY, v text);
             INSERT INTO page SELECT 'https://example.com/' || n || repeat('/x', n), 'v' FROM generate_series(1, 80) n",
        )?;
        let start = pair.start_statement("tables => ARRAY['page']::regclass[]", "{}");
        pair.source.execute("ANALYZE page")?;
        let error = pair.source.error_of(&start)?;
        assert!(
            error.message().contains("column \"url\" of its key has values of 182 bytes"),
            "{}",
            error.message()
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("REPLICA IDENTITY USING INDEX")));
        pair.source.execute("DELETE FROM page WHERE length(url) > 128; ANALYZE page")?;
        pair.source.execute(&start)?;
        pair.wait_and_compare(&["page"])
    });
}

#[test]
fn text_that_a_sample_shows_to_be_too_long_is_refused_until_an_option_settles_it() {
    on_a_pair(|pair| {
        pair.source.execute(
            "CREATE TABLE note (id int PRIMARY KEY, v varchar, b bytea, short varchar(9));
             INSERT INTO note VALUES (1, repeat('x', 1048577), '', 'a'), (2, 'short', '', 'b')",
        )?;
        let tables = "tables => ARRAY['note']::regclass[]";
        let error = pair.source.error_of(&pair.start_statement(tables, "{}"))?;
        assert!(error.message().contains("column \"v\" has values of 1048577 bytes"), "{}", error.message());
        assert!(error.hint().is_some_and(|hint| hint.contains("on_out_of_range")));
        pair.start_mirror_with(tables, r#"{"on_out_of_range": "clamp"}"#)?;
        pair.wait()?;
        let table = pair.target.table("note");
        assert_eq!(pair.target.value(&format!("SELECT length(v) FROM {table} WHERE id = 1"))?, "1048576");
        Ok(())
    });
}
