"""From the text of ``--data`` to pictures."""

from pathlib import Path

from resnetlab.data.arrays import ImageData
from resnetlab.errors import ConfigError, DataError, unknown_name

SOURCES = {
    "digits": "the 8×8 handwritten digits that come with scikit-learn",
    "idx:FOLDER": "a folder of MNIST or Fashion-MNIST files",
}


def load_data(source: str, split_seed: int = 0, decode=None, on_progress=None) -> ImageData:
    """The data that ``source`` names: ``"digits"``, or ``"idx:FOLDER"``.

    ``split_seed`` decides the split of a set that comes without one (digits).

    Raises ``ConfigError`` for an unknown source, ``DataError`` for what cannot be read.
    """
    data = _read(source, split_seed)
    if len(data.train) < 2 or len(data.classes) < 2:
        raise DataError(
            f"{source} has {len(data.train)} training pictures of {len(data.classes)} classes; "
            "a classifier needs at least two of each"
        )
    return data


def _read(source: str, split_seed: int) -> ImageData:
    scheme, colon, place = source.partition(":")
    if source == "digits":
        from resnetlab.data.digits import read_digits

        return read_digits(split_seed)
    if scheme == "idx" and colon:
        from resnetlab.data.idx import read_idx_folder

        if not place:
            raise ConfigError("--data idx: names no folder; write idx:FOLDER")
        return read_idx_folder(Path(place))
    raise unknown_name("data source", source, SOURCES)
