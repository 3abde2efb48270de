"""Weights & Biases as a mirror of the run record, under the run's own id.

It never asks for a login and waits ten seconds at most for the network; then it is offline, and ``wandb sync`` uploads
later. wandb keeps an offline run's history per process and loses it with a kill, so a resumed run writes its whole
history again from metrics.csv and the older folders are renamed ``superseded-1-…``, out of the way of ``wandb sync``.
Importing this file imports no wandb; ``start`` does.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptshake.errors import ConfigError
from gptshake.record.run import Run

if TYPE_CHECKING:
    import wandb

MODES = ("auto", "online", "offline")
INIT_SECONDS = 10
FINISH_SECONDS = 60
_X_AXIS = "train/tokens"
_SMALLER_IS_BETTER = ("val/loss", "val/bpb")


class WandbSink:
    """Mirrors rows, samples and pictures to W&B; see ``sinks.protocol`` for the methods.

    Args:
        project: W&B project.
        entity: team or user; None is the key's own.
        mode: ``auto`` is online with a key and offline without; the variable WANDB_MODE decides before that.
        every: a row is logged every so many steps, and whenever it holds a validation.
    Raises:
        ConfigError: for a mode or an interval out of sense.
    """

    def __init__(self, project: str = "gptshake", entity: str | None = None, mode: str = "auto", every: int = 10) -> None:
        if mode not in MODES:
            raise ConfigError(f"logger.mode={mode} is not known; it is one of {', '.join(MODES)}.")
        if every < 1:
            raise ConfigError(f"logger.every={every} cannot be: it counts steps per logged row, from 1 up.")
        self.project, self.entity, self.mode, self.every = project, entity, mode, every
        self._mirror: wandb.Run | None = None

    def start(self, run: Run, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first.

        Raises:
            ConfigError: if ``mode`` is online and there is no key.
        """
        self._run = run
        self._samples = [list(sample) for sample in run.samples()]
        with self._harmless():
            _forget_former_runs()
            key, problem = _key()
            if self.mode == "online" and not key:
                raise ConfigError(
                    f"logger.mode=online, but {problem}: set WANDB_API_KEY, run `wandb login`, or leave it at logger.mode=auto."
                )
            wish = self.mode if self.mode != "auto" else os.environ.get("WANDB_MODE") or ("online" if key else "offline")
            mirror = self._init(wish, problem, config, tags)
            mirror.define_metric(_X_AXIS)
            mirror.define_metric("*", step_metric=_X_AXIS)
            for name in _SMALLER_IS_BETTER:
                mirror.define_metric(name, step_metric=_X_AXIS, summary="min")
            self._mirror = mirror
            for row in run.rows():
                if row["step"] >= mirror.step:  # an online run that is resumed has the earlier ones
                    self.row(row)

    def row(self, row: Mapping[str, float]) -> None:
        """Log a row if it is due. The W&B step is the optimizer step, so a row that comes again changes nothing."""
        due = row["step"] % self.every == 0 or "val/loss" in row
        if self._mirror is not None and due:
            with self._harmless():
                values = {name: value for name, value in row.items() if name not in ("step", "time") and value is not None}
                self._mirror.log(values, step=int(row["step"]))

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """Log the table of all samples so far: a table cannot grow, and there are only a few."""
        self._samples.append([step, tokens, title, text])
        if self._mirror is not None:
            with self._harmless():
                import wandb

                self._mirror.log({"samples": wandb.Table(columns=["step", "tokens", "title", "text"], data=self._samples)}, step=step)

    def image(self, name: str, path: Path) -> None:
        """Log a picture; W&B shows no SVG, so these are passed over."""
        if self._mirror is not None and path.suffix != ".svg":
            with self._harmless():
                import wandb

                self._mirror.log({name: wandb.Image(str(path))})

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Hand over the final numbers and end; an upload gets ``FINISH_SECONDS``, the rest stays on the disk."""
        if self._mirror is not None:
            with self._harmless():
                self._mirror.summary.update({**summary, "status": status})
                self._mirror.finish(exit_code=0 if status in ("ok", "pruned") else 1)
        self._mirror = None

    def _init(self, mode: str, problem: str, config: Mapping[str, Any], tags: Sequence[str]) -> "wandb.Run":
        """Online if that is wished and works within ``INIT_SECONDS``, else offline; says which."""
        import wandb

        trial = self._run.info.get("trial")

        def begin(mode: Any) -> "wandb.Run":
            _supersede(self._run.path / "wandb", self._run.id)
            return wandb.init(
                project=self.project,
                entity=self.entity,
                id=self._run.id,
                name=self._run.name,
                dir=str(self._run.path),
                config=dict(config) | ({"trial": trial} if trial else {}),
                group=trial["study"] if trial else None,
                tags=[tag[:64] for tag in tags],  # W&B refuses longer ones
                mode=mode,
                resume="allow" if mode == "online" else None,
                settings=_settings(),
            )

        if mode == "online":
            try:
                mirror = begin("online")
                self._run.say(f"W&B: {mirror.url}")
                return mirror
            except Exception as error:
                problem = f"no answer ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
                mode = "offline"
                _forget_former_runs()  # the attempt still holds the id
        mirror = begin(mode)
        if mode == "offline":
            self._run.say(f"W&B: offline{f', {problem}' if problem else ''}; upload later with: wandb sync {Path(mirror.dir).parent}")
        return mirror

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """Whatever wandb raises ends the mirror, not the run."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            self._mirror = None
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._run.say(f"W&B failed and is left out from here on; the run goes on, its own record has everything ({reason}).")


def _forget_former_runs() -> None:
    """Begin anew with wandb, quietly: a run of this process that failed would stand in the next one's way."""
    import wandb

    with contextlib.suppress(Exception):  # its service may be dead already
        wandb.teardown()
    wandb.setup(settings=wandb.Settings(silent=True))


def _settings() -> "wandb.Settings":
    import wandb

    # Provenance is ours (theirs misses untracked files and keeps credentials of the remote); so is the console's log.
    return wandb.Settings(
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        silent=True,
        console="off",
        x_disable_meta=True,  # the command line as it was typed, with whatever secret is in it
        disable_git=True,
        disable_code=True,
        save_code=False,
        reinit="create_new",  # not the process's one global run, which a failure would leave behind for the next
    )


def _key() -> tuple[bool, str]:
    """Whether wandb finds a key (variable, netrc), without asking anybody; else why not."""
    import wandb

    try:
        return wandb.login(prompt=False, verify=False), "no key"
    except Exception as error:  # a key that cannot be one
        return False, " ".join(str(error).split())[:120]


def _supersede(folder: Path, run_id: str) -> None:
    """Rename this run's older W&B folders, in which only a part of its history is."""
    number = len(list(folder.glob("superseded-*")))  # wandb's own names repeat within a second
    for old in sorted(folder.glob(f"*run-*-{run_id}")):
        if re.match(r"(offline-)?run-", old.name):
            number += 1
            old.rename(old.with_name(f"superseded-{number}-{old.name}"))
