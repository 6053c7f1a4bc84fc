"""The records of the embedded Arvados and what its API means, over SQLite, without HTTP.

`Records` is the door: `Records.open(path, site)`, then `call(token, resource, method, params)` from any
thread. `schema` is the declarative table that the discovery document is made from.
"""

from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.records.context import Caller
from arvados_fuse.local.records.logs import LogRow
from arvados_fuse.local.records.service import Records

__all__ = ["ApiError", "Caller", "LogRow", "Records"]
