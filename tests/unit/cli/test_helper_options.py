"""Lines of fstab as options of arv-mount."""

from pathlib import Path

import pytest

from arvados_fuse.cli import command
from arvados_fuse.cli.described import options
from arvados_fuse.cli.mount_helper import FAILED, NOT_HERE, WRONG, Refused, _settings, main, parse

UUID = "zzzzz-4zz18-000000000000000"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rw", []),
        ("rw,noexec,nosuid,nodev,_netdev,nofail,x-systemd.automount,comment=x", []),
        ("ro", ["--read-only"]),
        ("home", ["--home"]),
        ("rw,read-write", ["--read-write"]),
        ("read_write,allow_other", ["--read-write", "--allow-other"]),
        (f"collection={UUID},read-only", [f"--collection={UUID}", "--read-only"]),
        ("storage-classes=hot\\,cold", ["--storage-classes=hot,cold"]),
        ('storage-classes="hot,cold",home', ["--storage-classes=hot,cold", "--home"]),
        ("mount-home=h,mount_by_id=by_id", ["--mount-home=h", "--mount-by-id=by_id"]),
        ("local", ["--local"]),
        ("local=/data", ["--local=/data"]),
    ],
)
def test_what_stands_in_fstab(given: str, expected: list[str]) -> None:
    for arguments in (
        ["none", "/mnt", "-o", given],
        ["-o", given, "none", "/mnt"],
        ["none", "/mnt", f"-o{given}"],
    ):
        assert parse(arguments).arguments == (*expected, "/mnt")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (UUID, f"--collection={UUID}"),
        ("d41d8cd98f00b204e9800998ecf8427e+0", "--collection=d41d8cd98f00b204e9800998ecf8427e+0"),
        ("zzzzz-j7d0g-000000000000000", "--project=zzzzz-j7d0g-000000000000000"),
        ("zzzzz-tpzed-000000000000000", "--project=zzzzz-tpzed-000000000000000"),
    ],
)
def test_what_to_show_may_be_the_first_field(spec: str, expected: str) -> None:
    assert parse([spec, "/mnt"]).arguments == (expected, "/mnt")


def test_as_mount_and_mount_fuse_call_it() -> None:
    call = parse(
        ["none", "/mnt", "-sv", "-n", "-N", "/proc/1/ns/mnt", "-t", "fuse.arv-mount", "-o", "rw,what"]
    )
    assert call.arguments == ("/mnt",)
    assert call.tell
    assert parse(["none", "/mnt", "-r"]).arguments == ("--read-only", "/mnt")
    assert parse(["none", "/mnt", "-f"]).only_try
    assert parse(["none", "/mnt", "-o", "settings=/a,run-as=ada"]) == parse(
        ["none", "/mnt", "-o", "run-as=ada", "-o", "settings=/a"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage: mount.arvados"),
        (["none"], "usage: mount.arvados"),
        (["none", "/mnt", "-o"], "usage: mount.arvados"),
        (["none", "/mnt", "--help"], "usage: mount.arvados"),
        (["cluster.example.org", "/mnt"], "neither none nor the uuid"),
        (["none", "/mnt", "-o", "bogus"], "no option bogus"),
        (["none", "/mnt", "-o", "exec=ls"], "takes"),
        (["none", "/mnt", "-o", "collection"], "needs a value"),
        (["none", "/mnt", "-o", "home=1"], "takes no value"),
        (["none", "/mnt", "-o", "foreground"], "no option foreground"),
        (["none", "/mnt", "-o", "settings=/no/such/file"], "can't be read"),
        (["none", "/mnt", "-o", "run-as=no-such-user"], "no user no-such-user"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words == "takes":  # mount(8)'s own word
        assert parse(arguments).arguments == ("/mnt",)
        return
    assert main(arguments) == WRONG
    said = capsys.readouterr().err
    assert said.startswith("mount.arvados: ")
    assert words in said
    assert said.count("\n") == 1


def test_a_mount_that_fails_and_a_value_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["mount.arvados"])
    assert main(["none", str(tmp_path), "-o", "retries=x"]) == WRONG
    assert "expected a whole number" in capsys.readouterr().err
    assert main(["none", str(tmp_path), "-o", "mount-home=a/b"]) == FAILED
    assert main(["none", str(tmp_path), "-f", "-o", "mount-home=a/b"]) == 0


def test_every_option_of_arv_mount_is_either_taken_or_left_out_on_purpose() -> None:
    assert {option.name for option in options()} >= NOT_HERE
    for option in options():
        if option.name in NOT_HERE or option.many:
            assert option.name in NOT_HERE, option.name
            continue
        value = {"JSON": "[]", "N": "1", "BYTES": "1", "SECONDS": "1", "PORT": "0"}.get(option.value, "x")
        value = "utf-8" if option.name == "encoding" else value
        text = option.name + (f"={value}" if option.value else "")
        made = parse(["none", "/mnt", "-o", text]).arguments
        command.parse(made)


def test_no_options_at_all() -> None:
    assert parse(["none", "/mnt"]).arguments == ("/mnt",)
    assert parse(["none", "/mnt", "-o", ""]).arguments == ("/mnt",)


def test_lines_of_settings_that_name_nothing(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text("=\n = x\n#A=1\n;B=2\nARVADOS_API_HOST = h=1 \n\nplain\n")
    assert _settings(str(path)) == {"ARVADOS_API_HOST": "h=1"}


def test_refused_is_no_failure_of_the_mount() -> None:
    with pytest.raises(Refused):
        parse(["none"])
