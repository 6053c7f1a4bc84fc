"""Stock clients from PyPI run unchanged against the embedded Arvados."""

import filecmp
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from servers import LocalServer, StockClients, wait_for

# The first run installs the stock clients, which takes minutes on a slow line.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def environment(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return local_server.environment(tmp_path_factory.mktemp("home"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many kinds: small, empty, larger than a block, with difficult names."""
    root = tmp_path / "tree"
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/with space \\ and ü.txt").write_text("hello\n")
    (root / "empty").touch()
    (root / "large").write_bytes(os.urandom(1 << 20) * 70)
    for number in range(50):
        (root / f"deep/file{number}").write_bytes(os.urandom(number * 100))
    return root


def same_trees(left: Path, right: Path) -> bool:
    names = sorted(path.relative_to(left) for path in left.rglob("*"))
    if names != sorted(path.relative_to(right) for path in right.rglob("*")):
        return False
    files = [str(name) for name in names if (left / name).is_file()]
    return filecmp.cmpfiles(left, right, files, shallow=False)[0] == files


def python(stock: StockClients, environment: Mapping[str, str], program: str, *arguments: str) -> list[str]:
    """Run a program with the stock SDK; return its output lines."""
    head = "import arvados, arvados.collection, arvados.events, json, queue, sys\napi = arvados.api('v1')\n"
    return stock.run(environment, "python", "-c", head + program, *arguments).stdout.splitlines()


