"""Numbers that the official code computed (README.md): ``GOLDEN`` is a folder that holds them.

``MAOTUNE_GOLDEN`` names another folder of the same files, for instance with more of them.
"""

import os
import tempfile
import zipfile
from pathlib import Path

if given := os.environ.get("MAOTUNE_GOLDEN"):
    GOLDEN = Path(given)
else:
    _unpacked = tempfile.TemporaryDirectory(prefix="maotune-golden-")  # removed when the tests end
    GOLDEN = Path(_unpacked.name)
    with zipfile.ZipFile(Path(__file__).parent / "numbers.zip") as archive:
        archive.extractall(GOLDEN)
FAKE_DATASETS = Path(__file__).parent / "make_fake_datasets.py"
"""A script that writes small fake copies of the eleven data sets."""
