"""The command line: every option of arv-mount 3.2.1 with its default, exclusions, messages and exit code."""

import io
import json
import os
from pathlib import Path

import pytest

from arvados_fuse.cli.command import Command, UsageError, parse
from arvados_fuse.local.control import default_data_dir
from arvados_fuse.options import CustomMount, MountOptions
from arvados_fuse.version import __version__


def options(*arguments: str) -> MountOptions:
    return parse(arguments).options


def parse_line(line: str) -> Command:
    return parse(line.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of the complaint about wrong arguments (exit code 2)."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_nothing_but_a_directory_gives_the_documented_defaults() -> None:
    command = parse(["/mnt/a"])
    assert command.action == "mount"
    assert command.unmount_timeout == 2.0
    assert command.options == MountOptions(mount_dir=Path("/mnt/a"))
    assert (command.options.retries, command.options.refresh_time) == (10, 15.0)
    assert (command.options.directory_cache, command.options.file_cache) == (134217728, 0)


def test_the_mount_point_is_made_absolute_without_being_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/nowhere")
    assert options("link").mount_dir == tmp_path / "link"
    assert options("a/../b").mount_dir == tmp_path / "b"


def test_mount_dir_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys) == "arv-mount: error: the following arguments are required: MOUNT_DIR"
    assert refused(capsys, "--home") == "arv-mount: error: the following arguments are required: MOUNT_DIR"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnt", "extra"], "arv-mount: error: unrecognized arguments: extra"),
        (["--bogus", "mnt"], "arv-mount: error: unrecognized arguments: --bogus"),
        (["--all", "--home", "mnt"], "arv-mount: error: argument --home: not allowed with argument --all"),
        (
            ["--collection", "x", "--project", "y", "mnt"],
            "arv-mount: error: argument --project: not allowed with argument --collection",
        ),
        (
            ["--disk-cache", "--ram-cache", "mnt"],
            "arv-mount: error: argument --ram-cache: not allowed with argument --disk-cache",
        ),
        (
            ["--unmount", "--replace", "mnt"],
            "arv-mount: error: argument --replace: not allowed with argument --unmount",
        ),
        (
            ["--unmount", "--unmount-all", "mnt"],
            "arv-mount: error: argument --unmount-all: not allowed with argument --unmount",
        ),
        (["mnt", "--project"], "arv-mount: error: argument --project: expected one argument"),
    ],
)
def test_wrong_combinations_are_told_in_the_words_of_3_2_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert refused(capsys, *arguments) == message


