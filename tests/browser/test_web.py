"""Pages that classify images, in a real browser: what they compute, ask for and look like."""

import json
import time
from base64 import b64encode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.deploy.load import load
from resnetlab.deploy.web.page import LARGE_PAGE, WEB, write_web
from tests.browser.test_pages import LEAST_CONTRAST, LIGHT, WIDTHS
from tests.deploy.servers import serving
from tests.deploy.web.bundles import made_bundle
from tests.deploy.web.test_image import encoded, photo

pytest.importorskip("onnx")
pytestmark = pytest.mark.browser

RIGHT = "32 of 32 golden images agree"
KINDS = pytest.mark.parametrize("kind", ["colour", "grey"])
CHECKS = ("overflow()", "unreachable()", "headings()", f"contrast({LEAST_CONTRAST})")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """A net of the size of CIFAR's, whose weights are half precision in the page, and a small one for grey."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {"colour": ("cifar_resnet20", 32, 3), "grey": ("cifar_preact_resnet8", 12, 1)}
    for kind, what in made.items():
        write_web(made_bundle(folder / kind, *what), folder / kind)
    return folder


def until(page, expression: str, seconds: float = 60):
    """What the expression is on the page, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := page.ask(expression):
            return found
        time.sleep(0.05)
    raise AssertionError(
        f"{expression} did not come true; {page.ask('find(`check`).textContent')}; {page.complaints()}"
    )


def checked(page) -> str:
    return until(page, "/right|wrong/.test(find('check').className) && find('check').textContent")


def answers(page, files: dict[str, bytes]) -> dict[str, dict]:
    """What the page says of files that are chosen, by name."""
    given = json.dumps({name: b64encode(content).decode() for name, content in files.items()})
    page.ask(
        f"""window.done = null;
        take(Object.entries({given}).map(([name, text]) =>
            new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name)))
            .then((found) => {{ window.done = found; }}); 0"""
    )
    return dict(zip(files, until(page, "window.done"), strict=True))


@KINDS
def test_golden_images_agree_and_nothing_is_asked_for(bundles, tab, kind):
    path = bundles / kind / WEB
    page = tab(path)
    assert checked(page).startswith(RIGHT)
    assert path.stat().st_size <= LARGE_PAGE
    assert page.requests() == []
    assert page.complaints() == []
    assert page.ask("PROGRAM.constants.length") > 20


@KINDS
def test_images_of_every_kind_are_answered_as_by_the_decoder(bundles, tab, kind):
    alpha = np.dstack([photo(50, 40), np.linspace(0, 255, 2000).astype(np.uint8).reshape(40, 50)])
    grey16 = np.linspace(0, 65535, 900).astype(np.uint16).reshape(30, 30)
    palette = BytesIO()
    Image.fromarray(photo(41, 64)).quantize(64).save(palette, "GIF")
    files = {
        "odd.png": encoded(photo(97, 61)),
        "turned.png": encoded(photo(61, 90), "PNG", 6),
        "photo.jpg": encoded(photo(60, 77), "JPEG", quality=92),
        "turned.jpg": encoded(photo(81, 60), "JPEG", 8, quality=92),
        "large.jpg": encoded(photo(900, 700), "JPEG", 5, quality=90),
        "lossless.webp": encoded(photo(70, 50), "WEBP", 3, lossless=True),
        "see-through.png": encoded(alpha),
        "sixteen.png": encoded(grey16),
        "colours.gif": palette.getvalue(),
        "plain.bmp": encoded(photo(33, 32), "BMP"),
        "huge.png": encoded(photo(2000, 1500)),
    }
    page = tab(bundles / kind / WEB)
    trained = load(bundles / kind)
    checked(page)
    found, (largest, tolerance) = answers(page, files), page.ask("[NETWORK.largest, NETWORK.tolerance]")
    for name, content in files.items():
        expected = trained.logits_of_pixels(np.stack([trained.preprocessing.pixels(content)]))[0]
        # A browser decodes JPEG at its full size, lays on white in 8 bits and cuts 16 bits: a level here and there.
        allowed = tolerance if name in ("odd.png", "turned.png", "lossless.webp", "plain.bmp", "huge.png") else 0.05
        assert np.abs(found[name]["logits"] - expected).max() <= allowed * largest, name
        assert found[name]["predictions"][0]["class"] == trained.predict(content).answer, name


