-- What no row shows: a rewrite of a mirrored table gives its rows other values without a change in the log, VACUUM FULL and
-- CLUSTER aside, which give none. A message in the log tells the mirror, at its place among the rows. Only tables that are
-- mirrored cost more than one look; a failure is a warning, never an error of whoever alters the table.

CREATE FUNCTION dbmazz.note_rewrite()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rewritten oid := pg_catalog.pg_event_trigger_table_rewrite_oid();
BEGIN
    IF EXISTS (SELECT FROM dbmazz.mirror_table t WHERE t.relid = rewritten) THEN
        PERFORM pg_catalog.pg_logical_emit_message(true, 'dbmazz_rewritten', rewritten::text);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'could not tell the mirrors that a table has been rewritten: %', SQLERRM;
END
$$;
COMMENT ON FUNCTION dbmazz.note_rewrite() IS 'tells the mirrors that a table has been rewritten';

CREATE EVENT TRIGGER dbmazz_rewrite ON table_rewrite EXECUTE FUNCTION dbmazz.note_rewrite();
-- Also where changes of another server are applied.
ALTER EVENT TRIGGER dbmazz_rewrite ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER dbmazz_rewrite IS 'tells the mirrors that a table has been rewritten';
