"""A frozen teacher on a CLIP of its own, of which a student sees text features and scores."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP, Preprocess, load_clip
from maotune.contract import AbstractLearner, Batch, cosine_logits

OpenRun = Callable[[str], tuple[FrozenCLIP, AbstractLearner]]
"""Folder of a finished run -> its CLIP, and its learner with the tuned prompts."""


class Teacher:
    """Zero-shot CLIP, or a tuned learner. Not a module: nothing of it is tuned or saved with a student.

    Args:
        student: the CLIP of the student, for which images are prepared.
        source: what ``load_clip`` takes, for a zero-shot teacher; the folder of a run, for a tuned one; None: the
            student's own CLIP, zero-shot.
        template: the text of a zero-shot teacher, with ``{}`` for the class name.
        open_run: opens the folder of a run.

    Raises:
        ValueError: the folder of a run without ``open_run``, or a learner whose text features depend on the image.
    """

    def __init__(self, student: FrozenCLIP, source: str | None, template: str, open_run: OpenRun | None) -> None:
        self.preprocess, self.template = student.preprocess, template
        self.clip, self.learner = student, None
        if source is None:
            return
        if not _is_run(Path(source)):
            self.clip = load_clip(source, device=str(student.device))
            return
        if open_run is None:
            raise ValueError(f"teacher {source!r} is the folder of a run, but no open_run was given, which opens such")
        self.clip, learner = open_run(source)
        if learner.text_depends_on_image:
            raise ValueError(
                f"teacher {source!r} is a {type(learner).__name__}, whose text features depend on the image: a student "
                "takes them over once and for all, so give it a teacher of another learner"
            )
        self.learner = learner.eval().requires_grad_(False)

    @property
    @torch.no_grad()
    def width(self) -> int:
        """The width d of its features."""
        if self.learner is None:
            return self.clip.joint_width
        return self.learner.text_features(torch.zeros(1, dtype=torch.int64, device=self.clip.device)).shape[-1]

    @torch.no_grad()
    def bind(self, classes: Sequence[str]) -> Tensor:
        """(C, d) text features of ``classes``, d being the width of the teacher.

        Raises:
            ValueError: the teacher can not be bound to them.
        """
        if self.learner is None:
            self.text = self.clip.zeroshot_text(classes, (self.template,))
        else:
            self.learner.bind(classes)
            self.text = self.learner.text_features().detach()
        return self.text

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, C) scores of images (B, 3, h, w) that were prepared for the student."""
        seen = prepared_for(images, self.preprocess, self.clip.preprocess)
        if self.learner is None:
            return cosine_logits(self.clip.encode_image(seen), self.text, self.clip.logit_scale)
        labels = torch.zeros(len(seen), dtype=torch.int64, device=seen.device)  # not looked at
        return self.learner.logits(self.learner.image_features(Batch(labels, images=seen)), self.text)


def prepared_for(images: Tensor, given: Preprocess, wanted: Preprocess) -> Tensor:
    """Pixels (B, 3, h, w) that were sized and normalised as ``given`` says, brought to what ``wanted`` says."""
    if (given.size, given.mean, given.std) == (wanted.size, wanted.mean, wanted.std):
        return images

    def channels(values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, device=images.device).view(3, 1, 1)

    pixels = images * channels(given.std) + channels(given.mean)
    if given.size != wanted.size:
        size = (wanted.size, wanted.size)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels - channels(wanted.mean)) / channels(wanted.std)


def _is_run(path: Path) -> bool:
    """A folder, and not one that transformers wrote."""
    return path.is_dir() and not (path / "config.json").exists()
