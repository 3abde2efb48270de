"""What a config names as its target is looked at before it is called."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gptshake.errors import ConfigError, GptshakeError
from gptshake.setup.instantiate import check_call, network


@pytest.mark.parametrize("target", ["math.sqrt", "json.dumps", "pathlib.Path.home", "torch.nn.Linear"])
def test_a_target_that_does_not_take_its_arguments_is_refused_before_it_is_called(target: str) -> None:
    with pytest.raises(ConfigError, match=f"^_target_: {target} cannot stand here: it is called with budget, callbacks"):
        check_call(OmegaConf.create({"_target_": target}), ("budget", "callbacks"))


def test_what_takes_them_or_has_no_signature_passes() -> None:
    for target in ("builtins.dict", "unittest.mock.Mock", "gptshake.training.trainer.build_trainer"):
        names = ("budget", "callbacks", "accelerator", "devices", "precision", "record", "detect_anomaly")
        check_call(OmegaConf.create({"_target_": target}), names)


def test_a_network_that_lacks_a_part_is_named_with_it() -> None:
    store = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=7))
    cfg = OmegaConf.create({"seed": 1, "model": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}})
    with pytest.raises(GptshakeError, match=r"torch\.nn\.Linear cannot be built .*vocab_size"):
        network(cfg, store)  # type: ignore[arg-type]
    cfg.model = {"_target_": "types.SimpleNamespace", "parameters": 1}
    with pytest.raises(ConfigError, match=r"types\.SimpleNamespace builds no network for a training: it has no config"):
        network(cfg, store)  # type: ignore[arg-type]
