"""PromptKD: a student's visual prompts learn from a larger teacher on unlabelled images (Li et al., CVPR 2024)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.deep import VisualPrompts, pixels
from maotune.learners.teacher import OpenRun, Teacher


@final
class PromptKD(AbstractLearner):
    """Deep visual prompts and a projection P to the width of a teacher, which supplies scores and text features.

    q_s(x) = cos(P(f_s(x)), w_t) / tau_s for the student, with w_t the teacher's text features of the classes
    q_t(x) = cos(f_t(x), w_t) / tau_t for the teacher
    L_kd = T^2 KL(softmax(q_t / T), softmax(q_s / T)), the mean over images and classes, times a weight
    P(f) = B relu(batchnorm(A f + a)) + b

    Labels are not used and ``classify`` is not called: to this learner the images of every stage, also pseudo-labelled
    ones, are unlabelled, and a restricted cross-entropy has no effect. Its own method is ``distill``: the images of all
    classes in one stage. (``label_weight`` above 0 adds ``classify`` of the student's scores.) L_kd runs over all bound
    classes.

    The visual prompts and P are tuned; ``state_dict`` also holds the running mean and variance of its batch norm, which
    training sets and evaluation needs. Official names: ``visual.prompts.0`` is
    ``image_encoder.VPT``, ``visual.prompts.J`` is ``image_encoder.transformer.resblocks.J.VPT_shallow``, ``project.I``
    is ``VPT_image_trans.conv1.I`` (1 x 1 convolutions there, linear layers here).

    Args:
        clip: the frozen model of the student.
        classes: the names to bind first.
        open_run: opens the folder of a run, needed if ``teacher`` is one.
        teacher: the folder of a finished run (published: PromptSRC on ViT-L/14), for its tuned prompts; or a source of
            ``load_clip``, for that CLIP zero-shot; None: the student's own CLIP, zero-shot. A larger one is better.
        template: text of a zero-shot teacher, with ``{}`` for the class name.
        visual_length: tokens after the patches.
        depth: image layers with tokens of their own.
        temperature: T.
        weight: of L_kd. Published: 1000, and 200 on Flowers, Aircraft and DTD.
        label_weight: of the cross-entropy. Published: 0, without labels.
    """

    tunes_image_tower = True
    uses_frozen_features = False
    scores_all_classes = True
    learns_from_run = True

    text: Tensor
    """(C, d) text features of the teacher, not saved."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        open_run: OpenRun | None = None,
        *,
        teacher: str | None = None,
        template: str = "a photo of a {}.",
        visual_length: int = 4,
        depth: int = 9,
        temperature: float = 1.0,
        weight: float = 1000.0,
        label_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: it must be above 0")
        self.logit_scale = clip.logit_scale
        self.temperature, self.weight, self.label_weight = temperature, weight, label_weight
        self.uses_labels = label_weight > 0
        self.teacher = Teacher(clip, teacher, template, open_run)
        self.visual = VisualPrompts(clip, visual_length, depth)
        width = self.teacher.width
        self.project = nn.Sequential(
            nn.Linear(clip.joint_width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        ).to(clip.device)
        self.register_buffer("text", torch.empty(0, width, device=clip.device), persistent=False)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Compute the teacher's text features of ``classes``. See ``AbstractLearner.bind``."""
        if not classes:
            raise ValueError("no class names were given: at least one is needed to bind a learner")
        self.text = self.teacher.bind(classes)
        self.classes = tuple(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) projected features of the images, with the visual prompts; d is the teacher's width."""
        projected: Tensor = self.project(self.visual.encode(batch))
        return projected

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) text features of the teacher, computed when the classes were bound."""
        return self.text if only is None else self.text[only]

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the distillation loss, and the cross-entropy if ``label_weight`` is above 0."""
        teacher = self.teacher.logits(pixels(batch)) / self.temperature  # (B, C)
        student = output.logits / self.temperature
        divergence = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum") / student.numel()
        terms = {"distillation": self.weight * self.temperature**2 * divergence}
        if self.label_weight:
            terms["cross_entropy"] = self.label_weight * classify(output.logits, batch.labels)
        return terms
