"""The page of `cdl demo` in a browser: the same numbers as in Python, and nothing leaves."""

import base64
import contextlib
import functools
import http.client
import http.server
import io
import json
import re
import shutil
import socket
import threading
import unittest.mock
import zipfile
from importlib.resources import files

import numpy as np
import pytest
from browser import npm_package, open_browser
from exported import MADE_FROM, NAMES, write_student
from hypothesis import given
from hypothesis import strategies as st
from learners import (
    NEW,
    SLCA,
    draw_images,
    first_memory,
    tokens_of,
    with_examples,
    write_learner,
    write_photos,
)
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import cdl
from cdl.cli import student as commands
from cdl.deployment import manifest
from cdl.deployment.demo import RUNTIME, Server, runtime_files, site, write_site
from cdl.deployment.export import export
from cdl.deployment.graph import to_int8
from cdl.device.items import check_new_name
from cdl.device.memory import How
from cdl.device.stored import MEMORY, make_memory, read_memory, write_memory
from cdl.device.update import flipped
from cdl.runtime.errors import CdlError
from cdl.study.configuration import preset as read_preset

ABSENT = {"model.pte", "tokenizer.json"}  # what an export of images to ONNX does not have
AXE = files("axe_playwright_python") / "axe.min.js"
NEAR = 1e-3
CAMERA = (64, 48)  # width and height of a picture of the fake camera
# runs `code` with the modules of the page, and returns what it returns, or the error
MODULES = """
const [given, done] = arguments, load = (name) => import(new URL(name, document.baseURI));
(async () => {{ {code} }})().then(done, (error) => done(`${{error}} ${{error.stack}}`));
"""


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The folder with the files of onnxruntime-web."""
    folder = tmp_path_factory.mktemp("npm")
    return str(npm_package(f"onnxruntime-web@{RUNTIME}", folder) / "dist")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@contextlib.contextmanager
def running(server):
    """Serve in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def served():
    """A server of a small site."""
    content = {"index.html": b"<h1>page</h1>", "student/model.onnx": b"graph"}
    with running(Server(content, 0)) as server:
        yield server


def request(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request(method, path, None, headers)
    response = connection.getresponse()
    return response.status, response.getheader("Content-Type"), response.read()


def test_the_files_of_the_site_are_served_with_the_token_alone(served):
    token = f"/{served.token}/"
    assert request(served, token) == (200, "text/html; charset=utf-8", b"<h1>page</h1>")
    assert request(served, f"{token}student/model.onnx")[2] == b"graph"
    for path in ("/", "/wrong/", f"/{served.token}", "//", "/%00/", "/x/index.html"):
        assert request(served, path)[::2] == (404, b"not found")
    for name in ("../demo.py", "student/", "/etc/passwd", "%2e%2e/x", "index.html?x"):
        assert request(served, token + name)[0] == 404
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}):
        assert request(served, token, **headers)[0] == 404
    assert request(served, token, "POST")[0] == 501
    with socket.create_connection(served.server_address, timeout=20) as connection:
        connection.sendall("GET /\xe9/ HTTP/1.0\r\n\r\n".encode("latin-1"))
        assert connection.makefile("rb").read().startswith(b"HTTP/1.0 404")


@pytest.mark.parametrize(
    "said", [b"GET abc HTTP/1.0\r\n\r\n", b"GET * HTTP/1.0\r\n\r\n", b"GET /\r\n", b"\xff\r\n\r\n"]
)
def test_any_request_is_answered_or_refused_without_a_traceback(served, said, capsys):
    with socket.create_connection(served.server_address, timeout=20) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()  # without a status line for HTTP 0.9
        assert re.match(rb"(HTTP/1.0 )?4\d\d |not found|.*Error code: 4", answer, re.DOTALL)
    assert request(served, f"/{served.token}/")[0] == 200
    assert capsys.readouterr().err == ""


