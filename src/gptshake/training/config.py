"""Schema of ``conf/trainer``: what Hydra accepts and the builder in ``training/trainer.py`` takes. Imports no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass(init=False, repr=False, eq=False)
class TrainerConfig:
    """Where, how exactly and how long a run trains; keys that this schema lacks go to Lightning's Trainer with ``+trainer.key=``."""

    _target_: str = "gptshake.training.trainer.build_trainer"
    accelerator: str = "auto"  # auto, cpu, gpu, mps
    strategy: str | None = None  # ddp, fsdp: how several devices share the work; null for one
    devices: Any = 1  # of this machine, auto or an integer
    precision: str = "auto"  # auto, 32-true, bf16-mixed, 16-mixed (GPU)
    threads: Any = "auto"  # CPU threads of each process, auto or an integer
    compile: bool = False  # torch.compile; falls back with its reason
    max_steps: int | None = None  # optimizer steps
    max_epochs: float | None = None  # passes over the training split
    max_tokens: int | None = None  # target tokens
    hours: float | None = None  # length by time, measured once at the start and frozen as steps
    max_time: str | None = None  # DD:HH:MM:SS, a guard that never enters the schedule
    extend: str | None = None  # redecay: a resumed run that is made longer goes back to the last checkpoint before its rate fell
    val_check_interval: Any = "auto"  # optimizer steps between validations; auto is 20 a run
    limit_val_batches: int | None = None  # validate on so many batches only; null is the whole split
    gradient_clip_val: float | None = 1.0  # global norm; null switches clipping off
    patience: int | None = None  # validations without a better loss before the run stops
    save_minutes: float = 10.0  # checkpoint at least this often, and at every validation
    price_per_hour: float | None = None  # of the machine, in any currency; the record then holds the price


# What Lightning's Trainer takes beside the keys above: what works when it is passed on with ``+trainer.key=``, ...
PASSED_ON = ("benchmark", "detect_anomaly", "sync_batchnorm")
# ... and what does not, because something here does its work: what to say instead. The first value is the one that changes nothing.
REPLACED: dict[str, tuple[Any, str]] = {
    "accumulate_grad_batches": (1, "micro-batches are added up to data.batch_size: set data.micro_batch_size"),
    "barebones": (False, "callbacks=none logger=none leaves everything out that can be left out"),
    "callbacks": (None, "callbacks are options of their own: callbacks=<option>, or +callbacks.<name>._target_=<class>"),
    "check_val_every_n_epoch": (None, "trainer.val_check_interval counts optimizer steps between validations"),
    "default_root_dir": (None, "runs lie in paths.runs"),
    "deterministic": (None, "it is a key of its own: deterministic=true"),
    "enable_autolog_hparams": (True, "the record holds the whole config"),
    "enable_checkpointing": (
        True,
        "every run keeps its newest and its best checkpoint; trainer.save_minutes says how often one is written",
    ),
    "enable_model_summary": (False, "the plan line names the number of parameters"),
    "enable_progress_bar": (True, "the live line belongs to callbacks=default; callbacks=none leaves it out"),
    "fast_dev_run": (False, "debug=smoke runs a few steps of everything"),
    "gradient_clip_algorithm": ("norm", "gradients are clipped by their global norm, trainer.gradient_clip_val"),
    "inference_mode": (True, "validations never keep gradients"),
    "limit_predict_batches": (None, "task=sample writes text"),
    "limit_test_batches": (None, "the test is once, at the end, on the whole split"),
    "limit_train_batches": (None, "trainer.max_steps ends the run earlier, data.limit_blocks makes the text shorter"),
    "log_every_n_steps": (1, "every step has its row in metrics.csv"),
    "logger": (None, "loggers are options of their own: logger=<option>"),
    "min_epochs": (None, "a run is exactly as long as its smallest limit, trainer.max_epochs for one"),
    "min_steps": (None, "a run is exactly as long as its smallest limit, trainer.max_steps for one"),
    "model_registry": (None, "checkpoints stay in the run directory"),
    "num_nodes": (1, "torchrun or srun say how many; trainer.devices counts the devices of all nodes"),
    "num_sanity_val_steps": (0, "debug=smoke tries a validation before a long run"),
    "overfit_batches": (0, "debug=overfit learns a few blocks by heart"),
    "plugins": (None, "checkpoints and precision have plugins of their own; trainer.precision chooses one"),
    "profiler": (None, "task=profile shows where the time of a step goes"),
    "reload_dataloaders_every_n_epochs": (0, "an endless order of batches has no epochs to reload at"),
    "use_distributed_sampler": (False, "batches are shared out without a sampler"),
}
