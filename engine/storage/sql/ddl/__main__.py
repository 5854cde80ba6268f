"""Print the tables of a database store: ``python -m engine.storage.sql.ddl postgres``."""

from __future__ import annotations

import importlib.resources
import sys

HERE = importlib.resources.files("engine.storage.sql.ddl")


def main(arguments: list[str]) -> int:
    """Write what *arguments* name; the exit code is that of the process."""
    scripts = {file.name.removesuffix(".sql"): file for file in HERE.iterdir() if file.name.endswith(".sql")}
    if len(arguments) != 1 or arguments[0] not in scripts:
        sys.stderr.write(f"one of: {', '.join(sorted(scripts))}\n")
        return 2
    sys.stdout.write(scripts[arguments[0]].read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
