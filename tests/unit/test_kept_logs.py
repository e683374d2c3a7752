from pathlib import Path

from testbed.pods.kept_logs import END_BYTES, PODS, keep_end, log_of_deleted


def pod(logs: Path, name: str, **containers: bytes) -> None:
    directory = logs / "pods" / name
    directory.mkdir(parents=True)
    for container, text in {"pause": b"", **containers}.items():
        (directory / f"{container}.log").write_bytes(text)


def test_the_end_of_the_last_fifty_deleted_pods_logs_is_kept(tmp_path: Path) -> None:
    for number in range(PODS + 10):
        pod(tmp_path, f"pod-{number}", main=b"line\n" * 10_000 + b"%d\n" % number)
        keep_end(tmp_path, f"pod-{number}")
    assert list((tmp_path / "pods").iterdir()) == []
    assert len(list((tmp_path / "deleted").iterdir())) == PODS
    files = [file for file in (tmp_path / "deleted").rglob("*") if file.is_file()]
    assert len(files) == 2 * PODS
    assert {file.stat().st_size for file in files if file.name == "main.log"} == {END_BYTES}
    assert log_of_deleted(tmp_path, "pod-9", None) is None
    log = log_of_deleted(tmp_path, "pod-59", "main")
    assert log is not None
    assert log.read_bytes().endswith(b"line\n59\n")


def test_the_end_may_begin_in_the_predecessor(tmp_path: Path) -> None:
    pod(tmp_path, "web", main=b"new\n")
    (tmp_path / "pods/web/main.log.1").write_bytes(b"old\n")
    keep_end(tmp_path, "web")
    log = log_of_deleted(tmp_path, "web", None)
    assert log is not None
    assert log.read_bytes() == b"old\nnew\n"
    assert sorted(file.name for file in log.parent.iterdir()) == ["main.log", "pause.log"]


def test_of_pods_of_one_name_the_last_is_found_and_names_with_that_suffix_are_not(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        pod(tmp_path, "web", main=text)
        keep_end(tmp_path, "web")
    pod(tmp_path, "other-web", main=b"another\n")
    keep_end(tmp_path, "other-web")
    log = log_of_deleted(tmp_path, "web", None)
    assert log is not None
    assert log.read_bytes() == b"second\n"
    assert log_of_deleted(tmp_path, "web", "nothing") is None


def test_a_pod_without_logs_is_deleted_all_the_same(tmp_path: Path) -> None:
    keep_end(tmp_path, "never-started")
    pod(tmp_path, "web", main=b"x")
    keep_end(tmp_path, "web")
    keep_end(tmp_path, "web")
    assert len(list((tmp_path / "deleted").iterdir())) == 1
