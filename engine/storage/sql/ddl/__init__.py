"""The tables of the database stores, as SQL. ``python -m engine.storage.sql.ddl postgres`` prints them."""
