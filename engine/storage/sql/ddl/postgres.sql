-- The tables of Cerbos for PostgreSQL. Run as a user who may create a schema, in the database of the policies;
-- then let the service's own user do what the last lines say, with a name and a password of your choice.

CREATE SCHEMA IF NOT EXISTS cerbos;

SET search_path TO cerbos;

CREATE TABLE IF NOT EXISTS policy (
    id BIGINT NOT NULL PRIMARY KEY,
    kind VARCHAR(128) NOT NULL,
    name VARCHAR(1024) NOT NULL,
    version VARCHAR(128) NOT NULL,
    scope VARCHAR(512),
    description TEXT,
    disabled BOOLEAN DEFAULT false,
    definition BYTEA
);

CREATE TABLE IF NOT EXISTS policy_dependency (
    policy_id BIGINT,
    dependency_id BIGINT,
    PRIMARY KEY (policy_id, dependency_id),
    FOREIGN KEY (policy_id) REFERENCES cerbos.policy (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS policy_ancestor (
    policy_id BIGINT,
    ancestor_id BIGINT,
    PRIMARY KEY (policy_id, ancestor_id),
    FOREIGN KEY (policy_id) REFERENCES cerbos.policy (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS policy_revision (
    revision_id SERIAL PRIMARY KEY,
    action VARCHAR(64),
    id BIGINT,
    kind VARCHAR(128),
    name VARCHAR(1024),
    version VARCHAR(128),
    scope VARCHAR(512),
    description TEXT,
    disabled BOOLEAN,
    definition BYTEA,
    update_timestamp TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS attr_schema_defs (
    id VARCHAR(255) PRIMARY KEY,
    definition JSON
);

CREATE OR REPLACE FUNCTION process_policy_audit() RETURNS TRIGGER AS $policy_audit$
    DECLARE
        row_now RECORD;
    BEGIN
        IF TG_OP = 'DELETE' THEN
            row_now := OLD;
        ELSE
            row_now := NEW;
        END IF;
        INSERT INTO policy_revision (action, id, kind, name, version, scope, description, disabled, definition)
        VALUES (TG_OP, row_now.id, row_now.kind, row_now.name, row_now.version, row_now.scope,
                row_now.description, row_now.disabled, row_now.definition);
        RETURN NULL;
    END;
$policy_audit$ LANGUAGE plpgsql SET search_path FROM CURRENT;

DROP TRIGGER IF EXISTS policy_audit ON policy;

CREATE TRIGGER policy_audit
AFTER INSERT OR UPDATE OR DELETE ON policy
FOR EACH ROW EXECUTE PROCEDURE process_policy_audit();

-- CREATE USER policies WITH PASSWORD '...';
-- GRANT USAGE ON SCHEMA cerbos TO policies;
-- GRANT SELECT, INSERT, UPDATE, DELETE
--     ON cerbos.policy, cerbos.policy_dependency, cerbos.policy_ancestor, cerbos.attr_schema_defs TO policies;
-- GRANT SELECT, INSERT, DELETE ON cerbos.policy_revision TO policies;
-- GRANT USAGE, SELECT ON cerbos.policy_revision_revision_id_seq TO policies;
--
-- A gateway that only reads needs USAGE on the schema and SELECT on the five tables.
