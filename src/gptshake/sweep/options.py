"""What the sweeper's options mean for this study: limits, seeds, points to try first, samplers. Options that cannot work are refused."""

import hashlib
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import optuna

from gptshake.errors import ConfigError, first_line
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.controller import CONFIRMED
from gptshake.sweep.protocols import App, Prepared
from gptshake.sweep.search import LineSearch, Search, value_at
from gptshake.sweep.space import Axis, Params

NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "scipy", "QMCSampler": "scipy"}  # Optuna imports them only when a trial is wanted
LEAST = {"repeats": 1, "confirm": 0, "keep": 1, "max_failures": 1, "n_trials": 1}  # whole numbers
TIMES = ("hours", "timeout", "trial_timeout")


def check(options: SweeperConfig) -> None:
    if options.direction not in ("minimize", "maximize"):
        raise ConfigError(f"hydra.sweeper.direction={options.direction} is not known: it is minimize or maximize.")
    for key, least in LEAST.items():
        value = getattr(options, key)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise ConfigError(f"{key}={value} cannot work: it must be a whole number from {least} up.")
    for key in TIMES:
        value = getattr(options, key)
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise ConfigError(f"hydra.sweeper.{key}={value} cannot work: it must be a number above 0.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        kind = type(sampler_for(options, 0)).__name__
    package = NEEDS.get(kind)
    if package and find_spec(package) is None:
        raise ConfigError(f"The sampler {kind} needs the package {package}, which is not installed: pip install 'gptshake[samplers]'")


def first_points(options: SweeperConfig, axes: list[Axis]) -> list[Params]:
    """Points that the user wants to be tried first, completed by what the config declares."""
    points = []
    known = {axis.key: axis for axis in axes}
    for wanted in options.enqueue:
        if unknown := set(wanted) - set(known):
            raise ConfigError(f"enqueue names {', '.join(sorted(unknown))}, which is not swept here; swept are {', '.join(known)}.")
        point: Params = {}
        for key, axis in known.items():
            value = wanted.get(key, axis.declared)
            broken = axis.powers and isinstance(value, int) and value.bit_count() != 1
            if value is None or broken or (axis.choices and value not in axis.choices):
                raise ConfigError(f"enqueue: {key}={value} is not in its range.")
            point[key] = value
        points.append(point)
    return points


def seeds(options: SweeperConfig, search: Search, n_trials: int | None, axes: list[Axis], app: App) -> tuple[bool, int | None]:
    """Whether two second seeds follow, and the first seed of runs that are repeated; None leaves seeds alone.

    Second seeds follow a line that ends by itself, where nothing else measures the noise and the app has a seed.
    """
    value, is_swept = app.configured(options.seed_key)[0], any(axis.key == options.seed_key for axis in axes)
    if options.repeats == 1 and not options.confirm:
        ends_itself = isinstance(search, LineSearch) and n_trials is None
        noise = options.noise and ends_itself and not is_swept and type(value) is int
        return noise, value if noise else None
    if is_swept:
        raise ConfigError(f"{options.seed_key} is swept, and repeats= and confirm= choose seeds, too: leave one of them out.")
    if not isinstance(value, int):
        raise ConfigError(f"repeats= and confirm= need a whole number in the config's key {options.seed_key} (hydra.sweeper.seed_key).")
    return False, value


def sampler_for(options: SweeperConfig, number: int) -> optuna.samplers.BaseSampler:
    """A sampler seeded by the number of trials, or a continued study would propose its first points again."""
    if isinstance(options.sampler, optuna.samplers.BaseSampler):
        return options.sampler
    seed = _sampler_seed(options, number)
    if options.sampler is None:
        return optuna.samplers.TPESampler(n_startup_trials=1, seed=seed)  # our own quasi-random start comes before
    try:
        sampler = options.sampler(seed=seed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"hydra.sweeper.sampler cannot be built with its keys: {first_line(error)}.") from error
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise ConfigError("hydra.sweeper.sampler._target_ builds no sampler of Optuna.")
    return sampler


def _sampler_seed(options: SweeperConfig, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{options.seed} {number}".encode()).digest()[:4], "little")


def sequence_of(options: SweeperConfig, axes: list[Axis]) -> Callable[[int], Params] | None:
    """Number of a trial -> its point, where the user chose Optuna's ``QMCSampler``; None for any other sampler.

    That sampler counts its own calls and takes another sequence with every seed; here point i of one sequence belongs to trial i,
    whoever asks for it, however often the study is resumed.
    """
    if not isinstance(options.sampler, partial) or not isinstance(sampler_for(options, 0), optuna.samplers.QMCSampler):
        return None
    qmc, keys = import_module("scipy.stats.qmc"), options.sampler.keywords  # an extra; check has found it
    kind, scramble, seed = keys.get("qmc_type", "sobol"), keys.get("scramble", False), _sampler_seed(options, 0)

    def point(number: int) -> Params:
        engine = (qmc.Halton if kind == "halton" else qmc.Sobol)(len(axes), scramble=scramble, seed=seed)
        if number:
            engine.fast_forward(number)
        return {axis.key: value_at(axis, float(fraction)) for axis, fraction in zip(axes, engine.random(1)[0], strict=True)}

    return point


def number_of_trials(options: SweeperConfig, prepared: Prepared, slots: int) -> int | None:
    """Trials to finish; None if the search shall decide."""
    if options.hours is None:
        return options.n_trials
    if options.n_trials is not None:
        raise ConfigError("hydra.sweeper.hours chooses the number of trials: give it or n_trials, not both.")
    if prepared.seconds is None:
        raise ConfigError("hydra.sweeper.hours needs to know how long a run takes, which this app does not report: give n_trials instead.")
    runs = options.hours * 3600 * slots / prepared.seconds
    confirmed = int(runs / (options.repeats + options.confirm))  # if every trial is confirmed
    return max(1, confirmed if confirmed < CONFIRMED else int((runs - CONFIRMED * options.confirm) / options.repeats))


def typed_options(options: SweeperConfig) -> list[str]:
    """How long and how often the study runs, as overrides, where that is not at its default."""
    names = ("n_trials", *TIMES, "seed", "deterministic", "repeats", "confirm", "noise", "keep", "max_failures")
    values = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(SweeperConfig, name)}
    return [f"hydra.sweeper.{name}={'null' if value is None else str(value).lower()}" for name, value in values.items()]
