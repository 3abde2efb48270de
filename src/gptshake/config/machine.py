"""Sizes that this machine cannot serve, refused before anything is built: a mistyped number must not fill the machine."""

from omegaconf import DictConfig, OmegaConf

from gptshake.errors import ConfigError
from gptshake.estimate.cost import n_parameters
from gptshake.estimate.words import short_bytes
from gptshake.hardware import logical_cores, memory_bytes
from gptshake.model.config import GPTConfig

MOST_PER_CORE = 16  # threads or processes; a record from a larger machine may ask for more than there are


def check_machine(cfg: DictConfig) -> None:
    """Hold the sizes of a run against the memory and the cores that are here.

    Raises:
        ConfigError: weights that do not fit into main memory, or more threads or processes than the cores can serve.
    """
    most = MOST_PER_CORE * logical_cores()
    for key in ("data.workers", "trainer.threads", "trainer.devices", "hydra.sweeper.executor.threads"):
        wanted = OmegaConf.select(cfg, key)
        if isinstance(wanted, int) and wanted > most:
            raise ConfigError(f"{key}={wanted} is more than this machine can serve with {logical_cores()} cores: at most {most} work.")
    if cfg.model is None or OmegaConf.get_type(cfg.model) is not GPTConfig:
        return
    shape = GPTConfig(**{str(key): value for key, value in cfg.model.items()})
    weights, there = 4 * n_parameters(shape, 0), memory_bytes()
    if weights > there:
        raise ConfigError(
            f"The weights of this model alone take {short_bytes(weights)} and this machine has {short_bytes(there)} of memory: "
            "choose a smaller model, or see what it needs with task=plan."
        )
