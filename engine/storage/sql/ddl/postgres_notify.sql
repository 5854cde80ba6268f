-- Ours, beside Cerbos's tables: changes are told at once (NOTIFY), whoever makes them. Without it, those that
-- are not made by this service are found at the next look.

SET search_path TO cerbos;

CREATE OR REPLACE FUNCTION extauthz_policies_changed() RETURNS TRIGGER AS $changed$
    BEGIN
        PERFORM pg_notify('extauthz_policies', '');
        RETURN NULL;
    END;
$changed$ LANGUAGE plpgsql;

DROP TRIGGER IF EXISTS extauthz_policies_changed ON policy;

CREATE TRIGGER extauthz_policies_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON policy
FOR EACH STATEMENT EXECUTE PROCEDURE extauthz_policies_changed();

DROP TRIGGER IF EXISTS extauthz_schemas_changed ON attr_schema_defs;

CREATE TRIGGER extauthz_schemas_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON attr_schema_defs
FOR EACH STATEMENT EXECUTE PROCEDURE extauthz_policies_changed();
