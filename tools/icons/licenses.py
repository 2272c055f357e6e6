"""The table of every icon set whose art is in the weights or in the suite: `python -m tools.icons.licenses --work
DIR`."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections import Counter
from pathlib import Path

from maotune.data.sets.icons import FIRST_EDITION, FOLDER, SETS
from tools.icons.clipart import PACKAGE as CLIPART_PACKAGE
from tools.icons.sources import PACKAGES, icon_sets

OUT = FOLDER.parent / "LICENSES.md"

HEAD = """# Licences of the shipped assets

The embedded model IconCLIP was trained on icons of the sets below, and the drawings of the shipped sets are other icons
of them, rendered to 64 x 64 pixels. All of them come from the npm package `{package}`; emoji names are
those of the npm package `{emoji}` (Unicode names, MIT). Sets under the GPL or with a non-commercial clause
were left out of both. The pictures of icons-clipart are in the public domain (Open Clip Art Library, Debian package
`{clipart}`).

The pictures stay under the licences of their sets: whoever passes on `icons-11/*.zip`, or images exported from them,
names the authors, and passes on the OpenMoji pictures under CC BY-SA 4.0. Logos and brand names belong to their owners.
The weights of IconCLIP are under this project's licence. The vocabulary in `clip_bpe` has its licence beside it.

"Trained on" counts the icons of the pretraining, "in the sets" the drawings that ship. No icon is both.

| set | title | author | licence | trained on | in the sets |
|---|---|---|---|---:|---:|
"""


def contributions(work: Path) -> tuple[Counter[str], Counter[str]]:
    """Icons of each set in the pretraining corpus, and drawings of each set that ship."""
    index = json.loads((work / "corpus" / "index.json").read_text(encoding="utf-8"))
    corpus = Counter(index["mono"]["set"] + index["color"]["set"])
    suite: Counter[str] = Counter()
    for name in (*SETS, *FIRST_EDITION):
        with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
            suite.update(Path(entry).name.split("--")[0] for entry in archive.namelist() if entry.endswith(".webp"))
    return corpus, suite


def main() -> None:
    """Write `maotune/assets/LICENSES.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/icons"), help="where the sources and the corpus are")
    work: Path = parser.parse_args().work
    sets = icon_sets(work)
    corpus, suite = contributions(work)
    rows = []
    for prefix in sorted({*corpus, *suite}):
        entry = sets[prefix]
        license_ = f"[{entry.license}]({entry.license_url})" if entry.license_url else entry.license
        author = entry.author.replace("|", "/")
        rows.append(
            f"| {prefix} | {entry.title} | {author} | {license_} | {corpus[prefix] or ''} | {suite[prefix] or ''} |"
        )
    head = HEAD.format(package=PACKAGES["iconify"], emoji=PACKAGES["emoji"], clipart=CLIPART_PACKAGE)
    OUT.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} sets, {sum(corpus.values())} icons trained on, {sum(suite.values())} drawings shipped")


if __name__ == "__main__":
    main()
