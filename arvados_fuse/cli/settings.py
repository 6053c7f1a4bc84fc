"""Which API server, and as whom: for every command that asks one.

Used by `main.py` and `recover.py`. Heavy imports happen in the call: commands that ask nobody stay quick.
"""

import os
import sys
from typing import TYPE_CHECKING

from arvados_fuse.options import MountOptions

if TYPE_CHECKING:
    from arvados_fuse.api import ApiSettings


def settings_of(options: MountOptions) -> "ApiSettings":
    """Which API server and token: the embedded Arvados (started when needed), or what is configured."""
    from arvados_fuse.api import ApiSettings

    environment = dict(os.environ)
    if options.local_dir is not None:
        from arvados_fuse.local.control import ensure_running

        environment = {name: value for name, value in environment.items() if not name.startswith("ARVADOS_")}
        local = ensure_running(options.local_dir, progress=_tell)
        environment.update(local.environment())
    environment.update(options.environment)
    return ApiSettings.load(environment)


def _tell(sentence: str) -> None:
    print(f"{sentence} ...", file=sys.stderr)
