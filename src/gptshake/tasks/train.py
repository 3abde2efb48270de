"""``task=train``: train a model, the default task."""

from omegaconf import DictConfig

from gptshake import assemble
from gptshake.record.launch import Launch


def run(cfg: DictConfig, launch: Launch) -> dict[str, float]:
    """Train what the config describes; returns the summary: final losses, bpb, tokens."""
    return assemble.train(cfg, launch)
