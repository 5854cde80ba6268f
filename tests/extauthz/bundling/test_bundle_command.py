"""``extauthz bundle``: only what compiles and passes its tests is signed; what is signed can be checked."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from engine.storage import open_store
from engine.storage.bundle.format import open_bundle
from engine.storage.bundle.keys import by_id, public_keys
from extauthz.cli import main
from tests.engine.storage.bundle.test_bundle_oci import registry_process
from tests.engine.storage.contract import closed

if TYPE_CHECKING:
    from click.testing import Result

POLICIES = Path(__file__).resolve().parents[3] / "envoy" / "demo" / "policies"
EPOCH = {"SOURCE_DATE_EPOCH": "1790000000"}


class Workshop:
    """A directory with a pair of keys and a copy of the demo's policies, and a command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.policies = directory / "policies"
        shutil.copytree(POLICIES, self.policies)
        assert self.run("keygen", "-o", str(directory / "key")).exit_code == 0

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> Result:
        """Run a subcommand."""
        return CliRunner().invoke(main, ["bundle", *arguments], env={**EPOCH, **(environment or {})})

    def build(
        self, *options: str, output: str = "demo.bundle", environment: dict[str, str] | None = None
    ) -> Result:
        """Build a bundle of the policies."""
        usual = (
            "--key",
            str(self.directory / "key.pem"),
            "--name",
            "demo",
            "-o",
            str(self.directory / output),
        )
        return self.run("build", str(self.policies), *usual, *options, environment=environment)

    def change(self, before: str, after: str) -> None:
        """Change the policy."""
        file = self.policies / "expense.yaml"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_build(workshop: Workshop) -> None:
    """The bundle holds what the service reads, without tests, and says what it is."""
    result = workshop.build("--sequence", "7", "--version", "v1.2")
    assert result.exit_code == 0, result.output
    assert "demo#7 (v1.2), made 2026-09-21T14:13:20Z" in result.output
    trusted = by_id(public_keys((workshop.directory / "key.pub.pem").read_bytes(), "it"))
    opened = open_bundle((workshop.directory / "demo.bundle").read_bytes(), trusted, "demo")
    assert sorted(opened.files) == ["expense.yaml", "expense_roles.yaml", "expense_variables.yaml"]
    assert opened.files["expense.yaml"] == (POLICIES / "expense.yaml").read_bytes()


def test_builds_are_reproducible(workshop: Workshop) -> None:
    """The same policies make the same bytes; the number is that of the moment unless it is given."""
    for output in ("one", "two"):
        assert workshop.build(output=output).exit_code == 0
    assert (workshop.directory / "one").read_bytes() == (workshop.directory / "two").read_bytes()
    assert "demo#1790000000" in workshop.run("inspect", str(workshop.directory / "one")).output


def test_policies_that_do_not_compile_are_not_signed(workshop: Workshop) -> None:
    """There is no bundle, the faults are shown, and one of before stays as it was."""
    assert workshop.build().exit_code == 0
    before = (workshop.directory / "demo.bundle").read_bytes()
    workshop.change("P.attr.region", "P.attr.(region")
    result = workshop.build("--skip-tests")
    assert result.exit_code == 3
    assert "expense.yaml" in result.output
    assert "failed to compile: there is no bundle" in result.output
    assert (workshop.directory / "demo.bundle").read_bytes() == before


def test_policies_whose_tests_fail_are_not_signed(workshop: Workshop) -> None:
    """A red test stops the bundle, unless tests are skipped in so many words."""
    workshop.change("EFFECT_ALLOW", "EFFECT_DENY")
    result = workshop.build()
    assert result.exit_code == 4
    assert "tests failed: there is no bundle" in result.output
    assert not (workshop.directory / "demo.bundle").exists()
    assert workshop.build("--skip-tests").exit_code == 0


def test_policies_without_tests(workshop: Workshop) -> None:
    """Where there are no tests, that is said."""
    for file in workshop.policies.rglob("*_test.yaml"):
        file.unlink()
    result = workshop.build()
    assert result.exit_code == 0
    assert "warning: there are no tests" in result.output


def test_verify(workshop: Workshop) -> None:
    """A good bundle of the right key and name is good; anything else is not."""
    workshop.build()
    bundle, key = str(workshop.directory / "demo.bundle"), str(workshop.directory / "key.pub.pem")
    assert (
        " is good: demo#1790000000, signed by " in workshop.run("verify", bundle, "--public-key", key).output
    )
    assert workshop.run("verify", bundle, "--public-key", key, "--name", "other").exit_code == 1
    workshop.run("keygen", "-o", str(workshop.directory / "other"))
    result = workshop.run("verify", bundle, "--public-key", str(workshop.directory / "other.pub.pem"))
    assert (result.exit_code, "no such key is trusted here" in result.output) == (1, True)
    Path(bundle).write_bytes(Path(bundle).read_bytes()[:-1])
    assert workshop.run("verify", bundle, "--public-key", key).exit_code == 1


