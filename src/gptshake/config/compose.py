"""One composition of the config with Hydra's public ``compose()``, for checks, names and the run itself."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from math import sqrt
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import InstantiationException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env
from yaml import YAMLError
from yaml.reader import Reader

from gptshake.config.layout import OLD_OPTIONS, OLD_TARGETS, local_confs, packaged_conf
from gptshake.config.schemas import SCHEMAS, RootConfig
from gptshake.errors import ConfigError, GptshakeError
from gptshake.files import is_locked, lock_file, yaml_text
from gptshake.redaction import add_secret

COPIES = ".gptshake-conf-"  # how names of copied config folders begin
MAKING_S = 60.0  # in which one is made and locked
_NODES: dict[str, Any] = {f"{group}/{name}_schema": schema for group, schemas in SCHEMAS.items() for name, schema in schemas.items()}
_NODES["root_schema"] = RootConfig
_NODES |= {
    f"data/{name}": {"defaults": [f"/data/{source}@data", {"override /tokenizer": tokenizer}, "_self_"]}
    for name, (source, tokenizer) in OLD_OPTIONS["data"].items()
}


class LocalConf(SearchPathPlugin):
    """Puts the user's own ``./conf`` behind the packaged tree, where it adds, or before it, where it also replaces."""

    shadow = False
    copies: ClassVar[list[Path]] = []  # of the folders, while a sweep runs

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for local in self.copies or local_confs():
            place = search_path.prepend if self.shadow else search_path.append
            place("gptshake-local", f"file://{local}")
        search_path.append("gptshake", "gptshake://")  # last: an option of the user's own may have the name of an earlier one of ours


@contextmanager
def snapshot(place: Path | None) -> Iterator[Path]:
    """A copy of the config folders, so that a sweep's trials compose what its first one did; gives that of the packaged tree.

    Args:
        place: a folder that all machines see which run the trials; None: where temporary files lie.
    """
    if place:
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob(f"{COPIES}*"):  # of a command that was killed, and of whose jobs none is left
            with suppress(OSError):  # what another command has just removed
                new = time.time() - old.stat().st_mtime < MAKING_S
                if not (new or is_locked(old / "lock") or _is_needed(old)):
                    shutil.rmtree(old)
    folder = Path(mkdtemp(prefix=COPIES, dir=place))
    held = lock_file(folder / "lock")
    try:
        packaged = Path(shutil.copytree(packaged_conf(), folder / "packaged"))
        for number, local in enumerate(local_confs()):
            LocalConf.copies.append(Path(shutil.copytree(local, folder / f"local-{number}")))
        yield packaged
    finally:
        LocalConf.copies.clear()
        os.close(held)
        if not (place and _is_needed(folder)):
            shutil.rmtree(folder, ignore_errors=True)
        if place:
            with suppress(OSError):  # no study began, and it holds no other
                place.rmdir()


def _is_needed(copy: Path) -> bool:
    """Whether a run composes from it that goes on without the command, or waits for a machine."""
    return any(copy.name in file.read_text(encoding="utf-8") for file in copy.parent.rglob("task.json"))


class Schemas(ConfigSource):
    """Schemas, and options of earlier versions, as config files; each is made when it is composed, as most are not."""

    @staticmethod
    def scheme() -> str:
        return "gptshake"

    def load_config(self, config_path: str) -> ConfigResult:
        node = _NODES[config_path.removesuffix(".yaml")]
        header = {"package": "_global_" if isinstance(node, dict) else None}
        return ConfigResult(self.provider, self.full_path(), OmegaConf.structured(node), header)

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") in _NODES

    def is_group(self, config_path: str) -> bool:
        return False

    def available(self) -> bool:
        return True

    def list(self, config_path: str, results_filter: Any) -> list[str]:
        return []  # nothing that is proposed


def prepare(overrides: list[str]) -> None:
    """Give Hydra our schemas and the user's ``./conf``; to be called before any composition."""
    OmegaConf.register_new_resolver("oc.env", _env, replace=True)
    OmegaConf.register_new_resolver("lr_for_batch", _lr_for_batch, replace=True)
    for folder in local_confs():
        _refuse_unloadable(folder)
    LocalConf.shadow = "conf_shadow=true" in overrides
    here = Path.cwd()
    if here.resolve() != Path(__file__).parents[2]:  # anybody's files may lie here: of Hydra's plugins the installed ones alone are scanned
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here.resolve()]
    for plugin in (LocalConf, Schemas):
        Plugins.instance().register(plugin)
    if str(here) not in sys.path:
        sys.path.append(str(here))  # for a ``_target_`` of the user's own, and last, whether ``python -m`` has put it first or not


@lru_cache
def _refuse_unloadable(folder: Path) -> None:
    """Look at every file of a config folder once: Hydra would take all memory for some, or never end; broken YAML is left to it."""
    for file in sorted(folder.rglob("*.yaml")):
        try:
            text = yaml_text(file)
        except YAMLError:
            continue
        except (ValueError, OSError) as error:
            raise ConfigError(f"{file} cannot be loaded: {error}.") from error
        if text.startswith("\ufeff"):  # Hydra would not see a header behind it
            raise ConfigError(f"{file} begins with a byte order mark: save it as UTF-8 without one.")
        if found := Reader.NON_PRINTABLE.search(text):
            raise ConfigError(f"{file} cannot be loaded: it holds the control character {found[0]!r}.")


