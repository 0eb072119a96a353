"""Unequal classes: the weights of the loss, the balanced sampler, and what is told of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import balanced_order
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer, fit
from resnetlab.train.prepare import balance_note, class_weights, make_loader
from tests.conftest import make_data
from tests.train.runs import StopAfter, same_tensors, tiny_net, without_time

CPU = torch.device("cpu")
COUNTS = (60, 30, 6)
PLAIN = AugmentConfig(crop_padding=0)
BALANCED = TrainConfig(epochs=2, batch_size=16, sampler="balanced", class_weights="balanced", save_every=1)


def unequal() -> ImageData:
    """60, 30 and 6 training images of three classes."""
    data = make_data(train=180)
    labels = data.train.labels
    kept = torch.cat([(labels == label).nonzero().flatten()[:count] for label, count in enumerate(COUNTS)])
    return replace(data, train=data.train.divide(kept)[1])


def test_loss_is_that_of_torch_with_weights_n_over_k_times_the_count():
    data, config = unequal(), TrainConfig(class_weights="balanced", batch_size=48, label_smoothing=0.1, augment=PLAIN)
    loader = make_loader(data, config, CPU)
    weights = torch.tensor([96 / (3 * count) for count in COUNTS])
    assert_close(class_weights(loader, config), weights)
    net = tiny_net()
    images, labels = next(loader.shuffled(0, 1))
    expected = nn.CrossEntropyLoss(weight=weights, label_smoothing=0.1)(tiny_net().train()(images), labels)
    trainer = Trainer(net, loader, config, seed=0)
    net.train()
    trainer.take_step(iter([(images, labels)]), 0, 0)
    assert_close(trainer.state.losses[0], expected.detach().double())
    assert class_weights(loader, TrainConfig()) is None


def test_a_class_without_images_weighs_nothing_and_the_others_as_if_it_were_not_there():
    data = replace(unequal(), classes=("a", "b", "c", "none"))
    found = class_weights(make_loader(data, BALANCED, CPU), BALANCED)
    assert_close(found, torch.tensor([96 / (3 * count) for count in COUNTS] + [0.0]))


def test_an_epoch_has_as_many_of_each_class_and_repeats_none_before_all_were_taken():
    labels = unequal().train.labels.numpy()
    order = balanced_order(labels, 0, 1)
    assert len(order) == len(labels) == 96
    assert torch.bincount(torch.from_numpy(labels[order])).tolist() == [32, 32, 32]
    times = torch.bincount(torch.from_numpy(order), minlength=96)
    assert [sorted(set(times[labels == label].tolist())) for label in range(3)] == [[0, 1], [1, 2], [5, 6]]
    # What cannot be shared evenly differs by one.
    assert sorted(torch.bincount(torch.from_numpy(labels[:95][balanced_order(labels[:95], 0, 1)])).tolist()) == [
        31,
        32,
        32,
    ]
    # Another epoch takes others of the common class, and another seed another order.
    assert set(order) != set(balanced_order(labels, 0, 2))
    assert (order != balanced_order(labels, 1, 1)).any()
    assert (order == balanced_order(labels, 0, 1)).all()


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_share_the_batches_of_one(ranks):
    data = unequal()
    whole = list(make_loader(data, BALANCED, CPU).shuffled(3, 2))
    shares = []
    for rank in range(ranks):
        loader = make_loader(data, BALANCED, CPU, alone=True)
        loader.rank, loader.ranks = rank, ranks
        shares.append(list(loader.shuffled(3, 2)))
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([share[step][0] for share in shares]), images)
        assert torch.equal(torch.cat([share[step][1] for share in shares]), labels)


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_run_that_is_cut_off_resumes_to_equal_bits(tmp_path, step):
    data, whole, resumed = unequal(), tiny_net(), tiny_net()
    history = fit(whole, data, BALANCED, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, BALANCED, seed=0, out=tmp_path, callback=StopAfter(step))
    assert without_time(fit(resumed, data, BALANCED, seed=0, out=tmp_path)) == without_time(history)
    assert same_tensors(whole, resumed)


def test_unequal_classes_are_told_with_what_can_be_done():
    (told,) = balance_note(unequal(), TrainConfig())
    assert "60 training images of row 0, 6 of row 2" in told
    assert "--class-weights balanced or --sampler balanced" in told
    assert balance_note(unequal(), BALANCED) == []
    assert balance_note(make_data(), TrainConfig()) == []


def test_words_that_are_no_choice_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        TrainConfig(class_weights="balance")
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        TrainConfig(sampler="balancd")
