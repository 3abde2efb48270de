"""What a config names as its target is looked at before it is called."""

import pytest
from omegaconf import OmegaConf

from gptshake.errors import ConfigError
from gptshake.setup.instantiate import check_call


@pytest.mark.parametrize("target", ["math.sqrt", "json.dumps", "pathlib.Path.home", "torch.nn.Linear"])
def test_a_target_that_does_not_take_its_arguments_is_refused_before_it_is_called(target: str) -> None:
    with pytest.raises(ConfigError, match=f"^_target_: {target} cannot stand here: it is called with budget, callbacks"):
        check_call(OmegaConf.create({"_target_": target}), ("budget", "callbacks"))


def test_what_takes_them_or_has_no_signature_passes() -> None:
    for target in ("builtins.dict", "unittest.mock.Mock", "gptshake.training.trainer.build_trainer"):
        names = ("budget", "callbacks", "accelerator", "devices", "precision", "record", "detect_anomaly")
        check_call(OmegaConf.create({"_target_": target}), names)
