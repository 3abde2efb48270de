"""Parameter groups as data: patterns of names in order, the first that fits wins. Needs no torch and no network to be tested.

What decays is a rule on shapes: GPT-3's paper says "weight decay of 0.1" and not of what, so nanoGPT's is taken: whatever has
two dimensions (matrices, the embeddings included) decays, gains and biases do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gptshake.errors import ConfigError

EMBEDDINGS = ("wte.*", "wpe.*")  # tables of tokens and positions


@dataclass(frozen=True)
class GroupRule:
    """What holds for the parameters whose names fit a pattern."""

    pattern: str  # of the full name, with * and ?: 'wte.*', 'blocks.*.mlp.*'
    lr_mult: float = 1.0  # multiple of optimizer.lr
    weight_decay: float | None = None  # null: optimizer.weight_decay on matrices, none on vectors

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


def parameter_groups(
    named_parameters: Iterable[tuple[str, Any]],
    lr: float,
    weight_decay: float,
    *,
    groups: Sequence[Mapping[str, Any]] = (),
    embedding_lr_mult: float = 1.0,
) -> list[dict[str, Any]]:
    """Optimizer groups: parameters that share learning rate and decay, in the order in which they first occur; frozen ones in none.

    Args:
        named_parameters: name and parameter, as ``nn.Module.named_parameters()`` gives them; their order is kept. Of a parameter the rules
            look at ``ndim`` and ``requires_grad``.
        lr: peak learning rate.
        weight_decay: of whatever has two dimensions or more.
        groups: fields of ``GroupRule``; the first rule whose pattern fits a name holds.
        embedding_lr_mult: the same as a last rule for the tables of tokens and positions.
    Returns:
        Dicts with the keys ``params``, ``lr`` and ``weight_decay``; the first is that of a decayed parameter, if there is one.
    Raises:
        ConfigError: a rule that fits no parameter, or a value out of its range.
    """
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    rules = [GroupRule(**rule) for rule in groups]
    for rule in rules:
        if not rule.lr_mult > 0 or (rule.weight_decay is not None and not rule.weight_decay >= 0):
            raise ConfigError(f"optimizer.groups: {rule.pattern} needs lr_mult above 0 and weight_decay from 0 up, or null.")
        if not any(rule.fits(name) for name, _ in trained):
            names = ", ".join(name for name, _ in trained[:4])
            raise ConfigError(f"optimizer.groups: the pattern {rule.pattern} fits no parameter; their names are such as {names}.")
    if embedding_lr_mult != 1.0:
        tables = [GroupRule(pattern, embedding_lr_mult) for pattern in EMBEDDINGS]
        rules += tables
        if not embedding_lr_mult > 0 or not any(rule.fits(name) for rule in tables for name, _ in trained):
            raise ConfigError(
                f"optimizer.embedding_lr_mult={embedding_lr_mult} must be above 0 and finds its parameters by the names {' and '.join(EMBEDDINGS)}; "
                "for others write optimizer.groups."
            )
    found: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in sorted(trained, key=lambda pair: pair[1].ndim < 2):
        rule = next((rule for rule in rules if rule.fits(name)), GroupRule("*"))
        decay = (weight_decay if parameter.ndim >= 2 else 0.0) if rule.weight_decay is None else rule.weight_decay
        found.setdefault((lr * rule.lr_mult, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in found.items()]


def use_fused(setting: bool | str, parameters: Iterable[Any], *, slices: bool = True) -> bool:
    """Whether an optimizer runs as one kernel for all parameters, which is one pass over memory instead of a dozen.

    ``auto``: where every parameter lies on a device with the kernel; ``slices``: whether that takes weights of which each device has a slice.
    """
    if setting == "auto":
        return all(
            parameter.device.type in ("cpu", "cuda") and (slices or not hasattr(parameter, "full_tensor")) for parameter in parameters
        )
    if not isinstance(setting, bool):
        raise ConfigError(f"optimizer.fused={setting} is not understood: write auto, true or false.")
    return setting
