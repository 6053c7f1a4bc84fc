"""Real programs change collections on a real mount; then a look at the server, and with another mount."""

import base64
import fcntl
import hashlib
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import drop_kernel_caches, needs_fuse
from servers import LocalServer
from writing_bench import Bench, Target, compare
from writing_mounts import missing, on_disk, run, same_on_server, scale, writing_target

pytestmark = needs_fuse

GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@localhost",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@localhost",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@pytest.fixture(scope="module")
def target(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One mount for all programs."""
    with writing_target(local_server, tmp_path_factory.mktemp("programs")) as target:
        yield target


@pytest.fixture
def bench(target: Target) -> Iterator[Bench]:
    """A collection. The server has what is in it after the test, and another mount shows that later."""
    bench = Bench(target)
    yield bench
    drop_kernel_caches()
    tree = on_disk(top_of(bench))
    same_on_server(bench, tree)
    target.anew(bench, tree)


def top_of(bench: Bench) -> Path:
    return Path(bench.driver._path(bench / ""))  # type: ignore[attr-defined]


@pytest.fixture
def top(bench: Bench) -> Path:
    """Where the collection is."""
    return top_of(bench)


def need(*programs: str) -> None:
    if lacking := missing(programs):
        pytest.skip(f"not installed: {', '.join(lacking)}")


def make_files(top: Path, number: int) -> None:
    """A directory with files of many sizes."""
    for each in range(number):
        path = top / f"d{each % 17}" / f"e{each % 5}" / f"file {each}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.sha256(b"%d" % each).digest() * (each * 7 % 300))
        os.utime(path, ns=(1_500_000_000_000_000_000, (1_400_000_000 + each) * 1_000_000_000))
    (top / "hollow").mkdir()


def test_git(top: Path, tmp_path: Path) -> None:
    need("git")
    origin = tmp_path / "origin"
    make_files(origin, 150)
    run("git", "init", "-q", "-b", "main", cwd=origin, **GIT)
    run("git", "add", ".", cwd=origin, **GIT)
    run("git", "commit", "-q", "-m", "first", cwd=origin, **GIT)
    run("git", "clone", "-q", f"file://{origin}", "clone", cwd=top, **GIT)
    clone = top / "clone"
    compare(
        {path: data for path, data in on_disk(clone).items() if not path.startswith(".git")},
        {path: data for path, data in on_disk(origin).items() if path != "hollow" and ".git" not in path},
        "the clone",
    )
    assert run("git", "status", "--porcelain", cwd=clone, **GIT) == ""
    for number in range(3):
        (clone / "d1/e1/file 1.txt").write_text(f"edited {number}\n")
        (clone / f"new {number}").write_text("new\n")
        run("git", "add", ".", cwd=clone, **GIT)
        run("git", "commit", "-q", "-m", f"change {number}", cwd=clone, **GIT)
    run("git", "checkout", "-q", "-b", "side", "HEAD~2", cwd=clone, **GIT)
    (clone / "side").write_text("side\n")
    run("git", "add", ".", cwd=clone, **GIT)
    run("git", "commit", "-q", "-m", "side", cwd=clone, **GIT)
    run("git", "checkout", "-q", "main", cwd=clone, **GIT)
    run("git", "merge", "-q", "-m", "merged", "side", cwd=clone, **GIT)
    run("git", "mv", "d2", "moved", cwd=clone, **GIT)
    run("git", "commit", "-q", "-m", "moved", cwd=clone, **GIT)
    run("git", "gc", "-q", "--prune=now", cwd=clone, **GIT)
    run("git", "fsck", "--strict", "--full", cwd=clone, **GIT)
    assert run("git", "status", "--porcelain", cwd=clone, **GIT) == ""
    assert len(run("git", "log", "--oneline", cwd=clone, **GIT).splitlines()) == 7
    run("git", "push", "-q", "origin", "main:pushed", cwd=clone, **GIT)


def test_tar(top: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_files(source, 2000 * scale())
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        archive.add(source, "files")
    run("tar", "xf", tmp_path / "files.tar", cwd=top)
    run("diff", "-r", source, "files", cwd=top)
    for path in source.rglob("*.txt"):
        assert (top / "files" / path.relative_to(source)).stat().st_mtime_ns == path.stat().st_mtime_ns
    run("tar", "cf", "again.tar", "files", cwd=top)
    run("tar", "df", "again.tar", cwd=top)
    run("rm", "-r", "files/d3", "files/hollow", cwd=top)
    run("cp", "-a", "files/d4", "files/d3", cwd=top)
    run("diff", "-r", "files/d4", "files/d3", cwd=top)


def test_rsync(top: Path, tmp_path: Path) -> None:
    need("rsync")
    source = tmp_path / "source"
    make_files(source, 200)

    def transferred() -> int:
        said = run("rsync", "-a", "--stats", f"{source}/", "copy/", cwd=top)
        lines = [line for line in said.splitlines() if line.startswith("Number of regular files transferred")]
        return int(lines[0].split(":")[1].replace(",", ""))

    assert transferred() == 200
    assert transferred() == 0
    (source / "d1/e1/file 1.txt").write_bytes(b"changed")
    (source / "new").write_bytes(b"new")
    assert transferred() == 2
    drop_kernel_caches()
    assert transferred() == 0
    run("rsync", "-a", "--delete", "--inplace", "--checksum", f"{source}/d2/", "copy/", cwd=top)
    compare(on_disk(top / "copy"), on_disk(source / "d2"), "after --delete")


def test_sqlite(top: Path) -> None:
    path = top / "data.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")
    database.execute("CREATE INDEX i ON t (word)")
    for start in range(0, 5000, 500):
        rows = [(number, hashlib.md5(b"%d" % number).hexdigest()) for number in range(start, start + 500)]
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        database.commit()
    database.execute("DELETE FROM t WHERE id % 7 = 0")
    database.rollback()
    database.execute("UPDATE t SET word = word || 'x' WHERE id < 100")
    database.commit()
    database.execute("VACUUM")
    database.close()
    drop_kernel_caches()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM t").fetchone() == (5000,)
    assert database.execute("SELECT count(*) FROM t WHERE word LIKE '%x'").fetchone() == (100,)
    database.close()


def test_sqlite_with_a_log_in_shared_memory(top: Path) -> None:
    """WAL: two connections, and a memory map that is written."""
    one = sqlite3.connect(top / "wal.sqlite")
    assert one.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    one.execute("CREATE TABLE t (n)")
    one.commit()
    two = sqlite3.connect(top / "wal.sqlite")
    for number in range(50):
        one.execute("INSERT INTO t VALUES (?)", (number,))
        one.commit()
        assert two.execute("SELECT count(*) FROM t").fetchone() == (number + 1,)
    two.close()
    assert one.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    one.close()


def make_wheel(directory: Path) -> Path:
    files = {"small/__init__.py": b"ANSWER = 42\n", "small/data.bin": bytes(range(256)) * 50}
    files |= {f"small/m{number}.py": b"N = %d\n" % number for number in range(40)}
    files["small-1.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: small\nVersion: 1.0\n"
    files["small-1.0.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    record += "small-1.0.dist-info/RECORD,,\n"
    path = directory / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr("small-1.0.dist-info/RECORD", record)
    return path


def test_pip(top: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    try:
        run(sys.executable, "-m", "pip", "--version", cwd=tmp_path)
    except AssertionError:
        pytest.skip("this Python has no pip")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    run(*install, top / "site", wheel, cwd=tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1")
    code = "import small, small.m7; print(small.ANSWER, small.m7.N)"
    assert run(sys.executable, "-c", code, cwd=top / "site") == "42 7\n"
    run(*install, top / "site", "--upgrade", wheel, cwd=tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert (top / "site/small/data.bin").read_bytes() == bytes(range(256)) * 50


def test_compile_and_run(top: Path) -> None:
    need("gcc", "make")
    (top / "main.c").write_text(
        '#include <stdio.h>\nint part(void);\nint main(void){printf("%d\\n", part());}\n'
    )
    (top / "part.c").write_text("int part(void){return 42;}\n")
    (top / "Makefile").write_text(
        "program: main.o part.o\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -c -o $@ $<\n\techo built $@ >> log\n"
    )
    run("make", "-s", cwd=top)
    assert run("./program", cwd=top) == "42\n"
    run("make", "-s", cwd=top)
    assert (top / "log").read_text().count("built") == 2, "make knows what is up to date"
    os.utime(top / "part.c")
    run("make", "-s", cwd=top)
    assert (top / "log").read_text().count("built") == 3
    run("ar", "rcs", "libpart.a", "part.o", cwd=top)
    run("strip", "program", cwd=top)
    assert run("./program", cwd=top) == "42\n"


def test_samtools(top: Path, tmp_path: Path) -> None:
    need("samtools")
    lines = ["@HD\tVN:1.6\tSO:unsorted", "@SQ\tSN:chr1\tLN:1000000"]
    for number in range(20_000):
        position = number * 7919 % 900_000 + 1
        lines.append(f"r{number}\t0\tchr1\t{position}\t60\t10M\t*\t0\t0\tACGTACGTAC\tIIIIIIIIII")
    (tmp_path / "in.sam").write_text("\n".join(lines) + "\n")
    run("samtools", "sort", "-m", "1M", "-o", "out.bam", tmp_path / "in.sam", cwd=top)
    run("samtools", "index", "out.bam", cwd=top)
    run("samtools", "quickcheck", "out.bam", cwd=top)
    run("samtools", "sort", "-m", "1M", "-o", "out.bam", "in.sam", cwd=tmp_path)
    run("samtools", "index", "out.bam", cwd=tmp_path)
    found = [run("samtools", "view", "out.bam", "chr1:1-450000", cwd=where) for where in (top, tmp_path)]
    assert found[0] == found[1]
    assert len(found[0].splitlines()) >= 10_000


def test_sed_in_place(top: Path) -> None:
    for number in range(20):
        (top / f"f{number}").write_text(f"old {number}\n" * 100)
    run("sed", "-i", "s/old/new/", *(f"f{number}" for number in range(20)), cwd=top)
    for number in range(20):
        assert (top / f"f{number}").read_text() == f"new {number}\n" * 100
        with open(top / f"f{number}", "r+") as file:
            file.write("NEW")
        assert (top / f"f{number}").read_text().startswith(f"NEW {number}\n")
    run("sed", "-i.bak", "s/NEW/old/", "f3", cwd=top)
    assert (top / "f3").read_text().startswith("old 3\n")
    assert (top / "f3.bak").read_text().startswith("NEW 3\n")


def test_editors(top: Path) -> None:
    """How vim, emacs and most others save: a backup by rename or copy, a new file put in its place."""
    (top / "text").write_text("one\n")
    for number in range(3):
        text = f"edit {number}\n"
        swap = os.open(top / ".text.swp", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(swap, b"swap" * 1000)
        (top / "4913").touch()
        (top / "4913").unlink()
        os.rename(top / "text", top / "text~")
        new = os.open(top / "text", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(new, text.encode())
        os.fsync(new)
        os.close(new)
        os.unlink(top / "text~")
        os.close(swap)
        os.unlink(top / ".text.swp")
        assert (top / "text").read_text() == text
        temporary = top / "#text#"
        temporary.write_text(text + "more\n")
        os.replace(temporary, top / "text")
        assert (top / "text").read_text() == text + "more\n"
    assert os.listdir(top) == ["text"]


def test_sparse_copies(top: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        for offset in (0, 1 << 20, (5 << 20) + 17):
            file.seek(offset)
            file.write(b"data" * 1000)
        file.truncate(8 << 20)
    run("cp", "--sparse=always", sparse, "always", cwd=top)
    run("cp", "--sparse=never", sparse, "never", cwd=top)
    run("cp", "--sparse=always", "never", "again", cwd=top)
    for name in ("always", "never", "again"):
        run("cmp", sparse, name, cwd=top)
    run("truncate", "-s", "100K", "again", cwd=top)
    run(
        "dd",
        "if=/dev/zero",
        "of=again",
        "bs=1k",
        "count=3",
        "seek=50",
        "conv=notrunc",
        "status=none",
        cwd=top,
    )
    assert (top / "again").read_bytes() == sparse.read_bytes()[: 50 << 10] + bytes(50 << 10)


LOCKER = """
import fcntl, os, sys
path, how = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
try:
    (fcntl.flock if how == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("mine")
except OSError:
    print("taken")
"""


@pytest.mark.parametrize("how", ["flock", "fcntl"])
def test_locks_between_processes(top: Path, how: str) -> None:
    path = top / "lock"
    path.touch()

    def other() -> str:
        return run(sys.executable, "-c", LOCKER, path, how, cwd=top).strip()

    assert other() == "mine"
    with open(path, "r+b") as file:
        (fcntl.flock if how == "flock" else fcntl.lockf)(file, fcntl.LOCK_EX)
        assert other() == "taken"
    assert other() == "mine"
    with open(path, "r+b") as file:
        (fcntl.flock if how == "flock" else fcntl.lockf)(file, fcntl.LOCK_EX)
        (fcntl.flock if how == "flock" else fcntl.lockf)(file, fcntl.LOCK_UN)
        assert other() == "mine"


def test_memory_maps(top: Path) -> None:
    size = 1_000_003
    model = bytearray(size)
    with open(top / "map", "w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as view:
            for number in range(200):
                at = number * 5_003 % (size - 100)
                view[at : at + 100] = model[at : at + 100] = bytes([number]) * 100
            view.flush()
            os.pwrite(file.fileno(), b"written", 50)
            model[50:57] = b"written"
            assert view[50:57] == b"written"
            view[-3:] = model[-3:] = b"end"
    assert (top / "map").read_bytes() == model
    with open(top / "map", "r+b") as file, mmap.mmap(file.fileno(), size) as view:
        view[0:5] = model[0:5] = b"again"
    drop_kernel_caches()
    assert (top / "map").read_bytes() == model


def test_two_programs_append_to_one_file(top: Path) -> None:
    code = "import sys\nfor n in range(300): open(sys.argv[1], 'a').write(sys.argv[2] + str(n) + '\\n')"
    programs = [
        subprocess.Popen([sys.executable, "-c", code, str(top / "log"), letter]) for letter in ("a", "b")
    ]
    assert [program.wait(120) for program in programs] == [0, 0]
    lines = (top / "log").read_text().splitlines()
    for letter in ("a", "b"):
        assert [line for line in lines if line.startswith(letter)] == [f"{letter}{n}" for n in range(300)]


def test_programs_that_copy_and_move(top: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_files(source, 100)
    shutil.copytree(source, top / "copied")
    run("mv", "copied", "moved", cwd=top)
    compare(on_disk(top / "moved"), on_disk(source), "moved")
    shutil.copy2(source / "d1/e1/file 1.txt", top / "one")
    assert (top / "one").stat().st_mtime_ns == (source / "d1/e1/file 1.txt").stat().st_mtime_ns
    run("install", "-m", "755", source / "d1/e1/file 1.txt", top / "installed", cwd=top)
    run("split", "-b", "1000", source / "d5/e4/file 39.txt", "part.", cwd=top)
    run("sh", "-c", "cat part.* > joined && rm part.* && echo more >> joined", cwd=top)
    assert (top / "joined").read_bytes() == (source / "d5/e4/file 39.txt").read_bytes() + b"more\n"
    run("gzip", "-k", "joined", cwd=top)
    run("gzip", "-t", "joined.gz", cwd=top)
    run("zip", "-q", "-r", "all.zip", "moved", cwd=top) if not missing(["zip"]) else None
    shutil.rmtree(top / "moved/d7")
    run("find", "moved", "-name", "*3.txt", "-delete", cwd=top)
    assert not [path for path in on_disk(top) if path.endswith("3.txt")]
