"""What studies compare of an epoch: training loss, training error, test error."""

from collections.abc import Callable, Iterable

from resnetlab.records.run import EpochRecord
from resnetlab.core.stats import Sample, sample

Quantity = Callable[[EpochRecord], float]


def train_loss(epoch: EpochRecord) -> float:
    """Mean cross-entropy on the training set, in nats."""
    return epoch.trained.loss


def train_error(epoch: EpochRecord) -> float:
    """Share of the training set that is answered wrongly."""
    return epoch.trained.error


def test_error(epoch: EpochRecord) -> float:
    """Share of the test set that is answered wrongly."""
    return epoch.test.error


def sample_of(quantity: Quantity, epochs: Iterable[EpochRecord]) -> Sample | None:
    """Mean and standard deviation over the last epochs of several runs; None for none."""
    values = [quantity(epoch) for epoch in epochs]
    return sample(values) if values else None
