"""Numbers that the official code computed (README.md): ``GOLDEN`` is a folder that holds them.

``MAOTUNE_GOLDEN`` and ``MAOTUNE_GOLDEN_FEATURES`` name other folders of the same files, for instance with more of them.
"""

import os
import tempfile
import zipfile
from pathlib import Path

_unpacked = tempfile.TemporaryDirectory(prefix="maotune-golden-")  # removed when the tests end


def _folder(variable: str, archive: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given)
    folder = Path(_unpacked.name) / archive
    for path in Path(__file__).parent.glob(f"{archive}*.zip"):
        with zipfile.ZipFile(path) as numbers:
            numbers.extractall(folder)
    return folder


GOLDEN = _folder("MAOTUNE_GOLDEN", "numbers")
FEATURES = _folder("MAOTUNE_GOLDEN_FEATURES", "features")
"""Numbers of learners and labelers in feature space, and the made-up world of features that they were computed on."""
FAKE_DATASETS = Path(__file__).parent / "make_fake_datasets.py"
"""A script that writes small fake copies of the eleven data sets."""
