"""From a tree to its manifest text and hash, storing unsaved bytes on the way when that is wanted.

Used by `Collection`, by directories' manifest methods and by write-back. No lock is held while blocks are
stored.
"""

import hashlib
import time

from arvados_fuse.collection.moves import HashesOnly, Moves, pack
from arvados_fuse.collection.plan import Plan, make_plan
from arvados_fuse.collection.segments import BLOCK_SIZE, ZERO_BLOCK
from arvados_fuse.collection.stores import BlockStore
from arvados_fuse.collection.tree import Tree
from arvados_fuse.collection.view import DirectoryView

_PADDING_GOOD_FOR = 3600.0
"""Seconds after which the padding block is stored again; its signature is good for two weeks by default."""


def store(plan: Plan, root: DirectoryView) -> tuple[Moves, str]:
    """Store all unsaved bytes of a plan; gives where they are and the locator of the padding block.

    Raises what the block store raises; what was stored until then is not stored again next time.
    """
    moves = Moves()
    waiting = list(plan.unsaved())
    zeros = plan.has_zeros()
    if not waiting and not zeros:
        return moves, ZERO_BLOCK
    tree = root.tree
    blocks = tree.need_block_store()
    try:
        pack(blocks, waiting, moves, tree.storage_classes)
    finally:
        for content, _ in plan.contents:
            content.settle(moves)
    return moves, _padding(blocks, tree) if zeros else ZERO_BLOCK


def _padding(blocks: BlockStore, tree: Tree) -> str:
    """The locator of the block of zeros, which is stored once in a while."""
    locator, until = tree.padding
    if time.monotonic() > until:
        locator = blocks.put(bytes(BLOCK_SIZE), storage_classes=tree.storage_classes)
        tree.padding = locator, time.monotonic() + _PADDING_GOOD_FOR
    return locator


def manifest_text(
    root: DirectoryView,
    stream_name: str = ".",
    *,
    strip: bool = False,
    normalize: bool = False,
    only_committed: bool = False,
) -> str:
    """The manifest of a directory as if it was the root of a collection.

    strip: without hints but sizes. only_committed: leave out unsaved bytes instead of storing them.
    """
    plan = make_plan(root, stream_name, normalize=normalize)
    moves, zero_block = (Moves(), ZERO_BLOCK) if only_committed else store(plan, root)
    return plan.write(moves, strip=strip, zero_block=zero_block).decode()


def portable_manifest(root: DirectoryView, stream_name: str = ".") -> bytes:
    """The normalized manifest without hints, with unsaved bytes under the hashes that they will have."""
    plan = make_plan(root, stream_name, normalize=True)
    moves = Moves()
    pack(HashesOnly(), plan.unsaved(), moves)
    return plan.write(moves, strip=True)


def normalized_hash(root: DirectoryView) -> str:
    """The portable data hash of `portable_manifest`."""
    text = portable_manifest(root)
    return f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}+{len(text)}"