def _env(key: str, default: Any = ...) -> str | None:
    """OmegaConf's own ``oc.env``, which tells ``redact`` what it gave."""
    value = env(key) if default is ... else env(key, default)
    if key in os.environ:
        add_secret(key, os.environ[key])
    return value


def _lr_for_batch(lr: float, preset_batch: int, *, _root_: DictConfig) -> float:
    """A preset's peak rate at the run's batch: less by the square root for a smaller batch, three digits, and never more.

    Source: Malladi et al. 2022, square-root scaling for Adam; measured in docs/decisions/rate-and-batch.md.
    """
    batch, tokens, block_size = (OmegaConf.select(_root_, key) for key in ("data.batch_size", "data.batch_tokens", "model.block_size"))
    if isinstance(tokens, int) and isinstance(block_size, int) and block_size > 0:
        batch = tokens // block_size
    smaller = isinstance(batch, int) and 0 < batch < preset_batch
    return float(f"{lr * sqrt(batch / preset_batch):.3g}") if smaller else float(lr)


def compose(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose the config that these overrides give, as the run will see it; with Hydra's own node if asked for."""
    prepare(overrides)
    at_work = GlobalHydra.instance().is_initialized()  # a task composes the config of another run
    with nullcontext() if at_work else initialize_config_dir(str(packaged_conf()), version_base="1.3", job_name="gptshake"):
        cfg = hydra_compose("config", overrides=overrides, return_hydra_config=with_hydra)
    with suppress(OmegaConfBaseException):  # no mapping, which is refused later
        if target := OLD_TARGETS.get(str(OmegaConf.select(cfg, "logger._target_", throw_on_resolution_failure=False))):
            cfg.logger._target_ = target
    resolve_preset(cfg)
    return cfg


def resolve_preset(cfg: DictConfig) -> None:
    """Replace the formula of a preset's peak rate by its value: a child process that gets the config has no such resolver."""
    with suppress(OmegaConfBaseException):  # reported later
        if isinstance(lr := OmegaConf.select(cfg, "preset.lr"), float):
            OmegaConf.update(cfg, "preset.lr", lr)


def without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def choices(hydra: Any) -> dict[str, str]:
    """Which option each group has, by Hydra's own node: group -> option, or options with commas; groups without one left out."""
    found = dict[str, str]()
    for key, name in sorted(hydra.runtime.choices.items(), key=lambda item: "@" in str(item[0])):
        group, at, _ = str(key).partition("@")
        if name is not None and "/" not in group:
            found[group] = f"{found[group]},{name}" if at and found.get(group, "none") != "none" else str(name)
    return found


class Callbacks:
    """All of ``hydra.callbacks``, called as one of them; what one raises is a warning, as in Hydra."""

    def __init__(self, cfg: DictConfig) -> None:
        try:
            self._parts = [instantiate(node) for node in (cfg.hydra.callbacks or {}).values()]
        except InstantiationException as error:
            raise _not_built(error) from error

    def __getattr__(self, hook: str) -> Callable[..., None]:

        def call(**options: Any) -> None:
            for part in self._parts:
                try:
                    getattr(part, hook)(**options)
                except Exception as error:
                    warnings.warn(f"Callback {type(part).__name__}.{hook} raised {type(error).__name__}: {error}", stacklevel=2)

        return call


@contextmanager
def single_run(cfg: DictConfig) -> Iterator[HydraContext]:
    """What Hydra does around the only job of a command, for a config that is composed already: mode, logging, callbacks, directory."""
    with read_write(cfg.hydra):
        cfg.hydra.mode = RunMode.RUN
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name="config")
    with initialize_config_dir(str(packaged_conf()), version_base="1.3", job_name="gptshake"):
        yield HydraContext(GlobalHydra.instance().config_loader(), callbacks)  # type: ignore[arg-type]


def call_hydra(argv: list[str], task: Any, conf: Path | None = None) -> None:
    """Call ``hydra.main`` on these arguments; ``sys.argv`` is changed in place because child ranks read it again."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions arrive as they were raised; __main__ has read the user's own value
    prepare(argv)
    sys.argv[1:] = argv
    try:
        hydra.main(config_path=str(conf or packaged_conf()), config_name="config", version_base="1.3")(task)()
    except MissingConfigException as error:
        if str(error.missing_cfg_file).startswith("hydra/sweeper/"):  # which was not composed before
            raise ConfigError(f"There is no {error.missing_cfg_file}: hydra/sweeper= is study, which is the default, or basic.") from None
        raise
    except InstantiationException as error:  # a part of the sweeper, a callback
        raise _not_built(error) from error


def _not_built(error: InstantiationException) -> GptshakeError:
    """Our own error behind Hydra's, or a sentence with the key and the reason."""
    if isinstance(error.__cause__, GptshakeError):
        return error.__cause__
    key = str(error).rpartition("full_key: ")[2].strip()
    return ConfigError(f"{key} cannot be built: {' '.join(str(error.__cause__ or error).split())}")
