"""``task=export``: write the best weights of a run, and its tokenizer, in the format of another program."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from gptshake.config.overrides import recomposed
from gptshake.context import Context
from gptshake.errors import ConfigError, GptshakeError
from gptshake.export import hub
from gptshake.export.card import PLOT, model_card
from gptshake.export.tokenizers import TEXTS
from gptshake.files import expanded, write_folder_atomic
from gptshake.record.index import read_entry
from gptshake.record.texts import read_samples
from gptshake.setup import instantiate


def run(context: Context) -> None:
    """Export ``task.run`` to ``task.folder``, compare what was written with the run's own network, and print where it is.

    With ``task.push`` the folder is then uploaded to the hub.

    Raises:
        ConfigError: no run was named, nothing can be uploaded (no token, no possible name), the folder is there already, or the
            format cannot express the network or the tokenizer.
        RecordError: there is no such run.
    """
    cfg = context.config
    if cfg.task.push:
        hub.check_upload(cfg.task.push)
    path, chosen = instantiate.chosen_run(cfg), expanded(cfg.task.folder) if cfg.task.folder != "auto" else None
    folder, checked = export(path, cfg.task.to, chosen, lambda: recomposed(path, context.spec.overrides))
    print(checked)
    print(f"exported: {folder}")
    if cfg.task.push:
        if checked.startswith("not checked"):
            raise GptshakeError(f"The folder was not uploaded to {cfg.task.push}, because it was {checked}.")
        print(f"uploaded: {hub.upload(folder, cfg.task.push, private=cfg.task.private)}")


def export(path: Path, to: str, folder: Path | None, recompose: Callable[[], DictConfig]) -> tuple[Path, str]:
    """Export a run (arguments as of ``trained``) to a new folder, by default its own ``export/<to>``; gives it, and what was checked."""
    model, tokenizer = instantiate.trained(path, recompose)
    model.float().cpu().eval()
    folder = folder or path / "export" / to
    if folder.exists():
        raise ConfigError(f"{folder} is there already: remove it, or choose another folder (task.folder=, in Python folder=).")
    format = importlib.import_module(f"gptshake.export.{to}")
    samples = read_samples(path / "samples.md")
    texts = [*TEXTS, *(sample.text for sample in samples[-1:])]
    checked = ""

    def fill(beside: Path) -> None:
        nonlocal checked
        plot = path / "plots" / PLOT
        card = model_card(read_entry(path), samples, plot=plot.is_file(), use=format.USE, library=format.LIBRARY)
        format.write(model, tokenizer, beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
        if plot.is_file():
            shutil.copyfile(plot, beside / plot.name)
        checked = format.check(model, tokenizer, beside, texts)

    write_folder_atomic(folder, fill)
    return folder, checked
