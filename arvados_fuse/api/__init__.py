"""Every call to the Arvados API, typed, over arvados-python-client."""

from arvados_fuse.api.client import ApiClient
from arvados_fuse.api.settings import ApiSettings

__all__ = ["ApiClient", "ApiSettings"]