TOKEN_HERE, HEADERS = b"/TOKEN/", [b"Host: ", b"Origin: ", b"Content-Length: ", b"\r\n", b":"]
PIECES = st.sampled_from(
    [b"/", b"..", b"%00", b"%2e", b"?", b" ", b"\t", TOKEN_HERE, b"index.html"]
)
REQUESTS = st.tuples(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"get"]) | st.binary(max_size=8),
    st.lists(PIECES | st.binary(max_size=8), max_size=5).map(b"".join),
    st.sampled_from([b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2", b"HTTP/x", b""]) | st.binary(max_size=8),
    st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=20)), max_size=5),
)


@pytest.fixture(scope="module")
def watched():
    """A server of a small site, and what it reports as errors of the program."""
    with (
        unittest.mock.patch("socketserver.BaseServer.handle_error") as reported,
        running(Server({"index.html": b"<h1>page</h1>"}, 0)) as server,
    ):
        yield server, reported


@given(REQUESTS)
def test_any_request_gets_the_page_or_a_refusal_and_is_no_error_of_the_program(watched, request):
    server, reported = watched
    method, path, version, headers = request
    path = path.replace(TOKEN_HERE, f"/{server.token}/".encode())
    lines = [b" ".join((method, path, version)), *(b"".join(header) for header in headers)]
    with socket.create_connection(server.server_address, timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # it need not read all of a request
            connection.sendall(b"\r\n".join([*lines, b"", b""]))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
            status = re.match(rb"HTTP/1.0 (4\d\d|501|505) ", answer)
            plain = re.match(rb"$|not found|<h1>page|.*Error code: ", answer, re.DOTALL)
            assert status or plain or answer.startswith(b"HTTP/1.0 200 ")
    reported.assert_not_called()


def test_an_aborted_download_and_a_deleted_file_are_no_errors(tmp_path, capsys):
    (tmp_path / "gone").write_bytes(b"x")
    content = {"index.html": bytes(2**24), "gone": tmp_path / "gone"}
    with running(Server(content, 0)) as server:
        (tmp_path / "gone").unlink()
        assert request(server, f"/{server.token}/gone")[::2] == (404, b"not found")
        ask = f"GET /{server.token}/ HTTP/1.0\r\nHost: 127.0.0.1:{server.server_address[1]}\r\n\r\n"
        with socket.create_connection(server.server_address, timeout=20) as connection:
            connection.sendall(ask.encode())
            assert connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        assert len(request(server, f"/{server.token}/")[2]) == 2**24
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_unfinished_requests_take_few_threads_and_no_long_time(served, monkeypatch, capsys):
    monkeypatch.setattr("cdl.deployment.demo._Handler.timeout", 0.2)
    before, most = threading.active_count(), 0
    with contextlib.ExitStack() as stack:
        for _ in range(3 * Server.CONNECTIONS):
            one = stack.enter_context(socket.create_connection(served.server_address, timeout=20))
            one.sendall(b"GET / HTTP/1.0\r\n")
            most = max(most, threading.active_count())
        assert request(served, f"/{served.token}/")[0] == 200
        assert most <= before + Server.CONNECTIONS
    assert capsys.readouterr().err == ""


def test_every_server_has_a_token_of_its_own(served):
    with Server(served.content, 0) as other:
        assert served.token != other.token and len(other.token) > 40
        assert other.address.endswith(f"/{other.token}/")


@pytest.mark.slow
def test_only_files_of_the_student_are_in_the_site(runtime, tmp_path):
    folder = write_learner(tmp_path / "student")
    cdl.load(folder).learn({"white": list(draw_images("white", 2))})
    (folder / "private.png").write_bytes(b"of the user")
    (folder / "card.md").unlink()
    content = site(folder, runtime)
    names = {name.removeprefix("student/") for name in content if name.startswith("student/")}
    version = {f"versions/1/{name}" for name in ("classes.txt", MEMORY, "manifest.json")}
    exported = {*manifest.READ, "student.py", "manifest.json", "current"} - ABSENT
    assert names == exported | version == set(json.loads(content["student.json"])["files"])
    commands.demo(folder, static=tmp_path / "static", runtime=runtime)
    written = {p.relative_to(tmp_path / "static").as_posix() for p in tmp_path.rglob("static/**/*")}
    assert {name for name in written if (tmp_path / "static" / name).is_file()} == set(content)
    with pytest.raises(CdlError, match="static: already exists"):
        commands.demo(folder, static=tmp_path / "static", runtime=runtime)


@pytest.mark.parametrize(
    ("name", "linked"),
    [("card.md", True), ("student.py", True), ("card.md", False), ("student.py", False)],
)
def test_an_edited_file_or_a_link_in_its_place_is_not_in_the_site(name, linked, tmp_path, empty):
    folder, secret = write_learner(tmp_path / "student"), tmp_path / "secret"
    secret.write_text("private")
    assert f"student/{name}" in site(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(secret) if linked else (folder / name).write_text("edited")
    assert f"student/{name}" not in (found := site(folder))
    assert name not in json.loads(found["student.json"])["files"]


@pytest.mark.parametrize(
    ("card", "heading"),
    [
        (
            "model-index:\n- name: a <nano>\n  results:\n  - metrics:\n"
            "    - {type: accuracy, value: 71.234}\n",
            "<h1>student: a &lt;nano&gt;</h1>\n"
            "<p>Accuracy as exported, before any later learning: 71.2 %.</p>",
        ),
        ("license: mit\n", "<h1>student</h1>"),
    ],
)
def test_the_page_has_the_name_and_the_measured_accuracy(card, heading, tmp_path, empty):
    folder = write_student(tmp_path / "student")
    (folder / "card.md").write_text(f"---\n{card}---\n# A student\n")
    manifest.write(folder, MADE_FROM)
    assert heading in site(folder)["index.html"].decode()


def test_without_a_network_the_missing_runtime_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("cdl.runtime.fetching._download", refuse)
    with pytest.raises(CdlError) as error:
        runtime_files()
    assert str(error.value).startswith(f"onnxruntime-web {RUNTIME}, which the page needs once, ")
    assert str(error.value).count("\n") == 0 and "or set --runtime to a folder" in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "classes.txt", "versions", "versions/1"])