def test_arv_put_ls_get(
    stock: StockClients, environment: Mapping[str, str], tree: Path, tmp_path: Path
) -> None:
    saved = stock.run(environment, "arv-put", "--no-progress", "--no-resume", f"{tree}/").stdout.strip()
    listed = stock.run(environment, "arv-ls", saved).stdout.splitlines()
    names = sorted(f"./{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file())
    assert sorted(line.replace("\\040", " ").replace("\\134", "\\") for line in listed) == names
    (tmp_path / "back").mkdir()
    stock.run(environment, "arv-get", "--no-progress", f"{saved}/", str(tmp_path / "back"))
    assert same_trees(tree, tmp_path / "back")


def test_collection_edits_and_saves(stock: StockClients, environment: Mapping[str, str]) -> None:
    program = """
first = arvados.collection.Collection(api_client=api)
with first.open('a/one.txt', 'w') as file: file.write('one')
first.save_new(name='edited', owner_uuid=api.users().current().execute()['uuid'])
with first.open('a/two.txt', 'w') as file: file.write('two')
first.save()
again = arvados.collection.Collection(first.manifest_locator(), api_client=api)
again.rename('a/one.txt', 'b.txt')
again.save()
first.update()
record = api.collections().get(uuid=first.manifest_locator()).execute()
by_hash = api.collections().get(uuid=record['portable_data_hash']).execute()
print(json.dumps([sorted(first), first.open('b.txt').read(), first.open('a/two.txt').read(),
                  record['file_count'], record['version'] >= 1, sorted(by_hash)]))
"""
    (line,) = python(stock, environment, program)
    assert json.loads(line) == [
        ["a", "b.txt"],
        "one",
        "two",
        2,
        True,
        ["manifest_text", "portable_data_hash", "trash_at"],
    ]


def test_keep_client_stores_two_copies(
    stock: StockClients, environment: Mapping[str, str], local_server: LocalServer
) -> None:
    program = "locator = api.keep.put(b'two copies', copies=2); print(locator); print(api.keep.get(locator))"
    locator, content = python(stock, environment, program)
    assert content == "b'two copies'"
    for service in (0, 1):
        assert local_server.keep("GET", f"/{locator}", service=service).body == b"two copies"


def test_long_list_request_goes_as_post(stock: StockClients, environment: Mapping[str, str]) -> None:
    program = """
wanted = [api.users().current().execute()['uuid']] + ['zzzzz-tpzed-%015d' % n for n in range(400)]
print(api.users().list(filters=[['uuid', 'in', wanted]]).execute()['items_available'])
"""
    assert python(stock, environment, program) == ["1"]


def test_events_arrive_and_are_replayed(stock: StockClients, environment: Mapping[str, str]) -> None:
    program = """
got = queue.Queue()
filters = [['event_type', 'in', ['create', 'update']]]
client = arvados.events.subscribe(api, filters, got.put, poll_fallback=False)
assert got.get(timeout=20) == {'status': 200}
uuid = api.collections().create(body={'collection': {'name': 'noticed'}}).execute()['uuid']
while True:
    first = got.get(timeout=20)
    if first['object_uuid'] == uuid: break
api.collections().update(uuid=uuid, body={'collection': {'name': 'noticed again'}}).execute()
while True:
    second = got.get(timeout=20)
    if second['object_uuid'] == uuid: break
client.close()
later = arvados.events.subscribe(api, filters, got.put, poll_fallback=False, last_log_id=first['id'] - 1)
while got.get(timeout=20) != {'status': 200}: pass
replayed = []
while len(replayed) < 2:
    event = got.get(timeout=20)
    if event['object_uuid'] == uuid: replayed.append(event)
later.close()
print(json.dumps([first['event_type'], second['properties']['new_attributes']['name'],
                  replayed == [first, second]]))
"""
    (line,) = python(stock, environment, program)
    assert json.loads(line) == ["create", "noticed again", True]


def test_polling_works_too(stock: StockClients, environment: Mapping[str, str]) -> None:
    program = """
got = queue.Queue()
client = arvados.events.subscribe(api, [['event_type', '=', 'create']], got.put, poll_fallback=0.2)
assert isinstance(client, arvados.events.PollClient)
assert got.get(timeout=20) == {'status': 200}
made, seen = set(), None
while seen not in made:
    # The client takes what is newest at its first look, which comes some time after its start, for old.
    assert len(made) < 100
    made.add(api.collections().create(body={'collection': {}}).execute()['uuid'])
    try: seen = got.get(timeout=0.5)['object_uuid']
    except queue.Empty: pass
client.close()
print('seen')
"""
    assert python(stock, {**environment, "ARVADOS_DISABLE_WEBSOCKETS": "1"}, program) == ["seen"]


def unmount(point: Path) -> None:
    for command in (["fusermount", "-u", "-z"], ["fusermount3", "-u", "-z"], ["umount", "-l"]):
        if shutil.which(command[0]):
            subprocess.run([*command, str(point)], check=False, capture_output=True)
            return


@pytest.fixture
def mounted(stock: StockClients, environment: Mapping[str, str], tmp_path: Path) -> Iterator[Path]:
    """The server's home and ids, mounted read-write by stock arv-mount."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse here")
    if stock.arv_mount is None:
        pytest.skip("stock arv-mount could not be built here")
    point = tmp_path / "mnt"
    point.mkdir()
    command = [str(stock.arv_mount), "--foreground", "--read-write", "--logfile", str(tmp_path / "mount.log")]
    process = subprocess.Popen([*command, str(point)], env=dict(environment))
    try:
        wait_for(lambda: os.path.ismount(point) or process.poll() is not None, "stock arv-mount mounts")
        assert process.poll() is None, (tmp_path / "mount.log").read_text()
        yield point
    finally:
        unmount(point)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_stock_mount_lists_reads_writes_and_sees_events(
    mounted: Path, local_server: LocalServer, stock: StockClients, environment: Mapping[str, str], tree: Path
) -> None:
    home = mounted / "home"
    assert {"README", "by_id", "home"} <= set(os.listdir(mounted))
    assert local_server.settings.host in (mounted / "README").read_text()

    uuid = stock.run(environment, "arv-put", "--no-progress", "--no-resume", "--name", "put", f"{tree}/")
    wait_for(lambda: "put" in os.listdir(home), "the mount sees a new collection")
    assert same_trees(tree, home / "put")
    assert (mounted / "by_id" / uuid.stdout.strip() / "deep/file9").read_bytes() == (
        tree / "deep/file9"
    ).read_bytes()

    (home / "made").mkdir()
    (home / "made/new.txt").write_text("written through the mount\n")
    (home / "made/new.txt").rename(home / "made/renamed.txt")
    path = "collections?" + "filters=" + "%5B%5B%22name%22%2C%22%3D%22%2C%22made%22%5D%5D"
    wait_for(
        lambda: [each["file_count"] for each in local_server.call("GET", path).body["items"]] == [1],
        "the written file is in the record",
    )
    made = local_server.call("GET", path).body["items"][0]

    rename = {"collection": {"name": "made elsewhere"}}
    assert local_server.call("PUT", f"collections/{made['uuid']}", rename).status == 200
    wait_for(lambda: "made elsewhere" in os.listdir(home), "the mount sees a rename made on the server")
    assert (home / "made elsewhere/renamed.txt").read_text() == "written through the mount\n"
