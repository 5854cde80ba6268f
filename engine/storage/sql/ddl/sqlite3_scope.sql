-- What the tables of a Cerbos before 0.13 lack: scopes. The rest is made by sqlite3.sql.

ALTER TABLE policy ADD COLUMN scope VARCHAR(512);

ALTER TABLE policy_revision ADD COLUMN scope VARCHAR(512);

DROP TRIGGER IF EXISTS policy_on_insert;

DROP TRIGGER IF EXISTS policy_on_update;

DROP TRIGGER IF EXISTS policy_on_delete;
