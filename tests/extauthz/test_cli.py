"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.auth import v3 as auth

from extauthz import wire
from extauthz.ask import Question, QuestionError, append_semantics, check_request
from extauthz.certificates import Certificates
from extauthz.cli import main
from extauthz.readiness import Status
from extauthz.response import Allow, Deny, Failure, GrpcCode, Header
from extauthz.transport.address import Address
from extauthz.transport.grpcio import GrpcServer
from tests.e2e.certificates import issue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from click.testing import Result

ROOT = Path(__file__).parents[2]

CONFIG = """\
server: {grpcListenAddr: "127.0.0.1:0", httpListenAddr: "127.0.0.1:0"}
storage: {driver: disk, disk: {directory: %s}}
auxData: {jwt: {keySets: [{id: idp, remote: {url: "https://id.example.com/jwks.json"}}]}}
extAuthz:
  identity:
    - jwt: {keySetID: idp, issuer: https://id.example.com/, audiences: [api], algorithms: [RS256]}
      principal: {id: {claim: sub}, roles: {claim: roles}}
  routes:
    - GET /healthz: allow
    - /internal/{rest=**}: deny
    - id: expense
      match: {path: "/api/expenses/{id}", hosts: [api.example.com]}
      actions: {GET: read, DELETE: delete}
      resource: {kind: expense, id: "{id}"}
"""

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  rules:
    - {actions: [read], effect: EFFECT_ALLOW, roles: [user]}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "expense.yaml").write_text(POLICY, encoding="utf-8")
    return directory


@pytest.fixture
def config(tmp_path: Path, policies: Path) -> Path:
    file = tmp_path / "extauthz.yaml"
    file.write_text(CONFIG % policies, encoding="utf-8")
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], env={"COLUMNS": "160"})


