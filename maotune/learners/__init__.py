"""Learners, one paper per file. ``LEARNERS`` is the only list of them."""

from maotune.contract import AbstractLearner
from maotune.learners.cocoop import CoCoOp
from maotune.learners.coop import CoOp
from maotune.learners.coprompt import CoPrompt
from maotune.learners.gda import GDA
from maotune.learners.ivlp import IVLP
from maotune.learners.kgcoop import KgCoOp
from maotune.learners.maple import MaPLe
from maotune.learners.proda import ProDA
from maotune.learners.promptkd import PromptKD
from maotune.learners.promptsrc import PromptSRC
from maotune.learners.taskres import TaskRes
from maotune.learners.tcp import TCP
from maotune.learners.vpt import VPT

LEARNERS: dict[str, type[AbstractLearner]] = {
    "coop": CoOp,
    "cocoop": CoCoOp,
    "kgcoop": KgCoOp,
    "proda": ProDA,
    "tcp": TCP,
    "vpt": VPT,
    "ivlp": IVLP,
    "maple": MaPLe,
    "promptsrc": PromptSRC,
    "coprompt": CoPrompt,
    "promptkd": PromptKD,
    "taskres": TaskRes,
    "gda": GDA,
}
