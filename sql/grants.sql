-- Who may do what. Everything is taken from PUBLIC first.
--
-- * Nobody writes the tables: the functions do so with the rights of the extension, after checking those of the caller.
-- * A mirror reads whole tables with the rights of the server, and a database owner answers for the database, so that
--   is who may start one (besides superusers); others by GRANT EXECUTE. Starting also takes USAGE on the server and
--   SELECT on every table; all else takes the mirror's owner.
-- * USAGE on the foreign-data wrapper lets a role name hosts for the server to connect to: superusers grant it.
-- * Monitoring sees everything but the rows themselves: dbmazz_rejected_row has values of tables, so it is for the
--   database owner and for roles that may read all data anyway.

REVOKE ALL ON SCHEMA dbmazz FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA dbmazz FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA dbmazz FROM PUBLIC;
REVOKE ALL ON dbmazz_stat_mirror, dbmazz_stat_table, dbmazz_progress_snapshot, dbmazz_event, dbmazz_rejected_row
    FROM PUBLIC;
REVOKE ALL ON FUNCTION
    dbmazz_start_mirror(text, text, regclass[], text, boolean, jsonb),
    dbmazz_pause_mirror(text),
    dbmazz_resume_mirror(text),
    dbmazz_drop_mirror(text, boolean),
    dbmazz_add_table(text, regclass),
    dbmazz_remove_table(text, regclass),
    dbmazz_resync_table(text, regclass),
    dbmazz_check_mirror(text, regclass[], text, jsonb),
    dbmazz_wait_mirror(text, pg_lsn, interval),
    dbmazz_retry_rejected(text, regclass),
    dbmazz_skip_rejected(text, regclass),
    dbmazz_starrocks_validator(text[], oid),
    dbmazz_s3_validator(text[], oid),
    dbmazz.live_mirrors(),
    dbmazz.add_new_table(oid),
    dbmazz.rewrite_is_of_types_alone(),
    dbmazz.values_of_type_change(),
    dbmazz.tell_mirrors(text, oid, text)
    FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    dbmazz_start_mirror(text, text, regclass[], text, boolean, jsonb),
    dbmazz_pause_mirror(text),
    dbmazz_resume_mirror(text),
    dbmazz_drop_mirror(text, boolean),
    dbmazz_add_table(text, regclass),
    dbmazz_remove_table(text, regclass),
    dbmazz_resync_table(text, regclass),
    dbmazz_check_mirror(text, regclass[], text, jsonb),
    dbmazz_wait_mirror(text, pg_lsn, interval),
    dbmazz_retry_rejected(text, regclass),
    dbmazz_skip_rejected(text, regclass)
    TO pg_database_owner;

-- A view reads its tables as its owner, but calls functions as whoever looks at it.
GRANT EXECUTE ON FUNCTION dbmazz.live_mirrors() TO pg_monitor, pg_database_owner;
GRANT SELECT ON dbmazz_stat_mirror, dbmazz_stat_table, dbmazz_progress_snapshot, dbmazz_event
    TO pg_monitor, pg_database_owner;
GRANT SELECT ON dbmazz_rejected_row TO pg_database_owner;
-- The checkpoint is for all who want to know up to which position the target can be relied on.
GRANT USAGE ON SCHEMA dbmazz TO pg_monitor, pg_database_owner;
GRANT SELECT ON dbmazz.checkpoint TO pg_monitor, pg_database_owner;

-- No pg_extension_config_dump: mirrors do not survive dump and restore, and are not meant to. Their rows refer to tables
-- and roles by OID, which a restored database has others of; and a copy of a database that went on mirroring would
-- write to the target of the original. pg_upgrade keeps OIDs and carries the tables over as they are.
