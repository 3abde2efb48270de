"""``hydra/sweeper=gptshake``: a thin shim, scanned at every start of every Hydra app in the environment, so it imports late."""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from gptshake.sweep.config import SweeperConfig

ConfigStore.instance().store(group="hydra/sweeper", name="gptshake", node=SweeperConfig, provider="gptshake")


class GptshakeSweeper(Sweeper):
    """Searches with Optuna, without a barrier, in processes of their own; see ``SweeperConfig`` for the options."""

    hydra_context: HydraContext
    config: DictConfig

    def __init__(self, **options: Any) -> None:
        self.options = SweeperConfig(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run or continue the study that these overrides mean.

        Returns:
            One list with the ``JobReturn`` of every job; of gptshake's own runs nothing, for their records say more.
        """
        from hydra_plugins.gptshake_sweeper._app import HydraApp

        return HydraApp(self.hydra_context, self.task_function, self.config).sweep(self.options, arguments)
