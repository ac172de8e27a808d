"""What the explorer's server answers, and to whom."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitfeat
from tests.explorer.conftest import CLASSES, IMAGES
from vitfeat.cli import main
from vitfeat.errors import DataError
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import Content
from vitfeat.explorer.server import Server
from vitfeat.store.layout import shard_key

STORE = "features/d/a.zarr"


class Answer:
    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def ask(
    server: Server, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    """Ask for a path behind the token."""
    return ask_raw(server, f"/{server.token}/{path}", headers, method)


def ask_raw(
    server: Server, target: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, target, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        return Answer(connection.getresponse())
    finally:
        connection.close()


def test_the_page_loads_nothing_from_elsewhere(served: Server) -> None:
    page = ask(served, "")
    assert page.status == 200
    assert b"http" not in page.body.replace(b"http-equiv", b"")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "*" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-5", slice(5, 6)),
        ("bytes=7-", slice(7, None)),
        ("bytes=-20", slice(-20, None)),
        ("bytes=10-99999999", slice(10, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_part_of_a_shard_is_served(served: Server, made: Path, header: str, part: slice) -> None:
    name = f"{STORE}/cls/{shard_key(0, 3)}"
    content = (made / "results" / name).read_bytes()
    answer = ask(served, name, {"Range": header})
    assert answer.status == 206
    assert answer.body == content[part]
    start, stop, _ = part.indices(len(content))
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=x-y"])
def test_what_is_no_single_range_is_answered_with_everything(
    served: Server, made: Path, header: str
) -> None:
    name = f"{STORE}/cls/{shard_key(0, 3)}"
    answer = ask(served, name, {"Range": header})
    assert (answer.status, answer.body) == (200, (made / "results" / name).read_bytes())


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=9-3", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(served: Server, header: str) -> None:
    answer = ask(served, f"{STORE}/cls/{shard_key(0, 3)}", {"Range": header})
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"].startswith("bytes */")


def test_one_connection_serves_many_requests(served: Server) -> None:
    connection = HTTPConnection("127.0.0.1", served.server_port, timeout=10)
    for _ in range(3):
        connection.request(
            "GET", f"/{served.token}/{STORE}/zarr.json", headers={"Range": "bytes=0-3"}
        )
        assert connection.getresponse().read()[:1] == b"{"
        assert connection.sock is not None
    connection.close()


def test_head_has_the_size_and_no_body(served: Server, made: Path) -> None:
    name = f"{STORE}/zarr.json"
    answer = ask(served, name, method="HEAD")
    assert int(answer.headers["Content-Length"]) == (made / "results" / name).stat().st_size
    assert answer.body == b""


@pytest.mark.parametrize(
    "target", ["/", "/catalog.json", "/{almost}/catalog.json", "/{token}", "/%00/"]
)
def test_who_lacks_the_token_is_refused(served: Server, target: str) -> None:
    almost = served.token[:-1] + ("a" if served.token[-1] != "a" else "b")
    answer = ask_raw(served, target.format(token=served.token, almost=almost))
    assert answer.status == 403
    assert b"models" not in answer.body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_a_foreign_host_is_refused(served: Server, host: str) -> None:
    answer = ask(served, "catalog.json", {"Host": host.format(port=served.server_port)})
    assert answer.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_is_refused(served: Server, headers: dict[str, str]) -> None:
    assert ask(served, "catalog.json", headers).status == 403


def test_its_own_page_is_answered(served: Server) -> None:
    for host in served.hosts:
        answer = ask(served, "catalog.json", {"Host": host, "Origin": f"http://{host}"})
        assert answer.status == 200


def test_it_listens_on_the_loopback_alone(served: Server) -> None:
    assert served.server_address[0] == "127.0.0.1"


def test_two_servers_have_ports_and_tokens_of_their_own(made: Path) -> None:
    content = Content(Results.of(made / "results", None, {}))
    with Server(content) as one, Server(content) as other:
        assert one.server_port != other.server_port
        assert one.token != other.token


TRAVERSALS = [
    "../images/secret",
    f"{STORE}/../../../../images/secret",
    f"{STORE}/..%2f..%2f..%2fdatasets/d.csv",
    f"{STORE}/cls/../../../../datasets/d.csv",
    "datasets/d.csv",
    f"{STORE}/.progress",
    f"{STORE}/notes.txt",
    f"{STORE}/",
    f"{STORE}",
    "features/d/a.json",
    "features/d/nothing.zarr/zarr.json",
    "/etc/passwd",
    "thumbnails/d/-1.webp",
    "thumbnails/d/6.webp",
    "thumbnails/d/0.json",
    "thumbnails/../d/0.webp",
    "views/features/d/../0.webp",
    "cka/d/..%2f..%2fimages.json",
    "heads/d/..%2f..%2f.json",
    "details/features/d/c.json",
    "metrics/features/d/a/distance/3.f32",
    "app.js.map",
    "",
]


@pytest.mark.parametrize("path", TRAVERSALS[:-1])
def test_nothing_but_stores_tables_and_images_is_served(
    served: Server, made: Path, path: str
) -> None:
    (made / "images" / "secret").write_text("secret")
    (made / "results" / STORE / "notes.txt").write_text("secret")
    answer = ask(served, path)
    assert answer.status == 404
    assert answer.body != b"secret"


def test_a_link_out_of_the_results_is_not_followed(results: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"secret": 1}')
    server = Server(Content(Results.of(results, None, {})))
    shard = results / STORE / "cls" / shard_key(0, 3)
    shard.unlink()
    shard.symlink_to(secret)
    with server.running():
        assert ask(server, f"{STORE}/cls/{shard.name}").status == 404
        assert ask(server, f"{STORE}/spatial/{shard_key(0, 5)}").status == 200


def test_a_store_that_is_a_link_out_of_the_results_is_left_out(
    results: Path, tmp_path: Path
) -> None:
    store = results / STORE
    store.rename(tmp_path / "elsewhere.zarr")
    store.symlink_to(tmp_path / "elsewhere.zarr")
    found = Results.of(results, None, {})
    assert [listed.model for listed in found.stores.values()] == ["b"]
    assert "leads out of the results" in found.remarks[0]


def test_a_tap_beside_its_store_is_served(results: Path) -> None:
    """Taps that go after use stand in a folder beside the store, where a link leads."""
    beside = results / "features" / "d" / "a.transient"
    beside.mkdir()
    (results / STORE / "spatial").rename(beside / "spatial")
    (results / STORE / "spatial").symlink_to("../a.transient/spatial")
    server = Server(Content(Results.of(results, None, {})))
    with server.running():
        assert ask(server, f"{STORE}/spatial/zarr.json").status == 200


def test_an_image_that_is_a_link_is_read_only_as_it_was_indexed(made: Path, tmp_path: Path) -> None:
    """Whatever a file is replaced by: its contents must be those of the index."""
    images = tmp_path / "images"
    (images / CLASSES[0]).mkdir(parents=True)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (40, 40)).save(secret)
    for name in IMAGES:
        (images / CLASSES[0] / f"{name}.png").symlink_to(secret)
    server = Server(Content(Results.of(made / "results", None, {"d": images})))
    with server.running():
        answer = ask(server, "thumbnails/d/0.webp")
    assert answer.status == 404
    assert b"has changed since it was indexed" in answer.body


def test_the_catalogue_says_what_there_is(served: Server) -> None:
    catalog = json.loads(ask(served, "catalog.json").body)
    assert [model["id"] for model in catalog["models"]] == ["a", "b"]
    assert catalog["datasets"][0] == {
        "name": "d",
        "images": 6,
        "pictures": "",
        "cka": [],
        "heads": [],
    }
    store = catalog["stores"][0]
    assert store["path"] == STORE
    assert (store["grid"], store["layers"]) == ([2, 3], [1, 3, 4])
    assert store["arrays"]["attention"] == {"shape": [2, 3, 2, 9, 9], "limited": True}
    assert not store["arrays"]["cls"]["limited"]


def test_names_of_images_and_classes_come_as_they_are(served: Server) -> None:
    images = json.loads(ask(served, "datasets/d.json").body)
    assert set(images["classes"].values()) == set(CLASSES)
    assert f"{CLASSES[0]}/{IMAGES[0]}.png" in images["ids"]


def test_details_say_which_images_limited_arrays_are_of_and_some_numbers(
    served: Server, made: Path
) -> None:
    details = json.loads(ask(served, "details/features/d/a.json").body)
    assert details["places"] is None
    assert details["rows"] == {"attention": [1, 4]}
    probe = details["probe"]
    store = vitfeat.open(made / "results" / STORE)
    assert probe["value"] == float(store[probe["array"]][tuple(probe["place"])])
    # 48 x 40 pixels become 43 x 36, of which the middle 32 x 32 are kept.
    np.testing.assert_allclose(details["boxes"], [[6 / 43, 2 / 36, 38 / 43, 34 / 36]], atol=1e-5)


def picture(answer: Answer) -> Image.Image:
    assert answer.headers["Content-Type"] == "image/webp"
    return Image.open(io.BytesIO(answer.body))


def test_thumbnails_are_whole_and_views_as_the_model_saw_it(served: Server) -> None:
    assert picture(ask(served, "thumbnails/d/0.webp")).size == (48, 40)
    assert picture(ask(served, "views/features/d/a/0.webp")).size == (32, 32)


Numbers = Callable[[str, type], np.ndarray]


def test_metrics_are_those_of_the_store(served: Server, made: Path) -> None:
    store = vitfeat.open(made / "results" / STORE)
    entropy = np.frombuffer(ask(served, "metrics/features/d/a/entropy/1.f32").body, "<f4")
    np.testing.assert_array_equal(entropy.reshape(6, 2), store["attention_summary/entropy"][:, 1])
    norms = np.frombuffer(ask(served, "metrics/features/d/a/highest_norm/2.f32").body, "<f4")
    tokens = np.asarray(store["spatial"][:, 2], dtype=np.float64)
    np.testing.assert_allclose(norms, np.linalg.norm(tokens, axis=-1).max((1, 2)), rtol=1e-6)
    cls = np.frombuffer(ask(served, "metrics/features/d/a/cls_norm/0.f32").body, "<f4")
    np.testing.assert_allclose(
        cls, np.linalg.norm(np.asarray(store["cls"][:, 0], float), axis=1), rtol=1e-6
    )


def test_vectors_have_norm_one_and_their_products_are_cosines(served: Server, made: Path) -> None:
    store = vitfeat.open(made / "results" / STORE)
    vectors = np.frombuffer(ask(served, "vectors/features/d/a/cls/2.f32").body, "<f4")
    own = np.asarray(store["cls"][:, 2], dtype=np.float64)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.reshape(6, -1), own, atol=1e-6)


def test_principal_components_are_those_of_a_decomposition(served: Server, made: Path) -> None:
    found = json.loads(ask(served, "components/features/d/a/0.json").body)
    store = vitfeat.open(made / "results" / STORE)
    tokens = np.asarray(store["spatial"][:, 0], dtype=np.float64).reshape(36, -1)
    _, _, axes = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    np.testing.assert_allclose(found["mean"], tokens.mean(0), atol=1e-6)
    products = np.abs(np.sum(np.array(found["axes"]) * axes[:3], axis=1))
    np.testing.assert_allclose(products, 1, atol=1e-5)


def test_points_hold_the_share_of_the_variance(served: Server, made: Path) -> None:
    found = json.loads(ask(served, "points/features/d/a/cls-pca/1.json").body)
    store = vitfeat.open(made / "results" / STORE)
    features = np.asarray(store["cls"][:, 1], dtype=np.float64)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(found["shares"], values[:2] / values.sum(), rtol=1e-4)
    assert len(found["x"]) == len(found["y"]) == 6


def test_what_cannot_be_made_is_said_in_a_line(served: Server) -> None:
    answer = ask(served, "metrics/features/d/a/beauty/0.f32")
    assert answer.status == 404
    assert b"choose distance, entropy" in answer.body


def test_a_folder_without_stores_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Results.of(tmp_path / "none", None, {})
    with pytest.raises(DataError, match="no store can be opened"):
        Results.of(tmp_path, None, {})


def test_a_damaged_store_is_left_out_and_said(results: Path) -> None:
    (results / STORE / "zarr.json").write_text("{}")
    found = Results.of(results, None, {})
    assert [listed.model for listed in found.stores.values()] == ["b"]
    assert len(found.remarks) == 1


def test_without_a_root_the_catalogue_says_how_to_give_one(made: Path) -> None:
    found = Results.of(made / "results", None, {})
    assert "--root d=FOLDER" in found.described()["datasets"][0]["pictures"]


def test_a_browser_that_leaves_does_not_end_the_server(served: Server) -> None:
    with socket.create_connection(("127.0.0.1", served.server_port)) as connection:
        connection.sendall(b"GET /")
    assert ask(served, "").status == 200


def test_the_command_prints_the_link_and_ends_with_ctrl_c(made: Path) -> None:
    words = [sys.executable, "-m", "vitfeat", "explore", str(made / "results"), "--no-open"]
    # A shell has background jobs ignore Ctrl-C, and they hand that down.
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        _, _, host, token, _ = link.split("/")
        connection = HTTPConnection(host, timeout=10)
        connection.request("GET", f"/{token}/catalog.json")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_port_that_is_taken_is_said_in_a_line(
    made: Path, served: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explore", str(made / "results"), "--no-open", "--port", str(served.server_port)]
    assert main(words) == 1
    assert f"--port {served.server_port}: " in capsys.readouterr().err
