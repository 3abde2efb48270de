"""trainer=fsdp: every rank keeps a shard of each weight, gradient and moment, and gathers one block while it works on it.

Lightning's own FSDPStrategy wants a GPU; this one is its DDP strategy with torch's ``fully_shard`` in the place of the wrapper, and
runs on CPUs, too. Gradients are reduced and sharded after every micro-batch. Every rank writes and reads its own rows of a checkpoint:
nothing is gathered. At the start alone each process has the whole network in main memory, as it is drawn or read.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed import new_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo, ShardPlacementResult
from torch.distributed.tensor import DTensor, Shard

from gptshake.distributed import PATIENCE, Ranks
from gptshake.training.checkpoint import Shards, first_row, load, save
from gptshake.training.device import HALF

PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose weights autocast casts


class ShardedStrategy(DDPStrategy):
    """Fully sharded data parallelism (Rajbhandari et al. 2020, ZeRO stage 3; torch's FSDP2)."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Read a checkpoint when the network is sharded, each rank its rows."""
        return True

    @property
    def _ranks(self) -> Ranks:
        return Ranks(self.global_rank, self.world_size)

    def model_to_device(self) -> None:
        """Not as a whole, for which the memory may not suffice."""

    def configure_ddp(self) -> None:
        """Shard the network, the blocks of its lists one by one, so that only one of them is whole at a time, on the device, too."""
        assert self.lightning_module is not None
        network: Any = self.lightning_module.model
        kind = self.root_device.type
        mesh = init_device_mesh(kind, (self.world_size,))
        half = HALF.get(str(self.precision_plugin.precision))
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False) if half else MixedPrecisionPolicy()
        # What autocast computes in fp32 travels in fp32: the residual stream, and all weights but those of products.
        in_fp32 = FSDPMeshInfo(DeviceMesh.from_group(new_group(timeout=PATIENCE), kind), shard_mesh_dim=0) if half else None
        for block in dict.fromkeys(_blocks(network)):
            fully_shard(block, mesh=mesh, mp_policy=policy, shard_placement_fn=_groups_of(block, in_fp32) if in_fp32 else None)
            if in_fp32:
                block.register_forward_pre_hook(partial(_gather_as_computed, in_fp32), prepend=True)
        fully_shard(network, mesh=mesh)
        self.lightning_module.to(self.root_device)  # what is no shard, and the module's own word for where it is

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        save(checkpoint, Path(filepath), self._ranks)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return load(Path(checkpoint_path), self._ranks)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_shards(self.lightning_module, checkpoint["state_dict"], self._ranks)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Shard the moments like the weights that they belong to."""
        for optimizer, found in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            numbers = [number for group in found["param_groups"] for number in group["params"]]
            state = {
                number: {name: _own_rows(weight, value, self._ranks) for name, value in found["state"].get(number, {}).items()}
                for number, weight in zip(numbers, weights, strict=True)
            }
            optimizer.load_state_dict({**found, "state": state})

    def teardown(self) -> None:
        """Leave the shards where they are: they cannot be moved to the CPU as whole weights are."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def load_shards(network: nn.Module, weights: Mapping[str, Shards], ranks: Ranks) -> None:
    """Give a sharded network this rank's rows of its weights."""
    own = network.state_dict()
    network.load_state_dict({name: _own_rows(own.get(name), value, ranks) for name, value in weights.items()})


def _own_rows(weight: Tensor | None, value: Any, ranks: Ranks) -> Any:
    """The rows of a stored tensor that go with this rank's rows of a weight; step counters and what is not sharded stay whole."""
    if not isinstance(value, Shards):
        return value
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value.whole()
    first = first_row(len(weight), ranks)
    rows = value.rows(first, first + len(weight.to_local())).to(weight.device)
    return DTensor.from_local(rows, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride())


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of the outermost lists in a module, unless they have no weights."""
    for part in module.children():
        is_block = isinstance(module, nn.ModuleList) and not isinstance(part, nn.ModuleList | nn.ModuleDict)
        if not is_block:
            yield from _blocks(part)
        elif any(True for _ in part.parameters()):
            yield part


def _groups_of(block: nn.Module, in_fp32: FSDPMeshInfo) -> Callable[[nn.Parameter], ShardPlacementResult | None]:
    """Which weights of a block are a group of their own, as FSDP2 reduces gradients of one type at a time: those that autocast does not cast."""
    cast = {weight for part in block.modules() if isinstance(part, PRODUCTS) for weight in part.parameters(recurse=False)}
    return lambda weight: None if weight in cast else ShardPlacementResult(Shard(0), in_fp32)


def _gather_as_computed(in_fp32: FSDPMeshInfo, block: Any, inputs: Any) -> None:
    """Before a block's weights are gathered: they travel in the type in which autocast computes, or in fp32 where it is off, as in a validation.

    A policy of torch's is for all passes, so this sets what it is read into; the buffers, which have the other type, are empty between passes.
    """
    for group in block._get_fsdp_state()._fsdp_param_groups:
        for weight in group.fsdp_params:
            kind = weight.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and group.mesh_info is not in_fp32 else None
            if weight.param_dtype != dtype:
                weight.param_dtype, weight.all_gather_outputs = dtype, []
                vars(weight).pop("_unsharded_param", None)
