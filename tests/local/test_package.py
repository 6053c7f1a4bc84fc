"""What pip installs: sdist and wheel are built and looked into, and the wheel is run in its own place."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from servers import PROJECT

from arvados_fuse.version import __version__

IN_BOTH = (
    "docs/arv-mount.1",
    "completion/arv-mount",
    "completion/_arv-mount",
    "completion/arv-mount.fish",
    "bin/arv-mount",
    "bin/mount.arvados",
)


def builds_wheels() -> bool:
    """Whether setuptools is here that can do it by itself (70.1; pip brings its own)."""
    try:
        found = metadata.version("setuptools").split(".")
    except metadata.PackageNotFoundError:
        return False
    return (int(found[0]), int(found[1])) >= (70, 1)


pytestmark = pytest.mark.skipif(not builds_wheels(), reason="no setuptools of version 70.1 or later")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is in version control, so that no built file of this tree can help."""
    target = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no clone")
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((PROJECT / name).read_bytes())
            (target / name).chmod((PROJECT / name).stat().st_mode)
    return target


def backend(source: Path, call: str, target: Path) -> Path:
    """Call the build backend of pyproject.toml, as pip does it; the file that it made."""
    program = f"from setuptools import build_meta; print('MADE', build_meta.{call}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.rpartition("MADE ")[2].strip()


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backend(source, "build_sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the sdist, so that nothing it needs can be missing there."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (inside,) = unpacked.iterdir()
    return backend(inside, "build_wheel", tmp_path_factory.mktemp("wheel"))


def test_the_sdist_has_all_that_a_build_and_its_reader_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "arvados_fuse/py.typed",
        *IN_BOTH,
    } <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith((".venv", ".stock"))]


def test_the_wheel_has_all_modules_and_helper_files(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (licence,) = [name for name in names if name.endswith("LICENSE")]
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        told = archive.read(metadata).decode()
    modules = {str(path.relative_to(source)) for path in (source / "arvados_fuse").rglob("*.py")}
    assert modules | {"arvados_fuse/py.typed"} <= names
    assert {name for name in names if name.endswith(".py")} == modules
    data = f"arvados_fuse-{__version__}.data"
    assert {
        f"{data}/scripts/arv-mount",
        f"{data}/scripts/mount.arvados",
        f"{data}/data/share/man/man1/arv-mount.1",
        f"{data}/data/share/bash-completion/completions/arv-mount",
        f"{data}/data/share/zsh/site-functions/_arv-mount",
        f"{data}/data/share/fish/vendor_completions.d/arv-mount.fish",
    } <= names
    assert f"\nVersion: {__version__}\n" in told
    assert "\nRequires-Python: >=3.10\n" in told
    assert "\nRequires-Dist: llfuse" in told


def test_the_wheel_runs_where_pip_puts_it(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    # The libraries are those of this environment; what is tested comes from the wheel.
    (site,) = place.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "libraries.pth").write_text(f"{here}\n")
    install = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*install, "--force-reinstall", "--disable-pip-version-check", str(wheel)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    program = str(place / "bin" / "arv-mount")
    assert run(program, "--version") == f"{program} {__version__}\n"
    assert run(str(place / "bin" / "mount.arvados"), "-f", "none", "/mnt") == ""
    where = run(str(python), "-c", "import arvados_fuse.cli.build; print(arvados_fuse.__file__)")
    assert where.strip() == str(site / "arvados_fuse" / "__init__.py")
    assert "serve" in run(str(python), "-m", "arvados_fuse.local", "--help")
    assert (place / "share/man/man1/arv-mount.1").is_file()
