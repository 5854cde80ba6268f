"""Coverage as one page of HTML that needs nothing else: no scripts, no other files, no other hosts.

The sources of the policies are coloured line by line; what is missing is said in words beside the line and in
a list with links.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Final

from pygments import lex
from pygments.lexers.data import YamlLexer
from pygments.token import Comment, Literal, Name, Number, String

from extauthz.coverage_report.words import COLUMNS, named, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.coverage import Coverage, Item, PolicyCoverage, Total

STYLE: Final = resources.files(__package__).joinpath("page.css").read_text("utf-8")

_MOST_LINES: Final = 20_000
"""Files with more lines are listed, and not shown."""


def coverage_page(coverage: Coverage, sources: Mapping[str, str], *, title: str) -> str:
    """Return the page; *sources* are the texts of the policies by file."""
    files = [_File(number, policy) for number, policy in enumerate(coverage.policies, start=1)]
    body = [
        _head(coverage, title),
        "<main>",
        _summary(files, coverage),
        _gaps(files),
        *(_source(file, sources.get(file.policy.file, "")) for file in files),
        "</main>",
    ]
    return _PAGE.format(title=escape(title), policy=_security_policy(), style=STYLE, body="\n".join(body))


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _security_policy() -> str:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class _File:
    number: int
    policy: PolicyCoverage

    def anchor(self, line: int = 0) -> str:
        """Return the fragment of the file, or of one of its lines."""
        return f"f{self.number}l{line}" if line else f"f{self.number}"


# -- the top -----------------------------------------------------------------------------------------------


def _head(coverage: Coverage, title: str) -> str:
    total = coverage.total
    policies = _counted(len(coverage.policies), "policy", "policies")
    questions = _counted(coverage.questions, "question")
    return f"""\
<header>
<h1>{escape(title)}</h1>
<p class="total"><strong>{percent(total)}</strong> {_meter(total)}</p>
<p>{total.covered} of {total.marks} marks in {policies}, by {questions} of the tests</p>
{_LEGEND}
</header>"""


_LEGEND: Final = """\
<p class="legend"><span class="swatch covered"></span> reached
<span class="swatch partial"></span> one of two outcomes is missing
<span class="swatch missed"></span> not reached
<span class="sign">T 2 F 4</span> true in two questions, false in four
<span class="sign">3&times;</span> in three questions; the bar at the left is all of a rule</p>"""


def _meter(total: Total) -> str:
    share = percent(total)
    limits = 'min="0" max="100" low="50" high="99.95" optimum="100"'
    return f'<meter {limits} value="{total.percent:.1f}">{share}</meter>'


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _summary(files: Sequence[_File], coverage: Coverage) -> str:
    heads = "".join(f'<th scope="col" class="n">{name}</th>' for name in COLUMNS)
    rows = "\n".join(_summary_row(file) for file in files)
    return f"""\
<section aria-labelledby="policies">
<h2 id="policies">Policies</h2>
<div class="wide"><table class="summary">
<thead><tr><th scope="col">file</th>{heads}<th scope="col" class="n">covered</th>
<th><span class="hidden">share</span></th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</section>"""


def _summary_row(file: _File) -> str:
    totals = file.policy.totals()
    cells = []
    for kinds in COLUMNS.values():
        found = [totals[kind] for kind in kinds if kind in totals]
        covered, marks = sum(one.covered for one in found), sum(one.marks for one in found)
        state = "" if not marks else " covered" if covered == marks else " partial" if covered else " missed"
        cells.append(f'<td class="n{state}">{f"{covered}/{marks}" if marks else ""}</td>')
    total = file.policy.total
    name = f'<a href="#{file.anchor()}">{escape(file.policy.file)}</a>'
    return (
        f'<tr><th scope="row">{name}</th>{"".join(cells)}<td class="n">{percent(total)}</td>'
        f"<td>{_meter(total)}</td></tr>"
    )


def _gaps(files: Iterable[_File]) -> str:
    listed = "\n".join(
        f'<li><a href="#{file.anchor(item.line)}">{escape(file.policy.file)}:{item.line}</a> '
        f"{_code(named(item))}: {escape(item.gap)}</li>"
        for file in files
        for item in file.policy.items
        if item.gap and not item.implied
    )
    if not listed:
        return f'{_GAPS}<p class="nothing">Nothing: the tests reach everything.</p></section>'
    return f'{_GAPS}\n<ol class="gaps">\n{listed}\n</ol></section>'


_GAPS: Final = '<section aria-labelledby="gaps"><h2 id="gaps">Not covered</h2>'


def _code(text: str) -> str:
    """Escape, and set what stands in backticks as code."""
    kind, _, rest = text.partition("`")
    return f"{escape(kind)}<code>{escape(rest.removesuffix('`'))}</code>"


# -- the sources -------------------------------------------------------------------------------------------


def _source(file: _File, text: str) -> str:
    lines = _coloured(text)
    if len(lines) > _MOST_LINES:
        shown = "<p>This file is too long to be shown.</p>"
    else:
        marks = _line_marks(file.policy.items)
        rows = "\n".join(
            _line(file, number, line, marks.get(number, _NOTHING))
            for number, line in enumerate(lines, start=1)
        )
        shown = f'<div class="wide"><table class="source"><tbody>\n{rows}\n</tbody></table></div>'
    total = file.policy.total
    state = "" if total.covered == total.marks else " open"
    return f"""\
