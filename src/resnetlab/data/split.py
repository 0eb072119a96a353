"""The split of a set that comes without one."""

import numpy as np

from resnetlab.core.randomness import generator

TEST_SHARE = 0.2


def split_by_class(labels: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the training and of the test pictures, each rising: a fifth of every class goes to the test.

    What becomes of a class depends on (seed, class, its count) alone. A class of one picture has it in training.
    """
    train: list[int] = []
    test: list[int] = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        members = members[generator(seed, "split", label).permutation(len(members))]
        tests = min(max(1, round(TEST_SHARE * len(members))), len(members) - 1)
        test += members[:tests].tolist()
        train += members[tests:].tolist()
    return sorted(train), sorted(test)
