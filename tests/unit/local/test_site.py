"""The settings of a site."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from arvados_fuse.local.site import SiteConfig


def test_a_new_site_has_secrets_of_its_own() -> None:
    one, two = SiteConfig.new(), SiteConfig.new()
    assert one.blob_signing_key != two.blob_signing_key
    assert one.system_root_token != two.system_root_token
    assert SiteConfig.new("abcde").system_user_uuid == "abcde-tpzed-000000000000000"


def test_settings_survive_a_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    site = replace(
        SiteConfig.new(), storage_classes={"default": True, "archive": False}, default_replication=2
    )
    path = tmp_path / "site.json"
    site.save(path)
    assert SiteConfig.load(path) == site
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_are_not_in_the_representation() -> None:
    site = SiteConfig.new()
    assert site.blob_signing_key not in repr(site)
    assert site.system_root_token not in repr(site)


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": "ABCDE"},
        {"cluster_id": "abcd"},
        {"blob_signing_key": "short"},
        {"system_root_token": ""},
        {"blob_signature_ttl": 0},
        {"default_replication": 0},
        {"max_items_per_page": 0},
        {"storage_classes": {"archive": False}},
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    site = SiteConfig.new()
    with pytest.raises(ValueError, match="must|need" if "cluster_id" not in change else "cluster id"):
        replace(site, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[]", '{"unknown": 1}', '{"cluster_id": "abcde"}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.json"
    path.write_text(text)
    assert json.loads(text) is not None
    with pytest.raises(ValueError, match="settings of a site"):
        SiteConfig.load(path)