def test_what_is_no_image_is_answered_beside_those_that_are(bundles, tab):
    page = tab(bundles / "grey" / WEB)
    found = answers(page, {"a.txt": b"hello", "b.png": encoded(photo(20, 20)), "c.png": encoded(photo(20, 20))[:60]})
    assert "cannot read it as an image" in found["a.txt"]["error"]
    assert "error" in found["c.png"]
    assert len(found["b.png"]["predictions"]) == 5
    assert page.ask("document.querySelectorAll('#results .card.failed').length") == 2
    assert page.complaints() == []


def test_another_weight_or_resize_is_told(bundles, tab, tmp_path):
    """The control of the golden images: a page that computes otherwise says so."""
    text = (bundles / "colour" / WEB).read_text()
    for number, (right, wrong) in enumerate(
        [("const REDUCE = 4", "const REDUCE = 1"), ("reach = Math.max(scale, 1)", "reach = 1")]
    ):
        assert right in text
        path = tmp_path / f"{number}.html"
        # Its script has another hash now, so the policy goes.
        path.write_text(text.replace(right, wrong).replace("Content-Security-Policy", "X", 1))
        assert "do not trust" in checked(tab(path))


def test_policy_lets_no_other_script_or_request_through(bundles, tab):
    page = tab(bundles / "colour" / WEB)
    page.ask(
        """document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = true"}));
        document.body.append(Object.assign(document.createElement("img"), {src: "http://127.0.0.1:9/x.png"}));
        window.failed = false; fetch("http://127.0.0.1:9/").catch(() => { window.failed = true; }); 0"""
    )
    until(page, "window.failed")
    assert page.ask("window.ran === undefined")
    assert page.requests() == []
    assert len(page.complaints()) >= 3


@KINDS
@WIDTHS
@LIGHT
def test_page_fits_and_is_read(bundles, tab, keep, kind, width, dark):
    page = tab(bundles / kind / WEB, width, dark=dark)
    checked(page)
    answers(page, {"holiday at the sea.jpg": encoded(photo(400, 300), "JPEG"), "notes.txt": b"x"})
    answers(page, {f"image {number}.png": encoded(photo(64, 64, number)) for number in range(3)})
    keep(f"web-{kind}-{width}-{'dark' if dark else 'light'}.png", page.image())
    page.ask("checks.open()")
    for check in CHECKS:
        assert page.ask(f"checks.{check}") == [], check


def test_keyboard_and_screen_reader_reach_every_part(bundles, tab):
    page = tab(bundles / "colour" / WEB)
    checked(page)
    reached = {}
    for _ in range(10):
        page.press("Tab")
        place, ring, _ = page.ask("checks.focus()")
        reached[place] = ring or page.ask("document.activeElement.id === 'choose'")
    assert len(reached) == 10, "the field for files, eight examples and the classes"
    assert all(reached.values())
    assert page.ask("document.activeElement.tagName") == "SUMMARY"
    page.ask("document.querySelector('#examples button').focus()")
    page.press("Enter")
    assert "true class" in until(page, "document.querySelector('#results .bars') && find('said').textContent")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    for role, count in {"button": 9, "image": 1, "status": 2, "list": 3}.items():
        names = [node.get("name", {}).get("value") for node in nodes if node["role"]["value"] == role]
        assert len(names) >= count, role
        assert all(names) or role in ("status", "list"), role


@KINDS
@WIDTHS
def test_served_page_asks_its_server_alone_and_shows_its_answers(bundles, tab, keep, kind, width):
    trained = load(bundles / kind)
    content = encoded(photo(97, 61))
    with serving(bundles / kind) as server:
        page = tab(f"http://127.0.0.1:{server.port}/", width)
        assert checked(page).startswith("The server is ready")
        files = {"odd.png": content, "not shown.tiff": encoded(photo(40, 30), "TIFF")}
        found = answers(page, files)
        for name, file in files.items():
            assert found[name]["predictions"] == server.predict(file)
            assert found[name]["predictions"][0]["class"] == trained.predict(file).answer
        assert page.complaints() == []
        assert "is no image" in answers(page, {"notes.txt": b"x"})["notes.txt"]["error"]
        assert {url.removeprefix(page.url) for url in page.requests()} == {"readyz", "predict?top=5"}
        keep(f"web-served-{kind}-{width}.png", page.image())
        for check in CHECKS:
            assert page.ask(f"checks.{check}") == [], check
    page.ask("checkServer(); 0")
    until(page, "find('check').textContent.includes('not ready')")
    (gone,) = answers(page, {"odd.png": content}).values()
    assert gone["error"] == "the server does not answer"
