"""fit, evaluate and diagnose on Datasets and DataLoaders, with any module; and what a resumed run on them has."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from resnetlab import AugmentConfig, TrainConfig, diagnose, evaluate, fit
from resnetlab.core.errors import ConfigError, DataError
from tests.conftest import make_data
from tests.train.runs import Notes, StopAfter, same_tensors, tiny_net, without_time

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.05)


def datasets(data):
    return [TensorDataset(split.images, split.labels) for split in (data.train, data.test)]


def test_a_pair_of_datasets_trains_to_the_bits_of_the_same_images_in_memory(data):
    nets = [tiny_net(seed=1) for _ in range(3)]
    expected = fit(nets[0], data, CONFIG, seed=3)
    train, test = datasets(data)
    loaders = DataLoader(train, batch_size=16, shuffle=True), DataLoader(test, batch_size=7)
    notes = Notes()
    for net, given in ((nets[1], (train, test)), (nets[2], loaders)):
        assert without_time(fit(net, given, CONFIG, seed=3, callback=notes)) == without_time(expected)
        assert same_tensors(net, nets[0])
    assert [note.partition(":")[0] for note in notes.notes] == ["train", "test"]
    metrics = evaluate(nets[1], (train, test))
    assert metrics == evaluate(nets[0], data)


def test_a_single_dataset_is_divided_to_train_and_whole_to_evaluate(data):
    train, test = datasets(data)
    notes = Notes()
    (*_, last) = fit(tiny_net(), train, CONFIG, seed=0, callback=notes)
    assert (last.validation.n, last.test) == (9, None)
    assert "held out" in notes.notes[0]
    assert evaluate(tiny_net(), test).n == len(test)
    assert evaluate(tiny_net(), DataLoader(test, batch_size=3)).n == len(test)


class Noisy(Dataset):
    """Images with noise that torch draws each time: an augmentation."""

    def __init__(self, split):
        self.images, self.labels = split.images.float() / 100 - 1, split.labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, number):
        return self.images[number] + 0.1 * torch.randn(1, 8, 8), int(self.labels[number])


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_whose_images_torch_draws_resumes_to_the_same_bits(data, tmp_path, step):
    """From the middle of an epoch and from its end, with dropout, which draws from the same generator."""
    given = {"train": Noisy(data.train), "test": Noisy(data.test)}
    config = TrainConfig(epochs=2, batch_size=16, save_every=3)
    whole, parts = tiny_net(drop_rate=0.5), tiny_net(drop_rate=0.5)
    expected = fit(whole, given, config, seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, given, config, seed=1, out=str(tmp_path / "run"), callback=StopAfter(step + 1))
    parts = tiny_net(drop_rate=0.5)
    found = fit(parts, given, config, seed=1, out=str(tmp_path / "run"))
    assert without_time(found)[-1].train == expected[-1].train
    assert same_tensors(parts, whole)


def test_any_module_is_trained_and_evaluated(data):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    train, test = datasets(data)
    before = evaluate(net, (train, test)).loss
    fit(net, (train, test), CONFIG, seed=0)
    assert evaluate(net, (train, test)).loss < before


def test_a_dataset_is_diagnosed_as_its_tensors_are(data):
    _, test = datasets(data)
    net = tiny_net()
    for given in (test, DataLoader(test)):
        found = diagnose(net, given, "residuals")
        assert found.net.blocks == diagnose(net, test.tensors, "residuals").net.blocks


def test_what_the_loop_cannot_do_with_floats_is_refused(data):
    floats = Noisy(data.train)
    for augment in (AugmentConfig(random_resized_crop=True), AugmentConfig(policy="rand")):
        with pytest.raises(ConfigError, match="these are floats"):
            fit(tiny_net(), floats, TrainConfig(epochs=1, augment=augment), seed=0)


def test_labels_beyond_the_outputs_are_told_before_training():
    train, test = datasets(make_data(classes=4))
    with pytest.raises(DataError, match="labels go up to 3, and the network has 3 outputs"):
        fit(tiny_net(), (train, test), CONFIG, seed=0)
    with pytest.raises(DataError, match="num_classes=4"):
        evaluate(tiny_net(), test)
