"""Every call to the Arvados API, typed, over arvados-python-client, and its events over websocket-client."""

from arvados_fuse.api.changes import Change
from arvados_fuse.api.client import ApiClient
from arvados_fuse.api.events import EventListener, Lost, News, Pace, Status
from arvados_fuse.api.pages import ahead
from arvados_fuse.api.settings import ApiSettings

__all__ = ["ApiClient", "ApiSettings", "Change", "EventListener", "Lost", "News", "Pace", "Status", "ahead"]
