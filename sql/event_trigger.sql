-- What no row shows: that a mirrored table is rewritten (its rows get other values without a change in the log, VACUUM FULL
-- and CLUSTER aside, which give none), that values of a type are printed otherwise, that a table is dropped, called otherwise,
-- or altered without a row that changes afterwards, and that a new one is to join. A message in the log tells
-- the mirrors, at its place among the rows: prefix dbmazz_table, a JSON object. What is rolled back is told to nobody. Only
-- tables that are mirrored cost more than a look; a failure is a warning, never an error of whoever changes the table.

CREATE FUNCTION dbmazz.tell_mirrors(happened text, relation oid, name text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.pg_logical_emit_message(true, 'dbmazz_table', pg_catalog.jsonb_strip_nulls(
        pg_catalog.jsonb_build_object('event', happened, 'relid', relation::bigint, 'name', name))::text);
    -- A message is queued at the end of its record, which is where the next begins: with a change of another subtransaction
    -- there it would tie in the reorder buffer's merge, and either could come first. This one stands between, and tells nothing.
    SELECT pg_catalog.pg_logical_emit_message(false, 'dbmazz', '')
$$;
COMMENT ON FUNCTION dbmazz.tell_mirrors(text, oid, text) IS 'tells the mirrors, by a message in the log, what happened to a table';

CREATE FUNCTION dbmazz.note_rewrite()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rewritten oid := pg_catalog.pg_event_trigger_table_rewrite_oid();
BEGIN
    -- Reason 4 is a column of another type; with others beside it, values may have come from anywhere. The rows of a partition
    -- are those of the mirrored table that it is a partition of.
    PERFORM dbmazz.tell_mirrors(
        CASE WHEN t.relid = rewritten AND pg_catalog.pg_event_trigger_table_rewrite_reason() = 4
                  AND dbmazz.rewrite_is_of_types_alone()
             THEN 'retyped' ELSE 'rewritten' END, t.relid)
    FROM (SELECT DISTINCT relid FROM dbmazz.mirror_table) t
    WHERE t.relid = rewritten OR t.relid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(rewritten) a);
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'could not tell the mirrors that a table has been rewritten: %', SQLERRM;
END
$$;
COMMENT ON FUNCTION dbmazz.note_rewrite() IS 'tells the mirrors that a table has been rewritten';

-- A label of an enum has another name, or a composite type another number of attributes: values that contain one are printed
-- otherwise, whatever they contain it in.
CREATE FUNCTION dbmazz.note_type()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT dbmazz.values_of_type_change() THEN
        RETURN;
    END IF;
    PERFORM dbmazz.tell_mirrors('rewritten', t.relid)
    FROM (WITH RECURSIVE containing (type) AS (
              SELECT CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass
                          THEN (SELECT c.reltype FROM pg_catalog.pg_class c WHERE c.oid = d.objid) ELSE d.objid END
              FROM pg_catalog.pg_event_trigger_ddl_commands() d WHERE d.command_tag = 'ALTER TYPE'
              UNION
              SELECT outer_one.type FROM containing CROSS JOIN LATERAL (
                  SELECT y.oid FROM pg_catalog.pg_type y WHERE y.typbasetype = containing.type OR y.typelem = containing.type
                  UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngsubtype = containing.type
                  UNION ALL SELECT r.rngmultitypid FROM pg_catalog.pg_range r WHERE r.rngsubtype = containing.type
                  UNION ALL SELECT c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                            WHERE a.atttypid = containing.type AND NOT a.attisdropped AND c.reltype <> 0
              ) AS outer_one (type))
          SELECT DISTINCT m.relid FROM dbmazz.mirror_table m JOIN pg_catalog.pg_attribute a ON a.attrelid = m.relid
          WHERE NOT a.attisdropped AND a.attnum > 0 AND a.atttypid IN (SELECT type FROM containing)) t;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'could not tell the mirrors that a type has been altered: %', SQLERRM;
END
$$;
COMMENT ON FUNCTION dbmazz.note_type() IS 'tells the mirrors that values of a type are printed otherwise';

