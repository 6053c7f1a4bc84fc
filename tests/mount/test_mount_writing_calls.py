"""System calls beside the ordinary ones, on a real mount: flags of open, holes, copies in the kernel, shared
descriptors."""

import errno
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers import refused
from mounting import drop_kernel_caches, needs_fuse
from servers import LocalServer
from writing_bench import Bench, Target
from writing_mounts import on_disk, same_on_server, writing_target

pytestmark = needs_fuse


@pytest.fixture(scope="module")
def target(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One mount for all calls."""
    with writing_target(local_server, tmp_path_factory.mktemp("calls")) as target:
        yield target


@pytest.fixture
def top(target: Target) -> Iterator[Path]:
    """Where a collection is; the server has what is in it after the test."""
    bench = Bench(target, {"f": b"0123456789" * 1000})
    top = Path(bench.driver._path(bench / ""))  # type: ignore[attr-defined]
    yield top
    drop_kernel_caches()
    tree = on_disk(top)
    same_on_server(bench, tree)
    target.anew(bench, tree)


def test_direct(top: Path) -> None:
    """Past the kernel's pages, and beside what is written through them."""
    direct = os.open(top / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    plain = os.open(top / "direct", os.O_RDWR)
    with mmap.mmap(-1, 8192) as buffer:
        buffer[:] = b"d" * 8192
        assert os.pwrite(direct, buffer, 0) == 8192
        assert os.pread(plain, 10_000, 0) == b"d" * 8192
        os.pwrite(plain, b"plain", 4096)
        assert os.preadv(direct, [buffer], 4096) == 4096
        assert buffer[:10] == b"plainddddd"
        buffer[:] = b"e" * 8192
        os.pwrite(direct, buffer, 4096)
        assert os.pread(plain, 5, 4096) == b"eeeee"
    os.close(direct)
    os.close(plain)
    assert (top / "direct").read_bytes() == b"d" * 4096 + b"e" * 8192


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous(top: Path, flag: int) -> None:
    file = os.open(top / "f", os.O_RDWR | flag)
    for number in range(3):
        os.pwrite(file, b"%d" % number, number)
    os.close(file)
    assert (top / "f").read_bytes()[:5] == b"01234"


def test_allocated_space(top: Path) -> None:
    with open(top / "f", "r+b") as file:
        os.posix_fallocate(file.fileno(), 9000, 100_000)
        assert os.fstat(file.fileno()).st_size == 109_000
        os.pwrite(file.fileno(), b"x", 108_999)
    assert (top / "f").read_bytes() == b"0123456789" * 1000 + bytes(98_999) + b"x"


def test_copies_in_the_kernel(top: Path) -> None:
    with open(top / "f", "rb") as source, open(top / "copy", "wb") as copy:
        done = 0
        while done < 10_000:
            done += os.copy_file_range(source.fileno(), copy.fileno(), 10_000 - done, done, done)
    with open(top / "f", "rb") as source, open(top / "sent", "wb") as copy:
        assert os.sendfile(copy.fileno(), source.fileno(), 5, 5000) == 5000
    assert (top / "copy").read_bytes() == b"0123456789" * 1000
    assert (top / "sent").read_bytes() == b"5678901234" * 500


def test_holes_may_be_asked_for(top: Path) -> None:
    with open(top / "sparse", "wb") as file:
        file.truncate(1 << 20)
        end = os.fstat(file.fileno()).st_size
        assert os.lseek(file.fileno(), 0, os.SEEK_END) == end
    with open(top / "sparse", "rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1 << 20
        with refused(errno.ENXIO):
            os.lseek(file.fileno(), (1 << 20) + 1, os.SEEK_DATA)


def test_temporary_files(top: Path) -> None:
    with tempfile.TemporaryFile(dir=top) as file:
        file.write(b"temporary" * 10_000)
        file.seek(0)
        assert file.read() == b"temporary" * 10_000
        assert sorted(os.listdir(top)) == ["f"]
    with tempfile.NamedTemporaryFile(dir=top) as named:
        named.write(b"named")
        named.flush()
        assert Path(named.name).read_bytes() == b"named"
    assert sorted(os.listdir(top)) == ["f"]


def test_descriptors_that_are_shared(top: Path) -> None:
    """Closing one of several descriptors of one open file does not end it; a child writes through it too."""
    file = os.open(top / "shared", os.O_RDWR | os.O_CREAT)
    other = os.dup(file)
    os.write(file, b"one ")
    os.close(file)
    code = f"import os; os.write({other}, b'two ')"
    assert subprocess.run([sys.executable, "-c", code], pass_fds=[other], check=False).returncode == 0
    os.write(other, b"three")
    os.fsync(other)
    os.unlink(top / "shared")
    os.write(other, b"!")
    assert os.pread(other, 100, 0) == b"one two three!"
    os.close(other)
    assert sorted(os.listdir(top)) == ["f"]


def test_an_unlinked_file_has_no_way_back(top: Path) -> None:
    with open(top / "f", "r+b") as file:
        os.unlink(top / "f")
        file.truncate(3)
        with open(f"/proc/self/fd/{file.fileno()}", "r+b") as again:
            again.write(b"abc")
        assert os.pread(file.fileno(), 10, 0) == b"abc"
        with pytest.raises(OSError):  # noqa: PT011 - there are no hard links
            os.link(f"/proc/self/fd/{file.fileno()}", top / "back")
    assert os.listdir(top) == []


def test_descriptors_of_directories(top: Path) -> None:
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("d", dir_fd=directory)
    below = os.open("d", os.O_PATH, dir_fd=directory)
    os.rename("f", "moved", src_dir_fd=directory, dst_dir_fd=below)
    assert os.stat("moved", dir_fd=below).st_size == 10_000
    os.rename("d", "e", src_dir_fd=directory, dst_dir_fd=directory)
    file = os.open("moved", os.O_WRONLY | os.O_TRUNC, dir_fd=below)
    os.write(file, b"short")
    os.close(file)
    os.fsync(directory)
    os.sync()
    os.unlink("moved", dir_fd=below)
    os.rmdir("e", dir_fd=directory)
    with refused(errno.ENOENT):
        os.mkdir("x", dir_fd=below)
    os.close(below)
    os.close(directory)
    assert os.listdir(top) == []


def test_a_file_that_is_run_can_be_replaced(top: Path) -> None:
    script = top / "script"
    script.write_text("#!/bin/sh\necho runs\nread line\necho old $line\n")
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # The shell opens the script by its name, some time after it was started.
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        (top / "new").write_text("#!/bin/sh\necho new\n")
        os.replace(top / "new", script)
        assert process.communicate(b"line\n")[0] == b"old line\n"
    assert subprocess.run([script], capture_output=True, check=False).stdout == b"new\n"


def test_attributes_of_files_can_not_be_set(top: Path) -> None:
    with refused(errno.ENOTSUP):
        os.setxattr(top / "f", "user.test", b"value")
    with refused(errno.ENOTSUP):
        os.removexattr(top / "f", "user.arvados.uuid")
