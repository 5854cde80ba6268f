"""`extauthz explain`: requests from files, decisions with the way to them, exit codes."""

from __future__ import annotations

import json
import textwrap
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.document import DocumentError
from engine.engine import Engine
from extauthz.cli import main
from extauthz.explain_request import read_request
from extauthz.pdp import Pdp, protojson
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.explaining import Explaining
from extauthz.pdp.messages import CheckResourcesRequest
from tests.differential.requests import request as random_request
from tests.differential.sides import questions

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - name: mine
      actions: [view]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: R.attr.owner == P.id}}
    - name: of-claims
      actions: [claim]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: CLAIM}}
    - name: no
      actions: [fail]
      effect: EFFECT_DENY
      roles: [user]
      condition: {match: {expr: R.attr.x > 1}}
    - {name: yes, actions: [fail], effect: EFFECT_ALLOW, roles: [user]}
    - name: later
      actions: [now]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: now() > timestamp("2030-01-01T00:00:00Z")}}
""".replace("CLAIM", "request.auxData.jwt.?sub.orValue('') == P.id || 'two' in request.auxData.jwts")
SCOPED = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: note
  version: v7
  rules:
    - {actions: [view], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: G.open}}}
"""
REQUEST = """
principal: {id: ann, roles: [user]}
resources:
  - actions: [view]
    resource: {kind: doc, id: "1", attr: {owner: ann}}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Write the policies."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "doc.yaml").write_text(POLICY, encoding="utf-8")
    (directory / "note.yaml").write_text(SCOPED, encoding="utf-8")
    return directory


def explain(*arguments: object, request: str | bytes = REQUEST) -> Result:
    """Run the command with a request on standard input."""
    return CliRunner().invoke(main, ["explain", *map(str, arguments), "-"], input=request)


def asking(actions: str, **members: Any) -> str:
    """Ask about one document."""
    entry = {"actions": actions.split(), "resource": {"kind": "doc", "id": "1"} | members.pop("resource", {})}
    return json.dumps({"principal": {"id": "ann", "roles": ["user"]}, "resources": [entry], **members})


# --- decisions --------------------------------------------------------------------------------------------


def test_text(policies: Path, tmp_path: Path) -> None:
    """Text has for each resource and action the decision, and the rules and values that led to it."""
    file = tmp_path / "request.yaml"
    file.write_text(REQUEST.replace("[view]", "[view, edit]"), encoding="utf-8")
    result = CliRunner().invoke(main, ["explain", str(policies), str(file)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "doc 1, asked for by ann (user)",
        "  view: ALLOW by resource.doc.vdefault, rule `mine`",
    ]
    assert any(line.strip() == 'R.attr.owner = "ann"' for line in lines)
    assert "  edit: DENY by resource.doc.vdefault" in lines
    assert lines[-1] == "1 allowed, 1 denied"


@pytest.mark.parametrize(("actions", "code"), [("view", 0), ("view edit", 1), ("edit", 1)])
def test_exit_codes(policies: Path, actions: str, code: int) -> None:
    """0 says that everything is allowed, 1 that something is not."""
    request = asking(actions, resource={"attr": {"owner": "ann"}})
    assert explain(policies, request=request).exit_code == code


async def test_json_is_the_answer_of_the_api(policies: Path) -> None:
    """`-o json` writes what the API answers to the same body."""
    request = asking(
        "view fail", requestId="r", includeMeta=True, resource={"attr": {"owner": "ann", "x": 1}}
    )
    pdp = Pdp(Engine.from_directory(policies), AuxDataReader({}), lambda: "")
    asked = protojson.decode(CheckResourcesRequest, request.encode())
    wanted = protojson.write(await Explaining(pdp).explain_resources(asked))
    assert json.loads(explain(policies, "-o", "json", request=request).stdout) == wanted


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_request_asks_what_its_body_says(seed: int, indented: bool, escaped: bool) -> None:
    """The questions of a file are those of the same body over the API, however it is written."""
    body = random_request(Random(seed), 3)  # noqa: S311 - reproducible, not secret
    content = json.dumps(body, indent=2 if indented else None, ensure_ascii=escaped).encode()
    assert read_request(content, "request").questions == questions(body)


def test_escapes_of_json() -> None:
    """Characters beyond the first plane may be escaped as JSON does, and backslashes stay what they are."""
    written = r'"\\ud83d\\ude00 \ud83d\ude00 \\\uD83D\uDE00 \"\u00e9"'
    request = asking("view").replace('"doc"', written)
    (question,) = read_request(request.encode(), "request").questions
    assert question.resource.kind == json.loads(written)


@pytest.mark.parametrize(
    ("aux_data", "code"),
    [
        ({"jwt": {"sub": "ann"}}, 0),
        ({"jwt": {"sub": "bob"}}, 1),
        ({"jwts": {"two": {"claims": {}}}}, 0),
        ({"jwt": {"token": "ann"}}, 1),
    ],
)
def test_claims(policies: Path, aux_data: Any, code: int) -> None:
    """`auxData` holds claims, as in test fixtures."""
    assert explain(policies, request=asking("claim", auxData=aux_data)).exit_code == code


def test_what_the_terminal_would_obey_is_escaped(policies: Path) -> None:
    """Names from a request cannot move the cursor."""
    request = asking("view", resource={"id": "\x1b[2J", "attr": {"owner": "\x1b]0;x\x07"}})
    for colours in ("never", "always"):
        shown = explain(policies, "--color", colours, request=request).output
        assert "\x1b[2J" not in shown
        assert "\x1b]" not in shown
        assert r"doc \x1b[2J" in shown


def test_colours(policies: Path) -> None:
    """Colours are there when they are wanted, and only then; the text is the same."""
    request = asking("view edit fail", resource={"attr": {"owner": "ann"}})
    plain = explain(policies, request=request).output
    coloured = explain(policies, "--color", "always", request=request).output
    assert "\x1b" not in plain
    assert "\x1b[32m" in coloured
    assert "\x1b[31m" in coloured
    assert explain(policies, "--color", "always", "--no-color", request=request).output == plain


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "request_", "code"),
    [
        ((), asking("fail"), 0),
        (("--evaluation", "safe"), asking("fail"), 1),
        (("--evaluation", "strict"), asking("fail"), 1),
        (("--now", "2029-12-31T23:59:59Z"), asking("now"), 1),
        (("--now", "2030-01-01T00:00:01Z"), asking("now"), 0),
        (("--default-policy-version", "v8"), asking("fail"), 1),
        ((), asking("fail", resource={"scope": "a.b"}), 1),
        (("--lenient-scope-search",), asking("fail", resource={"scope": "a.b"}), 0),
        (("--default-scope", "a"), asking("fail"), 1),
        (("--default-scope", "a", "--lenient-scope-search"), asking("fail"), 0),
    ],
)
def test_options(policies: Path, options: tuple[str, ...], request_: str, code: int) -> None:
    """Each option changes what it says."""
    assert explain(policies, *options, request=request_).exit_code == code


NOTE = REQUEST.replace("doc", "note")


def configuration(tmp_path: Path, policies: Path, more: str = "") -> Path:
    """Write a configuration file."""
    file = tmp_path / "extauthz.yaml"
    text = f"""\
        storage: {{driver: disk, disk: {{directory: {policies}, watchForChanges: true}}}}
        engine: {{defaultPolicyVersion: v7, globals: {{open: true}}}}
        """
    file.write_text(textwrap.dedent(text) + more, encoding="utf-8")
    return file


def test_a_configuration(policies: Path, tmp_path: Path) -> None:
    """Policies and settings can be those of a configuration; an option goes before it."""
    file = configuration(tmp_path, policies)
    assert explain("--config", file, request=NOTE).exit_code == 0
    assert explain("--config", file, "--default-policy-version", "default", request=NOTE).exit_code == 1
    assert explain(policies, request=NOTE).exit_code == 1


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("", 0),
        ("pdp: {evaluation: safe}\n", 1),
        ("extAuthz: {routes: [{GET /: allow}]}\n", 1),
        ("extAuthz: {routes: [{GET /: allow}]}\npdp: {enabled: true}\n", 0),
    ],
)
def test_the_mode_of_a_configuration(policies: Path, tmp_path: Path, more: str, code: int) -> None:
    """An error means what it means in the API if that is served, and else what it means for Envoy."""
    file = configuration(tmp_path, policies, more)
    request = asking("fail", resource={"policyVersion": "default"})
    assert explain("--config", file, request=request).exit_code == code


SCHEMA = '{"type": "object", "properties": {"owner": {"type": "string"}}}'


@pytest.mark.parametrize(("mode", "code"), [("none", 0), ("warn", 0), ("reject", 1)])
def test_schemas(policies: Path, mode: str, code: int) -> None:
    """What schemas say against attributes is shown, and with `reject` it denies."""
    (policies / "_schemas").mkdir()
    (policies / "_schemas" / "doc.json").write_text(SCHEMA, encoding="utf-8")
    schemas = "  schemas: {resourceSchema: {ref: cerbos:///doc.json}}\n  rules:\n"
    (policies / "doc.yaml").write_text(POLICY.replace("  rules:\n", schemas), encoding="utf-8")
    request = asking("fail", resource={"attr": {"owner": 7, "x": 1}})
    result = explain(policies, "--schemas", mode, request=request)
    assert result.exit_code == code
    assert ("attributes of the resource: /owner: " in result.stdout) is (mode != "none")


# --- faults -----------------------------------------------------------------------------------------------


FAULTY: list[tuple[str | bytes, list[str]]] = [
    ("", ["request: a request is expected, found nothing"]),
    ("# nothing", ["request: a request is expected, found nothing"]),
    ("null", ["request: a request is expected, found nothing"]),
    ("[1]", ["request:1:1: a request is expected, found a list"]),
    (asking("view").replace("doc", r"\ud83d"), ["request:1:"]),
    ("a: [", ["request:2:1: "]),
    (b"\xff", ["request"]),
    ("{}", ["request:1:1: principal: value is required", "request:1:1: resources: value is required"]),
    (
        "principle: {id: ann, rolls: [user]}\nresources:\n  - {action: [view], resource: {kind: doc}}\n",
        ['request:1:1: unknown field "principle" (did you mean `principal`?)', "request:3:6: unknown field"],
    ),
    (
        'principal: {id: "", roles: []}\nresources: [{actions: [a, a], resource: {kind: doc, id: 1}}]\n',
        [
            "request:1:13: principal.id: value is required",
            "request:1:21: principal.roles: value is required",
            "request:2:14: resources[0].actions: repeated value must contain unique items",
        ],
    ),
    (
        asking("a", principal={"id": "x", "roles": ["y"], "scope": "..", "policyVersion": "-"}),
        ["request:1:"] * 2,
    ),
]


@pytest.mark.parametrize(("content", "begins"), FAULTY)
def test_faults(content: str | bytes, begins: list[str]) -> None:
    """Every fault of a request is told, with its place, in order."""
    with pytest.raises(DocumentError) as error:
        read_request(content.encode() if isinstance(content, str) else content, "request")
    told = str(error.value).splitlines()
    assert len(told) == len(begins)
    for line, begin in zip(told, begins, strict=True):
        assert line.startswith(begin)


TOKEN = "e30.e30.c2ln"


@pytest.mark.parametrize(
    ("aux_data", "hint"),
    [
        ({"jwt": {"token": TOKEN}}, "`jwt: {sub: ann}`"),
        ({"jwt": {"token": TOKEN, "keySetId": "idp"}}, "`jwt: {sub: ann}`"),
        ({"jwts": {"id": {"token": TOKEN}}}, "`jwts: {id: {claims: {sub: ann}}}`"),
    ],
)
def test_tokens_are_refused(policies: Path, aux_data: Any, hint: str) -> None:
    """A token where claims belong is not taken for a claim; what to write is told."""
    result = explain(policies, request=asking("claim", auxData=aux_data))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("standard input:1:")
    assert "tokens are not read here" in result.stderr
    assert hint in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a directory"),
        (("nowhere", "request.yaml"), "`nowhere` is not a directory"),
        ((".", "a", "b"), "give a directory"),
        ((".", "nowhere.yaml"), "nowhere.yaml: cannot be read: No such file"),
        ((".", "."), ".: cannot be read: Is a directory"),
        ((".", "-", "--now", "tomorrow"), "a time is `2030-01-31T09:00:00Z`"),
        (("--config", "nowhere.yaml", "-"), "does not exist"),
    ],
)
def test_a_wrong_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    """What is wrong with the command line is told, with exit code 2."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["explain", *arguments], input=REQUEST)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def test_a_faulty_configuration(policies: Path, tmp_path: Path) -> None:
    """The faults of a configuration are told, with exit code 2."""
    file = configuration(tmp_path, policies, "sever: {}\n")
    result = explain("--config", file)
    assert result.exit_code == 2
    assert f"{file}:3:1: " in result.stderr


def test_policies_that_do_not_compile(policies: Path) -> None:
    """What is wrong with the policies is told on standard error, with exit code 3."""
    (policies / "doc.yaml").write_text(POLICY.replace("P.id", "P.id +"), encoding="utf-8")
    result = explain(policies)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "doc.yaml:11:" in result.stderr
