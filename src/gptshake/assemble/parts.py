"""A node of the config becomes an object: the one place that instantiates."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from gptshake.errors import ConfigError, GptshakeError


def make(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config node; our own errors come out as they were raised, not in Hydra's wrapping.

    Raises:
        ConfigError: what the node names as its target cannot be imported.
        GptshakeError: it cannot be built.
    """
    try:
        return instantiate(node, **objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, GptshakeError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, ImportError):
            reason = error.__cause__.__cause__ or error.__cause__
            raise ConfigError(
                f"_target_: {node.get('_target_')} cannot be imported ({reason}). A file of your own is looked for in the folder where you type."
            ) from error
        raise GptshakeError(
            f"{node.get('_target_')} cannot be built with its keys: {' '.join(str(error.__cause__ or error).split())}"
        ) from error


def builder(node: DictConfig) -> Any:
    """The node's target alone, to be called with objects (Hydra would turn dataclasses among them into config)."""
    return instantiate({"_target_": node._target_, "_partial_": True})