<details id="{file.anchor()}"{state}>
<summary><h2>{escape(file.policy.file)}</h2> <span class="key">{escape(file.policy.key)}</span>
<span class="share">{percent(total)} {_meter(total)}</span></summary>
{shown}
</details>"""


@dataclass(frozen=True, slots=True)
class _LineMarks:
    """What there is to say about one line."""

    state: str = ""
    block: str = ""
    """The state of the rule around it."""

    counts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


_NOTHING = _LineMarks()


def _line_marks(items: Sequence[Item]) -> dict[int, _LineMarks]:
    """Put items on lines: a rule on its first, with a bar along all of it, an expression on all of its."""
    on_line: dict[int, list[Item]] = {}
    blocks: dict[int, str] = {}
    for item in items:
        last = item.line if item.kind in _BLOCKS or item.name in ("all", "any", "none") else item.last_line
        for number in range(item.line, last + 1):
            on_line.setdefault(number, []).append(item)
        if item.kind in _BLOCKS:
            inside = [one for one in items if one.path[: len(item.path)] == item.path]
            blocks.update(dict.fromkeys(range(item.line, item.last_line + 1), _state(inside)))
    return {
        number: _marks_of(number, on_line.get(number, []), blocks.get(number, ""))
        for number in on_line.keys() | blocks.keys()
    }


_BLOCKS: Final = ("rule", "derived role")


def _marks_of(number: int, items: Sequence[Item], block: str) -> _LineMarks:
    here = [item for item in items if item.line == number]
    counts = tuple(_counts(item) for item in here if item.marks)
    remarks = tuple(
        f"{item.kind if len(here) > 1 else ''} {'; '.join(filter(None, (item.gap, *item.notes)))}".strip()
        for item in here
        if item.gap or item.notes
    )
    return _LineMarks(_state(items), block, counts, remarks)


def _state(items: Sequence[Item]) -> str:
    marks = [mark for item in items for mark in item.marks]
    if not marks:
        return "unused" if items else ""
    found = [bool(mark.times) for mark in marks]
    return "covered" if all(found) else "partial" if any(found) else "missed"


_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_SIGNS: Final = {"true": "T", "false": "F"}


def _counts(item: Item) -> str:
    """Write ``T 3 F 1`` for a condition, and for anything else how many times."""
    return " ".join(
        f"{_SIGNS[mark.name]} {mark.times}" if mark.name in _SIGNS else f"{mark.times}{_TIMES}"
        for mark in item.marks
    )


def _line(file: _File, number: int, code: str, marks: _LineMarks) -> str:
    state = " ".join(filter(None, (marks.state, f"in-{marks.block}" if marks.block else "")))
    words = {"covered": "covered", "partial": "partly covered", "missed": "not covered", "unused": "not used"}
    title = "; ".join((words[marks.state], *marks.remarks)) if marks.state else ""
    tip = f' title="{escape(title)}"' if title else ""
    counts = escape("  ".join(marks.counts))
    label = f'<span class="hidden">{words[marks.state]}</span>' if marks.state else ""
    remark = "".join(f"<em>{escape(text)}</em>" for text in marks.remarks)
    return (
        f'<tr id="{file.anchor(number)}" class="{state}"{tip}><td class="number">{number}</td>'
        f'<td class="counts">{label}{counts}</td><td class="code"><code>{code}</code>{remark}</td></tr>'
    )


_CLASSES: Final = (
    (Comment, "c"),
    (Name.Tag, "k"),
    (Number, "v"),
    (String, "s"),
    (Literal, "s"),
)


def _coloured(text: str) -> list[str]:
    """Return the lines of a YAML text in HTML, with spans for what has a colour."""
    lines = [""]
    for token, piece in lex(text, YamlLexer(stripnl=False, ensurenl=False)):
        name = next((name for kind, name in _CLASSES if kind in token.split()), "")
        for position, part in enumerate(piece.split("\n")):
            if position:
                lines.append("")
            if part:
                lines[-1] += f'<span class="{name}">{escape(part)}</span>' if name else escape(part)
    return lines[:-1] if lines[-1] == "" else lines