# --- the whole --------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    """``--help`` comes without CEL, Envoy's schemas, gRPC, OpenTelemetry and the settings models."""
    code = (
        "import sys; from extauthz.cli import main; main(['--help'], standalone_mode=False); "
        "heavy = {'envoy_data_plane', 'grpc', 'cel_expr_python', 'pydantic', 'rich', 'importlib.metadata', "
        "'opentelemetry', 'prometheus_client'}; "
        "print('heavy:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_version() -> None:
    """``--version`` says the version."""
    assert run("--version").output.startswith("extauthz, version ")


@pytest.mark.parametrize("command", ["serve", "check-config", "compile", "explain", "ask"])
def test_every_command_explains_its_exit_codes(command: str) -> None:
    """The help of each command says what its exit codes mean."""
    assert "Exits with 0" in " ".join(run(command, "--help").output.split())


def test_a_reader_that_leaves_early_is_no_fault(policies: Path) -> None:
    """``extauthz compile policies | head`` says nothing about the end of the pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "extauthz", "compile", str(policies)],
        stdout=writer,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert done.stderr == ""


# --- check-config -----------------------------------------------------------------------------------------


def test_check_config_prints_the_routes(config: Path) -> None:
    """A good file gives its routes as a table and exit code 0."""
    result = run("check-config", config)
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in result.stdout.splitlines()]
    assert ["GET", "any", "/healthz", "anybody", "allowed, no policy is asked", ""] in lines
    assert ["any", "any", "/internal/{rest=**}", "anybody", "denied", ""] in lines
    assert ["GET: read", "api.example.com", "/api/expenses/{id}", "idp", "expense {id}", "expense"] in lines
    assert result.stdout.endswith("is good: 3 routes\n")


def test_check_config_lists_every_fault(config: Path) -> None:
    """A bad file gives all of its faults as file:line:column on standard error, and exit code 1."""
    text = config.read_text(encoding="utf-8").replace("issuer:", "isuer:").replace("kind: expense,", "")
    config.write_text(text, encoding="utf-8")
    result = run("check-config", config)
    assert result.exit_code == 1
    assert result.stdout == ""
    faults = result.stderr.splitlines()
    assert any(line.startswith(f"{config}:6:") and "`isuer`" in line for line in faults)
    assert any(line.startswith(f"{config}:14:") and "`kind` is required" in line for line in faults)
    assert faults[-1] == f"{config}: {len(faults) - 1} faults"


def test_check_config_warns_without_refusing(config: Path) -> None:
    """What has no effect is a warning on standard error; the file is good all the same."""
    with config.open("a", encoding="utf-8") as file:
        file.write("telemetry: {disabled: true}\n")
    result = run("check-config", config)
    assert result.exit_code == 0
    assert f"warning: {config}:15:1: `telemetry` has no effect here" in result.stderr


def test_check_config_takes_a_file_of_cerbos(tmp_path: Path) -> None:
    """Without routes there is no table; what is served instead is said, and warnings come in order."""
    file = tmp_path / "cerbos.yaml"
    file.write_text("telemetry: {disabled: true}\nschema: {cacheSize: 9}\nserver: {playgroundEnabled: 1}\n")
    result = run("check-config", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file} is good: 0 routes, and the PDP API is served\n"
    places = [line.partition(" ")[2].partition(": ")[0] for line in result.stderr.splitlines()]
    assert places == [f"{file}:1:1", f"{file}:2:10", f"{file}:3:10"]


# --- compile ----------------------------------------------------------------------------------------------


def test_compile_counts_policies(policies: Path) -> None:
    """Policies that compile are counted where no tests are run; exit code 0."""
    result = run("compile", "--skip-tests", policies)
    assert (result.exit_code, result.output) == (0, "1 policy\n")


def test_compile_lists_every_fault(policies: Path) -> None:
    """Faults of all policies are listed as file:line:column; exit code 3, as of ``cerbos compile``."""
    (policies / "expense.yaml").write_text(POLICY.replace("EFFECT_ALLOW", "EFFECT_MAYBE"), encoding="utf-8")
    (policies / "other.yaml").write_text(
        POLICY.replace("resource: expense", "resorce: other"), encoding="utf-8"
    )
    result = run("compile", policies)
    assert result.exit_code == 3
    assert "expense.yaml:6:" in result.stdout
    assert "other.yaml:3:" in result.stdout
    assert result.stderr == "extauthz: error: failed to compile\n"


# --- ask --------------------------------------------------------------------------------------------------


class Stub:
    """Answers with what the test wants, and keeps the last question."""

    def __init__(self, answer: Callable[[], bytes | Awaitable[bytes]]) -> None:
        self.answer = answer
        self.question = auth.CheckRequest()

    def check(self, request: bytes) -> bytes | Awaitable[bytes]:
        self.question = auth.CheckRequest.parse(request)
        return self.answer()


class Running:
    def __init__(self, stub: Stub, port: int) -> None:
        self.stub = stub
        self.address = f"127.0.0.1:{port}"

    async def ask(self, *arguments: object) -> Result:
        return await asyncio.to_thread(run, "ask", "-a", self.address, *arguments)

    @property
    def http(self) -> auth.AttributeContextHttpRequest:
        attributes = self.stub.question.attributes
        assert attributes is not None
        assert attributes.request is not None
        assert attributes.request.http is not None
        return attributes.request.http


@contextlib.asynccontextmanager
async def answering(
    answer: Allow | Deny | Failure | bytes, *, certificates: Certificates | None = None
) -> AsyncIterator[Running]:
    data = answer if isinstance(answer, bytes) else wire.encode(answer)
    stub = Stub(lambda: data)
    server = GrpcServer(stub, Status, Address("127.0.0.1", 0), certificates=certificates)
    port = await server.start()
    try:
        yield Running(stub, port)
    finally:
        await server.stop()


async def test_an_allow_is_shown_with_its_changes() -> None:
    """Headers with how they are set, removals and metadata of an allow are shown; exit code 0."""
    allow = Allow(
        headers=(Header("x-user", "alice"), Header("x-group", "a"), Header("x-group", "b")),
        remove_headers=("authorization",),
        response_headers=(Header("x-trace", "1"),),
        set_query=(("tenant", "t1"),),
        metadata={"route": "expense"},
    )
    async with answering(allow) as it:
        result = await it.ask("https://api.example.com/x")
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.stdout.splitlines()]
    assert ["x-user", "alice", "overwrite or add"] in rows
    assert ["x-group", "b", "append or add"] in rows
    assert ["x-trace", "1", "overwrite or add"] in rows
    for text in ("allow gRPC code 0", "authorization", "tenant=t1", '"route": "expense"'):
        assert text in result.stdout


async def test_a_denial_is_shown() -> None:
    """Status, headers and body of a denial are shown; exit code 1."""
    deny = Deny(403, GrpcCode.PERMISSION_DENIED, (Header("x-denial-reason", "why"),), body='{"a": 1}')
    async with answering(deny) as it:
        result = await it.ask("https://api.example.com/x")
    assert result.exit_code == 1
    for text in ("deny gRPC code 7", "HTTP status 403", "x-denial-reason", "why", '{"a": 1}'):
        assert text in result.stdout


async def test_a_failure_is_an_error() -> None:
    """An ``error_response`` is shown as an error; exit code 2."""
    async with answering(Failure(503, (Header("retry-after", "1"),))) as it:
        result = await it.ask("https://api.example.com/x")
    assert result.exit_code == 2
    for text in ("error gRPC code 14", "HTTP status 503", "retry-after"):
        assert text in result.stdout


async def test_an_allow_that_looks_like_a_denial_is_an_allow() -> None:
    """An answer with code 0 and a denied_response is what it is to Envoy: an allow, and it is said."""
    odd = bytes(auth.CheckResponse(denied_response=auth.DeniedHttpResponse(body="no")))
    async with answering(odd) as it:
        result = await it.ask("https://api.example.com/x")
    assert result.exit_code == 0
    assert "still lets the request through" in result.stdout


async def test_the_question_is_what_envoy_would_send(tmp_path: Path) -> None:
    """Options become the attributes of the CheckRequest, with Envoy's pseudo headers and joined repeats."""
    body = tmp_path / "body.json"
    body.write_text('{"amount": 1}', encoding="utf-8")
    async with answering(Allow()) as it:
        result = await it.ask(
            "https://api.example.com:8443/a%2Fb/../c?x=1#f", "-H", "X-A: 1", "-H", "x-a: 2", "--token", "t0",
            "--body", f"@{body}", "--principal", "spiffe://td/web", "--source", "192.0.2.7",
            "--context", "k=v=w",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        http, attributes = it.http, it.stub.question.attributes
    assert (http.method, http.scheme, http.host, http.path) == (
        "POST", "https", "api.example.com:8443", "/a%2Fb/../c?x=1#f",
    )  # fmt: skip
    assert (http.body, http.size) == ('{"amount": 1}', 13)
    assert http.headers["x-a"] == "1,2"
    assert http.headers["authorization"] == "Bearer t0"
    assert http.headers[":path"] == http.path
    assert http.headers["x-request-id"] == http.id
    assert attributes is not None
    assert attributes.context_extensions == {"k": "v=w"}
    assert attributes.source is not None
    assert attributes.source.principal == "spiffe://td/web"
    assert attributes.source.address is not None
    assert attributes.source.address.socket_address is not None
    assert attributes.source.address.socket_address.address == "192.0.2.7"


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("api.example.com", "api.example.com", "/"),
        ("http://h//admin", "h", "//admin"),
        ("http://h?x=1", "h", "/?x=1"),
        ("h/a\tb", "h", "/a\tb"),
    ],
)
def test_urls_are_asked_as_typed(url: str, host: str, path: str) -> None:
    """A URL is split and not tidied up, so that odd paths can be tried."""
    attributes = auth.CheckRequest.parse(check_request(Question(url))).attributes
    assert attributes is not None
    assert attributes.request is not None
    assert attributes.request.http is not None
    assert (attributes.request.http.host, attributes.request.http.path) == (host, path)


