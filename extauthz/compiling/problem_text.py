"""What is wrong with policies, for people: sections as in ``cerbos compile``, with hints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.document import Fault
    from extauthz.compiling.problems import Placed, Problems

    Paint = Callable[[str, str], str]


def problem_lines(found: Problems, paint: Paint) -> Iterator[str]:
    """Yield the lines of every section that has anything to say."""
    sections = (
        ("Disabled policies", _disabled(found, paint)),
        ("Missing scopes", _missing_scopes(found, paint)),
        ("Duplicate definitions", _duplicates(found, paint)),
        ("Missing imports", _missing_imports(found, paint)),
        ("Load failures", _load_failures(found, paint)),
        ("Scope permission conflicts", _conflicts(found, paint)),
        ("Compilation errors", _compile_errors(found, paint)),
    )
    for heading, lines in sections:
        listed = list(lines)
        if listed:
            yield paint("header", heading)
            yield from listed
            yield ""


def _disabled(found: Problems, paint: Paint) -> Iterator[str]:
    if found.lint:
        for policy in found.disabled:
            place = _place(policy.file, policy.line, policy.column, paint)
            yield f"{place} {paint('policy', policy.policy)}"


def _missing_scopes(found: Problems, paint: Paint) -> Iterator[str]:
    for missing in found.missing_scopes:
        descendants = paint("policy", ", ".join(missing.descendants))
        name = paint("error", missing.policy)
        yield f"scoped policy {name} is not found but is required by descendant policies {descendants}"


def _duplicates(found: Problems, paint: Paint) -> Iterator[str]:
    for duplicate in found.duplicates:
        policy, other = paint("policy", duplicate.policy), paint("file", duplicate.other_file)
        yield f"{_at(duplicate.at, paint)} duplicate definition of {policy} (previous definition in {other})"


def _missing_imports(found: Problems, paint: Paint) -> Iterator[str]:
    for missing in found.missing_imports:
        policy = paint("policy", missing.policy)
        name = paint("text", missing.name)
        what = f'cannot find {missing.kind} "{name}" imported by {policy}'
        yield f"{_at(missing.at, paint)} {what}{_hint(missing.at.fault, paint)}"
        yield from _excerpt(missing.at)


def _load_failures(found: Problems, paint: Paint) -> Iterator[str]:
    for failure in found.load_failures:
        message = paint("error", failure.fault.message)
        yield f"{_at(failure, paint)} {message}{_hint(failure.fault, paint)}"
        yield from _excerpt(failure)


def _conflicts(found: Problems, paint: Paint) -> Iterator[str]:
    for scope in found.conflicts:
        yield f"policies sharing scope {paint('error', scope)} have conflicting scopePermissions"


def _compile_errors(found: Problems, paint: Paint) -> Iterator[str]:
    for error in found.compile_errors:
        fault = error.fault
        message = paint("error", fault.message)
        yield f"{_at(error, paint)} {message} <{fault.kind}>{_hint(fault, paint)}"
        yield from _excerpt(error)


def _excerpt(placed: Placed) -> Iterator[str]:
    if placed.excerpt:
        yield placed.excerpt
        yield ""


def _at(placed: Placed, paint: Paint) -> str:
    return _place(placed.fault.file, placed.line, placed.column, paint)


def _place(file: str, line: int, column: int, paint: Paint) -> str:
    if not line:
        return paint("file", file)
    return f"{paint('file', file)}:{paint('place', str(line))}:{paint('place', str(column))}"


def _hint(fault: Fault, paint: Paint) -> str:
    return paint("hint", f" ({fault.hint})") if fault.hint else ""
