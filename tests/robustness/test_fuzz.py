"""Every reader against thousands of damaged and invented files: the right result, or an error of ours, soon, in little
memory. No mutation needs a network; each is a function of its number, so a failure can be repeated.
"""

import copy
import json
import linecache
import random
import resource
import signal
import struct
import tarfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

import maotune
from maotune.clip import load_clip
from maotune.clip.preprocess import Preprocess
from maotune.data.feature_bank import FeatureBank
from maotune.data.images.decode import ImageFile
from maotune.data.images.scan import scan_images
from maotune.data.images.shards import read_shard
from maotune.data.images.views import TestView as CentreView
from maotune.data.sets.class_names import read_class_names
from maotune.data.sets.dataset import Sample
from maotune.data.sets.tables import read_split_json, read_table
from maotune.learners.descriptions import read_descriptions
from maotune.mao.name_encoder import find_encoder
from maotune.mao.neighbours import hard_negatives
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.recipe import Recipe, load_recipe
from maotune.runs.inference import Inference
from maotune.runs.predictions import Scoring
from maotune.runs.result import Result, StageResult
from maotune.sweep.manifest import Sweep, Trial
from maotune.train.session import Session, TrainingState, read_metadata
from tests.clip.conftest import toy_config
from tests.clip.test_load import archive, openai_names
from tests.mao.test_name_encoder import write_encoder
from tests.toys import paint, paint_photos, toy_clip
from tests.train.toy import Toy

FEW, MANY = 30, 2000
"""Mutations of each reader, in the fast test and in the slow one."""
SECONDS = 5.0
MEMORY = 1 << 30
ROOT = str(Path(maotune.__file__).parent)

TOKENS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"[]", b"{}", b'""', b"[[[[", b"9" * 40, b'"\\ud800"'),
    *(b"\0", b"\xff\xfe", b"\x1b[2J", b",", b'"', b"\n", b"\t", b"\r", b": ", b"&a ", b"*a", b"../", b"<<: "),
    *(struct.pack("<Q", 2**63 - 1), struct.pack("<q", -1), struct.pack("<I", 2**31 - 1), b"\x80\x02", b"1" * 5000),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**9, 10**18, 10**40, 0.5, -1e308, float("nan"), float("inf"), "", "x", "\ud800", "a\0b"),
    *([], {}, [[]], [None], {"": {}}, ["x"] * 1000, {"a": {"b": {"c": []}}}, "9" * 10_000, "../x"),
)


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, overwrite, insert, delete, repeat or cut off, once to four times."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 2, 8, 100))
        match draw.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + size] = draw.randbytes(size)
            case 2:
                data[at:at] = draw.choice(TOKENS)
            case 3:
                token = draw.choice(TOKENS)
                data[at : at + len(token)] = token
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[at : at + size] * draw.choice((1, 2, 50))
            case _:
                del data[at : len(data) if draw.random() < 0.3 else at + 1]
    return bytes(data)


def mutated_tree(tree: Any, draw: random.Random) -> Any:
    """Replace, remove, rename or add a part of a JSON tree."""
    tree = copy.deepcopy(tree)
    node, places = tree, []
    while isinstance(node, dict | list) and node and (not places or draw.random() < 0.75):
        key = draw.choice([*node]) if isinstance(node, dict) else draw.randrange(len(node))
        places.append((node, key))
        node = node[key]
    parent, key = places[-1]
    match draw.randrange(4):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[draw.choice(("x", "", "name", "\x1b"))] = parent.pop(key)
        case _:
            parent[key] = draw.choice(VALUES)
    return tree


def mutated_json(content: bytes, draw: random.Random) -> bytes:
    """Mutate the tree, or the bytes; without a checksum, as older versions wrote it."""
    if draw.random() < 0.3:
        return mutated_bytes(content, draw)
    tree = json.loads(content)
    if isinstance(tree, dict):
        tree.pop("checksum", None)
    return json.dumps(mutated_tree(tree, draw)).encode()


