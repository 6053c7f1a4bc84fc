"""Portable data hashes of manifest texts. Pure functions."""

import hashlib

from arvados_fuse.collection.manifest.tokens import strip_hints


def portable_data_hash(manifest_text: str | bytes) -> str:
    """`md5+length` of the text with all locator hints but the sizes removed, as the API server computes
    it. Of text that is no Unicode, which no manifest can be, it gives one that no manifest has."""
    data = manifest_text.encode(errors="surrogatepass") if isinstance(manifest_text, str) else manifest_text
    stripped = strip_hints(data)
    return f"{hashlib.md5(stripped, usedforsecurity=False).hexdigest()}+{len(stripped)}"
