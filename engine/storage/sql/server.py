"""What the stores in database servers have in common: connections in a pool, tables that have to be there."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event

from engine.storage.sql.store import DatabaseStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.storage.sql.settings import Server


class ServerStore(DatabaseStore):
    """A store in a database server."""

    dialect: str
    """What SQLAlchemy calls the database and its driver."""

    def __init__(self, where: str, server: Server) -> None:
        super().__init__(where, poll_interval=server.poll_interval, retries=server.retries)
        self._check_tables = server.check_tables
        self._engine = create_engine(
            f"{self.dialect}://", creator=self.connect, hide_parameters=True, **server.pool.options()
        )
        server.pool.limit_idleness(self._engine)
        event.listen(self._engine, "checkin", self._given_back)

    @abstractmethod
    def connect(self) -> Any:
        """Make a connection of the driver."""

    @property
    def engine(self) -> Engine:
        """The engine of SQLAlchemy."""
        return self._engine

    def prepare(self) -> None:
        """Make sure that the tables are there, unless that is not wanted."""
        if self._check_tables:
            self.check_tables()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def _given_back(self, _connection: Any, record: Any) -> None:
        """Close a connection that was in use while the store was closed."""
        if self._closed:
            record.invalidate()
