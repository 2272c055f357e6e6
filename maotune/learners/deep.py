"""Deep prompts: learned tokens at the input of the first layers of a tower, as parts of learners.

``prompts[j]`` (L, W) are the tokens at the input of layer j, where they replace the outputs of layer j - 1 for its
tokens. The outputs of the last prompted layer are not replaced.
"""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.base import ClassNames, initial_context


def check_depth(setting: str, depth: int, tower: str, layers: int) -> None:
    """Check that ``depth`` layers of a tower can have prompts.

    Raises:
        ValueError: the tower has fewer layers, or ``depth`` is below 1.
    """
    if not 1 <= depth <= layers:
        raise ValueError(
            f"{setting} is {depth}, but the {tower} tower of this CLIP has {layers} layers: choose 1 to {layers}"
        )


def random_prompts(length: int, width: int) -> nn.Parameter:
    """Return (L, W) tokens, normal with standard deviation 0.02."""
    return nn.Parameter(torch.empty(length, width).normal_(std=0.02))


class TextPrompts(nn.Module):
    """Deep prompts of the text tower, around the names of the bound classes.

    A text is ``[SOS] [V]_1 ... [V]_L words name . [EOT]``. The V of the first layer start as the first L tokens of
    ``initial_words``, those of deeper layers are random. Words beyond the first L tokens stay in the text, frozen, as
    in MaPLe's code, whose 2 tokens start as "a photo" and are followed by "of a NAME."

    Args:
        clip: the frozen model.
        length: L.
        depth: layers with prompts.
        initial_words: None: random tokens, and no words after them.
        setting: name of the learner's setting for ``depth``, for error messages.
    """

    words: Tensor

    def __init__(
        self, clip: FrozenCLIP, length: int, depth: int, initial_words: str | None, *, setting: str = "depth"
    ) -> None:
        super().__init__()
        check_depth(setting, depth, "text", clip.text_layers)
        ids = torch.empty(0, dtype=torch.int64, device=clip.device)
        if initial_words is not None:
            tokens = clip.tokenize([initial_words.replace("_", " ")])
            ids = tokens.ids[0, 1 : int(tokens.eot[0])].to(clip.device)
        if len(ids) > length >= 1:
            context = clip.embed(ids[:length]).detach().clone()
        else:  # exactly L words, none, or too few, which are refused
            context = initial_context(clip, length, initial_words)
        self.clip = clip
        self.register_buffer("words", ids[length:], persistent=False)
        self.names = ClassNames(clip)
        self.prompts = nn.ParameterList(
            [nn.Parameter(context), *(random_prompts(length, clip.text_width) for _ in range(1, depth))]
        ).to(clip.device)

    def bind(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Put the prompts before the names ``classes``; see ``ClassNames.bind``."""
        return self.names.bind(classes, len(self.prompts[0]) + len(self.words))

    def encode(self, only: Tensor | None, prompts: Sequence[Tensor] | None = None) -> Tensor:
        """Return (H, d) features of the texts of the classes ``only`` (None: all), with its own prompts or others."""
        first, *deeper = prompts or self.prompts
        name, eot = self.names.select(only)
        prefix = torch.cat([self.names.start(), first, self.clip.embed(self.words)])
        return self.clip.encode_text(prefix[None], name, eot, dict(enumerate(deeper, start=1)))


class VisualPrompts(nn.Module):
    """Deep prompts of the image tower: L random tokens after class token and patches, in each of the first layers."""

    def __init__(self, clip: FrozenCLIP, length: int, depth: int, *, setting: str = "depth") -> None:
        super().__init__()
        check_depth(setting, depth, "image", clip.vision_layers)
        if length < 1:
            raise ValueError(f"visual_length is {length}: at least 1 token is needed")
        self.clip = clip
        prompts = [random_prompts(length, clip.vision_width) for _ in range(depth)]
        self.prompts = nn.ParameterList(prompts).to(clip.device)

    def encode(self, batch: Batch, prompts: Sequence[Tensor] | None = None) -> Tensor:
        """Return (B, d) features of the images of the batch, with its own prompts or others."""
        return self.clip.encode_image(pixels(batch), prompts or list(self.prompts))


class Couplings(nn.ModuleList):
    """Projections from textual to visual prompts: one linear layer for each prompted layer."""

    def __init__(self, clip: FrozenCLIP, depth: int) -> None:
        check_depth("depth", depth, "image", clip.vision_layers)
        first, deeper = (nn.Linear(clip.text_width, clip.vision_width) for _ in range(2))
        # The projections of the deeper layers start equal, as in MaPLe's code.
        super().__init__([first, *(deepcopy(deeper) for _ in range(1, depth))])
        self.clip = clip
        self.to(clip.device)

    def encode(self, batch: Batch, text: TextPrompts) -> Tensor:
        """Return (B, d) features of the images of the batch, with visual prompts projected from those of ``text``."""
        visual = [coupling(prompt) for coupling, prompt in zip(self, text.prompts, strict=True)]
        return self.clip.encode_image(pixels(batch), visual)


def pixels(batch: Batch) -> Tensor:
    """Return the images (B, 3, h, w) of a batch, which prompts in the image tower need.

    Raises:
        ValueError: the batch holds features only.
    """
    if batch.images is None:
        raise ValueError(
            "this learner tunes the image tower (tunes_image_tower) and needs the images themselves, but the batch "
            "holds features only"
        )
    return batch.images


class DeepPromptLearner(AbstractLearner):
    """A learner with prompts in both towers, independent of each other, and the cross-entropy as its loss.

    A subclass binds the classes at the end of its constructor, when all its attributes exist.
    """

    tunes_image_tower = True
    uses_frozen_features = False
    prompts_are_parameters = True

    def __init__(self, clip: FrozenCLIP, text: TextPrompts, visual: VisualPrompts) -> None:
        super().__init__()
        self.clip = clip
        self.logit_scale = clip.logit_scale
        self.text = text
        self.visual = visual

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.text.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the images, with the visual prompts."""
        return self.visual.encode(batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        return self.text.encode(only)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}


class JointPromptLearner(AbstractLearner):
    """A learner whose prompts of both towers are made together, once in a forward pass; its loss is the cross-entropy.

    Layers that draw random numbers (dropout) then give both towers the same prompts.
    """

    tunes_image_tower = True
    uses_frozen_features = False

    @abstractmethod
    def prompts(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the prompts (L, W) of the first text layers, and those (L, V) of the first image layers."""

    @abstractmethod
    def encode_texts(self, prompts: Sequence[Tensor], only: Tensor | None) -> Tensor:
        """Return (H, d) features of the texts of the classes ``only`` with these prompts."""

    @abstractmethod
    def encode_images(self, prompts: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return (B, d) features of the images with these prompts."""

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the images, with the visual prompts."""
        return self.encode_images(self.prompts()[1], batch)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        return self.encode_texts(self.prompts()[0], only)

    def forward(self, batch: Batch, only: Tensor | None = None) -> Output:
        """Return features and scores. See ``AbstractLearner.forward``."""
        textual, visual = self.prompts()
        image, text = self.encode_images(visual, batch), self.encode_texts(textual, only)
        return Output(image, text, self.logits(image, text, only))

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}
