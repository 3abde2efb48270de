"""One composition of the config with Hydra's public ``compose()``, for checks and names before anything runs."""

from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from gptshake.config.layout import local_conf, packaged_conf
from gptshake.config.root import RootConfig
from gptshake.data.config import TextConfig, WikiConfig
from gptshake.model.config import GPTConfig
from gptshake.optim.config import AdamWConfig, ConstantConfig, CosineConfig, GPT3Config, OneCycleConfig
from gptshake.record.sinks.config import WandbConfig
from gptshake.tokenizer.config import CharConfig
from gptshake.training.config import TrainerConfig

# Light dataclasses beside the part that they describe; an option names its own in its defaults list, so that an
# option of a user's own needs none.
SCHEMAS: dict[str, dict[str, Any]] = {
    "model": {"gpt_schema": GPTConfig},
    "data": {"wiki_schema": WikiConfig, "text_schema": TextConfig},
    "tokenizer": {"char_schema": CharConfig},
    "optimizer": {"adamw_schema": AdamWConfig},
    "scheduler": {
        "gpt3_schema": GPT3Config,
        "one_cycle_schema": OneCycleConfig,
        "cosine_schema": CosineConfig,
        "constant_schema": ConstantConfig,
    },
    "trainer": {"trainer_schema": TrainerConfig},
    "logger": {"wandb_schema": WandbConfig},
}


def register_schemas() -> None:
    """Put every schema into Hydra's store; to be called before any composition."""
    store = ConfigStore.instance()
    store.store(name="root_schema", node=RootConfig)
    for group, nodes in SCHEMAS.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)


def config_dir(overrides: list[str]) -> Path:
    """The tree that wins: the packaged one, or the user's own ``./conf`` when the overrides say ``conf_shadow=true``."""
    local = local_conf()
    return local if local and "conf_shadow=true" in overrides else packaged_conf()


def search_path(overrides: list[str]) -> list[str]:
    """The override that puts the other tree behind ``config_dir``, so that it adds and never replaces."""
    other = [folder for folder in (packaged_conf(), local_conf()) if folder and folder != config_dir(overrides)]
    return [f"hydra.searchpath=['file://{folder}']" for folder in other]


def compose(overrides: list[str]) -> DictConfig:
    """Compose the config that these overrides give, as the run will see it (without Hydra's own node)."""
    return _compose(overrides)


def choices(overrides: list[str]) -> dict[str, str]:
    """Which option each group has: group -> option, groups without one left out."""
    cfg = _compose(overrides, return_hydra_config=True)
    return {str(group): str(name) for group, name in cfg.hydra.runtime.choices.items() if name is not None and "/" not in str(group)}


def _compose(overrides: list[str], **options: bool) -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(config_dir(overrides)), version_base="1.3", job_name="gptshake"):
        return hydra_compose("config", overrides=search_path(overrides) + overrides, **options)
