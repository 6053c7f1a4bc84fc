"""Mount points that are reached through links, and those that two mounts want at once."""

import os
import signal
import socket

from mount.test_command import DEADLINE, Result, Site, local, mount_type, needs_fuse, site, unmount

__all__ = ["local", "site"]
pytestmark = needs_fuse


def test_a_mount_point_behind_two_links(site: Site) -> None:
    near, far = site.home / "near", site.home / "far"
    near.symlink_to(site.mnt)
    far.symlink_to("near")
    nowhere = site.home / "nowhere"
    nowhere.symlink_to("nowhere")

    # Mounted through them it is as any other: it can be asked, and found by each of its names.
    assert site.run("--home", str(far)) == Result(0, "", "")
    assert site.run("--status", str(far)).out.startswith(f"{site.mnt}: home")
    assert site.run("--status", str(site.mnt)).code == 0
    assert "alive or dead" in site.run("--home", str(far)).err
    assert site.run("--unmount", str(nowhere)) == Result(0, "", "")
    assert site.run("--unmount", str(far)) == Result(0, "", "")
    assert not site.mounted()

    assert site.run("--home", str(site.mnt)) == Result(0, "", "")
    assert "alive or dead" in site.run("--home", str(far)).err
    assert os.listdir(far) == ["empty"]
    unmount(site)


def test_everything_below_a_directory_behind_two_links(site: Site) -> None:
    near, far = site.home / "near", site.home / "far"
    near.symlink_to(site.mnt)
    far.symlink_to(near)
    below = site.mnt / "below"
    below.mkdir()
    assert site.run("--home", str(far / "below")) == Result(0, "", "")
    assert mount_type(below)
    try:
        assert site.run("--unmount-all", str(far)) == Result(0, "", "")
        assert not mount_type(below)
    finally:
        site.run("--unmount", str(below))


def test_of_two_that_begin_at_once_one_is_refused(site: Site) -> None:
    link = site.home / "link"
    link.symlink_to(site.mnt)
    # The first one waits for a server that takes the connection and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with site.start("--foreground", str(site.mnt), ARVADOS_API_HOST=host) as first:
            connection = listener.accept()[0]
            for name in (site.mnt, link):
                refused = site.run("--home", str(name))
                assert (refused.code, refused.err.count("\n")) == (1, 1)
                assert f"another arv-mount is about to mount at {name}; " in refused.err
                assert not site.mounted()
            assert first.poll() is None
            first.send_signal(signal.SIGTERM)
            connection.close()
            first.communicate(timeout=DEADLINE)
    # Who failed keeps nobody from it, and nothing stays there.
    assert os.listdir(site.mnt) == []
    assert site.run("--home", str(site.mnt)) == Result(0, "", "")
    assert "alive or dead" in site.run("--home", str(site.mnt)).err
    unmount(site)
