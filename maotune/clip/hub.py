"""Models of the Hugging Face hub: from its cache, else downloaded; at a revision, where one is named."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

HUB_FORM = "OWNER/NAME or OWNER/NAME@REVISION"
"""How a model of the hub is named; a revision is a commit, a branch or a tag."""
_NAME = re.compile(r"(?P<identity>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*(/\w[\w.-]*)*))?")
_WEIGHTS = "*.safetensors"
_BESIDE = ("*.json",)


class HubModel(NamedTuple):
    """A model in the local cache of the hub."""

    folder: Path
    revision: str
    """The commit, in hexadecimal digits."""


class NotDownloaded(FileNotFoundError):
    """A model is not in the cache, and is not to be downloaded."""


def is_hub_name(name: str) -> bool:
    """Whether a name has the form ``HUB_FORM``."""
    return _NAME.fullmatch(name) is not None


def cached_model(name: str, beside: Sequence[str] = _BESIDE, *, older: Sequence[str] = ()) -> HubModel | None:
    """Return a model in the cache, where its weights are there, too. Arguments as those of ``hub_model``."""
    from huggingface_hub import snapshot_download  # slow to import, and most users never need it
    from huggingface_hub.errors import LocalEntryNotFoundError

    identity, revision = _parts_of(name)
    with suppress(LocalEntryNotFoundError):
        wanted = [*beside, _WEIGHTS]
        folder = Path(snapshot_download(identity, revision=revision, allow_patterns=wanted, local_files_only=True))
        if any(next(folder.glob(pattern), None) for pattern in (_WEIGHTS, *older)):
            return HubModel(folder, folder.name)
    return None


def hub_model(
    name: str, beside: Sequence[str] = _BESIDE, *, older: Sequence[str] = (), allow_download: bool = True
) -> HubModel:
    """Return a model of the hub; what is in its cache is not downloaded again.

    Args:
        name: in the form ``HUB_FORM``.
        beside: patterns of the files that are needed beside safetensors.
        older: patterns of weights to take where there are no safetensors.
        allow_download: whether it is downloaded where the cache lacks it.

    Raises:
        NotDownloaded: it would have to be.
        FileNotFoundError: the hub does not give it. ValueError: no such form.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    identity, revision = _parts_of(name)
    try:
        if model := cached_model(name, beside, older=older):
            return model
        if not allow_download:
            raise NotDownloaded(f"{name} is no file or folder here, and has not been downloaded before")
        wanted = [*beside, _WEIGHTS]
        folder = Path(snapshot_download(identity, revision=revision, allow_patterns=wanted))
        if older and not any(folder.glob(_WEIGHTS)):
            folder = Path(snapshot_download(identity, revision=revision, allow_patterns=[*wanted, *older]))
        return HubModel(folder, folder.name)
    except NotDownloaded:
        raise
    except (OSError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name} is no file or folder here, and the Hugging Face hub gave no {name} "
            f"({type(error).__name__}): check the name and the network, or give the path of a downloaded model"
        ) from error


def _parts_of(name: str) -> tuple[str, str | None]:
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name} is no name of a model on the Hugging Face hub: the form is {HUB_FORM}")
    return parts["identity"], parts["revision"]
