"""Locators are renewed when they would not be taken, by the collection's signatures or by storing again."""

import time
from pathlib import Path

from collection_support import FOO, Blocks

from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.segments import ZEROS, Segment
from arvados_fuse.writeback.kept import Kept
from arvados_fuse.writeback.locators import Renewal, Restored, signed_by
from arvados_fuse.writeback.spool import Spools

NOTHING = Kept(0, set, lambda spool: None)


def signed(locator: str, seconds: float) -> str:
    return f"{locator}+A{'0' * 40}@{int(time.time() + seconds):08x}"


def test_a_locator_that_holds_is_left_alone() -> None:
    blocks = Blocks()
    renewal = Renewal(blocks, tuple, kept=NOTHING, now=time.time())
    state = (Segment(signed(FOO, 7200), 0, 3), Segment(ZEROS, 0, 9), Segment(FOO, 1, 1))
    assert not renewal.is_needed(state)
    assert renewal.renewed(state) is state
    assert (blocks.reads, blocks.stored) == ([], [])


def test_one_that_ends_soon_is_stored_again_once() -> None:
    blocks = Blocks()
    renewal = Renewal(blocks, tuple, kept=NOTHING, now=time.time())
    old = signed(FOO, 60)
    state = (Segment(old, 0, 1), Segment(ZEROS, 0, 9), Segment(old, 2, 1))
    assert renewal.is_needed(state)
    fresh = renewal.renewed(state)
    assert isinstance(fresh, tuple)
    assert not renewal.is_needed(fresh)
    assert [segment[1:] for segment in fresh] == [segment[1:] for segment in state]
    assert blocks.stored == [b"foo"]


def test_bytes_that_are_kept_are_stored_again_without_reading(tmp_path: Path) -> None:
    blocks = Blocks()
    spools = Spools(tmp_path)
    spool = spools.new()
    spool.append(b"a foo")
    kept = Kept(100, set, lambda spool: None)
    old = signed(FOO, 60)
    kept.add(old, [Segment(spool, 2, 3)])
    fresh = Renewal(blocks, tuple, kept=kept, now=time.time()).renewed((Segment(old, 1, 2),))
    assert isinstance(fresh, tuple)
    assert (blocks.reads, blocks.stored) == ([], [b"foo"])
    spools.close()


def test_the_server_s_clock_decides() -> None:
    """Ours may be a month ahead: nothing is stored again for that."""
    state = (Segment(signed(FOO, 7200), 0, 3),)
    assert not Renewal(Blocks(), tuple, kept=NOTHING, now=time.time() + 3600).is_needed(state)
    assert Renewal(Blocks(), tuple, kept=NOTHING, now=time.time() + 7000).is_needed(state)


def test_remote_blocks_are_copied_here() -> None:
    blocks = Blocks()
    state = (Segment(f"{FOO}+Rother-{'0' * 40}@77777777", 0, 3),)
    fresh = Renewal(blocks, tuple, kept=NOTHING, now=time.time()).renewed(state)
    assert isinstance(fresh, tuple)
    assert "+R" not in str(fresh[0].source)
    assert blocks.stored == [b"foo"]


def test_the_collection_s_own_signatures_are_taken() -> None:
    new = signed(FOO, 7200)
    manifest = ManifestIndex(f". {new} 0:3:f\n")
    assert signed_by(manifest, (Segment(signed(FOO, 5), 1, 2),)) == (Segment(new, 1, 2),)
    assert signed_by(manifest, None) is None


def test_what_the_server_refused_is_stored_again_though_it_looks_good() -> None:
    blocks = Blocks()
    old = signed(FOO, 7200)
    renewal = Renewal(blocks, tuple, is_refused=lambda locator: locator == old, kept=NOTHING, now=time.time())
    fresh = renewal.renewed((Segment(old, 0, 1), Segment(old, 2, 1)))
    assert isinstance(fresh, tuple)
    assert [segment.source for segment in fresh] == [*renewal.fresh(), *renewal.fresh()]
    assert blocks.stored == [b"foo"]


def test_blocks_are_stored_again_once_for_a_token() -> None:
    token = "first"
    restored = Restored(lambda: token)
    a, b, c = (f"{letter * 32}+3+A{'0' * 40}@77777777" for letter in "abc")
    state = (Segment(f"{'a' * 32}+3+A{'1' * 40}@77777777", 1, 2),)
    assert not restored.has(a)
    assert signed_by(restored, state) == state
    restored.add([a], token)
    restored.add([b], token)
    assert restored.has(a)
    assert restored.has(b)
    assert signed_by(restored, state) == (Segment(a, 1, 2),)
    token = "second"
    assert not restored.has(a), "its signature is for the first token"
    assert signed_by(restored, state) == state
    restored.add([c], token)
    assert restored.has(c)
    assert not restored.has(b)