CREATE FUNCTION dbmazz.note_drop()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM dbmazz.tell_mirrors('dropped', d.relid)
    FROM (SELECT DISTINCT t.relid FROM pg_catalog.pg_event_trigger_dropped_objects() o
          JOIN dbmazz.mirror_table t ON t.relid = o.objid
          WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objsubid = 0) d;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'could not tell the mirrors that a table has been dropped: %', SQLERRM;
END
$$;
COMMENT ON FUNCTION dbmazz.note_drop() IS 'tells the mirrors that tables have been dropped';

-- Of an ALTER TABLE nobody says what has changed, the name or columns, so the present name is told, and the mirrors look.
CREATE FUNCTION dbmazz.note_ddl()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made oid;
BEGIN
    PERFORM dbmazz.tell_mirrors('altered', n.oid, n.name)
    FROM (SELECT DISTINCT c.oid, s.nspname || '.' || c.relname AS name
          FROM pg_catalog.pg_event_trigger_ddl_commands() d
          JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
              OR d.classid = 'pg_catalog.pg_namespace'::regclass AND c.relnamespace = d.objid
          JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
          WHERE d.command_tag IN ('ALTER TABLE', 'ALTER SCHEMA')
              AND EXISTS (SELECT FROM dbmazz.mirror_table t WHERE t.relid = c.oid)) n;
    IF TG_TAG NOT LIKE 'ALTER%' AND EXISTS (SELECT FROM dbmazz.mirror m WHERE m.all_tables) THEN
        FOR made IN
            SELECT DISTINCT d.objid FROM pg_catalog.pg_event_trigger_ddl_commands() d
            JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
            WHERE d.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
                AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND NOT d.in_extension
        LOOP
            IF dbmazz.add_new_table(made) THEN
                PERFORM dbmazz.tell_mirrors('created', made);
            END IF;
        END LOOP;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'could not tell the mirrors what has become of a table: %', SQLERRM;
END
$$;
COMMENT ON FUNCTION dbmazz.note_ddl() IS 'tells the mirrors that tables are altered, and has new ones join';

-- Event triggers fire in the order of their names.
CREATE EVENT TRIGGER dbmazz_look ON table_rewrite EXECUTE FUNCTION dbmazz.look_at_rewrite();
CREATE EVENT TRIGGER dbmazz_rewrite ON table_rewrite EXECUTE FUNCTION dbmazz.note_rewrite();
CREATE EVENT TRIGGER dbmazz_drop ON sql_drop EXECUTE FUNCTION dbmazz.note_drop();
CREATE EVENT TRIGGER dbmazz_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA')
    EXECUTE FUNCTION dbmazz.note_ddl();
CREATE EVENT TRIGGER dbmazz_look_at_type ON ddl_command_end WHEN TAG IN ('ALTER TYPE') EXECUTE FUNCTION dbmazz.look_at_type();
CREATE EVENT TRIGGER dbmazz_type ON ddl_command_end WHEN TAG IN ('ALTER TYPE') EXECUTE FUNCTION dbmazz.note_type();
-- Also where changes of another server are applied.
ALTER EVENT TRIGGER dbmazz_look ENABLE ALWAYS;
ALTER EVENT TRIGGER dbmazz_rewrite ENABLE ALWAYS;
ALTER EVENT TRIGGER dbmazz_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER dbmazz_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER dbmazz_look_at_type ENABLE ALWAYS;
ALTER EVENT TRIGGER dbmazz_type ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER dbmazz_look IS 'looks why a table is rewritten';
COMMENT ON EVENT TRIGGER dbmazz_look_at_type IS 'looks how a type is altered';
COMMENT ON EVENT TRIGGER dbmazz_type IS 'tells the mirrors that values of a type are printed otherwise';
COMMENT ON EVENT TRIGGER dbmazz_rewrite IS 'tells the mirrors that a table has been rewritten';
COMMENT ON EVENT TRIGGER dbmazz_drop IS 'tells the mirrors that tables have been dropped';
COMMENT ON EVENT TRIGGER dbmazz_ddl IS 'tells the mirrors that tables are altered, and has new ones join';
