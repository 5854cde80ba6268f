"""What is known and what is made while one state of a store is loaded."""

from __future__ import annotations

import contextlib
import logging
import marshal
from typing import TYPE_CHECKING, Any

from engine.artefacts.edition import key_of
from engine.artefacts.forms import FormlessError, form_of, policy_form, policy_of, value_of
from engine.artefacts.shelf import Shelf
from engine.cel import CompileError
from engine.load import PolicyError, load_policy
from engine.policy import expressions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine import policy as p
    from engine.artefacts.cache import Pack
    from engine.cel import Environment, Expression

logger = logging.getLogger(__name__)

POLICY, PROGRAM, SOUND = "policy", "program", "sound"


class Bench:
    """Reads files, and keeps compiled expressions for an environment: what is known is not made again."""

    def __init__(self, edition: bytes, packs: Sequence[Pack] = (), *, keeps: bool = True) -> None:
        """Begin with *packs*; *keeps* says whether what is made here will be wanted elsewhere."""
        self.edition = edition
        self.keeps = keeps
        self.packs = list(packs)
        self._ready: dict[str, tuple[bytes, p.Policy | None]] = {}
        """Policies that were read here ahead of time, by file."""
        self.made = Shelf()
        """What stands in no pack, by key."""
        self.used: set[bytes] = set()
        """The keys of what was taken from packs."""
        self.useful: set[str] = set()
        """The names of packs that something was taken from."""
        self._put_off: list[p.Policy] = []
        """Policies whose expressions may be taken from packs later."""

    def knows(self, content: bytes) -> bool:
        """Tell whether a file with *content* has been read before."""
        return self._find(key_of(self.edition, POLICY, content)) is not None

    def policy(self, content: bytes, file: str) -> p.Policy | None:
        """Read the policy of a file, as :func:`engine.load.load_policy` does.

        Raises:
            PolicyError: with every fault of the file.

        """
        ready = self._ready.pop(file, None)
        if ready is not None and ready[0] is content:
            return ready[1]
        key = key_of(self.edition, POLICY, content)
        kept = self._find(key)
        if kept is not None:
            try:
                return policy_of(kept, content, file)
            except Exception:  # whatever it is that was kept, it is no policy
                logger.warning("a policy that was kept cannot be used", exc_info=True)
        policy = load_policy(content, file)
        if self.keeps:
            with contextlib.suppress(FormlessError):
                self.made[key] = policy_form(policy)
        return policy

    def get(self, text: str) -> tuple[bytes, Any] | None:
        """Return the compiled expression of *text* and what was found out about it."""
        kept = self._find(self._key_of_program(text))
        if kept is None:
            return None
        try:
            data, findings = marshal.loads(kept)  # noqa: S302 - ours, see engine.cel.portable
            return data, value_of(findings)
        except Exception:  # whatever it is that was kept, it is no expression
            logger.warning("a compiled expression that was kept cannot be used", exc_info=True)
            return None

    def put(self, text: str, data: bytes, findings: Any) -> None:
        """Keep the compiled expression of *text* and what was found out about it."""
        with contextlib.suppress(FormlessError):
            self.made[self._key_of_program(text)] = marshal.dumps((data, form_of(findings)))

    def is_sound(self, policy: p.Policy, contents: Iterable[bytes | None]) -> bool:
        """Tell whether there was nothing to say of *policy* when it was compiled with what it imports.

        *contents* are those of its file and of the files that it imports, ``None`` for what is not there.
        Where it was sound, its expressions are expected to be asked for later.
        """
        if self._find(self._key_of_judgement(contents)) is None:
            return False
        self._put_off.append(policy)
        return True

    def note_sound(self, contents: Iterable[bytes | None]) -> None:
        """Keep that there is nothing to say of a policy; see :meth:`is_sound`."""
        if self.keeps:
            self.made[self._key_of_judgement(contents)] = b""

    def make(self, files: Mapping[str, bytes], environment: Environment) -> list[Expression]:
        """Read files and compile their expressions; of what is wrong, nothing is said and nothing kept.

        Returns what has to be held for as long as *environment* is to remember the expressions.
        """
        held = []
        for file, content in files.items():
            try:
                policy = self.policy(content, file)
            except PolicyError:
                continue
            self._ready[file] = content, policy
            for text in expressions_of(policy):
                with contextlib.suppress(CompileError):
                    held.append(environment.compile(text))
        return held

    @property
    def everything(self) -> dict[bytes, bytes | memoryview]:
        """What was made, and what was taken from packs, or will be."""
        for policy in self._put_off:
            self.used.update(map(self._key_of_program, expressions_of(policy)))
        taken = ((key, found) for key in self.used if (found := self._find(key)) is not None)
        return {**dict(taken), **self.made}

    def _find(self, key: bytes) -> bytes | memoryview | None:
        made = self.made.get(key)
        if made is not None:
            return made
        for pack in self.packs:
            found = pack.get(key)
            if found is not None:
                self.used.add(key)
                self.useful.add(pack.name)
                return found
        return None

    def _key_of_judgement(self, contents: Iterable[bytes | None]) -> bytes:
        # Each with its length, so that no two lists of files look alike.
        parts = (b"-" if content is None else b"%d:%b" % (len(content), content) for content in contents)
        return key_of(self.edition, SOUND, b"".join(parts))

    def _key_of_program(self, text: str) -> bytes:
        return key_of(self.edition, PROGRAM, text.encode(errors="surrogatepass"))
