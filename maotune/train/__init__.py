"""Tuning, resuming and scoring: knows the contract and no method."""

from maotune.train.averaging import GaussianAverage
from maotune.train.evaluate import Evaluation, Prediction, evaluate, harmonic_mean, predict
from maotune.train.history import EpochDone, EpochRecord, Event, History, StageDone, StageRecord, StageStarted, StepDone
from maotune.train.loop import FitSettings, TrainingDiverged, fit
from maotune.train.session import CheckpointError, load_prompts, restore_prompts, save_prompts

__all__ = [
    "CheckpointError",
    "EpochDone",
    "EpochRecord",
    "Evaluation",
    "Event",
    "FitSettings",
    "GaussianAverage",
    "History",
    "Prediction",
    "StageDone",
    "StageRecord",
    "StageStarted",
    "StepDone",
    "TrainingDiverged",
    "evaluate",
    "fit",
    "harmonic_mean",
    "load_prompts",
    "predict",
    "restore_prompts",
    "save_prompts",
]
