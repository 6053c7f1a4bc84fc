"""A collection that only Keep knows: its manifest is a block there, and no record in the API names it.

Used by the layout for `--collection`, where the target may be a block locator with its permission signature;
its md5 and size are the portable data hash. (The blocks that such a manifest names are signed for nobody:
where a cluster checks signatures, names and sizes can be seen, and the contents only of blocks in the cache.)
"""

import re
from collections.abc import Sequence

from arvados_fuse.errors import (
    AccessDenied,
    BadAnswer,
    BlockNotFound,
    LocatorError,
    NotFoundError,
    SignatureRefused,
)
from arvados_fuse.keep import Locator
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.version import Origin, Record

LOCATOR = re.compile(r"([0-9a-f]{32}\+[0-9]+)(?:\+[A-Z][A-Za-z0-9@_-]*)*")
"""A portable data hash, perhaps with the hints of a locator."""


def keep_origin(context: Context, target: str) -> Origin:
    """Where the content `target` comes from: the API, and what that does not know, Keep."""
    match = LOCATOR.fullmatch(target)
    assert match is not None
    pdh = match[1]

    def fetch(select: Sequence[str] | None) -> Record:
        try:
            return context.api.get_collection(pdh, select=select)
        except NotFoundError as missing:
            return {"portable_data_hash": pdh, "manifest_text": _manifest(context, target, missing)}

    return Origin(fetch, pdh)


def _manifest(context: Context, target: str, missing: NotFoundError) -> str:
    try:
        locator = Locator.parse(target)
        # The cache checks the hash: the bytes are those that the name stands for.
        return bytes(context.blocks.read(target, 0, locator.size)).decode("utf-8")
    except (AccessDenied, BlockNotFound, LocatorError, SignatureRefused) as error:
        raise NotFoundError(f"{missing}; Keep: {error}", subject=missing.subject) from error
    except UnicodeDecodeError as error:
        raise BadAnswer(f"the block {locator.stripped} is no manifest", subject=locator.stripped) from error
