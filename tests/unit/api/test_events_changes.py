"""What a message becomes: a Change, or nothing."""

import dataclasses
from typing import Any

import pytest
from event_peers import event, uuid_of
from hypothesis import given
from hypothesis import strategies as st

from arvados_fuse.api.changes import EVENTS, KINDS, PDH, UUID, Change, change_of, log_id_of

OLD_PDH = "d41d8cd98f00b204e9800998ecf8427e+0"
NEW_PDH = "fffffffffffffffffffffffffffffff0+4711"


def test_everything_an_event_says() -> None:
    message = event(
        7,
        3,
        event_type="update",
        object_owner_uuid=uuid_of(5, "j7d0g"),
        properties={
            "old_attributes": {
                "name": "a",
                "owner_uuid": uuid_of(4, "j7d0g"),
                "portable_data_hash": OLD_PDH,
                "is_trashed": False,
            },
            "new_attributes": {
                "name": "b",
                "owner_uuid": uuid_of(5, "j7d0g"),
                "portable_data_hash": NEW_PDH,
                "is_trashed": True,
            },
        },
    )
    change = change_of(message)
    assert change == Change(
        log_id=7,
        uuid=uuid_of(3),
        kind="arvados#collection",
        event="update",
        owner_uuid=uuid_of(5, "j7d0g"),
        old_owner_uuid=uuid_of(4, "j7d0g"),
        new_owner_uuid=uuid_of(5, "j7d0g"),
        old_name="a",
        new_name="b",
        old_portable_data_hash=OLD_PDH,
        new_portable_data_hash=NEW_PDH,
        was_trashed=False,
        is_trashed=True,
    )
    assert change.owners == {uuid_of(4, "j7d0g"), uuid_of(5, "j7d0g")}


def test_a_change_can_not_be_changed() -> None:
    change = change_of(event(1))
    assert change is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.uuid = ""  # type: ignore[misc]


@pytest.mark.parametrize(("code", "kind"), KINDS.items())
def test_the_uuid_says_the_kind_whatever_the_message_claims(code: str, kind: str) -> None:
    change = change_of(event(1, object_uuid=uuid_of(1, code), object_kind="arvados#nonsense"))
    assert change is not None
    assert change.kind == kind


@pytest.mark.parametrize("kind", ["dz642", "57u5n", "gj3su", "zzzzz"])
def test_what_a_mount_does_not_show_is_no_change(kind: str) -> None:
    assert change_of(event(1, object_uuid=uuid_of(1, kind))) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None},
        {"id": "7"},
        {"id": 7.0},
        {"id": True},
        {"id": 0},
        {"id": -1},
        {"id": 1 << 63},
        {"id": float("nan")},
        {"object_uuid": None},
        {"object_uuid": 5},
        {"object_uuid": "zzzzz-4zz18-00000000000000"},
        {"object_uuid": "zzzzz-4zz18-000000000000000\n"},
        {"object_uuid": "../../etc/passwd"},
        {"event_type": "stderr"},
        {"event_type": None},
        {"event_type": ["update"]},
        {"event_type": {}},
    ],
)
def test_nonsense_is_no_change(wrong: dict[str, Any]) -> None:
    assert change_of(event(1) | wrong) is None


@pytest.mark.parametrize("wrong", [None, [], "x", 5, True, {"old_attributes": [], "new_attributes": "x"}])
def test_properties_that_are_nonsense_leave_what_is_known(wrong: Any) -> None:
    change = change_of(event(4, 2, properties=wrong))
    assert change == Change(4, uuid_of(2), "arvados#collection", "update", owner_uuid=uuid_of(1, "tpzed"))


ATTRIBUTE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.just(OLD_PDH)
)
ANYTHING = st.recursive(ATTRIBUTE, lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=10)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.one_of(st.just(5), ANYTHING),
            "object_uuid": st.one_of(st.just(uuid_of(1)), ANYTHING),
            "event_type": st.one_of(st.sampled_from(EVENTS), ANYTHING),
            "object_owner_uuid": ANYTHING,
            "object_kind": ANYTHING,
            "properties": st.one_of(
                ANYTHING,
                st.fixed_dictionaries(
                    {},
                    optional={
                        side: st.dictionaries(
                            st.sampled_from(["name", "owner_uuid", "portable_data_hash", "is_trashed"]),
                            ANYTHING,
                        )
                        for side in ("old_attributes", "new_attributes")
                    },
                ),
            ),
        },
    )
)
def test_whatever_comes_a_change_has_its_form(message: dict[str, Any]) -> None:
    change = change_of(message)
    if change is None:
        return
    assert type(change.log_id) is int
    assert change.log_id == log_id_of(message)
    assert change.log_id > 0
    assert UUID.fullmatch(change.uuid)
    assert change.kind in KINDS.values()
    assert change.event in EVENTS
    assert all(UUID.fullmatch(owner) for owner in change.owners)
    for name in (change.old_name, change.new_name):
        assert name is None or type(name) is str
    for pdh in (change.old_portable_data_hash, change.new_portable_data_hash):
        assert pdh is None or PDH.fullmatch(pdh)
    for flag in (change.was_trashed, change.is_trashed):
        assert flag is None or type(flag) is bool
