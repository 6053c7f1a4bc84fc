"""The server's clock is the one that counts: by its answers, whatever ours says."""

import email.utils
import time

import pytest

from arvados_fuse.api.server_clock import ServerClock


def test_it_is_what_the_server_said_and_goes_on() -> None:
    clock = ServerClock()
    clock.hear("Sun, 06 Nov 1994 08:49:37 GMT")
    first = clock.now()
    assert first == pytest.approx(784111777, abs=60)
    assert first <= clock.now() < first + 60


def test_setting_our_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock()
    clock.hear(email.utils.formatdate(1_000_000_000))
    ahead = time.time() + 30 * 86400
    monkeypatch.setattr(time, "time", lambda: ahead)
    assert clock.now() == pytest.approx(1_000_000_000, abs=60)


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 06 Nov 99999999999 08:49:37 GMT", "\udcff, 1 GMT"])
def test_what_is_no_date_says_nothing(date: str) -> None:
    clock = ServerClock()
    clock.hear(date)
    assert clock.now() == pytest.approx(time.time(), abs=60)
    clock.hear(email.utils.formatdate(1_000_000_000))
    clock.hear(date)
    assert clock.now() == pytest.approx(1_000_000_000, abs=60)
