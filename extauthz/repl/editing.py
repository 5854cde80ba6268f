"""Line editing with prompt_toolkit: history, completion of names and functions, colours, several lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style

from engine.cel import library
from extauthz.repl.session import DIRECTIVES
from extauthz.repl.special import ALIASES, ROOTS
from extauthz.repl.terminal import is_incomplete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyPressEvent

    from extauthz.repl.session import Session

STYLE: Final = Style.from_dict(
    {
        "directive": "bold",
        "string": "ansigreen",
        "number": "ansicyan",
        "word": "ansimagenta",
        "special": "ansiblue bold",
        "comment": "ansibrightblack",
    }
)

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "P": ("attr", "id", "policyVersion", "roles", "scope"),
    "R": ("attr", "id", "kind", "policyVersion", "scope"),
    "request": ("auxData", "principal", "resource"),
    "request.auxData": ("jwt", "jwts"),
    "runtime": ("effectiveDerivedRoles",),
}
_STANDARD: Final = (
    "all", "bool", "bytes", "cel.bind", "contains", "double", "duration", "dyn", "endsWith", "exists",
    "exists_one", "filter", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear",
    "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "has", "int", "map", "matches",
    "math.greatest", "math.least", "size", "sortBy", "startsWith", "string", "timestamp", "type", "uint",
)  # fmt: skip
FUNCTIONS: Final = tuple(
    sorted({*_STANDARD, *(name for name in library.FUNCTIONS if "@" not in name and name[0].isalpha())})
)
_WORD: Final = re.compile(r"[\w.]*$")


def editor(session: Session, history: Path | None) -> Callable[[], str]:
    """Return what reads one input from the terminal; it raises ``EOFError`` at Ctrl-D."""
    prompt: PromptSession[str] = PromptSession(
        "-> ",
        prompt_continuation="   ",
        multiline=True,
        history=InMemoryHistory() if history is None else FileHistory(str(history)),
        completer=SessionCompleter(session),
        complete_while_typing=False,
        key_bindings=_keys(),
        lexer=CelLexer(),
        style=STYLE,
    )
    return prompt.prompt


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # what was typed before the prompt came
    def _(event: KeyPressEvent) -> None:
        """Take the input, unless it goes on; an empty line ends it all the same."""
        buffer = event.current_buffer
        if is_incomplete(buffer.text) and buffer.document.current_line.strip():
            buffer.newline()
        else:
            buffer.validate_and_handle()

    return keys


class SessionCompleter(Completer):
    """Completes directives, paths, variables, fields, attributes and functions."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor."""
        text = document.text_before_cursor
        if text.startswith(":load "):
            path = text.removeprefix(":load ").lstrip()
            yield from self._paths.get_completions(Document(path, len(path)), complete_event)
        elif re.fullmatch(r":\w*", text):
            yield from _matching((f":{name}" for name in DIRECTIVES), text)
        else:
            found = _WORD.search(text)
            yield from self._words(found[0] if found else "")

    def _words(self, word: str) -> Iterator[Completion]:
        *path, beginning = word.split(".")
        if not path:
            yield from _matching(sorted((*self._session.own, *ALIASES, *ROOTS)), beginning)
            yield from _matching(FUNCTIONS, beginning)
            return
        fields = _FIELDS.get(".".join(path)) or self._keys_of(path)
        yield from _matching(fields, beginning)
        if not fields:
            yield from _matching(FUNCTIONS, word, start=-len(word))

    def _keys_of(self, path: list[str]) -> tuple[str, ...]:
        """Return the keys of the map that *path* leads to, as far as the session knows it."""
        session = self._session
        found: Any = session.own.get(path[0])
        if path[0] in (*ALIASES, *ROOTS):
            found = session.special.get(path[0])
        if path == ["V"]:
            found = {**session.loaded.variables, **found}
        if path == ["C"]:
            found = {**session.loaded.constants, **found}
        for step in path[1:]:
            found = found.get(step) if isinstance(found, dict) else None
        return tuple(sorted(found)) if isinstance(found, dict) else ()


def _matching(words: Iterable[str], beginning: str, *, start: int | None = None) -> Iterator[Completion]:
    for word in words:
        if word.startswith(beginning) and word != beginning:
            yield Completion(word, start_position=-len(beginning) if start is None else start)


_LEXEMES: Final = re.compile(
    r"""(?P<directive>^\s*:\w+)|(?P<comment>//.*)|(?P<string>[rRbB]{0,2}(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?))"""
    r"""|(?P<number>\b\d[\w.]*)|(?P<word>\b(?:true|false|null|in)\b)"""
    r"""|(?P<special>\b(?:P|R|C|V|G|request|runtime|constants|variables|globals|_)\b)|(?P<other>.)""",
    re.DOTALL,
)


class CelLexer(Lexer):
    """Colours for a line of CEL."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return what gives the pieces of a line, each with its style."""
        lines = document.lines

        def pieces(number: int) -> StyleAndTextTuples:
            return [
                ("" if found.lastgroup == "other" else f"class:{found.lastgroup}", found[0])
                for found in _LEXEMES.finditer(lines[number])
            ]

        return pieces
