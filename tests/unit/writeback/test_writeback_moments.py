"""States of several paths that were learned at different moments."""

import pytest

from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.partial import manifest_of, of_one_moment
from arvados_fuse.writeback.states import DIRECTORY, State

FILE: State = (Segment("acbd18db4cc2f85cedef654fccc4a4d8+3", 0, 3),)


@pytest.mark.parametrize(
    ("states", "now", "expected"),
    [
        ({"d": FILE, "d/f": FILE}, {"d": FILE}, {"d": FILE, "d/f": None}),
        ({"d": FILE, "d/f": FILE}, {"d/f": FILE}, {"d": None, "d/f": FILE}),
        ({"d": FILE, "d/f": FILE}, {}, {"d": None, "d/f": FILE}),
        ({"d": FILE, "d/e": DIRECTORY}, {"d": FILE}, {"d": FILE, "d/e": None}),
        ({"d": FILE, "d/e/f": FILE, "d/g": FILE}, {"d": FILE}, {"d": FILE, "d/e/f": None, "d/g": None}),
        ({"d": DIRECTORY, "d/f": FILE, "d2": FILE}, {}, {"d": DIRECTORY, "d/f": FILE, "d2": FILE}),
        ({"d": None, "d/f": FILE, "": None}, {"d": FILE}, {"d": None, "d/f": FILE, "": None}),
    ],
)
def test_what_can_not_have_been_at_one_moment(
    states: dict[str, State], now: dict[str, State], expected: dict[str, State]
) -> None:
    found = of_one_moment(states, Finder(ManifestIndex(manifest_of(now))))
    assert found == expected
    ManifestIndex(manifest_of(found))
