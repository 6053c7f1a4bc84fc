"""What one user shares with another, to be given and taken away."""

import secrets

from worlds import Maker


class Sharing:
    """A project with a collection in it, and a collection beside it, of a user of their own.

    role: the reader gets permissions by a role instead of by links of the reader's own: of those no event
    tells the reader. places: files on a mount of all, which are there as long as it is shared.
    """

    def __init__(self, reader: Maker, *, role: bool = False) -> None:
        server, tag = reader.server, secrets.token_hex(4)
        self.tail: str = server.call("GET", "users/current", token=reader.token).body["uuid"]
        self.owner = Maker(server, server.new_user(f"owner{tag}", first_name="O", last_name=tag)[1])
        self.project = self.owner.project("shared")
        self.inside: str = self.owner.collection("c", {"d/f": b"f"}, owner_uuid=self.project)["uuid"]
        self.beside: str = self.owner.collection("beside", {"d/f": b"f"})["uuid"]
        if role:
            group: str = self.owner.make("groups", group_class="role", name=f"role {tag}")["uuid"]
            self._link(group)
            self.tail = group
        self.name = f"O {tag}"
        self.places = [
            f"by_id/{self.project}/c/d/f",
            f"by_id/{self.inside}/d/f",
            f"by_id/{self.beside}/d/f",
            f"shared/{self.name}/shared/c/d/f",
            f"shared/{self.name}/beside/d/f",
        ]
        self._links: list[str] = []

    def give(self) -> None:
        """Let the reader see it."""
        self._links = [self._link(head) for head in (self.project, self.beside)]

    def take(self) -> None:
        """Let the reader not see it any more."""
        for link in self._links:
            answer = self.owner.server.call("DELETE", f"links/{link}", token=self.owner.token)
            assert answer.status == 200, answer
        self._links = []

    def _link(self, head: str) -> str:
        attributes = {"link_class": "permission", "name": "can_read", "tail_uuid": self.tail}
        return str(self.owner.make("links", **attributes, head_uuid=head)["uuid"])