def test_a_url_without_a_host_is_refused() -> None:
    """A path alone is not enough."""
    with pytest.raises(QuestionError, match="has no host"):
        check_request(Question("/path"))
    assert run("ask", "/path").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("-H", "no colon", "h/x"),
        ("--context", "novalue", "h/x"),
        ("--token", "@/no/such/file", "h/x"),
        ("--cert", __file__, "h/x"),
    ],
)
def test_what_cannot_be_asked(arguments: tuple[str, ...]) -> None:
    """Options that cannot be meant so are refused with exit code 2 before anything is sent."""
    result = run("ask", *arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_no_server() -> None:
    """A server that is not there is an error in words, without a traceback; exit code 2."""
    result = run("ask", "-a", "127.0.0.1:1", "http://h/x")
    assert result.exit_code == 2
    assert "error: `127.0.0.1:1` gave no decision: UNAVAILABLE" in result.stderr


async def test_a_server_that_is_too_slow() -> None:
    """No answer in time is an error that names the time; exit code 2."""
    stub = Stub(lambda: asyncio.sleep(30, b"late"))
    server = GrpcServer(stub, Status, Address("127.0.0.1", 0))
    port = await server.start()
    result = await asyncio.to_thread(run, "ask", "-a", f"127.0.0.1:{port}", "--timeout", "0.3", "h/x")
    await server.stop()
    assert result.exit_code == 2
    assert "no answer within 0.3 s" in result.stderr


async def test_asking_with_certificates(tmp_path: Path) -> None:
    """With TLS options a server that demands a client certificate is asked like any other."""
    pki = tmp_path / "pki"
    issue(pki, "localhost", "client")
    served = Certificates(str(pki / "localhost.crt"), str(pki / "localhost.key"), str(pki / "ca.crt"))
    tls = ("--ca-cert", pki / "ca.crt", "--server-name", "localhost")
    async with answering(Allow(), certificates=served) as it:
        with_certificate = ("--cert", pki / "client.crt", "--key", pki / "client.key")
        assert (await it.ask(*tls, *with_certificate, "h/x")).exit_code == 0
        assert (await it.ask(*tls, "h/x")).exit_code == 2
        assert (await it.ask("h/x")).exit_code == 2


DIFFERS = "differs between versions of Envoy"
_ACTION = core.HeaderValueOptionHeaderAppendAction


@pytest.mark.parametrize(
    ("append", "action", "words"),
    [
        (False, _ACTION.OVERWRITE_IF_EXISTS_OR_ADD, "overwrite or add"),
        (True, _ACTION.APPEND_IF_EXISTS_OR_ADD, "append or add"),
        (None, _ACTION.ADD_IF_ABSENT, "add if absent"),
        (None, _ACTION.APPEND_IF_EXISTS_OR_ADD, f"{DIFFERS}: nothing is set"),
        (True, _ACTION.OVERWRITE_IF_EXISTS_OR_ADD, f"{DIFFERS}: append=true, overwrite or add"),
        (False, _ACTION.APPEND_IF_EXISTS_OR_ADD, f"{DIFFERS}: append=false, append or add"),
    ],
)
def test_append_semantics(
    append: bool | None, action: core.HeaderValueOptionHeaderAppendAction, words: str
) -> None:
    """What happens to a header that is there already is said, also that versions of Envoy differ."""
    assert append_semantics(core.HeaderValueOption(append=append, append_action=action)) == words


# --- serve ------------------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "extauthz", *map(str, arguments)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )


def test_serve_answers_until_sigterm(tmp_path: Path, policies: Path) -> None:
    """``serve`` answers by its configuration, and ends with 0 on SIGTERM."""
    file = tmp_path / "extauthz.yaml"
    file.write_text(
        textwrap.dedent(f"""\
            server: {{grpcListenAddr: "unix:{tmp_path}/check.sock", httpListenAddr: "unix:{tmp_path}/http"}}
            storage: {{driver: disk, disk: {{directory: {policies}}}}}
            extAuthz: {{routes: [GET /healthz: allow]}}
        """),
        encoding="utf-8",
    )
    with start("serve", "--config", file) as process:
        until = time.monotonic() + 60
        while (result := run("ask", "-a", f"unix:{tmp_path}/check.sock", "h/healthz")).exit_code == 2:
            assert time.monotonic() < until, result.output
            time.sleep(0.1)
        assert result.exit_code == 0
        assert run("ask", "-a", f"unix:{tmp_path}/check.sock", "h/other").exit_code == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_serve_lists_the_faults_of_its_configuration(config: Path) -> None:
    """A configuration with faults is not served: the faults are listed, exit code 1."""
    config.write_text("serfer: {}\n", encoding="utf-8")
    with start("serve", "-c", config) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{config}:1:1: unknown key `serfer` (did you mean `server`?)" in errors


def test_serve_lists_the_faults_of_its_policies(config: Path, policies: Path) -> None:
    """Policies that do not compile are not served: the faults are listed without a traceback, exit code 1."""
    (policies / "expense.yaml").write_text("resourcePolicy: 1\n", encoding="utf-8")
    with start("serve", "-c", config, "--log-format", "console") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot start:" in errors
    assert "expense.yaml:1:" in errors
    assert "Traceback" not in errors
