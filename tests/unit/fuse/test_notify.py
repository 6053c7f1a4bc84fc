"""What is written to the kernel, and which kernels understand it."""

import pytest

from arvados_fuse.fuse.notify import expires_names


@pytest.mark.parametrize(
    ("release", "expires"),
    [
        ("6.2.0", True),
        ("6.2-rc1", True),
        ("6.18.44-custom", True),
        ("10.0.1", True),
        ("6.1.999", False),
        ("5.15.0-91-generic", False),
        ("2.6.32", False),
        ("unknown", False),
    ],
)
def test_kernels_that_can_expire_names(release: str, expires: bool) -> None:
    assert expires_names(release) is expires
