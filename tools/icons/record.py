"""Record what the pretraining saw, for the leak tests: `python -m tools.icons.record --work DIR`.

Writes `tests/golden/iconclip-corpus.zip`: the name of each icon and a hash of its thumbnail. The hash has 128 bits, the
signs of the thumbnail along fixed random directions: copies have the same bits, and pictures that differ by a little
have not.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.icons.corpus import corpus_drawings
from tools.icons.duplicates import normalised, thumbs_of

OUT = Path(__file__).parents[2] / "tests" / "golden" / "iconclip-corpus.zip"
BITS = 128


def hashes(thumbs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Hashes of thumbnails (N, 32, 32), as packed bits: (N, 16)."""
    directions = np.random.RandomState(0).standard_normal((thumbs.shape[1] * thumbs.shape[2], BITS)).astype(np.float32)
    return np.packbits(normalised(thumbs) @ directions > 0, axis=1)


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where the corpus is")
    work: Path = parser.parse_args().work
    drawings = corpus_drawings(work)
    buffer = io.BytesIO()
    np.save(buffer, hashes(thumbs_of(work, drawings)))
    with zipfile.ZipFile(OUT, "w") as archive:
        for entry, content in (
            ("icons.txt", "\n".join(drawings).encode()),
            ("hashes.npy", buffer.getvalue()),
        ):
            info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=9)
    print(f"{len(drawings)} icons, {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
