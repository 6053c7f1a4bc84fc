"""Locators: what is legal, and what stands in them."""

import pytest

from arvados_fuse.errors import LocatorError
from arvados_fuse.keep import Locator
from arvados_fuse.keep.locator import MAX_BLOCK

MD5 = "acbd18db4cc2f85cedef654fccc4a4d8"
SIGNATURE = "A" + "0123456789" * 4 + "@6543210f"


def test_parts() -> None:
    text = f"{MD5}+3+{SIGNATURE}+K@zzzzz-bi6l4-000000000000001+K@abcde+Rzzzzz-{'0' * 40}@6543210f"
    locator = Locator.parse(text)
    assert (locator.md5, locator.size) == (MD5, 3)
    assert locator.stripped == f"{MD5}+3"
    assert locator.service_hints == ("zzzzz-bi6l4-000000000000001", "abcde")
    assert locator.is_signed
    assert not Locator.parse(f"{MD5}+3").is_signed
    assert Locator.parse(f"{MD5}+{MAX_BLOCK}").size == MAX_BLOCK


@pytest.mark.parametrize(
    "text",
    [
        "",
        MD5,
        f"{MD5}+",
        f"{MD5}+-1",
        f"{MD5}+3x",
        f"{MD5.upper()}+3",
        f"{MD5[:-1]}+3",
        f"{MD5}+3+",
        f"{MD5}+3+a",
        f"{MD5}+3+A/../x",
        f"{MD5}+3 ",
        f"{MD5}+3\n",
        f"{MD5}+٣",
        f"{MD5}+{MAX_BLOCK + 1}",
        f"{MD5}+99999999999999999999",
        "/" + MD5[1:] + "+3",
    ],
)
def test_illegal(text: str) -> None:
    with pytest.raises(LocatorError):
        Locator.parse(text)
