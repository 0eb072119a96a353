"""Which batches a server computes between two turns of its event loop."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.deploy.bundle import read_bundle
from resnetlab.deploy.engines import open_bundle
from resnetlab.deploy.serve.config import ServeConfig
from resnetlab.deploy.serve.routes import QUICK, ImageJob, Service
from tests.deploy.bundles import SIDE, linear_bundle
from tests.deploy.serve.servers import image


def drawn(kind: str, width: int = 200, height: int = 200) -> bytes:
    stream = BytesIO()
    Image.new("L", (width, height)).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Service:
    folder = linear_bundle(tmp_path_factory.mktemp("bundles") / "insects")
    bundle = read_bundle(folder)
    return Service(bundle, open_bundle(bundle, folder, "onnx", 1), ServeConfig(), check=lambda: None, page="")


PIXELS = np.zeros((3, SIDE, SIDE, 1), np.uint8)
SMALL = ImageJob(drawn("PNG"), 5)


@pytest.mark.parametrize(
    ("job", "quick"),
    [
        (SMALL, True),
        (ImageJob(drawn("JPEG"), 5), True),
        (PIXELS, True),
        (ImageJob(drawn("PNG", 7000, 7000), 5), False),
        (ImageJob(drawn("JPEG", 2000, 2000), 5), False),
        (ImageJob(drawn("WEBP"), 5), False),
        (ImageJob(b"no image", 5), False),
        (ImageJob(SMALL.content + b"\0" * 65536, 5), False),
    ],
    ids=[
        "png",
        "jpeg",
        "pixels",
        "many pixels in a small file",
        "large jpeg",
        "head not read",
        "no image",
        "many bytes",
    ],
)
def test_quick_are_batches_of_small_images(service, job, quick):
    service.fast = True
    assert service.is_quick([job]) == service.is_quick([SMALL, job, PIXELS]) == quick
    service.fast = False
    assert not service.is_quick([job])


@pytest.mark.parametrize("seconds", [0.0, 2 * QUICK])
def test_network_is_fast_by_the_time_of_a_full_batch(service, seconds, monkeypatch):
    sizes, clock = [], iter(range(100))

    def logits(pixels):
        sizes.append(len(pixels))
        return np.zeros((len(pixels), 4), np.float32)

    monkeypatch.setattr("resnetlab.deploy.serve.routes.perf_counter", lambda: next(clock) * seconds)
    monkeypatch.setattr(service, "predictor", replace(service.predictor, logits=logits))
    service.prepare()
    assert sizes == [service.config.max_batch] * 3
    assert service.fast == (seconds < QUICK)


def test_images_of_a_batch_may_ask_for_different_numbers_of_classes(service):
    jobs = [ImageJob(image(1), 1), PIXELS, ImageJob(b"no image", 9), ImageJob(image(2), 3), ImageJob(image(2), 99)]
    one, logits, refused, three, all_of_them = service.compute(jobs)
    assert [len(found.classes) for found in (one, three, all_of_them)] == [1, 3, 4]
    assert three == all_of_them.first(3)
    assert np.array_equal(logits, service.predictor.logits(PIXELS))
    assert isinstance(refused, Exception)