def test_inspect(workshop: Workshop) -> None:
    """What a bundle says of itself can be seen, by people and by machines."""
    workshop.build("--version", "v1")
    file = str(workshop.directory / "demo.bundle")
    assert "expense_roles.yaml" in workshop.run("inspect", file).output
    manifest = json.loads(workshop.run("inspect", file, "--json").output)
    assert (manifest["name"], manifest["version"], len(manifest["files"])) == ("demo", "v1", 3)
    assert workshop.run("inspect", str(workshop.directory / "key.pem")).output == (
        "extauthz: error: this is not a bundle\n"
    )


def test_two_keys(workshop: Workshop) -> None:
    """For the time of a rotation a bundle is signed with both keys."""
    workshop.run("keygen", "-o", str(workshop.directory / "new"))
    assert workshop.build("--key", str(workshop.directory / "new.pem")).exit_code == 0
    for name in ("key", "new"):
        public = str(workshop.directory / f"{name}.pub.pem")
        bundle = str(workshop.directory / "demo.bundle")
        assert workshop.run("verify", bundle, "--public-key", public).exit_code == 0


def test_keys_on_disk(workshop: Workshop) -> None:
    """The private key is for its owner only, and no key is ever overwritten."""
    private = workshop.directory / "key.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    result = workshop.run("keygen", "-o", str(workshop.directory / "key"))
    assert (result.exit_code, "keys are never overwritten" in result.output) == (1, True)
    assert private.read_bytes() == before


def test_encrypted_keys(workshop: Workshop) -> None:
    """A password in the environment encrypts the key and opens it; it shows nowhere."""
    secret = {"EXTAUTHZ_KEY_PASSWORD": "s3cr3t"}
    workshop.run("keygen", "-o", str(workshop.directory / "locked"), environment=secret)
    locked = str(workshop.directory / "locked.pem")
    assert "ENCRYPTED" in Path(locked).read_text()
    without = workshop.run("build", str(workshop.policies), "--key", locked, "--name", "demo", "-o", "x")
    assert "is encrypted" in without.output
    options = ("--key", locked, "--name", "demo", "-o", str(workshop.directory / "locked.bundle"))
    result = workshop.run("build", str(workshop.policies), *options, environment=secret)
    assert result.exit_code == 0, result.output
    wrong = {"EXTAUTHZ_KEY_PASSWORD": "wr0ng"}
    refused = workshop.run("build", str(workshop.policies), *options, environment=wrong)
    assert refused.exit_code == 1
    assert "s3cr3t" not in result.output + without.output
    assert "wr0ng" not in refused.output


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("--name", "a b"), {}, "the name 'a b' must be up to 100 letters"),
        (("--version", "\n"), {}, "the version must be up to 200 printable characters"),
        ((), {"SOURCE_DATE_EPOCH": "today"}, "`SOURCE_DATE_EPOCH` is not a number of seconds"),
        (("--sequence", "0"), {}, "0 is not in the range x>=1"),
        (("-o", "/nowhere/x"), {}, "cannot write `/nowhere/x`"),
    ],
)
def test_builds_that_cannot_be(
    workshop: Workshop, options: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    """Each is refused, in words."""
    result = workshop.build(*options, environment=environment)
    assert result.exit_code in {1, 2}
    assert message in result.output
    assert not (workshop.directory / "demo.bundle").exists()


def test_bundles_can_be_compared(workshop: Workshop) -> None:
    """``extauthz diff`` takes bundles, with directories or with each other."""
    workshop.build(output="old.bundle")
    workshop.change("EFFECT_ALLOW", "EFFECT_DENY")
    workshop.build("--skip-tests", output="new.bundle")
    old, new = (str(workshop.directory / f"{name}.bundle") for name in ("old", "new"))
    assert CliRunner().invoke(main, ["diff", old, str(POLICIES)]).exit_code == 0
    result = CliRunner().invoke(main, ["diff", old, new])
    assert result.exit_code == 1, result.output
    assert "expense" in result.output
    Path(new).write_bytes(Path(new).read_bytes()[:-1])
    result = CliRunner().invoke(main, ["diff", old, new])
    assert "the bundle is damaged" in result.output


def test_push(workshop: Workshop) -> None:
    """A bundle is put into a real registry under a tag; a gateway that follows the tag has it."""
    workshop.build("--sequence", "7", "--version", "v1.2")
    file = str(workshop.directory / "demo.bundle")
    server = registry_process(workshop.directory / "registry")
    url = f"oci://127.0.0.1:{server.port}/team/policies:main"
    try:
        result = workshop.run("push", file, url)
        assert result.exit_code == 0, result.output
        assert f"demo#7 (v1.2) is at 127.0.0.1:{server.port}/team/policies:main (sha256:" in result.output
        settings = {
            "url": url,
            "name": "demo",
            "publicKeys": [{"file": str(workshop.directory / "key.pub.pem")}],
            "cacheDir": str(workshop.directory / "cache"),
        }
        with closed(open_store("bundle", settings)) as store:
            assert store.read().revision == "demo#7 (v1.2)"
        assert workshop.run("push", str(workshop.directory / "key.pem"), url).exit_code == 1
    finally:
        server.stop()
    secret = {"EXTAUTHZ_REGISTRY_USERNAME": "ann", "EXTAUTHZ_REGISTRY_PASSWORD": "s3cr3t"}
    result = workshop.run("push", file, url, environment=secret)
    assert (result.exit_code, "cannot reach" in result.output, "s3cr3t" in result.output) == (1, True, False)
