"""The demo page classifies images, reports invalid requests, and learns new classes."""

import base64
import contextlib
import http.client
import json
import socket
import threading

import pytest
from browser import open_browser
from exported import write_student
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_learn import ALONE, KD, photos

import cdl
from cdl.deployment.demo import Demo, Server
from cdl.runtime.errors import CdlError


@contextlib.contextmanager
def serving(model):
    with Server(Demo(model), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def served(copied):
    """Start a server of a run that can learn."""
    with serving(copied / ALONE) as server:
        yield server


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Start a server of an exported student."""
    with serving(write_student(tmp_path_factory.mktemp("demo") / "student")) as server:
        yield server


def send(server, head):
    """Send the head of a request without a body and return the answer."""
    with socket.create_connection(server.server_address, timeout=20) as connection:
        text = f"{head}\r\nHost: {server.origin.removeprefix('http://')}\r\n\r\n"
        connection.sendall(text.encode("latin-1"))
        return connection.makefile("rb").read()


def request(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request(method, f"/{server.token}{path}", body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def test_images_are_classified_and_other_files_rejected(served, copied, tmp_path):
    image = photos(tmp_path / "a", "red") / "red" / "0.png"
    status, body = request(served, "POST", "/predict", image.read_bytes())
    answer, student = json.loads(body), cdl.load(copied / ALONE)
    assert status == 200 and answer["milliseconds"] > 0 and len(answer["best"]) == 5
    assert answer["best"][0]["class"] == student.predict(image)[0]
    status, body = request(served, "POST", "/predict", b"no image")
    assert status == 400 and "the image" in json.loads(body)["error"]
    assert json.loads(request(served, "GET", "/about")[1]) == {
        "classes": list(student.classes),
        "learns": True,
    }


@pytest.mark.parametrize("body", [b"no JSON", b"[1]", b'{"red": 1}', b'{"red": [1]}'])
def test_an_invalid_request_to_learn_is_rejected_in_a_sentence(exported, body):
    status, answer = request(exported, "POST", "/learn", body)
    assert status == 400 and "base64 images for each class name" in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/etc/passwd", {}),
        ("POST", "/", {}),
        ("GET", "/", {"Host": "elsewhere.example"}),
        ("POST", "/predict", {"Origin": "http://elsewhere.example"}),
    ],
)
def test_other_paths_and_other_origins_are_rejected(exported, method, path, headers):
    assert request(exported, method, path, b"" if method == "POST" else None, **headers)[0] == 404


@pytest.mark.parametrize("start", ["", "/", "/wrong", "/%00", "/x/y", "/\xe9"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/about"), ("POST", "/predict"), ("POST", "/learn")]
)
def test_without_the_token_nothing_is_sent_and_no_body_is_read(exported, start, method, path):
    answer = send(exported, f"{method} {start}{path} HTTP/1.1\r\nContent-Length: 9")
    assert answer.startswith(b"HTTP/1.0 404") and b"not found" in answer


def test_every_server_has_a_token_of_its_own(exported):
    with Server(exported.demo, 0) as other:
        assert exported.token != other.token and len(other.token) > 40
        assert other.address.endswith(f"/{other.token}/")


@pytest.mark.parametrize(
    "length", ["-1", str(2**27 + 1), "9" * 5000, "1e3", "\xb2", "", "+1", None]
)
def test_an_invalid_length_is_refused_before_the_body_is_read(exported, length):
    head = f"POST /{exported.token}/predict HTTP/1.1"
    head += "" if length is None else f"\r\nContent-Length: {length}"
    answer = send(exported, head)
    assert answer.startswith(b"HTTP/1.0 400") and b"Content-Length: invalid value" in answer


def test_invalid_classes_are_rejected_in_a_sentence(finished, tmp_path):
    image = (photos(tmp_path / "a", "red") / "red" / "0.png").read_bytes()
    coded = [base64.b64encode(image).decode()] * 3
    with pytest.raises(CdlError, match="contains one class, red"):
        Demo(finished / ALONE).learn({"red": coded})
    with pytest.raises(CdlError, match="--teacher: is missing"):
        Demo(finished / KD).learn({"red": coded, "blue": coded})
    for name in ("../red", "", ".hidden", "a\nb", "a\0", "\ud800", "é" * 51, " "):
        with pytest.raises(CdlError, match="invalid class name"):
            Demo(finished / ALONE).learn({name: coded})
    with pytest.raises(CdlError, match="not valid base64"):
        Demo(finished / ALONE).learn({"red": ["!"]})


def test_in_the_browser_an_image_is_classified_and_new_classes_are_learnt(served, tmp_path):
    folder = photos(tmp_path / "a", "red", "green")
    browser = open_browser(tmp_path / "profile")
    try:
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)  # requests of the browser itself
        browser.get(served.address)

        def text(selector):
            return browser.find_element(By.CSS_SELECTOR, selector).text

        def wait(condition):
            WebDriverWait(browser, 60).until(lambda _: condition())

        browser.find_element(By.ID, "image").send_keys(str(folder / "red" / "0.png"))
        wait(lambda: " ms on this machine" in text("#took"))
        assert len(browser.find_elements(By.CSS_SELECTOR, "#best tr")) == 5
        assert "10 classes" in text("#count")
        for field, name in zip(
            browser.find_elements(By.CSS_SELECTOR, "fieldset"), ("red", "green"), strict=True
        ):
            field.find_element(By.CSS_SELECTOR, "[name=name]").send_keys(name)
            paths = "\n".join(map(str, sorted((folder / name).iterdir())))
            field.find_element(By.CSS_SELECTOR, "[type=file]").send_keys(paths)
        browser.find_element(By.CSS_SELECTOR, "#learn button").click()
        wait(lambda: "Learnt green, red" in text("#state") or text("#learn-error"))
        assert text("#learn-error") == ""
        wait(lambda: "12 classes" in text("#count"))
        rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#tasks tr")]
        assert rows[0] == "accuracy in % before now" and len(rows) == 4 and "–" in rows[3]
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
        events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
        requested = {
            e["params"]["request"]["url"]
            for e in events
            if e["method"] == "Network.requestWillBeSent"
        }
        own = (served.address, "data:", "blob:")
        assert requested and [url for url in requested if not url.startswith(own)] == []
        browser.save_screenshot(str(tmp_path / "demo.png"))
    finally:
        browser.quit()
