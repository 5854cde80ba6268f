-- The tables of Cerbos for SQLite, as they are after its first migration.

CREATE TABLE IF NOT EXISTS policy (
    id UNSIGNED BIG INT NOT NULL PRIMARY KEY,
    kind VARCHAR(128) NOT NULL,
    name VARCHAR(1024) NOT NULL,
    version VARCHAR(128) NOT NULL,
    description TEXT,
    disabled BOOLEAN DEFAULT false,
    definition BLOB,
    scope VARCHAR(512)
);

CREATE INDEX IF NOT EXISTS policy_knv_idx ON policy ((lower(kind) || '.' || name || '.' || version));

CREATE TABLE IF NOT EXISTS policy_dependency (
    policy_id UNSIGNED BIG INT,
    dependency_id UNSIGNED BIG INT,
    PRIMARY KEY (policy_id, dependency_id),
    FOREIGN KEY (policy_id) REFERENCES policy (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS policy_ancestor (
    policy_id UNSIGNED BIG INT,
    ancestor_id UNSIGNED BIG INT,
    PRIMARY KEY (policy_id, ancestor_id),
    FOREIGN KEY (policy_id) REFERENCES policy (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS policy_revision (
    revision_id INTEGER PRIMARY KEY AUTOINCREMENT,
    action VARCHAR(64),
    id UNSIGNED BIG INT,
    kind VARCHAR(128),
    name VARCHAR(1024),
    version VARCHAR(128),
    description TEXT,
    disabled BOOLEAN,
    definition BLOB,
    update_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
    scope VARCHAR(512)
);

CREATE TABLE IF NOT EXISTS attr_schema_defs (
    id VARCHAR(255) PRIMARY KEY,
    definition VARCHAR
);

CREATE TRIGGER IF NOT EXISTS policy_on_insert AFTER INSERT ON policy
BEGIN
    INSERT INTO policy_revision (action, id, kind, name, version, scope, description, disabled, definition)
    VALUES ('INSERT', new.id, new.kind, new.name, new.version, new.scope, new.description, new.disabled, new.definition);
END;

CREATE TRIGGER IF NOT EXISTS policy_on_update AFTER UPDATE ON policy
BEGIN
    INSERT INTO policy_revision (action, id, kind, name, version, scope, description, disabled, definition)
    VALUES ('UPDATE', new.id, new.kind, new.name, new.version, new.scope, new.description, new.disabled, new.definition);
END;

CREATE TRIGGER IF NOT EXISTS policy_on_delete AFTER DELETE ON policy
BEGIN
    INSERT INTO policy_revision (action, id, kind, name, version, scope, description, disabled, definition)
    VALUES ('DELETE', old.id, old.kind, old.name, old.version, old.scope, old.description, old.disabled, old.definition);
END;

-- Cerbos's own mark that the migration has been made.
CREATE TABLE IF NOT EXISTS schema_migrations (version uint64, dirty bool);

CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON schema_migrations (version);

DELETE FROM schema_migrations;

INSERT INTO schema_migrations (version, dirty) VALUES (1, false);