@pytest.mark.parametrize("option", ["--retries", "--file-cache", "--directory-cache"])
@pytest.mark.parametrize("value", ["x", "-1", "1.5", ""])
def test_counts_are_whole_and_not_negative(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert f"argument {option}: expected a whole number" in refused(capsys, f"{option}={value}", "mnt")


@pytest.mark.parametrize("option", ["--unmount-timeout", "--crunchstat-interval", "--refresh-time"])
@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", ""])
def test_times_are_seconds(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert f"argument {option}: expected seconds" in refused(capsys, f"{option}={value}", "mnt")


def test_numbers_arrive() -> None:
    command = parse_line(
        "--retries 3 --file-cache 4 --directory-cache 5 --unmount-timeout 6.5 --crunchstat-interval 7 "
        "--refresh-time 8 mnt"
    )
    found = command.options
    assert (found.retries, found.file_cache, found.directory_cache) == (3, 4, 5)
    assert (command.unmount_timeout, found.crunchstat_interval, found.refresh_time) == (6.5, 7.0, 8.0)


@pytest.mark.parametrize("mode", ["all", "home", "shared", "by-id", "by-pdh", "by-tag"])
def test_modes_without_an_object(mode: str) -> None:
    assert options(f"--{mode}", "mnt").mode == mode.replace("-", "_")


@pytest.mark.parametrize("mode", ["collection", "project"])
def test_modes_with_an_object(mode: str) -> None:
    found = options(f"--{mode}", "zzzzz-4zz18-000000000000000", "mnt")
    assert (found.mode, found.target) == (mode, "zzzzz-4zz18-000000000000000")


def test_a_custom_layout_keeps_its_order_and_sets_the_mode() -> None:
    found = parse_line(
        "--mount-by-pdh by_id --mount-tmp tmp0 --mount-tmp tmp1 --mount-home h --mount-shared s "
        "--mount-by-tag t --mount-by-id by_uuid mnt"
    ).options
    assert found.mode == "custom"
    assert found.custom == (
        CustomMount("by_pdh", "by_id"),
        CustomMount("tmp", "tmp0"),
        CustomMount("tmp", "tmp1"),
        CustomMount("home", "h"),
        CustomMount("shared", "s"),
        CustomMount("by_tag", "t"),
        CustomMount("by_id", "by_uuid"),
    )
    assert options("--custom", "--mount-home", "h", "mnt").custom == (CustomMount("home", "h"),)
    assert options("--custom", "mnt").mode == "all"


def test_the_last_of_two_mounts_under_one_name_stays() -> None:
    found = options("--mount-home", "x", "--mount-by-id", "x", "mnt")
    assert found.custom == (CustomMount("by_id", "x"),)


@pytest.mark.parametrize("mode", ["all", "home", "shared", "by-id", "by-pdh", "by-tag"])
def test_a_mode_and_a_custom_layout_exclude_each_other(mode: str) -> None:
    with pytest.raises(UsageError) as caught:
        options(f"--{mode}", "--mount-home", "h", "mnt")
    assert (
        str(caught.value) == f"Cannot combine '{mode.replace('-', '_')}' mode with custom --mount-* options."
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a/"])
def test_custom_names_are_one_component(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        options("--mount-home", name, "mnt")
    assert str(caught.value) == f"Mount point '{name}' is not supported."


def test_the_last_of_read_only_and_read_write_wins() -> None:
    assert options("mnt").read_write is False
    assert options("--read-write", "mnt").read_write is True
    assert options("--enable-write", "mnt").read_write is True
    assert options("--read-write", "--read-only", "mnt").read_write is False
    assert options("--read-only", "--read-write", "mnt").read_write is True


def test_plain_switches_and_texts() -> None:
    found = parse_line(
        "--allow-other --foreground --debug --disable-event-listening --ram-cache --subtype sub --fsns ns "
        "--encoding latin-1 --logfile /tmp/log --disk-cache-dir /tmp/cache mnt"
    ).options
    assert found.allow_other
    assert found.foreground
    assert found.debug
    assert found.ram_cache
    assert not found.listen_events
    assert (found.subtype, found.fsname, found.encoding) == ("sub", "ns", "latin-1")
    assert (found.logfile, found.disk_cache_dir) == (Path("/tmp/log"), Path("/tmp/cache"))


def test_an_unknown_encoding_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--encoding", "klingon", "mnt").endswith("Python has no encoding named 'klingon'")


def test_storage_classes_lose_blanks_and_keep_order() -> None:
    assert options("--storage-classes", " hot, cold ,archive", "mnt").storage_classes == (
        "hot",
        "cold",
        "archive",
    )
    assert options("--storage-classes", "", "mnt").storage_classes == ()


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        (["--unmount"], "unmount"),
        (["--unmount-all"], "unmount_all"),
        (["--replace"], "replace"),
        (["--unmount", "--subtype", "s", "--unmount-timeout=8"], "unmount"),
    ],
)
def test_actions(arguments: list[str], action: str) -> None:
    assert parse([*arguments, "mnt"]).action == action


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mnt", "--exec", "ls", "-l", "--all"], ("ls", "-l", "--all")),
        (["--exec", "ls", "-l", "--", "mnt"], ("ls", "-l")),
        (["--exec", "ls", "--", "--home", "mnt"], None),
        (["mnt", "--exec", "sh", "-c", "echo --exec"], ("sh", "-c", "echo --exec")),
    ],
)
def test_exec_takes_the_rest_of_the_line_up_to_two_dashes(
    arguments: list[str], expected: tuple[str, ...] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if expected is None:
        assert "unrecognized arguments" in refused(capsys, *arguments)
        return
    command = parse(arguments)
    assert command.options.exec_args == expected
    assert command.options.mount_dir.name == "mnt"


def test_a_command_that_took_the_mount_point_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--exec", "true", "mnt") == (
        "arv-mount: error: the following arguments are required: MOUNT_DIR; --exec took the rest of the line "
        "as the command, so put MOUNT_DIR before --exec"
    )


