"""``task=train``: train a model, the default task."""

from omegaconf import DictConfig

from gptshake import assemble
from gptshake.record.launch import Launch


def run(cfg: DictConfig, launch: Launch) -> None:
    """Train what the config describes."""
    assemble.train(cfg, launch)
