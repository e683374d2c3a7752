"""Paths, selectors, columns, discovery and port-forward's frames of the API server."""

import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.api import spdy
from testbed.api.derived import endpoint_slices
from testbed.api.documents import DOCUMENTS
from testbed.api.explained import TEXTS
from testbed.api.failure import Failure
from testbed.api.resources import GROUPS, RESOURCES, root_of
from testbed.api.selection import selection
from testbed.api.spdy_dictionary import DICTIONARY
from testbed.api.tables import age, table

HOUR_S, YEAR_S = 3600, 365 * 86_400
POD: Mapping[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "creationTimestamp": None},
    "spec": {"nodeName": "node1", "containers": [{}, {}]},
    "status": {"phase": "Running", "containerStatuses": [{"ready": True}, {"ready": False}], "podIP": "10.0.46.2"},
    "testbed": {"state": "Running", "restarts": 3},
}


@pytest.mark.parametrize(
    ("labels", "fields", "want"),
    [
        ("app=web", "", True),
        ("app in (a, web),tier!=x", "metadata.name=web", True),
        ("", "spec.nodeName=node2", False),
        ("", "status.phase!=Running", False),
        ("", "status.phase==Running,metadata.namespace=shop", True),
    ],
)
def test_selectors_choose_by_labels_and_fields(labels: str, fields: str, want: bool) -> None:
    assert selection(labels, fields)(POD) is want


@pytest.mark.parametrize(("labels", "fields"), [("a=b=c", ""), ("", "spec.nodeName")])
def test_a_selector_that_cannot_be_read_is_a_bad_request(labels: str, fields: str) -> None:
    with pytest.raises(Failure) as caught:
        selection(labels, fields)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (700, "11m"),
        (9000, "150m"),
        (10799, "179m"),
        (10800, "3h"),
        (11000, "3h3m"),
        (8 * HOUR_S - 1, "7h59m"),
        (8 * HOUR_S + 60, "8h"),
        (48 * HOUR_S - 1, "47h"),
        (48 * HOUR_S, "2d"),
        (200000, "2d7h"),
        (8 * 24 * HOUR_S - 1, "7d23h"),
        (8 * 24 * HOUR_S + HOUR_S, "8d"),
        (2 * YEAR_S - 1, "729d"),
        (2 * YEAR_S, "2y"),
        (2 * YEAR_S + 30 * 24 * HOUR_S, "2y30d"),
        (8 * YEAR_S + 30 * 24 * HOUR_S, "8y"),
    ],
)
def test_an_age_reads_as_in_kubectl(seconds: int, want: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age((now - timedelta(seconds=seconds)).isoformat(), now) == want


def test_a_table_has_kubectls_columns_and_a_cell_for_each() -> None:
    found = table("Pod", [POD], {"resourceVersion": "7"}, whole=False)
    names = [column["name"] for column in found["columnDefinitions"] if not column["priority"]]
    assert names == ["Name", "Ready", "Status", "Restarts", "Age"]
    (row,) = found["rows"]
    assert row["cells"][:5] == ("web", "1/2", "Running", "3", "<unknown>")
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert found["metadata"]["resourceVersion"] == "7"


def test_discovery_lists_each_kind_and_openapi_describes_it() -> None:
    for one in RESOURCES:
        found = DOCUMENTS[root_of(one.group)]()
        assert one.kind.plural in {resource["name"] for resource in found["resources"]}
        assert one.kind.name in DOCUMENTS[f"/openapi/v3{root_of(one.group)}"]()["components"]["schemas"]


def test_every_field_that_a_kind_accepts_is_explained_however_deep_it_is() -> None:
    seen, unexplained = set[str](), list[str]()
    for group in GROUPS:
        schemas = DOCUMENTS[f"/openapi/v3{root_of(group)}"]()["components"]["schemas"]
        for model, schema in schemas.items():
            fields = schema.get("properties", {})
            seen |= {f"{model}.{name}" for name in fields}
            unexplained += [f"{model}.{name}" for name, field in fields.items() if not field["description"].strip()]
    assert not unexplained
    assert {"PodSpec.hostname", "HttpGetAction.path", "IPBlock.except", "Capabilities.drop"} <= seen
    own = {text for text in TEXTS if "." in text}
    assert own <= seen, f"texts of no field: {sorted(own - seen)}"


def test_a_service_has_an_endpoint_slice_for_each_port_with_ready_and_other_pods() -> None:
    target = {"kind": "Pod", "name": "a", "namespace": "shop"}
    pods = [{"ip": f"10.0.46.{number}", "nodeName": "node1", "targetRef": target} for number in (2, 3)]
    ports = [{"port": 8080, "protocol": "TCP"}]
    subsets = [{"addresses": pods[:1], "notReadyAddresses": pods[1:], "ports": ports}, {"addresses": pods, "ports": []}]
    metadata = {"name": "web", "namespace": "shop", "uid": "u"}
    first, second = endpoint_slices([{"metadata": metadata, "subsets": subsets}])
    assert [one["metadata"]["name"] for one in (first, second)] == ["web-1", "web-2"]
    assert first["metadata"]["labels"] == {"kubernetes.io/service-name": "web"}
    ready = [(one["addresses"], one["conditions"]["ready"]) for one in first["endpoints"]]
    assert ready == [(["10.0.46.2"], True), (["10.0.46.3"], False)]
    assert (first["ports"], first["addressType"]) == ([{"name": "", "port": 8080, "protocol": "TCP"}], "IPv4")


class _Client:
    """The other end of a port-forward, with the same standard library."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=DICTIONARY)

    def open(self, stream: int, headers: Mapping[str, str]) -> bytes:
        block = struct.pack("!I", len(headers))
        for text in (text for pair in headers.items() for text in pair):
            block += struct.pack("!I", len(text)) + text.encode()
        packed = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack("!IIH", stream, 0, 0) + packed
        return struct.pack("!HHI", 0x8003, 1, len(payload)) + payload


def test_the_dictionary_is_that_of_spdy_3() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_frames_are_read_however_they_are_cut() -> None:
    client = _Client()
    sent = client.open(1, {"StreamType": "error", "port": "80"}) + client.open(3, {"streamtype": "data", "port": "80"})
    sent += spdy.Session.data(3, b"hello", last=True) + spdy.Session.pong(9) + spdy.Session.reset(1)
    for size in (1, 7, len(sent)):
        session = spdy.Session()
        frames = [one for at in range(0, len(sent), size) for one in session.feed(sent[at : at + size])]
        assert frames == [
            spdy.Opened(1, {"streamtype": "error", "port": "80"}),
            spdy.Opened(3, {"streamtype": "data", "port": "80"}),
            spdy.Data(3, b"hello", last=True),
            spdy.Pinged(9),
            spdy.Reset(1),
        ]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!HHI", 0x8002, 1, 0),
        struct.pack("!HHI", 0x8003, 1, (2 << 20) - 1),
        struct.pack("!HHI", 0x8003, 1, 12) + b"\xff" * 12,
        struct.pack("!HHI", 0x8003, 6, 0),
    ],
)
def test_an_invalid_frame_ends_the_session(sent: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Session().feed(sent))
