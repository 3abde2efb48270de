"""Memory and disk of a training, estimated from what the model's config says about its costs."""

from dataclasses import dataclass, replace

from gptshake.model.config import Costs

HEAP = 1.15  # what the C library's heap holds over what is in use, when a step's tensors come and go
LIBRARIES = 50 << 20  # buffers of the products' libraries, W&B and the plot at the end
MEMORY_SHARE = 0.8  # of a device's memory that a plan may fill: the rest is for the allocator, the libraries and other programs


@dataclass(frozen=True)
class Memory:
    """Peak of a training process by part, in bytes."""

    base: int  # the process, its libraries and, on a GPU, the driver
    weights: int
    gradients: int
    optimizer: int  # Adam's two moments
    activations: int | None  # what the backward pass needs, logits included; None: the model does not say
    saving: int  # copies while a checkpoint is written, when no activations are held
    copies: int = 0  # of weights, held with the activations: autocast's, or what a device gathers of shards
    gathered: int = 0  # what these are where the weights are sharded

    @property
    def total(self) -> int | None:
        """The peak (activations and a checkpoint's copies are never held at once); None: not known."""
        return None if self.activations is None else self.least + max(0, self.activations + self.copies - self.saving)

    @property
    def least(self) -> int:
        return self.base + self.weights + self.gradients + self.optimizer + self.saving

    def sharded(self, devices: int) -> "Memory":
        """That of each of several devices that share weights, gradients and moments."""
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "saving": self.saving}
        copies = self.gathered if devices > 1 else self.copies
        return replace(self, copies=copies, **{name: size // devices for name, size in parts.items()})

    def holding(self, measured: int) -> "Memory":
        """The same with activations from a measured peak, given without the base."""
        return replace(self, activations=max(0, measured - self.weights - self.gradients - self.optimizer - self.copies))


def train_memory(model: Costs, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False, base: int = 0) -> Memory:
    """The peak of a training: weights, gradients and Adam's moments in fp32, activations (see ``Costs``), and what is around.

    On a CPU the heap is never tight and checkpoints are made ready; ``base`` bytes are held before there is a network, or by a GPU's driver.
    A device that has a shard gathers the tables of tokens and positions, with their gradients, and two blocks (one works while the next is
    gathered) with the gradients of one, all alike; a config without ``n_layer`` has no blocks.
    """
    values = model.num_params()
    bytes_of = getattr(model, "activation_bytes", None)  # a config need not have it
    activations = bytes_of(micro_batch_size, value_bytes=value_bytes, on_cpu=on_cpu) if bytes_of else None
    heap, cast = HEAP if on_cpu else 1, 2 if value_bytes < 4 else 0  # autocast keeps a copy of the weights for the backward pass
    in_blocks, n_layer = model.num_params(non_embedding=True), getattr(model, "n_layer", None)
    gathered = (8 + cast) * (values - in_blocks) + ((min(2, n_layer) * value_bytes + 4) * in_blocks // n_layer if n_layer else 0)
    return Memory(
        base + (LIBRARIES if on_cpu else 0),
        weights=4 * values,
        gradients=4 * values,
        optimizer=8 * values,
        activations=None if activations is None else int(activations * heap),
        saving=8 * values if on_cpu else 0,
        copies=int(cast * values * heap),
        gathered=int(gathered * heap),
    )


def checkpoint_bytes(model: Costs) -> int:
    """Disk that one checkpoint takes: weights and Adam's two moments in fp32."""
    return 12 * model.num_params()


def largest_micro_batch(
    model: Costs, *, memory_bytes: int, max_flops: float, value_bytes: int = 2, on_cpu: bool = False, shards: int = 1
) -> int:
    """The most sequences that one forward and backward pass should hold: what memory allows, and no more work than ``max_flops``.

    The bound on work keeps a pass short, so that a slow machine shows progress and answers Ctrl-C; it is a constant, not a measurement, so that
    equal commands make equal plans. A device saturates well below it. Never less than 1: whether a single sequence fits is found out by
    running. A bound that the model does not know is no bound. ``shards``: devices that share weights, gradients and moments.
    """
    none, one = (train_memory(model, size, value_bytes=value_bytes, on_cpu=on_cpu).sharded(shards) for size in (0, 1))
    bounds, flops = [], model.flops_per_token()
    if none.activations is not None and one.activations is not None:
        fixed = none.base + none.weights + none.gradients + none.optimizer + none.activations + none.copies
        bounds.append(int(MEMORY_SHARE * memory_bytes - fixed) // (one.activations - none.activations))
    if flops is not None:
        bounds.append(int(max_flops // (flops * model.block_size)))
    return max(1, min(bounds, default=1))
