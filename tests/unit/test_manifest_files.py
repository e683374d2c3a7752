"""What `-f` reads: files, directories' manifests in their order, standard input once; every problem at once."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from testbed.command.manifest_files import read_files
from testbed.errors import InvalidInput
from testbed.plain_files import MAX_BYTES


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("b.yaml", "a.yml", "c.json", "README.md", "below/z.yaml", "below/deeper/y.yaml", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "circle").symlink_to(tmp_path)
    return tmp_path


def names_of(directory: Path, *, recursive: bool) -> list[str]:
    return [str(Path(name).relative_to(directory)) for name in read_files([str(directory)], recursive=recursive)]


def test_a_directory_is_its_manifests_by_name(directory: Path) -> None:
    assert names_of(directory, recursive=False) == ["a.yml", "b.yaml", "c.json"]
    assert read_files([str(directory)], recursive=False)[str(directory / "a.yml")] == b"a.yml"


def test_recursive_takes_directories_below_and_follows_no_link_in_a_circle(directory: Path) -> None:
    found = names_of(directory, recursive=True)
    assert found == ["a.yml", "b.yaml", "below/deeper/y.yaml", "below/z.yaml", "c.json"]


def test_a_file_that_is_named_is_read_whatever_its_name_is_and_once(directory: Path) -> None:
    readme, first = str(directory / "README.md"), str(directory / "a.yml")
    found = read_files([readme, first, str(directory), readme], recursive=False)
    assert [Path(name).name for name in found] == ["README.md", "a.yml", "b.yaml", "c.json"]


def test_every_problem_is_named_at_once(directory: Path) -> None:
    nowhere, empty = directory / "nowhere.yaml", directory / "empty"
    with pytest.raises(InvalidInput) as caught:
        read_files([str(nowhere), str(empty), "http://127.0.0.1:1/web.yaml"], recursive=False)
    assert str(caught.value).splitlines() == [
        f"{nowhere}: cannot be read (got No such file or directory; want a file of manifests)",
        f"{empty}: holds no manifests (want files that end in .json, .yaml, .yml, or -R for directories below it)",
        "http://127.0.0.1:1/web.yaml: cannot be fetched (got [Errno 111] Connection refused; want a file of manifests"
        " there)",
    ]


def test_no_more_of_a_file_is_read_than_it_takes_to_see_that_it_is_too_big(directory: Path) -> None:
    large = directory / "large.yaml"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    assert len(read_files([str(large)], recursive=False)[str(large)]) == MAX_BYTES + 1


class Site(SimpleHTTPRequestHandler):
    """The files of a directory; what is moved leads to one."""

    def do_GET(self) -> None:
        if self.path != "/moved":
            return super().do_GET()
        self.send_response(301)
        self.send_header("Location", "/a.yml")
        self.end_headers()
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(directory: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["a.yml", "moved"])
def test_a_web_address_is_fetched(site: str, path: str) -> None:
    assert read_files([f"{site}/{path}"], recursive=False) == {f"{site}/{path}": b"a.yml"}


@pytest.mark.parametrize(
    ("path", "reason"), [("nowhere.yaml", "File not found"), ("a b", "URL can't contain control characters")]
)
def test_an_unavailable_part_is_a_line(site: str, path: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"{path}: cannot be fetched \(got {reason}"):
        read_files([f"{site}/{path}"], recursive=False)


def test_no_more_is_fetched_than_it_takes_to_see_that_it_is_too_big(site: str, directory: Path) -> None:
    with (directory / "large.yaml").open("wb") as file:
        file.truncate(MAX_BYTES * 2)
    assert len(read_files([f"{site}/large.yaml"], recursive=False)[f"{site}/large.yaml"]) == MAX_BYTES + 1
