"""``resnetlab push`` and ``pull``: bundles to and from the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from resnetlab.cli.tables import show


@dataclass(frozen=True, kw_only=True)
class Push:
    """Put a bundle, or a run as one, into a repository of the Hugging Face Hub (extra hub): its files, nothing pickled.

    The token is that of hf auth login, or HF_TOKEN.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE|RUN")]
    """Folder of a bundle; of a run, which is exported first, without formats for other programs."""
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """The repository, which is made if it does not exist."""
    private: bool = False
    """Make a new repository private."""

    def __call__(self) -> None:
        from resnetlab.deploy.bundle import BUNDLE
        from resnetlab.deploy.share import push

        if (self.source / BUNDLE).is_file():
            show(push(self.source, self.repository, private=self.private))
            return
        from resnetlab.deploy.export import export

        with TemporaryDirectory() as place:
            out = Path(place) / self.repository.rpartition("/")[2]
            export(self.source, out)
            show(push(out, self.repository, private=self.private))


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Copy a bundle from a repository of the Hugging Face Hub (extra hub), its sums checked."""

    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """The repository."""
    out: Path
    """Folder for the bundle: a new or empty one."""
    revision: str = "main"
    """A branch, a tag or a commit."""

    def __call__(self) -> None:
        from resnetlab.deploy.share import pull_into

        bundle = pull_into(self.repository, self.out, self.revision)
        show(f"{bundle.model}, {len(bundle.classes)} classes; bundle in {self.out}")
