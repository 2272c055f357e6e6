"""Learners, one paper per file. ``LEARNERS`` is the only list of them."""

from maotune.contract import AbstractLearner
from maotune.learners.clap import CLAP
from maotune.learners.clip_adapter import CLIPAdapter
from maotune.learners.clip_lora import CLIPLoRA
from maotune.learners.cocoop import CoCoOp
from maotune.learners.coop import CoOp
from maotune.learners.coprompt import CoPrompt
from maotune.learners.gda import GDA
from maotune.learners.hicropl import HiCroPL
from maotune.learners.ivlp import IVLP
from maotune.learners.kgcoop import KgCoOp
from maotune.learners.linear import LinearProbe
from maotune.learners.lp_plus_plus import LPPlusPlus
from maotune.learners.maple import MaPLe
from maotune.learners.mmrl import MMRL
from maotune.learners.mmrl_plus_plus import MMRLPlusPlus
from maotune.learners.proda import ProDA
from maotune.learners.prolip import ProLIP
from maotune.learners.promptkd import PromptKD
from maotune.learners.promptsrc import PromptSRC
from maotune.learners.taskres import TaskRes
from maotune.learners.tcp import TCP
from maotune.learners.tip_adapter import TipAdapter
from maotune.learners.upt import UPT
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
    "upt": UPT,
    "mmrl": MMRL,
    "mmrl++": MMRLPlusPlus,
    "hicropl": HiCroPL,
    "taskres": TaskRes,
    "linear": LinearProbe,
    "lp++": LPPlusPlus,
    "clap": CLAP,
    "clip-adapter": CLIPAdapter,
    "tip-adapter": TipAdapter,
    "gda": GDA,
    "prolip": ProLIP,
    "clip-lora": CLIPLoRA,
}
