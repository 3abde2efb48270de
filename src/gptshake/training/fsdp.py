"""trainer=fsdp: every rank keeps a shard of each weight, gradient and moment, and gathers one block while it works on it.

Lightning's own FSDPStrategy wants a GPU; this one is its DDP strategy with torch's ``fully_shard`` in the place of the wrapper, and
runs on CPUs, too. Checkpoints are those of one device: weights are loaded into main memory, sharded block by block on the way to the
devices, and gathered tensor by tensor into the main memory of rank 0 to be saved.
"""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class ShardedStrategy(DDPStrategy):
    """Fully sharded data parallelism (Rajbhandari et al. 2020, ZeRO stage 3; torch's FSDP2)."""

    def model_to_device(self) -> None:
        """Not as a whole, for which the memory may not suffice."""

    def configure_ddp(self) -> None:
        """Shard the network, the blocks of each of its lists one by one, so that only one of them is whole at a time, on the device, too."""
        assert self.lightning_module is not None
        network: Any = self.lightning_module.model
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for block in [block for part in network.modules() if isinstance(part, nn.ModuleList) for block in part]:
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
        self.lightning_module.to(self.root_device)  # what is no shard, and the module's own word for where it is

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: self._gathered(value) for name, value in super().lightning_module_state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole moments, on rank 0, in the form that one device gives them."""
        found = (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        moments = found["state"].items()
        found["state"] = {number: {name: self._gathered(value) for name, value in state.items()} for number, state in moments}
        return found

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Shard the moments like the weights that they belong to."""
        for optimizer, found in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            numbers = [number for group in found["param_groups"] for number in group["params"]]
            state = {
                number: {name: _like(weight, value) for name, value in found["state"].get(number, {}).items()}
                for number, weight in zip(numbers, weights, strict=True)
            }
            optimizer.load_state_dict({**found, "state": state})

    def _gathered(self, value: Any) -> Any:
        """The whole of which this rank has a shard, in the main memory of rank 0; all ranks must ask, and the others get nothing."""
        if not isinstance(value, Tensor):
            return value
        gathered = value.full_tensor() if isinstance(value, DTensor) else value
        return gathered.cpu() if self.is_global_zero else None

    def teardown(self) -> None:
        """Leave the shards where they are: they cannot be moved to the CPU as whole weights are."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def load_whole(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network, sharded or not, its whole weights; all ranks must do it at once."""
    network.load_state_dict({name: _like(part, weights[name]) for name, part in network.state_dict().items()})


def _like(weight: Tensor, value: Any) -> Any:
    """A moment sharded as its weight; step counters stay whole."""
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
