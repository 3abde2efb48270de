"""When a trial may be given up: at once if it diverged, by its rank only late and after several reports. Not before: under a schedule
that decays, a low learning rate looks better early than it is at the end.

Reports lie on the axis of tokens, so trials of different batch size compare. Optuna's own PatientPruner is no help: it acts
only once a value stops falling, and a loss never does.
"""

import math
import sys
from statistics import median

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

RUNAWAY = 1.5  # times a trial's own lowest value: it will not come back in time


class Patient(BasePruner):
    """Prunes what diverged, and what was behind the median for long.

    Args:
        patience: reports in a row that are worse than the median of the finished trials at the same tokens.
        after: share of the run's tokens before which rank does not count.
        n_startup_trials: finished trials before rank counts.
    """

    def __init__(self, patience: int = 3, after: float = 0.5, n_startup_trials: int = 4) -> None:
        self.patience, self.after, self.n_startup_trials = patience, after, n_startup_trials

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        reports = sorted((tokens, sign * value) for tokens, value in trial.intermediate_values.items())
        if not reports:
            return False
        last, lowest = reports[-1][1], min(value for _, value in reports)
        if not math.isfinite(last) or (lowest > 0 and last >= RUNAWAY * lowest):
            return True
        total = study.user_attrs.get("tokens")
        late = [(tokens, value) for tokens, value in reports if total and tokens >= self.after * total]
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(late) < self.patience or len(finished) < self.n_startup_trials:
            return False
        for tokens, value in late[-self.patience :]:  # batch sizes report at different tokens: the others' last report by then counts
            before = [
                [(step, sign * other) for step, other in one.intermediate_values.items() if step <= tokens and math.isfinite(other)]
                for one in finished
            ]
            others = [max(reached)[1] for reached in before if reached]
            if len(others) < self.n_startup_trials or value <= median(others):
                return False
        return True


RUNAWAYS = Patient(n_startup_trials=sys.maxsize)  # prunes what diverged, nothing by its rank
