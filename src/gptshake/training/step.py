"""One optimizer step, the same for training, range test, timing, batch-size finder and noise scale.

``Step`` alone knows how a forward pass and an update are done: dropout as a function of (seed, step, micro-batch, rank), autocast for one
pass, ``torch.compile``, the schedule's rate, clipping, and no update from a loss that is not finite. In training Lightning drives it
through ``module.py``: ``forward``, ``clip``, ``finish``. Everything else calls ``prepare``, ``micro_batch`` and ``update``.
Nothing here waits for the device: values stay tensors until somebody reads them.
"""

import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gptshake.distributed import ALONE, Ranks
from gptshake.errors import ConfigError, first_line
from gptshake.estimate.budget import Budget
from gptshake.model.gpt import GPT
from gptshake.optim.schedule import Factors, Schedule, unwrapped
from gptshake.training.device import fork_rng, forward_pass, out_of_memory, seed_generators, to_device

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


class Step:
    """A network, how it is optimized, and how far it is."""

    def __init__(
        self,
        model: GPT,  # with loss(inputs, targets): mean cross-entropy in nats per token
        optimizer: OptimizerFactory,
        schedule: Schedule,
        budget: Budget,
        *,
        seed: int,
        clip: float | None = None,  # global gradient norm
        precision: str = "32-true",  # or bf16-mixed, 16-mixed
        compile: bool = False,  # whether to try ``torch.compile``
        ranks: Ranks = ALONE,  # the processes that share each step
        say: Callable[[str], None] = lambda sentence: None,  # gets the sentence about compiling
    ) -> None:
        self.model, self.budget, self.ranks = model, budget, ranks
        self.steps = 0  # finished optimizer steps
        self.micro_batches = 0  # finished forward and backward passes of the unfinished step
        self.skipped_steps = 0  # by 16-mixed, because its loss scale was too large
        self.loss = torch.zeros(())  # sum over the micro-batches of the step; when it is done, the mean of that over ranks
        self.grad_norm = self.loss  # of the last step, before clipping
        self.lr = 0.0  # of the last step
        self.beta1: float | None = None  # likewise, where the schedule moves it
        self.optimizer: torch.optim.Optimizer
        self.scaler: torch.amp.GradScaler | None = None  # the loss scale of 16-mixed
        self._make_optimizer, self._schedule, self._factors = optimizer, unwrapped(schedule), Factors(1.0)
        self._seed, self._clip, self._precision, self._compile, self._say = seed, clip, precision, compile, say
        self._dropout = getattr(model.config, "dropout", 1.0) > 0  # not said: it may drop
        self._loss: Loss = model.loss

    @property
    def tokens(self) -> int:
        """Target tokens seen in finished steps."""
        return self.steps * self.budget.tokens_per_step

    @property
    def plateau_ends(self) -> bool:
        """Whether the rate was constant until the last finished step and falls with the next."""
        step, per_step = self.steps, self.budget.tokens_per_step
        if not 2 <= step < self.budget.steps:
            return False
        before, now, after = (self._schedule(number * per_step, self.budget.total_tokens).lr for number in (step - 1, step, step + 1))
        return before == now > after

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of this step; every group remembers its own peak."""
        self.optimizer = self._make_optimizer(self.model.named_parameters())
        for group in self.optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        return self.optimizer

    def begin(self) -> None:
        """Give the optimizer the rate of the next step, so that whoever looks at its groups before or after an update sees the step's."""
        if self.steps >= self.budget.steps:
            return
        self._factors = factors = self._schedule(self.tokens + self.budget.tokens_per_step, self.budget.total_tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factors.lr
            if factors.beta1 is not None and "betas" in group:
                group["betas"] = (factors.beta1, *group["betas"][1:])
            elif factors.beta1 is not None and "momentum" in group:
                group["momentum"] = factors.beta1

    def forward(self, batch: Tensor) -> Tensor:
        """Mean cross-entropy of one micro-batch, (rows, block_size + 1) token ids, in nats per token."""
        if self.micro_batches == 0:
            self.loss = torch.zeros((), device=batch.device)
        if self._dropout:  # by position, so that a resumed run drops what the uninterrupted one dropped
            position = self.steps * self.budget.accumulation + self.micro_batches
            seed_generators(batch.device, ((self._seed * 1_000_003 + position) * 8191 + self.ranks.rank) % 2**64)  # torch takes 64 bits
        self.compile(batch)
        loss = self._pass(self._loss, batch)
        if getattr(loss, "ndim", 1):  # a network of a user's own
            what = f"the shape {tuple(loss.shape)}" if hasattr(loss, "shape") else type(loss).__name__
            raise ConfigError(f"loss() of {type(self.model).__name__} gave {what}: with reduction=mean it is a tensor of one number.")
        self.loss += loss.detach()
        return loss

    def clip(self) -> None:
        """Between the last backward pass and the update: gradient norm, clipping, and the switch that withholds a non-finite update."""
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"] if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        self.grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of slices: the whole network's
        self.loss = self.ranks.all_reduce_mean(self.loss)
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._clip, self.grad_norm)
        if self.scaler is not None:
            return  # it has found what is not finite, and skips the update
        finite = torch.isfinite(self.grad_norm) & torch.isfinite(self.loss)
        if groups[0].get("fused"):
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # the fused kernel skips its update, without a wait
        elif not finite:
            for parameter in parameters:
                parameter.grad = None  # torch's optimizers leave a parameter without gradient alone

    def finish(self) -> None:
        """The update is done: count the step, and begin the next."""
        self.lr = self.optimizer.defaults["lr"] * self._factors.lr  # groups may have multiples of this rate
        self.beta1 = self._factors.beta1
        self.steps, self.micro_batches = self.steps + 1, 0
        self.begin()

    def overflowed(self, loss: float, grad_norm: float, scale: float) -> bool:
        """Whether 16-mixed has skipped the step because its loss scale was too large, which is ordinary; ``scale`` is the next one."""
        return self.scaler is not None and math.isfinite(loss) and not math.isfinite(grad_norm) and scale >= 1

    # Without Lightning, in its order: the gradients are dropped after the forward pass, which is where memory peaks.

    def prepare(self) -> None:
        """Make optimizer and loss scale, on the device of the network."""
        self.make_optimizer()
        if self._precision == "16-mixed":
            self.scaler = torch.amp.GradScaler(next(self.model.parameters()).device.type)
        self.begin()

    def micro_batch(self, batch: Tensor) -> None:
        loss = self.forward(to_device(batch, next(self.model.parameters()).device)) / self.budget.accumulation
        if self.micro_batches == 0:
            self.optimizer.zero_grad(set_to_none=True)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        self.micro_batches += 1

    def update(self) -> None:
        """End the step after its last micro-batch."""
        if self.scaler is None:
            self.clip()
            self.optimizer.step()
        else:
            self.scaler.unscale_(self.optimizer)
            self.clip()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.finish()

    def compile(self, batch: Tensor) -> None:
        """Once, if it was asked for: take the compiled loss if it can be run forward and backward on ``batch``, and say how it went.

        Random numbers and gradients stay as they are. Where memory runs out, which is no fault of the compiler, the error passes.
        """
        if not self._compile:
            return
        self._compile = False
        compiled, began = torch.compile(self.model.loss), time.perf_counter()
        try:
            with fork_rng(batch.device):
                self.gradient(batch, compiled)
        except Exception as error:  # whatever the compiler stumbles over, the run can go on without it
            if out_of_memory(error):
                raise
            self._say(f"torch.compile failed, training continues without it: {first_line(error)}")
            return
        self._loss = compiled
        from torch._dynamo.utils import counters

        found = counters["inductor"]
        hits, misses = found["fxgraph_cache_hit"], found["fxgraph_cache_miss"] + found["fxgraph_cache_bypass"]
        cached = "graphs from its cache" if hits and not misses else f"{misses} of {hits + misses} graphs recompiled"
        self._say(f"torch.compile took {time.perf_counter() - began:.1f} s ({cached})")

    def gradient(self, batch: Tensor, loss: Loss | None = None) -> tuple[Tensor, ...]:
        """Gradient of the loss on a batch, one tensor for each trained parameter; those of the current step stay as they are."""
        with torch.enable_grad():
            return torch.autograd.grad(self._pass(loss or self.model.loss, batch), [p for p in self.model.parameters() if p.requires_grad])

    def _pass(self, loss: Loss, batch: Tensor) -> Tensor:
        with forward_pass(batch.device.type, self._precision):
            return loss(batch[:, :-1], batch[:, 1:])
