"""Which options have no engine behind them yet, said in one sentence each.

Used by `main.py` before anything is started: an option that can't be honoured must not look as if it were.
An entry goes when its engine arrives.
"""

from arvados_fuse.errors import SetupError
from arvados_fuse.options import MountOptions


def check(options: MountOptions) -> None:
    """Raises SetupError for the first option that this version can't honour."""
    missing = _first_missing(options)
    if missing:
        raise SetupError(f"{missing} does not work in this version yet; use arv-mount 3.2.1 for it")


def _first_missing(options: MountOptions) -> str:
    return ""
