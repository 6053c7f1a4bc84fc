"""Block signatures."""

import hashlib
import hmac
import time

import pytest

from arvados_fuse.local.signature import EMPTY_BLOCK, SignatureError, Signer, token_secret

KEY = b"0123456789abcdef0123456789abcdef"
TTL = 1209600
FOO = "acbd18db4cc2f85cedef654fccc4a4d8+3"
V2 = "v2/zzzzz-gj3su-077z32aux8dg2s1/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi"


@pytest.fixture
def signer() -> Signer:
    return Signer(KEY, TTL)


def test_a_signature_is_made_as_arvados_documents_it(signer: Signer) -> None:
    message = b"acbd18db4cc2f85cedef654fccc4a4d8@secret@6b1365d2@127500"
    digest = hmac.new(KEY, message, hashlib.sha1).hexdigest()
    assert signer.sign(FOO, "secret", 0x6B1365D2) == f"{FOO}+A{digest}@6b1365d2"


def test_what_is_signed_is_valid_for_that_token_alone(signer: Signer) -> None:
    signed = signer.sign(FOO, "secret")
    signer.verify(signed, "secret")
    for token in ("Secret", "", V2):
        with pytest.raises(SignatureError, match="not valid for this token"):
            signer.verify(signed, token)


def test_both_spellings_of_a_token_are_one(signer: Signer) -> None:
    signed = signer.sign(FOO, V2)
    signer.verify(signed, token_secret(V2))
    signer.verify(signer.sign(FOO, token_secret(V2)), V2)


def test_a_signature_ends(signer: Signer) -> None:
    now = time.time()
    signed = signer.sign(FOO, "secret", int(now) + 10)
    signer.verify(signed, "secret", now)
    with pytest.raises(SignatureError, match="expired"):
        signer.verify(signed, "secret", now + 11)
    assert signer.expiry(now) == int(now + TTL)


def test_a_changed_locator_is_refused(signer: Signer) -> None:
    signed = signer.sign(FOO, "secret")
    digest, _, time_text = signed.rpartition("@")
    later = f"{digest}@{int(time_text, 16) + 1:08x}"
    other = signed.replace("acbd18db", "acbd18dc")
    for locator in (later, other):
        with pytest.raises(SignatureError, match="not valid"):
            signer.verify(locator, "secret")


def test_another_site_or_lifetime_is_refused(signer: Signer) -> None:
    signed = signer.sign(FOO, "secret")
    for other in (Signer(KEY[::-1], TTL), Signer(KEY, TTL + 1)):
        with pytest.raises(SignatureError, match="not valid"):
            other.verify(signed, "secret")


@pytest.mark.parametrize(
    "locator", [FOO, f"{FOO}+K@zzzzz", f"{FOO}+Rzzzzz-{'0' * 40}@6b1365d2", f"{FOO}+A12@3"]
)
def test_an_unsigned_locator_is_refused(signer: Signer, locator: str) -> None:
    with pytest.raises(SignatureError, match="no signature"):
        signer.verify(locator, "secret")


@pytest.mark.parametrize(
    "locator", ["", "foo", "acbd18db4cc2f85cedef654fccc4a4d8", FOO.upper(), f"{FOO} ", f"{FOO}+a"]
)
def test_what_is_no_locator_is_refused(signer: Signer, locator: str) -> None:
    with pytest.raises(SignatureError, match="not a block locator"):
        signer.sign(locator, "secret")
    with pytest.raises(SignatureError, match="not a block locator"):
        signer.verify(locator, "secret")


def test_signing_again_replaces_the_signature(signer: Signer) -> None:
    old = signer.sign(FOO, "secret", 0x10000000)
    assert signer.sign(old, "secret", 0x6B1365D2) == signer.sign(FOO, "secret", 0x6B1365D2)


def test_the_empty_block_is_everybodys(signer: Signer) -> None:
    signer.verify(EMPTY_BLOCK, "anything")
    signer.verify(f"{EMPTY_BLOCK}+A{'0' * 40}@00000001", "anything")