@pytest.mark.parametrize("arguments", [["status", "mnt"], ["mnt", "status"], ["--debug", "status", "mnt"]])
def test_dashes_that_were_left_out(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert refused(capsys, *arguments).endswith(" (did you mean --status?)")
    assert parse(["status"]).options.mount_dir.name == "status"


@pytest.mark.parametrize(
    "option", ["--unmount", "--unmount-all", "--replace", "--status", "--warm", "--unpin"]
)
def test_an_empty_name_is_not_the_current_directory(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert "is empty: name " in refused(capsys, option, "")
    assert options("").mount_dir == Path.cwd(), "as 3.2.1"


class TestLocal:
    def test_alone_it_uses_the_directory_of_the_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        monkeypatch.setenv("HOME", "/home/someone")
        found = options("--local", "mnt")
        assert found.mount_dir.name == "mnt"
        assert found.local_dir == Path("/home/someone/.local/share/arvados-local")

    def test_xdg_data_home_is_honoured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", "/data")
        assert options("--local", "mnt").local_dir == Path("/data/arvados-local")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--local", "/data", "mnt"],
            ["--local=/data", "mnt"],
            ["mnt", "--local", "/data"],
            ["--local=/data", "--debug", "mnt"],
            ["--local", "/data", "--debug", "mnt"],
            ["--debug", "--local", "/data", "--home", "mnt"],
        ],
    )
    def test_a_directory_may_stand_before_or_after_the_mount_point(self, arguments: list[str]) -> None:
        found = options(*arguments)
        assert found.local_dir == Path("/data")
        assert found.mount_dir.name == "mnt"

    @pytest.mark.parametrize(
        "arguments",
        [["--local", "mnt"], ["--local", "mnt", "--home"], ["--home", "--local", "mnt"], ["mnt", "--local"]],
    )
    def test_one_directory_is_the_mount_point(self, arguments: list[str]) -> None:
        found = options(*arguments)
        assert found.local_dir == default_data_dir(os.environ)
        assert found.mount_dir.name == "mnt"

    def test_with_a_command_to_run(self) -> None:
        found = options("--local", "mnt", "--exec", "ls", "--local", "x")
        assert (found.local_dir, found.mount_dir.name) == (default_data_dir(os.environ), "mnt")
        assert found.exec_args == ("ls", "--local", "x")

    @pytest.mark.parametrize("arguments", [["--local"], ["--local=/data"]])
    def test_the_mount_point_stays_required(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str]
    ) -> None:
        assert refused(capsys, *arguments).endswith("the following arguments are required: MOUNT_DIR")

    def test_without_it_there_is_no_embedded_server(self) -> None:
        assert options("mnt").local_dir is None


class TestFilters:
    FILTERS = (("name", "like", "a%"), ("groups.name", "in", ["x"]))
    TEXT = json.dumps(FILTERS)

    def test_as_text(self) -> None:
        assert options("--filters", self.TEXT, "mnt").filters == self.FILTERS

    def test_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "f.json").write_text(self.TEXT)
        assert options("--filters", str(tmp_path / "f.json"), "mnt").filters == self.FILTERS

    def test_from_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(self.TEXT))
        assert options("--filters", "-", "mnt").filters == self.FILTERS

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("[", "not valid JSON"),
            ('["a", "=", "b"]', "each filter must be [attribute, operator, operand]"),
            ('[["a", "="]]', "each filter must be [attribute, operator, operand]"),
            ("[[1, 2, 3]]", "each filter must be [attribute, operator, operand]"),
            ("/no/such/file", "neither a JSON list of filters nor a file"),
            ("", "neither a JSON list of filters nor a file"),
        ],
    )
    def test_what_is_not_a_list_of_filters_is_refused(
        self, capsys: pytest.CaptureFixture[str], text: str, part: str
    ) -> None:
        assert part in refused(capsys, "--filters", text, "mnt")

    def test_a_file_with_something_else_is_refused(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        (tmp_path / "f").write_bytes(b"\xff\xfe")
        assert "not text" in refused(capsys, "--filters", str(tmp_path / "f"), "mnt")
        (tmp_path / "f").write_text('{"a": 1}')
        assert "holds no JSON list" in refused(capsys, "--filters", str(tmp_path / "f"), "mnt")


def test_version_names_the_program_as_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"], program="/odd%s/arv-mount")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"/odd%s/arv-mount {__version__}\n"


def test_options_may_be_shortened_as_long_as_they_are_clear() -> None:
    assert options("--refresh", "3", "--read-w", "mnt").refresh_time == 3.0
