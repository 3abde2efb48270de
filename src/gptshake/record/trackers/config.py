"""Schemas of ``conf/logger``: what Hydra accepts; a tracker inherits its own, so that a default is written once. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(init=False, repr=False, eq=False)
class WandbConfig:
    """Weights & Biases."""

    project: str | None = None  # null is that of the variable WANDB_PROJECT, else gptshake
    entity: str | None = None  # team or user; null is that of the variable WANDB_ENTITY, else the key's own
    mode: str = "auto"  # auto (online with a key, else offline; WANDB_MODE decides before that), online, offline
    every: int = 10  # optimizer steps per logged row; one with a validation is always logged
    artifacts: str = "none"  # none, best (tokenizer, description of the data and best weights; never a trial's)
    _target_: str = "gptshake.record.trackers.wandb.WandbTracker"


@dataclass(init=False, repr=False, eq=False)
class TensorBoardConfig:
    """TensorBoard."""

    every: int = 10  # optimizer steps per logged row; one with a validation is always logged
    _target_: str = "gptshake.record.trackers.tensorboard.TensorBoardTracker"


@dataclass(init=False, repr=False, eq=False)
class MlflowConfig:
    """MLflow."""

    experiment: str | None = None  # null is that of the variable MLFLOW_EXPERIMENT_NAME, else gptshake
    uri: str | None = None  # database or server; null is that of the variable MLFLOW_TRACKING_URI, else sqlite:///mlflow.db
    every: int = 10  # optimizer steps per logged row; one with a validation is always logged
    _target_: str = "gptshake.record.trackers.mlflow.MlflowTracker"


@dataclass(init=False, repr=False, eq=False)
class TrackioConfig:
    """trackio."""

    project: str = "gptshake"
    every: int = 10  # optimizer steps per logged row; one with a validation is always logged
    _target_: str = "gptshake.record.trackers.trackio.TrackioTracker"
