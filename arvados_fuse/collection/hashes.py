"""Portable data hashes of manifest texts. Pure functions."""

import hashlib

from arvados_fuse.collection.tokens import strip_hints


def portable_data_hash(manifest_text: str) -> str:
    """`md5+length` of the text with all locator hints but the sizes removed, as the API server computes
    it."""
    stripped = strip_hints(manifest_text.encode())
    return f"{hashlib.md5(stripped, usedforsecurity=False).hexdigest()}+{len(stripped)}"
