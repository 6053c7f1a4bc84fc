"""Reading through a real mount with the programs that people use."""

import filecmp
import hashlib
import mmap
import os
import random
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, needs_fuse
from servers import LocalServer, wait_for
from worlds import Maker, environment

from arvados_fuse.fuse.unmount import unmount

pytestmark = needs_fuse

MIB = 1 << 20
BLOCK = 64 * MIB


@pytest.fixture(scope="module")
def maker(local_server: LocalServer) -> Maker:
    return Maker(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory tree with files of many sizes and names."""
    root = tmp_path_factory.mktemp("source")
    chance = random.Random(1)
    for directory in ("a", "a/b", "a/b/c", "d d", "empty files"):
        (root / directory).mkdir()
        for number in range(20):
            size = chance.choice([0, 1, 100, 4096, 131072, 131073, 500_000])
            (root / directory / f"file {number} \u00e9").write_bytes(chance.randbytes(size))
    (root / "large").write_bytes(chance.randbytes(5 * MIB + 1))
    return root


@pytest.fixture(scope="module")
def home(maker: Maker, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """The user's home project, with the collection `source`."""
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    maker.collection("source", files)
    base = tmp_path_factory.mktemp("home")
    with mounted(base, environment(maker.server, maker.token), "--home", "--refresh-time", "1") as mount:
        yield mount


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def test_diff(home: Mounted, source: Path) -> None:
    assert run("diff", "-r", source, home.root / "source") == ""
    drop_kernel_caches()
    assert run("diff", "-r", source, home.root / "source") == ""


def test_requests_are_as_large_as_the_kernel_lets_them_be(home: Mounted, source: Path) -> None:
    """512 KiB where this user may say how far to read ahead, 128 KiB elsewhere."""
    minor = os.minor(home.root.stat().st_dev)
    ahead = Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb")
    step = int(ahead.read_text()) * 1024
    assert step >= (512 if os.access(ahead, os.W_OK) else 128) * 1024
    drop_kernel_caches()
    before = home.asked()
    with open(home.root / "source/large", "rb", buffering=0) as opened:
        pieces = list(iter(lambda: opened.read(MIB), b""))
    assert b"".join(pieces) == (source / "large").read_bytes()
    assert (home.asked() - before)["read"] <= 5 * MIB / step + 3


def test_cp_and_tar(home: Mounted, source: Path, tmp_path: Path) -> None:
    run("cp", "-r", home.root / "source", tmp_path / "copy")
    assert run("diff", "-r", source, tmp_path / "copy") == ""
    run("tar", "-C", home.root, "-cf", tmp_path / "archive.tar", "source")
    run("tar", "-C", tmp_path, "-xf", tmp_path / "archive.tar")
    assert run("diff", "-r", source, tmp_path / "source") == ""


@needs("rsync")
def test_rsync_transfers_nothing_twice(home: Mounted, source: Path, tmp_path: Path) -> None:
    for _ in range(2):
        said = run("rsync", "-a", "--itemize-changes", f"{home.root}/source/", f"{tmp_path}/copy/")
    assert said == ""
    assert run("diff", "-r", source, tmp_path / "copy") == ""


@needs("git")
def test_a_git_repository(maker: Maker, home: Mounted, tmp_path: Path) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "safe.directory=*")
    (tmp_path / "one.txt").write_text("one\n")
    run("git", "init", "-q", tmp_path)
    run("git", "-C", tmp_path, "add", "one.txt")
    run("git", *identity, "-C", tmp_path, "commit", "-qm", "one")
    there_is = [path for path in tmp_path.rglob("*") if path.is_file()]
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in there_is}
    maker.collection("repository", files)
    there = home.root / "repository"
    wait_for(there.exists, "the collection is there")
    quiet = ("git", *identity, "-c", "core.fileMode=false", "-C", there)
    # Git writes empty directories (refs/tags) that collections of files do not have; it does not miss them.
    assert run(*quiet, "log", "--format=%s") == "one\n"
    assert run(*quiet, "status", "--porcelain") == ""
    assert run(*quiet, "fsck", "--no-progress") == ""


def test_mmap_and_random_reads(home: Mounted, source: Path) -> None:
    chance = random.Random(2)
    expected = (source / "large").read_bytes()
    with open(home.root / "source/large", "rb") as file:
        for _ in range(300):
            offset, size = chance.randrange(len(expected)), chance.randrange(300_000)
            assert os.pread(file.fileno(), size, offset) == expected[offset : offset + size]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert hashlib.md5(mapped).digest() == hashlib.md5(expected).digest()


