"""A bundle with the ONNX format and golden images, of a network that was not trained."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from resnetlab.core.randomness import generator
from resnetlab.core.serialize import write_record
from resnetlab.deploy.bundle import Bundle, seal
from resnetlab.deploy.formats import Job, write_network, write_onnx
from resnetlab.deploy.golden import (
    FP32_TOLERANCE,
    GOLDEN,
    Golden,
    GoldenImage,
    golden_pixels,
    write_golden_images,
)
from resnetlab.deploy.load import TrainedNetwork
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.models.zoo import create_model

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck <b>&")


def crops(n: int, size: int) -> list[np.ndarray]:
    """Squares of two photographs: ``(size, size, 3)``."""
    draw, photos = generator(0, "crops"), load_sample_images().images
    found = []
    for number in range(n):
        photo = photos[number % 2]
        top, left = (int(draw.integers(0, photo.shape[axis] - 4 * size)) for axis in (0, 1))
        found.append(np.ascontiguousarray(photo[top : top + 4 * size : 4, left : left + 4 * size : 4]))
    return found


def made_network(folder: Path, model: str, side: int, channels: int) -> TrainedNetwork:
    """Its norms know the photographs, so that its logits differ from image to image."""
    net = create_model(model, num_classes=len(CLASSES), in_chans=channels, image_size=side, seed=0)
    preprocessing = Preprocessing(
        side=side, channels=channels, white=255, mean=(112.3,) * channels, std=(61.7,) * channels
    )
    trained = TrainedNetwork(
        net=net,
        classes=CLASSES,
        preprocessing=preprocessing,
        model=model,
        origin=folder,
        results={"split": "test", "accuracy": 0.9137, "loss": 0.3, "n": 10000},
    )
    batch = torch.stack([trained.preprocess(image) for image in crops(32, side)])
    with torch.no_grad():
        for _ in range(20):
            net.train()(batch)
    net.eval()
    return trained


def made_bundle(folder: Path, model: str = "cifar_resnet20", side: int = 32, channels: int = 3) -> Bundle:
    """The bundle in ``folder``, with 32 golden images."""
    folder.mkdir(parents=True)
    trained = made_network(folder, model, side, channels)
    bundle = Bundle(
        name=folder.name,
        model=model,
        classes=CLASSES,
        preprocessing=trained.preprocessing,
        results=trained.results,
    )
    job = Job(trained=trained, bundle=bundle, folder=folder)
    write_network(job)
    write_onnx(job)
    originals = crops(32, side)
    (folder / "golden").mkdir()
    files = write_golden_images(folder, originals, side)
    logits = trained.logits_of_pixels(golden_pixels(folder, files, trained.preprocessing))
    images = tuple(
        GoldenImage(file=file, label=CLASSES[number % 10], answer=CLASSES[row.argmax()], logits=tuple(map(float, row)))
        for number, (file, row) in enumerate(zip(files, logits, strict=True))
    )
    write_record(folder / GOLDEN, Golden(images=images, tolerance={"onnx": FP32_TOLERANCE}))
    return seal(bundle, folder)
