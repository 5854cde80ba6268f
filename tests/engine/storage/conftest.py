"""The servers that the tests of stores share."""

from tests.engine.storage.database_servers import mysql_server, postgres_server

__all__ = ["mysql_server", "postgres_server"]
