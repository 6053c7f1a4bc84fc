"""Lists over several kinds: what a project holds, and what is shared with the caller.

`groups.contents` and `groups.shared`. One statement finds the page in the right order over all kinds; then each
kind's records are fetched by uuid.
"""

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.context import Context, Parameters, Record


def contents(context: Context, parameters: Parameters) -> Record:
    raise invalid("to come")


def shared(context: Context, parameters: Parameters) -> Record:
    raise invalid("to come")
