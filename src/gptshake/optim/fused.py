"""Whether an optimizer runs as one kernel for all parameters, which is one pass over memory instead of a dozen."""

from collections.abc import Iterable
from typing import Any

from gptshake.errors import ConfigError

FUSED_DEVICES = {"cpu", "cuda"}


def use_fused(setting: bool | str, parameters: Iterable[Any], *, slices: bool = True) -> bool:
    """``auto`` is true where every parameter lies on a device with the kernel.

    Args:
        setting: of the config.
        parameters: to be trained.
        slices: whether the kernel also takes weights of which each device has but a slice (trainer=fsdp).
    Raises:
        ConfigError: another word than ``auto``.
    """
    if setting == "auto":
        return all(parameter.device.type in FUSED_DEVICES and (slices or not hasattr(parameter, "full_tensor")) for parameter in parameters)
    if not isinstance(setting, bool):
        raise ConfigError(f"optimizer.fused={setting} is not understood: write auto, true or false.")
    return setting