def test_a_gibibyte(maker: Maker, tmp_path: Path) -> None:
    """16 blocks of 64 MiB, four of them different, read from beginning to end with cold caches."""
    order = [0, 1, 2, 3, 3, 2, 1, 0, 0, 0, 2, 2, 1, 3, 1, 3]
    blocks = [secrets.token_bytes(MIB) * (BLOCK // MIB) for _ in range(4)]
    locators = [maker.block(block) for block in blocks]
    expected = hashlib.md5()
    for number in order:
        expected.update(blocks[number])
    del blocks
    size = len(order) * BLOCK
    text = f". {' '.join(locators[number] for number in order)} 0:{size}:gibibyte\n"
    pdh = maker.make("collections", name="gibibyte", manifest_text=text)["portable_data_hash"]
    with mounted(tmp_path, environment(maker.server, maker.token), "--by-pdh") as mount:
        file = mount.root / pdh / "gibibyte"
        assert file.stat().st_size == size == 1 << 30
        drop_kernel_caches()
        assert run("md5sum", file).split()[0] == expected.hexdigest()
        # Blocks stream through a small buffer; the cache is files, which count as nobody's memory.
        assert mount.memory() < 150 * MIB


@needs("samtools")
def test_a_region_of_a_bam_file_by_its_index(maker: Maker, home: Mounted, tmp_path: Path) -> None:
    chance = random.Random(3)
    positions = sorted(chance.randrange(1, 990_000) for _ in range(20_000))
    sequence = "".join(chance.choice("ACGT") for _ in range(100))
    lines = ["@HD\tVN:1.6\tSO:coordinate", "@SQ\tSN:chr1\tLN:1000000"]
    lines += [
        f"read{number}\t0\tchr1\t{position}\t60\t100M\t*\t0\t0\t{sequence}\t{'I' * 100}"
        for number, position in enumerate(positions)
    ]
    (tmp_path / "sample.sam").write_text("\n".join(lines) + "\n")
    run("samtools", "view", "-b", "-o", tmp_path / "sample.bam", tmp_path / "sample.sam")
    run("samtools", "index", tmp_path / "sample.bam")
    names = ("sample.bam", "sample.bam.bai")
    maker.collection("genomics", {name: (tmp_path / name).read_bytes() for name in names})
    there = home.root / "genomics"
    wait_for(there.exists, "the collection is there")
    region = run("samtools", "view", there / "sample.bam", "chr1:500000-510000")
    assert region == run("samtools", "view", tmp_path / "sample.bam", "chr1:500000-510000")
    assert region.count("\n") > 100
    assert run("samtools", "quickcheck", "-v", there / "sample.bam") == ""


def test_32_threads(home: Mounted, source: Path) -> None:
    """All of the tree, by all of them, while the kernel drops what it knows."""
    ends = time.monotonic() + 6
    failures: list[str] = []
    names = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < ends and not failures:
            name = chance.choice(names)
            try:
                if not filecmp.cmp(source / name, home.root / "source" / name, shallow=False):
                    failures.append(f"{name} differs")
                if sum(len(files) for _, _, files in os.walk(home.root / "source")) != len(names):
                    failures.append("the listing is not complete")
            except OSError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        drop_kernel_caches()
        threads[0].join(0.2)
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_cached_pages_survive_an_open(home: Mounted, maker: Maker) -> None:
    """A file read before is served by the kernel: the mount sees nothing of the second reading."""
    file = home.root / "source/large"
    first = file.read_bytes()
    read_before = _bytes_read(home)
    assert file.read_bytes() == first
    assert _bytes_read(home) - read_before < MIB


def _bytes_read(mount: Mounted) -> int:
    """What the process handed to the kernel and wrote elsewhere (`wchar` of proc(5))."""
    for line in Path(f"/proc/{mount.process.pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise AssertionError("no wchar")


def test_changes_elsewhere_show_up(home: Mounted, maker: Maker) -> None:
    """New content under an old name, with the old content in the kernel's page cache and open."""
    uuid = maker.collection("changing", {"f": b"old content\n", "g": b"g"})["uuid"]
    file = home.root / "changing/f"
    wait_for(file.exists, "the collection is there")
    with open(file, "rb") as opened:
        assert file.read_bytes() == b"old content\n"
        maker.update("collections", uuid, manifest_text=maker.manifest({"f": b"new\n", "g": b"g"}))
        wait_for(lambda: file.read_bytes() == b"new\n", "the new content is read")
        assert opened.read() == b"old content\n"
        assert file.stat().st_size == 4


def test_a_server_that_stops(fresh_server: LocalServer, tmp_path: Path) -> None:
    """Hung API and Keep: what is known is shown, what is not ends with EIO and one line that names it."""
    maker = Maker(fresh_server, fresh_server.settings.token)
    maker.collection("known", {"f": b"known\n"})
    other = maker.collection("other", {"f": b"other\n"})["uuid"]
    variables = environment(fresh_server, maker.token)
    with mounted(tmp_path, variables, "--home", "--refresh-time", "1", "--retries", "0") as mount:
        assert sorted(os.listdir(mount.root)) == ["known", "other"]
        assert (mount.root / "known/f").read_bytes() == b"known\n"
        fresh_server.kill()
        assert sorted(os.listdir(mount.root)) == ["known", "other"]
        assert (mount.root / "known/f").read_bytes() == b"known\n"
        begun = time.monotonic()
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(mount.root / "other")
        assert time.monotonic() - begun < 30
        wait_for(lambda: other in mount.log, "the log names the object")
        line = next(line for line in mount.log.splitlines() if other in line)
        assert "ERROR" in line
        assert fresh_server.settings.host in line
        assert maker.token not in mount.log


def test_an_unmount_while_a_file_is_open(maker: Maker, tmp_path: Path) -> None:
    """The mount is cut off, the process ends, the program gets an error."""
    maker.collection("cut", {"f": b"x" * MIB})
    with mounted(tmp_path, environment(maker.server, maker.token), "--home") as mount:
        opened = os.open(mount.root / "cut/f", os.O_RDONLY)
        begun = time.monotonic()
        unmount(mount.root, timeout=2)
        assert mount.process.wait(10) is not None
        assert time.monotonic() - begun < 10
        with pytest.raises(OSError, match=r"not connected|aborted"):
            os.pread(opened, MIB, 0)
        os.close(opened)


def test_sigterm_unmounts(maker: Maker, tmp_path: Path) -> None:
    with mounted(tmp_path, environment(maker.server, maker.token), "--home") as mount:
        assert os.path.ismount(mount.root)
        mount.process.send_signal(signal.SIGTERM)
        mount.process.wait(20)
        assert not os.path.ismount(mount.root)
