"""A running service is told to read its policies again."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from tests.extauthz.requests import check_request
from tests.extauthz.service import POLICY, ask, service, user_token

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from engine.engine import Reload
    from extauthz.app import App

OTHER = POLICY.replace("actions: [look]", "actions: [listen]")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "extauthz.app"]


async def may_look(made: App) -> bool:
    request = check_request(url="https://api.example.com/open", token=user_token())
    status = (await ask(made, request)).status
    return status is not None and status.code == 0


async def test_reload_reads_what_is_not_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Changes of an unwatched store count when the service is told, and not before; it is logged."""
    caplog.set_level(logging.INFO, "extauthz.app")
    async with service(tmp_path) as made:
        (tmp_path / "expense.yaml").write_text(OTHER)
        assert await may_look(made)
        await made.reload()
        assert not await may_look(made)
        await made.reload()
    assert messages(caplog) == [
        "policies changed: 1 are in force",
        "policies were read again: nothing has changed",
    ]


async def test_a_broken_reload_is_told_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks for a reload that cannot be is told why, even if that is no news; answers stay."""
    caplog.set_level(logging.INFO, "extauthz.app")
    async with service(tmp_path) as made:
        (tmp_path / "expense.yaml").write_text(POLICY.replace("EFFECT_ALLOW", "EFFECT_ALLO"))
        await made.reload()
        await made.reload()
        assert await may_look(made)
        detail = made.readiness().components[0].detail
    assert len(messages(caplog)) == 2
    assert all("EFFECT_ALLO" in message for message in messages(caplog))
    assert "expense.yaml" in detail


async def test_answers_get_their_turn_soon_while_policies_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads take short turns during a reload, however it ends, and the usual ones at all other times."""
    usual = sys.getswitchinterval()
    turns = []
    async with service(tmp_path) as made:
        reload = made._engine.reload

        def watched() -> Reload:
            turns.append(sys.getswitchinterval())
            return reload()

        monkeypatch.setattr(made._engine, "reload", watched)
        await made.reload()
        assert sys.getswitchinterval() == usual
        (tmp_path / "expense.yaml").write_text("nothing: good")
        await made.reload()
    assert turns == [0.001, 0.001]
    assert sys.getswitchinterval() == usual