def mutated_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Mutate the header, a JSON text in it, or the bytes."""
    if draw.random() < 0.3:
        return mutated_bytes(content, draw)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    texts = header.get("__metadata__", {})
    texts.pop("checksum", None)
    if texts and draw.random() < 0.7:
        name = draw.choice([*texts])
        try:
            texts[name] = json.dumps(mutated_tree(json.loads(texts[name]), draw))
        except (ValueError, IndexError):
            texts[name] = draw.choice(("", "[", "7"))
    else:
        header = mutated_tree(header, draw)
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]


def mutated_lines(content: bytes, draw: random.Random) -> bytes:
    """Mutate a JSON object of one line, or the bytes."""
    lines = content.splitlines()
    if draw.random() < 0.5:
        return mutated_bytes(content, draw)
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(mutated_tree(json.loads(lines[at]), draw)).encode()
    return b"\n".join(lines)


@dataclass(frozen=True)
class Reader:
    """A file that is good, and what reads it; what it returns is compared if ``right`` is given."""

    path: Path
    read: Callable[[], Any]
    mutate: Callable[[bytes, random.Random], bytes] = mutated_bytes
    right: Callable[[Any], bool] = lambda _: True


Make = Callable[[Path], Reader]


def checkpoint(folder: Path) -> Reader:
    learner = Toy()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    sum(parameter.square().sum() for parameter in learner.parameters()).backward()
    optimizer.step()
    state = TrainingState(learner, optimizer, torch.amp.GradScaler("cpu", enabled=False), None)

    def session(resume: bool) -> Session:
        return Session(folder, [], {"seed": 1}, {"recipe": {"lr": 1}}, resume=resume, every=60)

    session(False).save(state)
    path = folder / "checkpoint.safetensors"

    def read() -> None:
        read_metadata(path)
        session(True).restore(state)

    return Reader(path, read, mutated_safetensors)


def prompts(folder: Path) -> Reader:
    photos = paint_photos(folder, 2, 1, 1, 1)
    small = {"shots": 1, "epochs": 1, "data__views": 1, "learner__context_length": 4, "train__warmup_epochs": 0}
    run = maotune.tune(photos, clip=toy_clip(), **small, data__bank=False)
    path = run.save(folder / "good.safetensors")
    return Reader(path, lambda: maotune.load(path, clip=toy_clip()).learner(), mutated_safetensors)


def result(folder: Path) -> Reader:
    recipe = Recipe()
    stage: StageResult = {
        "name": "plain",
        "updates": 1,
        "images": 1,
        "seconds": 0.1,
        "losses": [{"a": 1.0}],
        "accuracy": {"h": 1.0},
    }
    Result(
        dataset="a", protocol="adapt", learner="coop", method="plain", seed=1, shots=1, scores={"val": 1.0},
        scored_with={"val": "plain"}, zeroshot={"val": 1.0}, stages=[stage], pseudo_labels={"images": 1.0},
        skipped=[{"name": "a", "reason": "b"}], templates=["a {}."], parameters=1, peak_memory=1, seconds=1.0,
        environment={"torch": "2"}, recipe=recipe.model_dump(mode="json"),
    ).save(folder)  # fmt: skip
    return Reader(folder / "result.json", lambda: Result.find(folder), mutated_json)


def manifest(folder: Path) -> Reader:
    Sweep.plan(folder, [Trial(folder / "one", "base-to-new", "", Recipe())], "maotune run base-to-new")
    return Reader(folder / "sweep.json", lambda: Sweep.read(folder), mutated_json)


def recipe(folder: Path) -> Reader:
    path = folder / "recipe.yaml"
    path.write_text("learner: {name: coop, context_length: 4}\nmao: &m {lr: 0.1}\nepochs: 3\ntrain: {decay: cosine}\n")
    return Reader(path, lambda: load_recipe(path))


class Tower:
    """A linear image tower."""

    fingerprint, dtype, device, joint_width = "linear", torch.float32, torch.device("cpu"), 4

    def encode_image(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4]


def bank_shard(folder: Path) -> Reader:
    samples = [Sample(ImageFile(paint(folder / "images" / f"{n}.png", (9, 99, n), n)), 0) for n in range(3)]
    view = CentreView(Preprocess(size=8))

    def read() -> Tensor:
        return FeatureBank(Tower(), folder / "cache").features(samples, view)

    good = read()
    (path,) = (folder / "cache").rglob("*.safetensors")
    return Reader(path, read, mutated_safetensors, lambda found: torch.equal(found, good))


def hard_negative_table(folder: Path) -> Reader:
    names = ["cat", "dog", "car", "bus"]
    good = hard_negatives(names, 2, cache=folder)
    (path,) = folder.glob("hard-negatives-*")
    right = lambda found: torch.equal(found, good)  # noqa: E731
    return Reader(path, lambda: hard_negatives(names, 2, cache=folder), mutated_safetensors, right)


def tiny_model(folder: Path) -> Any:
    """A CLIP of two layers with a vocabulary of five words beside it."""
    words = {name: number for number, name in enumerate(["<unk>", "cat", "dog", "<|startoftext|>", "<|endoftext|>"])}
    encoding = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    encoding.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    encoding.save(str(folder / "tokenizer.json"))
    config = toy_config()
    config.text_config.vocab_size = 5
    for part in (config.text_config, config.vision_config):
        part.hidden_size, part.intermediate_size, part.num_hidden_layers, part.num_attention_heads = 8, 8, 1, 2
    torch.manual_seed(0)
    return CLIPModel(config).eval()


def stated(folder: Path) -> None:
    towers = {"text_cfg": {"heads": 2}, "vision_cfg": {"head_width": 4}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True, **towers}}))


def loads(path: Path) -> Callable[[], Any]:
    def read() -> None:
        clip = load_clip(path, device="cpu")
        assert clip.encode_texts(["cat", "dog dog"]).shape == (2, clip.joint_width)

    return read


def clip_safetensors(folder: Path) -> Reader:
    tiny_model(folder).save_pretrained(folder)
    return Reader(folder / "model.safetensors", loads(folder), mutated_safetensors)


def clip_config(folder: Path) -> Reader:
    tiny_model(folder).save_pretrained(folder)
    return Reader(folder / "config.json", loads(folder), mutated_json)


def clip_tokenizer(folder: Path) -> Reader:
    tiny_model(folder).save_pretrained(folder)
    return Reader(folder / "tokenizer.json", loads(folder), mutated_json)


def clip_preprocessor(folder: Path) -> Reader:
    tiny_model(folder).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "resample": 3, "do_resize": True}))
    return Reader(folder / "preprocessor_config.json", loads(folder), mutated_json)


def clip_index(folder: Path) -> Reader:
    tiny_model(folder).save_pretrained(folder, max_shard_size="4KB")
    return Reader(folder / "model.safetensors.index.json", loads(folder), mutated_json)


def clip_zip(folder: Path) -> Reader:
    torch.save(openai_names(tiny_model(folder)), folder / "clip.pt")
    stated(folder)
    return Reader(folder / "clip.pt", loads(folder / "clip.pt"))


def clip_older_pickle(folder: Path) -> Reader:
    path = folder / "clip.pt"
    torch.save(openai_names(tiny_model(folder)), path, _use_new_zipfile_serialization=False)
    stated(folder)
    return Reader(path, loads(path))


def clip_torchscript(folder: Path) -> Reader:
    archive(openai_names(tiny_model(folder)), folder / "clip.pt")
    stated(folder)
    return Reader(folder / "clip.pt", loads(folder / "clip.pt"))


def clip_open_clip_config(folder: Path) -> Reader:
    torch.save(openai_names(tiny_model(folder)), folder / "clip.pt")
    stated(folder)
    return Reader(folder / "open_clip_config.json", loads(folder / "clip.pt"), mutated_json)


def tar_shard(folder: Path) -> Reader:
    path = folder / "a.tar"
    with tarfile.open(path, "w") as file:
        for number in range(3):
            file.add(paint(folder / f"{number}.png", (9, 9, 9), number), f"{number}.png")
    return Reader(path, lambda: scan_images([Sample(image, -1) for image in read_shard(path)]))


def class_list(folder: Path) -> Reader:
    path = folder / "classes.tsv"
    path.write_text("cat\ndog\tbig dog\n\nn01440764\tTench\n", encoding="utf-8")
    return Reader(path, lambda: read_class_names(path))


def table(suffix: str) -> Make:
    def make(folder: Path) -> Reader:
        path = folder / f"a.{suffix}"
        rows = [{"path": f"{n}.png", "label": "cat" if n % 2 else "dog", "split": "train"} for n in range(4)]
        for row in rows:
            paint(folder / row["path"], (9, 9, 9), 1)
        if suffix == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            separator = "\t" if suffix == "tsv" else ","
            path.write_text("\n".join(separator.join(each) for each in (rows[0], *(row.values() for row in rows))))
        return Reader(path, lambda: read_table(path), mutated_lines if suffix == "jsonl" else mutated_bytes)

    make.__name__ = suffix
    return make


def split_json(folder: Path) -> Reader:
    items = [[paint(folder / f"{n}.png", (9, 9, 9), n).name, n % 2, ("cat", "dog")[n % 2]] for n in range(4)]
    path = folder / "split_zhou_X.json"
    path.write_text(json.dumps({"train": items[:2], "val": items[2:3], "test": items[3:]}))
    return Reader(path, lambda: read_split_json(path), mutated_json)


def pseudo_labels(folder: Path) -> Reader:
    PseudoLabels(torch.tensor([0, 1]), torch.tensor([0.5, 0.9]), ("a", "b"), ("x", "y")).save(folder / "p.json")
    return Reader(folder / "p.json", lambda: PseudoLabels.load(folder / "p.json"), mutated_json)


def scoring(folder: Path) -> Reader:
    numbers = {"plain": {"val": [0]}}
    Scoring(classes={"val": ["a"]}, labels={"val": [0]}, predicted=numbers, pseudo_labels=None).save(folder)
    return Reader(folder / "scoring.json", lambda: Scoring.find(folder), mutated_json)


def inference(folder: Path) -> Reader:
    numbers = {"images_per_second": 1.0, "tower_images_per_second": 1.0, "batch_size": 1, "classes": 1, "threads": 1}
    Inference(**numbers, device="cpu").save(folder)
    return Reader(folder / "inference.json", lambda: Inference.find(folder), mutated_json)


def descriptions(folder: Path) -> Reader:
    path = folder / "d.json"
    path.write_text('{"cat": ["small", "furry"], "dog": "loud"}')
    return Reader(path, lambda: read_descriptions(str(path)), mutated_json)


def encoder_parts(folder: Path) -> Reader:
    write_encoder(folder)
    return Reader(folder / "modules.json", lambda: find_encoder(str(folder)).encode(["red fox"]), mutated_json)


def picture(suffix: str) -> Make:
    def make(folder: Path) -> Reader:
        path = folder / f"a.{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return Reader(path, lambda: ImageFile(path).read())

    make.__name__ = f"picture_{suffix}"
    return make


READERS: tuple[Make, ...] = (
    *(checkpoint, prompts, result, manifest, recipe, bank_shard, hard_negative_table, pseudo_labels, scoring),
    *(clip_safetensors, clip_config, clip_tokenizer, clip_preprocessor, clip_index, clip_zip, clip_older_pickle),
    *(clip_torchscript, clip_open_clip_config, tar_shard, class_list, split_json, descriptions, inference),
    encoder_parts,
    *map(table, ("csv", "tsv", "jsonl")),
    *map(picture, ("png", "jpg", "gif", "webp", "tif", "bmp", "ico", "ppm", "tga", "avif", "jp2")),
)


MENDED = (bank_shard, hard_negative_table, tar_shard, scoring, inference)
"""Readers of what can be computed again, or left out and listed: they refuse nothing."""


def is_ours(error: Exception) -> bool:
    """Whether an error was raised by a statement of the package, with a message, and not by a wrong value in it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    kind = isinstance(error, ValueError | FileNotFoundError | NotADirectoryError)
    return kind and bool(str(error)) and frame.filename.startswith(ROOT) and line.startswith("raise")


@contextmanager
def deadline() -> Iterator[None]:
    """Interrupt what takes too long."""

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_mutations(reader: Reader, numbers: range) -> int:
    """Read mutations of the reader's file; return how many were refused."""
    good = reader.path.read_bytes()
    reader.read()
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for number in numbers:
        reader.path.write_bytes(reader.mutate(good, random.Random(number)))
        try:
            with deadline():
                assert reader.right(reader.read()), f"mutation {number} gives a wrong result"
        except Exception as error:
            if not is_ours(error):
                raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
            refused += 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
    return refused


@pytest.mark.filterwarnings("ignore")  # libraries warn of what they repair
@pytest.mark.parametrize("make", READERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "numbers",
    [range(FEW), pytest.param(range(FEW, MANY + FEW), marks=(pytest.mark.slow, pytest.mark.long))],
    ids=len,
)
def test_a_reader_gives_the_right_result_or_an_error_of_ours(make: Make, numbers: range, tmp_path: Path) -> None:
    refused = try_mutations(make(tmp_path), numbers)
    assert refused or make in MENDED, "the mutations do no harm"
