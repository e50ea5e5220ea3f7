-- Where rows go is a foreign server, as whom is a user mapping: rights and secrets are PostgreSQL's own. The wrapper has
-- no handler, since nothing is read through it.

CREATE FOREIGN DATA WRAPPER dbmazz_starrocks VALIDATOR dbmazz_starrocks_validator;
COMMENT ON FOREIGN DATA WRAPPER dbmazz_starrocks IS 'servers of StarRocks that tables can be mirrored into';

CREATE FOREIGN DATA WRAPPER dbmazz_s3 VALIDATOR dbmazz_s3_validator;
COMMENT ON FOREIGN DATA WRAPPER dbmazz_s3 IS 'servers of S3 that tables can be exported to and imported from';
