"""A permission that others take away: no event tells who loses it, so it shows when it is asked for next."""

import secrets
from pathlib import Path

from drivers import TreeDriver, exists, read
from servers import wait_for
from worlds import Maker, World, session

from arvados_fuse.tree.follow import LONG


def test_it_shows_within_the_refresh_time_though_events_say_nothing(world: World, tmp_path: Path) -> None:
    server = world.server
    owner = Maker(server, server.new_user(f"owner{secrets.token_hex(4)}")[1])
    project = owner.project("shared")
    uuid = owner.collection("c", {"f": b"f"}, owner_uuid=project)["uuid"]
    attributes = {"link_class": "permission", "name": "can_read", "tail_uuid": world.user}
    link = owner.make("links", **attributes, head_uuid=project)["uuid"]
    with session(server, world.token, tmp_path, mode="by_id", refresh_time=1.0, listen_events=True) as built:
        root, policy = TreeDriver(built.filesystem), built.filesystem.context.policy
        wait_for(lambda: policy.max_age >= LONG, "events arrive")
        opened = root.open(f"{uuid}/f")
        assert read(root, f"{project}/c/f") == b"f"
        assert server.call("DELETE", f"links/{link}", token=owner.token).status == 200
        wait_for(lambda: not exists(root, f"{uuid}/f"), "the collection is gone", 5)
        wait_for(lambda: not exists(root, project), "the project is gone", 5)
        assert opened.read(0, 10) == b"f", "what is open stays"
        opened.close()
        # And the other way: what was looked for in vain appears once it is allowed.
        assert not exists(root, uuid)
        owner.make("links", **attributes, head_uuid=project)
        wait_for(lambda: exists(root, f"{uuid}/f"), "it is there again", 5)
