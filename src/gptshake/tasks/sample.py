"""``task=sample``: write text with the best weights of a run. The seed is the root's: the same command writes the same text."""

import sys

from gptshake import hardware
from gptshake.config.overrides import recomposed
from gptshake.console import Console, printable
from gptshake.context import Context
from gptshake.setup import instantiate
from gptshake.tokenizer.protocol import texts
from gptshake.tokenizer.unknown import as_read


def run(context: Context) -> None:
    """Print continuations of ``task.prompt``, drawn on the device of ``trainer``, as they come; without a prompt, of the end of a text."""
    cfg, spec = context.config, context.spec
    model, tokenizer = instantiate.trained(cfg, lambda path: recomposed(path, spec.overrides))
    import torch

    from gptshake.model.generate import stream

    task, terminal, encoding = cfg.task, Console().terminal, sys.stdout.encoding or "utf-8"

    def show(text: str) -> None:
        """Print at once: as it is to a file or a pipe, without control characters to a terminal."""
        shown = printable(text) if terminal else text
        print(shown.encode(encoding, "replace").decode(encoding), end="", flush=True)

    prompt = str(task.prompt or "")
    ids = [int(token) for token in tokenizer.encode(prompt)] or [tokenizer.eot_id]
    if note := as_read(tokenizer, prompt):
        print(f"note: {printable(note)}", file=sys.stderr, flush=True)
    device = hardware.pick_device(cfg.trainer.accelerator)
    start = torch.as_tensor(ids, device=device)[None]
    model.to(device)
    for number in range(task.num_samples or 1):
        if number:
            show("---\n")
        drawn = stream(
            model, start, task.n_tokens, seed=cfg.seed + number, temperature=task.temperature, top_k=task.top_k, top_p=task.top_p
        )
        for text in texts(tokenizer, (int(token) for part in (ids, drawn) for token in part)):
            show(text)
        show("\n")