def test_a_link_in_place_of_another_file_or_folder_is_refused(name, tmp_path, empty):
    folder = write_learner(tmp_path / "student")
    cdl.load(folder).learn({"white": list(draw_images("white", 2))})
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CdlError, match=f"student/{name}.*: is a link or leads out of the folder"):
        site(folder)


@pytest.fixture
def empty(monkeypatch):
    """Leave out the files of onnxruntime-web."""
    monkeypatch.setattr("cdl.deployment.demo.runtime_files", lambda source: [])


def test_other_folders_are_refused_in_a_sentence(tmp_path):
    for name, message in (("none", "is no exported student"), ("pte", "exported for ExecuTorch")):
        folder = tmp_path / name
        folder.mkdir()
        if name == "pte":
            (folder / "model.pte").touch()
        with pytest.raises(CdlError, match=f"{name}: .*{message}; expected .* `cdl export RUN -o"):
            site(folder)


@pytest.mark.slow
def test_the_runtime_is_verified_and_copied_once(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    with pytest.raises(CdlError, match="cdn.jsdelivr.net.*or set --runtime to a folder or address"):
        runtime_files(str(wrong))
    for path in runtime_files(runtime):
        (wrong / path.name).write_bytes(path.read_bytes() + b"x")
    found = runtime_files()  # from the cache
    assert [path.parent.name for path in found] == [f"onnxruntime-web-{RUNTIME}"] * 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(CdlError, match="wrong/ort.wasm.min.mjs is not the published file"):
        runtime_files(str(wrong))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera shows a yellow picture."""
    folder = tmp_path_factory.mktemp("browser")
    write_video(folder / "camera.y4m", draw_images("yellow", 1, 3, side=1)[0, 0, 0])
    fakes = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    video = f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}"
    driver = open_browser(folder / "profile", *fakes, video)
    downloads = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    driver.downloads = folder
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def write_video(file, colour):
    """Write a film of one colour."""
    width, height = CAMERA
    planes = Image.new("YCbCr", CAMERA)
    planes.paste(Image.new("RGB", CAMERA, tuple(map(int, colour))).convert("YCbCr"))
    y, cb, cr = (int(value) for value in planes.getpixel((0, 0)))
    levels = [(16 + y * 219 // 255, width * height)]
    levels += [(128 + (c - 128) * 224 // 255, width * height // 4) for c in (cb, cr)]
    frame = b"FRAME\n" + b"".join(bytes([level]) * n for level, n in levels)
    head = f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420\n".encode()
    file.write_bytes(head + 10 * frame)


@contextlib.contextmanager
def opened(browser, content):
    """Open a site; afterwards check that it logged no error and asked no other server."""
    with running(Server(content, 0)) as server:
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)  # drop entries of the browser itself
        browser.get(server.address)
        wait_for(browser, "count", "classes:")
        yield browser
        check_requests(browser, server.address)


def check_requests(browser, address):
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    }
    own = (address, "data:", "blob:", "about:")
    assert requested and [url for url in requested if not url.startswith(own)] == []


def text(browser, name):
    return browser.find_element(By.ID, name).text


def wait(browser, condition):
    WebDriverWait(browser, 60).until(lambda _: condition())


def wait_for(browser, name, expected):
    wait(browser, lambda: expected in text(browser, name))


def run(browser, code, *given):
    """Run JavaScript with the modules of the page."""
    found = browser.execute_async_script(MODULES.format(code=code), given)
    assert not isinstance(found, str), found
    return found


def logits_of(browser, image):
    """The logits of the student in the page for the bytes of an encoded image."""
    code = """
    const { opened } = await load("page.js"), { fromFile } = await load("images.js");
    const bytes = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
    return [...await (await opened).logits(await fromFile(new File([bytes], "image")))];"""
    return np.array(run(browser, code, base64.b64encode(image).decode()))


def encoded(pixels, **options):
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, **{"format": "PNG"} | options)
    return raw.getvalue()


def test_a_large_jpeg_is_made_smaller_and_other_formats_are_refused(page):
    code = """
    const { fromFile } = await load("images.js");
    const bytes = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
    const found = fromFile(new File([bytes], "image"));
    return await found.then((image) => [image.width, image.height, image.data[0]],
                            (error) => [error.message]);"""
    found = []
    for kind, size in (("JPEG", (8200, 3000)), ("PNG", (8200, 3000)), ("PNG", (16385, 1))):
        pixels = np.full((size[1], size[0], 3), 90, np.uint8)
        raw = encoded(pixels, format=kind)
        found.append(run(page, code, base64.b64encode(raw).decode()))
    expected = "expected at most 16777216 and sides up to 16384; store it smaller, or as JPEG"
    refused = [[f"image: has {n} pixels; {expected}"] for n in ("8200 x 3000", "16385 x 1")]
    assert found == [[2050, 750, 90], *refused]


def test_the_generator_is_that_of_python(page):
    """The numbers are those of `test_the_generator_is_documented_by_its_values`."""
    code = """
    const { bits, normal, permutation } = await load("draws.js"), some = [0, 1, 2];
    return [some.map(bits([411, 7])), some.map(normal([1])), [...permutation([3, 1], 6)]];"""
    bits, normal, order = run(page, code)
    assert bits == [83113690, 1237736625, 2432335928]
    np.testing.assert_allclose(normal, [0.535693, 1.300832, 1.366814], atol=1e-6)
    assert order == [4, 5, 1, 0, 3, 2]


NAMED = [
    "tabby cat",
    " e\u0301 ",
    "猫\xa0",
    "می\u200cخواهم",
    "👩\u200d🔬",
    "#1",
    ".a",
    "a/b",
    "a\\b",
]
NAMED += [f"a{c}b" for c in "\u202e\u2066\u061c\u200b\u200d\u2060\ufeff\xad\n\0\x85\u2028\u3164"]
NAMED += ["", " ", "\ufeffcat", "猫\u200d\u200d猫", "é" * 127, "é" * 128, "\ue000", "\u0378"]


def test_names_are_valid_in_the_page_as_in_python(page):
    code = """
    const { checkName } = await load("names.js");
    return given.map((name) => { try { return checkName(name); } catch { return null; } });"""

    def checked(name):
        with contextlib.suppress(CdlError):
            return check_new_name(name, "x")

    found = run(page, code, *NAMED)
    assert dict(zip(NAMED, found, strict=True)) == {name: checked(name) for name in NAMED}
    assert {None, "é", "tabby cat"} < set(found)


def cases():
    """Memories of all kinds with thresholds and examples, by name."""
    for name, memory in plain_cases():
        yield name, with_examples(memory)
    memory = with_examples(first_memory("ridge"))
    bias = {"bias": np.float32([0.1, 0, -0.2])}  # of an update that kept earlier columns
    yield "biased", make_memory(memory.about, memory.tensors | bias)


def plain_cases():
    yield "ridge", first_memory("ridge")
    yield "mean", first_memory("mean")
    yield "class_means", first_memory("class_means")
    yield "fecam", first_memory("fecam")
    powers = {"tukey": 0.5, "alpha1": 2.0, "alpha2": 1.0}
    yield "fecam of powers", first_memory("fecam", options=powers)
    for statistic in ("variance", "centroid", "covariance"):
        yield statistic, first_memory("aligned", statistic)
    presets = read_preset("alignment")
    changes = {
        "hide": {"alignment": {**presets["hide"], "samples": 16, "epochs": 3}},
        "vq_prompt": {"alignment": {**presets["vq_prompt"], "samples": 16, "epochs": 3}},
        "closed": {"closed": True, "balance": True, "alignment": SLCA},
    }
    for name, change in changes.items():
        statistic = change["alignment"]["statistic"]
        memory = first_memory("aligned", statistic)
        yield name, make_memory({**memory.about, **change}, memory.tensors)
    memory = first_memory("aligned")
    (head,) = memory.about["heads"]
    second = {**head, "name": "kd_head", "token": -1, "factor": 0.5}
    heads = [{**head, "normalised": True, "factor": 0.5}, second]
    copies = {k.replace("head", "kd_head"): v for k, v in memory.tensors.items() if "head" in k}
    yield "two heads", make_memory({**memory.about, "heads": heads}, memory.tensors | copies)


UPDATES = [("white", 3, 1), ("black", 4, 6), ("red", 0, 3)]  # class, position, images
LEARN = """
const { makeMemory } = await load("memory.js");
const { readTensors, writeTensors } = await load("files.js");
const raw = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
const { tensors, metadata } = readTensors(raw);
let memory = makeMemory(JSON.parse(metadata.cdl), tensors);
const { after, flipsOf, scoresOf } = await load("belonging.js");
const tokens = ({ shape, data }) => ({ shape, data: Float32Array.from(data) });
const logits = [], scores = [], flips = [];
for (const { some, label, n } of given[1]) {
  const labels = Array(some.shape[0]).fill(label), before = memory;
  memory = after(before.learn(tokens(some), labels, n), before, tokens(some), labels);
  logits.push([...memory.logits(tokens(given[2])).data]);
  scores.push(scoresOf(memory, tokens(given[2])).map(({ score, threshold }) => [score, threshold]));
  flips.push(flipsOf(before, memory));
}
const bytes = writeTensors(memory.tensors, { cdl: JSON.stringify(memory.about) });
const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
return [logits, scores, flips, btoa(text)];
"""


@pytest.fixture
def page(browser, runtime, tmp_path):
    """A page whose modules tests call."""
    with opened(browser, site(write_learner(tmp_path / "student"), runtime)):
        yield browser


@pytest.mark.parametrize(("name", "memory"), [pytest.param(*case, id=case[0]) for case in cases()])
def test_what_is_learnt_in_javascript_is_what_is_learnt_in_numpy(page, tmp_path, name, memory):
    write_memory(memory, tmp_path / "before")
    raw, tests = (tmp_path / "before").read_bytes(), tokens_of(np.concatenate([*drawn(9)]))
    expected, scores, flips, updates = [], [], [], []
    for colour, label, k in UPDATES:
        tokens, n = tokens_of(draw_images(colour, k, 2)), max(label + 1, len(memory.images()))
        updates.append({"some": as_json(tokens), "label": label, "n": n})
        labels, before = np.full(k, label), memory
        memory = memory.learn(tokens, labels, n, How()).after(before, tokens, labels)
        expected.append(memory.logits(tests))
        scores.append(memory.scores(tests))
        examples = before.tensors["examples"], before.tensors["owners"]
        old, now = tuple(range(len(before.images()))), tuple(range(n))
        found = flipped(before, memory, examples, old, now)
        flips.append([*found.get("flips", (0, 0))])
    coded = base64.b64encode(raw).decode()
    logits, found_scores, broken, written = run(page, LEARN, coded, updates, as_json(tests))
    np.testing.assert_allclose(found_scores, scores, atol=1e-5)
    assert broken == flips
    for own, other in zip(logits, expected, strict=True):
        np.testing.assert_allclose(np.reshape(own, other.shape), other, atol=NEAR)
    (tmp_path / "after").write_bytes(base64.b64decode(written))
    found = read_memory(tmp_path / "after")
    assert found.about == memory.about and found.tensors.keys() == memory.tensors.keys()
    for key, tensor in memory.tensors.items():
        assert found.tensors[key].shape == tensor.shape
        atol = 1e-4 * max(1, np.abs(tensor).max())
        np.testing.assert_allclose(found.tensors[key], tensor, rtol=1e-3, atol=atol, err_msg=key)


def drawn(n):
    return (draw_images(name, n, 5) for name in ("red", "green", "blue", "white", "black"))


def as_json(tokens):
    return {"shape": tokens.shape, "data": tokens.flatten().tolist()}


def send(browser, name, *paths):
    """Choose files."""
    field = browser.find_element(By.ID, name)
    wait(browser, field.is_enabled)
    field.send_keys("\n".join(map(str, paths)))


def press(browser, name):
    button = browser.find_element(By.ID, name)
    wait(browser, button.is_enabled)
    button.click()


def teach(browser, name):
    """Teach the images that were added, and return what the page says."""
    browser.find_element(By.NAME, "class").send_keys(name)
    press(browser, "go")
    wait(browser, lambda: re.search(f"(Learnt|more of) {name} from", text(browser, "state")))
    return text(browser, "state")


def best(browser):
    """The most probable class that the page shows, and its probability in percent."""
    name, value = text(browser, "best").splitlines()[0].rsplit(" ", 2)[:2]
    return name, float(value)


def resize(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def check_page(browser, width):
    """Check that a page fits a width and that axe finds nothing."""
    resize(browser, width)
    fits = "return document.documentElement.scrollWidth <= innerWidth"
    assert browser.execute_script(f"{fits} && innerWidth === arguments[0]", width)
    # the policy of the page applies to scripts in it, and not to those of the driver
    browser.execute_script(AXE.read_text())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = browser.execute_async_script(
        "axe.run(document, {runOnly: arguments[0]}).then(arguments[1])", rules
    )
    assert len(found["passes"]) > 20
    wrong = [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found["violations"]]
    assert wrong == []


def downloaded(browser, folder):
    """Press the button, and return the folder in the archive."""
    archive = browser.downloads / "student.zip"
    archive.unlink(missing_ok=True)
    press(browser, "download")
    wait(browser, archive.exists)
    with zipfile.ZipFile(archive) as opened_archive:
        assert opened_archive.testzip() is None
        opened_archive.extractall(folder)
    return folder / "student"


@pytest.mark.parametrize(("kind", "width"), [("ridge", 1280), ("aligned", 400)])
def test_a_class_is_taught_undone_and_downloaded(browser, runtime, tmp_path, capsys, kind, width):
    folder, photos = write_learner(tmp_path / "student", kind), write_photos(tmp_path / "photos")
    with opened(browser, site(folder, runtime)):
        check_page(browser, width)
        assert "Nothing leaves this machine" in browser.find_element(By.TAG_NAME, "header").text
        send(browser, "image", photos / "white" / "00.png")
        wait_for(browser, "took", "ms in this browser")
        assert best(browser)[0] != "white"
        assert len(text(browser, "best").splitlines()) == 3
        send(browser, "files", *sorted((photos / "white").iterdir()))
        assert "Learnt white from 10 images" in teach(browser, "white")
        wait(browser, lambda: best(browser)[0] == "white")
        assert text(browser, "count") == "4 classes:"
        press(browser, "camera")
        wait(browser, browser.find_element(By.ID, "video").is_displayed)
        press(browser, "take")
        wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#examples canvas")) == 10)
        assert "Learnt yellow from 10 images" in teach(browser, "yellow")
        wait(browser, lambda: best(browser)[0] == "yellow")
        check_page(browser, width)
        browser.save_screenshot(str(tmp_path / "demo.png"))
        press(browser, "undo")
        wait_for(browser, "state", "Removed yellow")
        assert "yellow" not in text(browser, "classes")
        press(browser, "camera")
        send(browser, "files", photos / "black" / "00.png")
        teach(browser, "black")
        send(browser, "image", photos / "black" / "01.png")
        wait_for(browser, "took", "ms in this browser")
        shown = best(browser)
        found = downloaded(browser, tmp_path / "downloaded")
    versions = sorted(path.name for path in (found / "versions").iterdir())
    assert versions == ["1", "3"]  # of white and of black; 2 was undone
    assert not any(manifest.compare(found).values())
    commands.predict(found, [str(photos / "black" / "01.png")], top=1, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    (first,) = json.loads(line)["predictions"]
    assert first["class"] == shown[0] == "black"
    assert 100 * first["probability"] == pytest.approx(shown[1], abs=0.1)
    again = cdl.load(found)._student
    again.learn({"yellow": list(draw_images("yellow", 3))})  # it goes on learning in Python
    again.undo()
    assert again.undo().version == 1 and again.classes == ("red", "green", "blue", "white")
    expected = cdl.load(folder)._student
    expected.learn({"white": sorted((photos / "white").iterdir())})
    some = draw_images("white", 9, 4)
    np.testing.assert_allclose(again.logits(some), expected.logits(some), atol=NEAR)


def test_the_page_goes_on_from_the_version_in_the_folder(browser, runtime, tmp_path):
    folder = write_learner(tmp_path / "student")
    student = cdl.load(folder)._student
    for name in ("white", "black"):
        student.learn({name: list(draw_images(name, 5))})
    image = encoded(draw_images("black", 1, 7)[0])
    with opened(browser, site(folder, runtime)):
        assert text(browser, "count") == "5 classes:"
        found = logits_of(browser, image)
        np.testing.assert_allclose(
            found, student.logits(student.preprocess(image_of(image)))[0], atol=NEAR
        )
        for expected in ("Removed black", "Removed white"):
            press(browser, "undo")
            wait_for(browser, "state", expected)
        wait(browser, lambda: not browser.find_element(By.ID, "undo").is_enabled())
        found = downloaded(browser, tmp_path / "downloaded")
    assert cdl.load(found).classes == NAMES and cdl.load(folder).version == 2


def test_only_the_last_versions_are_kept(browser, runtime, tmp_path):
    folder = write_learner(tmp_path / "student")
    image = write_photos(tmp_path / "photos", ["white"], 1) / "white" / "00.png"
    with opened(browser, site(folder, runtime)):
        for i in range(6):
            send(browser, "files", image)
            teach(browser, f"white {i}")
        found = downloaded(browser, tmp_path / "downloaded")
    assert sorted(p.name for p in (found / "versions").iterdir()) == ["3", "4", "5", "6"]
    assert cdl.load(found).classes[-1] == "white 5"


def test_problems_are_shown_in_a_sentence(browser, runtime, tmp_path):
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(b"no image")
    good.write_bytes(encoded(draw_images("red", 1)[0]))
    with opened(browser, site(write_learner(tmp_path / "student"), runtime)):
        for field, place in (("image", "predict-error"), ("files", "learn-error")):
            send(browser, field, bad)
            wait_for(browser, place, "bad.png: is not an image that this browser can read")
        send(browser, "files", good)
        for name in ("a/b", ".a", "é" * 128):
            field = browser.find_element(By.NAME, "class")
            field.clear()
            field.send_keys(name)
            press(browser, "go")
            wait_for(
                browser, "learn-error", f"{json.dumps(name, ensure_ascii=False)}: invalid class"
            )
        assert text(browser, "count") == "3 classes:"


def test_a_student_without_a_memory_classifies_and_says_that_it_cannot_learn(
    browser, runtime, tmp_path
):
    with opened(browser, site(write_student(tmp_path / "student"), runtime)):
        assert "This student cannot learn" in text(browser, "state")
        assert not browser.find_element(By.ID, "files").is_enabled()
        found = logits_of(browser, encoded(np.zeros((2, 3, 3), np.uint8) + np.uint8([9, 5, 1])))
    np.testing.assert_allclose(found, [9, 5, 1], atol=1e-5)


def image_of(raw):
    return Image.open(io.BytesIO(raw))


def pictures():
    """Encoded images, by name: sizes, transparency, palette, grey, EXIF."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
    yield "odd sizes", encoded(pixels)
    yield "large", encoded(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    opaque = np.where(rng.random((37, 41, 1)) < 0.5, np.uint8(255), np.uint8(0))
    yield "transparent", encoded(np.concatenate([pixels, opaque], axis=2))
    yield "grey", encoded(pixels[..., 0])
    raw = io.BytesIO()
    Image.fromarray(pixels).quantize(8).save(raw, "PNG")
    yield "palette", raw.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    halves = np.concatenate([np.full((32, 32, 3), value, np.uint8) for value in (40, 200)], axis=1)
    yield "upright", encoded(halves, format="JPEG", exif=exif, quality=95)


@pytest.fixture(scope="module")
def exported(inputs, tmp_path_factory):
    """An exported ViT with two aligned heads, and the names of its classes."""
    from learnable import finish

    folder = tmp_path_factory.mktemp("vit")
    run = finish(folder, inputs, "coda_prompt", "kd_token")
    export(run, folder / "student", task=0, check=False)
    return folder / "student"


@pytest.mark.slow
def test_a_vision_transformer_predicts_and_learns_as_in_python(
    browser, runtime, exported, tmp_path
):
    check_twin(browser, runtime, exported, tmp_path)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_convolutional_network_predicts_and_learns_as_in_python(
    browser, runtime, lab, inputs, tmp_path
):
    from extractors import finish

    run = finish(lab, inputs, tmp_path / "own", "cnn", "ranpac")
    export(run, tmp_path / "student", check=False)
    check_twin(browser, runtime, tmp_path / "student", tmp_path)


def check_twin(browser, runtime, exported, tmp_path):
    """Compare what the page predicts, learns and downloads with Python."""
    write_site(site(exported, runtime), tmp_path / "static")
    plain = functools.partial(QuietHandler, directory=tmp_path / "static")
    student = cdl.load(exported)._student
    photos = write_photos(tmp_path / "photos", ["yellow", "white"], 6)
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), plain)) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(address)
        wait_for(browser, "count", "classes:")
        for name, raw in pictures():
            expected = student.logits(student.preprocess(image_of(raw)))[0]
            near = NEAR if name != "upright" else 20 * NEAR  # decoders of JPEG differ by a level
            np.testing.assert_allclose(logits_of(browser, raw), expected, atol=near, err_msg=name)
        for name in NEW[1:]:
            send(browser, "files", *sorted((photos / name).iterdir()))
            teach(browser, name)
            student.learn({name: sorted((photos / name).iterdir())})
        assert student.classes[-2:] == NEW[1:]
        for name, raw in list(pictures())[:5]:
            expected = student.logits(student.preprocess(image_of(raw)))[0]
            np.testing.assert_allclose(logits_of(browser, raw), expected, atol=NEAR, err_msg=name)
        check_requests(browser, address)
        found = cdl.load(downloaded(browser, tmp_path / "downloaded"))._student
    some = draw_images("yellow", 5, 4, side=8)
    np.testing.assert_allclose(found.logits(some), student.logits(some), atol=NEAR)


@pytest.mark.slow
def test_an_int8_student_runs_in_the_browser(browser, runtime, exported, tmp_path):
    learnt = shutil.ignore_patterns("current", "versions")  # of the model before
    folder = shutil.copytree(exported, tmp_path / "int8", ignore=learnt)
    to_int8(folder / "model.onnx")
    manifest.write(folder, MADE_FROM)
    student, (_, raw) = cdl.load(folder)._student, next(pictures())
    with opened(browser, site(folder, runtime)):
        found = logits_of(browser, raw)
    expected = student.logits(student.preprocess(image_of(raw)))[0]
    np.testing.assert_allclose(found, expected, atol=0.2)  # kernels for int8 round differently


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A plain web server."""

    def log_message(self, format, *arguments):
        """Do not log single requests."""
