"""One policy file while it is compiled: its document, its faults, its compiled expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cel import CompileError
from engine.document import Fault
from engine.expressions import CONSTANTS, VARIABLES
from engine.rules import Clause

if TYPE_CHECKING:
    from engine.cel import Environment
    from engine.cel.environment import KeptPrograms
    from engine.document import Document, Path
    from engine.policy import Policy

INVALID_EXPRESSION = "invalid expression"


class Module:
    """Collects what is wrong with one policy, and compiles its expressions."""

    def __init__(self, policy: Policy, environment: Environment, kept: KeptPrograms | None = None) -> None:
        """*kept* is asked for expressions first; see :meth:`engine.cel.Environment.compile`."""
        self.policy = policy
        self.faults: dict[Fault, None] = {}
        self._environment = environment
        self._kept = kept

    @property
    def document(self) -> Document:
        """The policy's document."""
        return self.policy.document

    @property
    def file(self) -> str:
        """The policy's file."""
        return self.policy.file

    def report(
        self,
        kind: str,
        message: str,
        path: Path | None = None,
        *,
        key: bool = False,
        hint: str = "",
        document: Document | None = None,
    ) -> None:
        """Note a fault, placed at *path* of *document* (the policy's own when it is not given).

        Without a path the fault concerns the file as a whole.
        """
        if path is None:
            fault = Fault(self.file, 0, 0, message, kind=kind, hint=hint)
        else:
            fault = (document or self.document).fault(
                message, path, key=key, token=True, kind=kind, hint=hint
            )
        self.faults[fault] = None

    def clause(self, text: str, path: Path, *, key: bool) -> Clause | None:
        """Compile the expression at *path*, ``None`` (and a fault) when it is not valid."""
        try:
            expression = self._environment.compile(text, kept=self._kept)
        except CompileError as error:
            messages = ", ".join(issue.message for issue in error.issues)
            first = error.issues[0]
            hint = f"line {first.line}, column {first.column} of the expression"
            message = f"Invalid expression `{text}`: [{messages}]"
            self.report(INVALID_EXPRESSION, message, path, key=key, hint=hint)
            return None
        paths = [path for path in expression.references if len(path) > 1]
        return Clause(
            expression,
            self.document,
            path,
            tuple(sorted({name for space, name, *_ in paths if space in CONSTANTS})),
            tuple(sorted({name for space, name, *_ in paths if space in VARIABLES})),
        )
