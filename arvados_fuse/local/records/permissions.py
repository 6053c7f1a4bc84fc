"""Who may do what: the reach of a user over groups and links, and the SQL that follows from it.

Used by every module that reads or changes records. `Permissions` caches one `Reach` per user; it is safe for
any thread. The rules (Arvados permission model): an owner manages what it owns; a permission link gives its
tail the named level on its head; levels pass on through groups, narrowed to the least on the path, and
through a user only where that user is managed. A trashed project hides everything below it.
"""

import json
import sqlite3
import threading
from collections import OrderedDict
from typing import NamedTuple

from arvados_fuse.local.records.filters import Binds
from arvados_fuse.local.records.identifiers import USER, uuid_kind

READ = 1
WRITE = 2
MANAGE = 3
LEVELS = {"can_read": READ, "can_write": WRITE, "can_manage": MANAGE}

MAX_CACHED = 256
"""Users whose reach is remembered."""

# Steps only start from users that are managed (level 3) and from groups.
_REACH = """
WITH RECURSIVE reach(uuid, level) AS (
    SELECT :user, 3
    UNION
    SELECT groups.uuid, reach.level FROM reach JOIN groups ON groups.owner_uuid = reach.uuid
        WHERE reach.level = 3 OR substr(reach.uuid, 7, 5) != 'tpzed'
    UNION
    SELECT users.uuid, reach.level FROM reach JOIN users ON users.owner_uuid = reach.uuid
        WHERE reach.level = 3 OR substr(reach.uuid, 7, 5) != 'tpzed'
    UNION
    SELECT links.head_uuid,
        min(reach.level, CASE links.name WHEN 'can_manage' THEN 3 WHEN 'can_write' THEN 2 ELSE 1 END)
        FROM reach JOIN links ON links.tail_uuid = reach.uuid AND links.link_class = 'permission'
        WHERE links.name IN ('can_read', 'can_write', 'can_manage')
            AND (reach.level = 3 OR substr(reach.uuid, 7, 5) != 'tpzed')
)
SELECT uuid, max(level) FROM reach GROUP BY uuid
"""
_TRASHED = """
WITH RECURSIVE trashed(uuid) AS (
    SELECT uuid FROM groups WHERE trash_at <= :now
    UNION
    SELECT groups.uuid FROM trashed JOIN groups ON groups.owner_uuid = trashed.uuid
)
SELECT uuid FROM trashed
"""


class Reach:
    """The highest level that one user has on each user, group and directly shared object."""

    def __init__(self, levels: dict[str, int]) -> None:
        self._levels = levels
        self._owners = {
            uuid: level for uuid, level in levels.items() if uuid_kind(uuid) != USER or level == MANAGE
        }
        self._json: dict[tuple[str, int], str] = {}

    def level(self, uuid: str, owner_uuid: str | None) -> int:
        """The level (0 to 3) on the object `uuid` that `owner_uuid` owns."""
        return max(self._levels.get(uuid, 0), self._owners.get(owner_uuid or "", 0))

    def owner_level(self, uuid: str) -> int:
        """The level (0 to 3) on whatever `uuid` (a user or group) owns."""
        return self._owners.get(uuid, 0)

    def targets_json(self, level: int) -> str:
        """The uuids on which the user has `level` or more, as a JSON array."""
        return self._listed("targets", self._levels, level)

    def owners_json(self, level: int) -> str:
        """The uuids of owners on whose objects the user has `level` or more, as a JSON array."""
        return self._listed("owners", self._owners, level)

    def _listed(self, name: str, levels: dict[str, int], level: int) -> str:
        text = self._json.get((name, level))
        if text is None:
            text = json.dumps([uuid for uuid, has in levels.items() if has >= level])
            self._json[name, level] = text
        return text


class Access(NamedTuple):
    """What one caller may see: `reach` is None for administrators, who may do everything."""

    user_uuid: str
    reach: Reach | None
    trashed: str
    """Uuids of groups in the trash or below a group in the trash, as a JSON array."""

    def level(self, uuid: str, owner_uuid: str | None) -> int:
        """The level (0 to 3) on the object `uuid` that `owner_uuid` owns."""
        return MANAGE if self.reach is None else self.reach.level(uuid, owner_uuid)

    def owner_level(self, uuid: str) -> int:
        """The level (0 to 3) on whatever the user or group `uuid` owns."""
        return MANAGE if self.reach is None else self.reach.owner_level(uuid)

    def targets(self, binds: Binds, level: int = READ) -> str:
        """SQL of a subquery: uuids on which the caller has `level`. Not for administrators."""
        assert self.reach is not None
        return f"(SELECT value FROM json_each({binds.add(self.reach.targets_json(level))}))"

    def owners(self, binds: Binds, level: int = READ) -> str:
        """SQL of a subquery: owners on whose objects the caller has `level`. Not for administrators."""
        assert self.reach is not None
        return f"(SELECT value FROM json_each({binds.add(self.reach.owners_json(level))}))"

    def hidden_owners(self, binds: Binds) -> str:
        """SQL of a subquery: the groups whose content the trash hides; "" when there are none."""
        if self.trashed == "[]":
            return ""
        return f"(SELECT value FROM json_each({binds.add(self.trashed)}))"


class Permissions:
    """A cache of reaches, each good for one generation of the permission records.

    The generation is a row of the database that `changed` sets anew in the same transaction as the change, so
    every transaction finds the reach that belongs to the state it sees. It is a random number: one that was
    rolled back never comes again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reaches: OrderedDict[str, tuple[int, Reach]] = OrderedDict()

    def access(self, connection: sqlite3.Connection, user_uuid: str, is_admin: bool, now: str) -> Access:
        """What the user may see in the state that `connection`'s transaction sees, at the time `now`."""
        trashed = json.dumps([row[0] for row in connection.execute(_TRASHED, {"now": now})])
        return Access(user_uuid, None if is_admin else self._reach(connection, user_uuid), trashed)

    def changed(self, connection: sqlite3.Connection) -> None:
        """To be called in every transaction that changes a group, a user or a permission link."""
        connection.execute("UPDATE state SET value = random() WHERE name = 'permission_generation'")

    def _reach(self, connection: sqlite3.Connection, user_uuid: str) -> Reach:
        query = "SELECT value FROM state WHERE name = 'permission_generation'"
        generation: int = connection.execute(query).fetchone()[0]
        with self._lock:
            cached = self._reaches.get(user_uuid)
            if cached is not None and cached[0] == generation:
                self._reaches.move_to_end(user_uuid)
                return cached[1]
        reach = Reach({row[0]: row[1] for row in connection.execute(_REACH, {"user": user_uuid})})
        with self._lock:
            self._reaches[user_uuid] = (generation, reach)
            if len(self._reaches) > MAX_CACHED:
                self._reaches.popitem(last=False)
        return reach
