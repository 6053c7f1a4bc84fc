"""Permission signatures of block locators: made and checked with the site's blob signing key.

`records/` signs manifests with them, the embedded Keep services check them. Pure functions, any thread.
Format: a locator hint `+A<40 hex>@<8 hex unix time>`; the 40 digits are HMAC-SHA1 with the site's key over
`<md5>@<token>@<expiry hex>@<ttl hex>` (Arvados blob signatures). Of a `v2/<uuid>/<secret>` token only the
secret counts, so that both spellings of one token give the same signature.
"""

import hashlib
import hmac
import re
import time

EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"
"""The block without bytes: everybody may refer to it, its signature is never asked for."""

_LOCATOR = re.compile(r"([0-9a-f]{32})\+([0-9]{1,18})((?:\+[A-Z][A-Za-z0-9@_-]*)*)")
_HINT = re.compile(r"\+A([0-9a-f]{40})@([0-9a-f]{8})(?=\+|$)")


class SignatureError(Exception):
    """The locator is malformed, unsigned, signed for somebody else, or its signature has expired."""


def token_secret(token: str) -> str:
    """The part of an API token that is secret: the last of `v2/<uuid>/<secret>`, else the whole token."""
    if token.startswith("v2/"):
        parts = token.split("/")
        if len(parts) >= 3:
            return parts[2]
    return token


class Signer:
    """Makes and checks signatures for one site.

    key: the site's blob signing key. ttl: lifetime of a signature in seconds, part of what is signed.
    """

    __slots__ = ("_key", "_ttl", "_ttl_hex")

    def __init__(self, key: bytes, ttl: int) -> None:
        self._key = key
        self._ttl = ttl
        self._ttl_hex = f"{ttl:x}"

    def sign(self, locator: str, token: str, expiry: int | None = None) -> str:
        """`locator` (its first two parts count) with a signature for `token`, valid until `expiry`.

        expiry: unix time in seconds; by default now plus the site's ttl. Raises SignatureError on no locator.
        """
        match = _LOCATOR.fullmatch(locator)
        if match is None:
            raise SignatureError(f"not a block locator: {locator[:80]!r}")
        return (
            f"{match[1]}+{match[2]}{self.hint(match[1], token, self.expiry() if expiry is None else expiry)}"
        )

    def expiry(self, now: float | None = None) -> int:
        """Unix time at which a signature made now (or at `now`, seconds) ends."""
        return int((time.time() if now is None else now) + self._ttl)

    def hint(self, md5: str, token: str, expiry: int) -> str:
        """The hint `+A...@...` that permits `token` to read the block `md5` until `expiry` (unix seconds)."""
        return f"+A{self._digest(md5, token_secret(token), f'{expiry:08x}')}@{expiry:08x}"

    def verify(self, locator: str, token: str, now: float | None = None) -> None:
        """Return when `locator` carries a signature that is valid for `token` at `now` (unix seconds).

        Raises SignatureError otherwise. The empty block needs no signature.
        """
        match = _LOCATOR.fullmatch(locator)
        if match is None:
            raise SignatureError(f"not a block locator: {locator[:80]!r}")
        md5, size, hints = match.groups()
        if f"{md5}+{size}" == EMPTY_BLOCK:
            return
        signature = _HINT.search(hints)
        if signature is None:
            raise SignatureError(f"block {md5}+{size} has no signature")
        if not hmac.compare_digest(self._digest(md5, token_secret(token), signature[2]), signature[1]):
            raise SignatureError(f"the signature of block {md5}+{size} is not valid for this token")
        if int(signature[2], 16) < (time.time() if now is None else now):
            raise SignatureError(f"the signature of block {md5}+{size} has expired")

    def _digest(self, md5: str, secret: str, expiry_hex: str) -> str:
        message = f"{md5}@{secret}@{expiry_hex}@{self._ttl_hex}".encode()
        return hmac.new(self._key, message, hashlib.sha1).hexdigest()
