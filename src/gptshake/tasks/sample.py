"""``task=sample``: write text with the best weights of a run. The seed is the root's: the same command writes the same text."""

from omegaconf import DictConfig

from gptshake import assemble, hardware
from gptshake.config.again import recomposed
from gptshake.record.launch import Launch


def run(cfg: DictConfig, launch: Launch) -> None:
    """Print a continuation of ``task.prompt``, computed on the device of ``trainer``.

    Raises:
        ConfigError: no run was named.
        RecordError: there is no such run.
    """
    model, tokenizer = assemble.trained(cfg, lambda path: recomposed(path, launch.overrides))
    import torch

    from gptshake.model.generate import generate

    options = cfg.task
    device = hardware.pick_device(cfg.trainer.accelerator)
    ids = torch.as_tensor([int(token) for token in tokenizer.encode(options.prompt)] or [tokenizer.eot_id], device=device)[None]
    written = generate(
        model.to(device), ids, options.n_tokens, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=cfg.seed
    )
    print(tokenizer.decode(written[0].tolist()))
