"""A frozen teacher with its own CLIP, whose text features and scores a student learns from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP, Preprocess, load_clip
from maotune.contract import AbstractLearner, Batch, cosine_logits

OpenRun = Callable[[str], tuple[FrozenCLIP, AbstractLearner]]
"""Opens the folder of a finished run: returns its CLIP, and its learner with the tuned prompts."""


class Teacher:
    """Zero-shot CLIP or a tuned learner. It is no module: nothing of it is tuned or saved with a student.

    Args:
        student: the CLIP of the student, for which images are prepared.
        source: a source of ``load_clip``, for a zero-shot teacher; the folder of a run, for a tuned one; None: the
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
            raise ValueError(f"teacher {source!r} is the folder of a run, which needs open_run to open it: give one")
        self.clip, learner = open_run(source)
        if learner.text_depends_on_image:
            raise ValueError(
                f"teacher {source!r} is a {type(learner).__name__}, whose text features depend on the image: a student "
                "needs fixed ones, so choose a run of another learner"
            )
        self.learner = learner.eval().requires_grad_(False)

    @property
    @torch.no_grad()
    def width(self) -> int:
        """Width d of the teacher's features."""
        if self.learner is None:
            return self.clip.joint_width
        return self.learner.text_features(torch.zeros(1, dtype=torch.int64, device=self.clip.device)).shape[-1]

    @torch.no_grad()
    def bind(self, classes: Sequence[str]) -> Tensor:
        """Return (C, d) text features of ``classes``, where d is the width of the teacher.

        Raises:
            ValueError: the teacher cannot be bound to them.
        """
        if self.learner is None:
            self.text = self.clip.zeroshot_text(classes, (self.template,))
        else:
            self.learner.bind(classes)
            self.text = self.learner.text_features().detach()
        return self.text

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return (B, C) scores of images (B, 3, h, w) that were prepared for the student."""
        prepared = prepared_for(images, self.preprocess, self.clip.preprocess)
        if self.learner is None:
            return cosine_logits(self.clip.encode_image(prepared), self.text, self.clip.logit_scale)
        labels = torch.zeros(len(prepared), dtype=torch.int64, device=prepared.device)  # not used
        return self.learner.logits(self.learner.image_features(Batch(labels, images=prepared)), self.text)


def prepared_for(images: Tensor, source: Preprocess, target: Preprocess) -> Tensor:
    """Resize and normalise images (B, 3, h, w) as ``target`` says that were preprocessed as ``source`` says."""
    if (source.size, source.mean, source.std) == (target.size, target.mean, target.std):
        return images

    def channels(values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, device=images.device).view(3, 1, 1)

    pixels = images * channels(source.std) + channels(source.mean)
    if source.size != target.size:
        size = (target.size, target.size)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels - channels(target.mean)) / channels(target.std)


def _is_run(path: Path) -> bool:
    """Tell the folder of a run from that of a transformers model."""
    return path.is_dir() and not (path / "config.json").exists()
