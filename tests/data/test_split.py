import numpy as np
import pytest

from resnetlab.data.dataset import split_by_class


def test_a_fifth_of_every_class_is_the_test_and_nothing_is_lost():
    labels = np.repeat([0, 1, 5, 2], [10, 3, 2, 1])
    train, test = split_by_class(labels, 0)
    assert sorted(train + test) == list(range(16))
    assert np.bincount(labels[test], minlength=6).tolist() == [2, 1, 0, 0, 0, 1]
    assert (train, test) == (sorted(train), sorted(test))


def test_split_is_a_function_of_the_seed_and_of_each_class_alone():
    labels = np.repeat([0, 1], 50)
    assert split_by_class(labels, 0) == split_by_class(labels, 0)
    assert len({tuple(split_by_class(labels, seed)[1]) for seed in range(5)}) == 5
    more = np.append(labels, [2] * 30)
    assert [number for number in split_by_class(more, 0)[1] if number < 100] == split_by_class(labels, 0)[1]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 100])
def test_share_of_the_test_is_rounded_and_never_all_or_none(count):
    train, test = split_by_class(np.zeros(count, dtype=np.int64), 0)
    assert len(test) == (0 if count == 1 else max(1, round(count / 5)))
    assert train
