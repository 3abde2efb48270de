"""What published laws say about learning rate, batch, weight decay and beta2, before anything has run.

N counts parameters without embeddings, D the tokens of the run, B the tokens of a step, C the FLOPs of the run. Every law was
fitted on models larger and runs longer than most here, so it is recommended to sweep around, and says when it is stretched.
"""

from dataclasses import dataclass
from math import log, sqrt

from gptshake.estimate.formatting import short_count, short_rate

FITTED_N = (59e6, 1.07e9)  # parameters and tokens of the runs behind the Step Law
FITTED_D = (2e9, 100e9)
FITTED_KAPLAN = (768.0, 1.5e9)  # parameters of the runs behind Kaplan's law, which falls below 0 at 12B
FITTED_DEEPSEEK = (1e17, 2e19)  # FLOPs
SMALL_N, SMALL_LR = 46e6, 4e-3  # no law is published below this size: the Step Law was still within 25 %, and twice too high at 10.6M
FEW_STEPS = 800  # measured at 4/4/128: shorter runs want a lower rate than long ones, longer ones all the same
CHARACTERS = 2.0  # bytes of a token below which it is hardly more than a character
ADAM = ("adam", "adamw")  # whose runs all laws were fitted on
NO_LAW = "none: published laws are for AdamW, this run has another optimizer"
HALF_LIFE = 7e6  # tokens after which the second moment has forgotten half: GPT-3's beta2 of 0.95 at 0.5M tokens a step


@dataclass(frozen=True)
class Recommendation:
    """A learning rate to begin with, and how far around it to look."""

    lr: float  # peak
    low: float  # a sweep from here
    high: float  # to here should hold the best; errors to the low side cost less
    batch: float  # tokens per step that the law holds for best
    extrapolated: str | None  # what lies outside the runs that the law was fitted on, or None


def hold_for(optimizer: str) -> bool:
    """Whether the laws were fitted with this optimizer, given by its ``_target_``."""
    return optimizer.rpartition(".")[2].lower() in ADAM


def step_law_lr(n: float, d: float) -> float:
    """Peak learning rate 1.79 N^-0.713 D^0.307 (Li et al. 2025, "Step Law": 59M to 1.07B parameters, 2B to 100B tokens)."""
    return float(1.79 * n**-0.713 * d**0.307)


def step_law_batch(d: float) -> float:
    """Tokens per step 0.58 D^0.571; as ``step_law_lr``."""
    return float(0.58 * d**0.571)


def deepseek(flops: float) -> tuple[float, float]:
    """Peak learning rate 0.3118 C^-0.125 and tokens per step 0.292 C^0.3271 (Bi et al. 2024, DeepSeek LLM: 1e17 to 2e19 FLOPs)."""
    return 0.3118 * flops**-0.125, 0.292 * flops**0.3271


def kaplan_lr(n: float) -> float:
    """Peak learning rate 0.003239 - 0.0001395 ln N (Kaplan et al. 2020, D.6): 1.5 to 5 times below the best, so a safe floor."""
    return 0.003239 - 0.0001395 * log(n)


def recommended_lr(n: float, d: float, batch_tokens: float, *, characters: bool = False) -> Recommendation:
    """The Step Law as far as it can be trusted: at most 4e-3 below 46M parameters, and less for a batch below the law's own.

    The rate goes with the root of the batch up to ``step_law_batch`` and not at all above. Where the law was checked, half to
    twice of it is the range to sweep; below 46M parameters, for characters and in few steps an eighth to twice.

    Args:
        n: parameters without embeddings.
        d: tokens of the run.
        batch_tokens: tokens of a step.
        characters: whether tokens have fewer than ``CHARACTERS`` bytes.
    """
    batch = step_law_batch(d)
    lr = min(step_law_lr(n, d), SMALL_LR if n < SMALL_N else 1.0) * min(1.0, sqrt(batch_tokens / batch))
    unsure = n < SMALL_N or characters or d < FEW_STEPS * batch_tokens
    outside = [
        f"{short_count(low)}+ {what}" if value < low else f"up to {short_count(high)} {what}"
        for value, (low, high), what in ((n, FITTED_N, "parameters"), (d, FITTED_D, "tokens"))
        if not low <= value <= high
    ]
    stretched = [f"fitted on {' and '.join(outside)}"] if outside else []
    if characters:
        stretched.append("not on characters" if outside else "not fitted on characters")
    return Recommendation(lr, lr / (8 if unsure else 2), 2 * lr, batch, ", ".join(stretched) or None)


def timescale_weight_decay(n: float, d: float, batch_tokens: float, lr: float) -> float:
    """Weight decay B / (lr D tau) with tau = 1.084 (D/N)^-0.527, the share of the run over which AdamW's average forgets.

    Source: Bergsma et al. 2025 ("Power Lines"), who find this timescale to hold over batches, sizes and lengths.
    """
    return float(batch_tokens / (lr * d * 1.084 * (d / n) ** -0.527))


def half_life_beta2(batch_tokens: float, d: float) -> float:
    """The beta2 whose second moment forgets half in 7M tokens, or in 1/60 of a shorter run; from 0.9 to 0.9999.

    Source: Marek et al. 2025, who keep this half-life when the batch changes. The share of a short run is this project's.
    """
    return float(min(0.9999, max(0.9, 0.5 ** (batch_tokens / min(HALF_LIFE, d / 60)))))


def law_sentence(n: float, d: float, batch_tokens: float, *, characters: bool = False) -> str:
    """``lr 1.1e-3, batch 21k tokens (fitted on 59M+ parameters: extrapolated)``; arguments as in ``recommended_lr``."""
    recommended = recommended_lr(n, d, batch_tokens, characters=characters)
    stretched = f" ({recommended.extrapolated}: extrapolated)" if recommended.extrapolated else ""
    return f"lr {short_rate(recommended.lr)}, batch {short_count(float(f'{recommended.batch:.2g}'))} tokens{stretched}"


def deepseek_sentence(flops: float) -> str:
    """``DeepSeek lr 6e-4, batch 900k tokens``, and where it was fitted if that is elsewhere."""
    (low, high), (lr, batch) = FITTED_DEEPSEEK, deepseek(flops)
    where = "" if low <= flops <= high else f" (fitted on {short_rate(low)} to {short_rate(high)} FLOPs: extrapolated)"
    return f"DeepSeek lr {short_rate(lr)}, batch {short_count(batch)} tokens{where}"


def kaplan_sentence(n: float) -> str:
    """``Kaplan lr 2.9e-4``; no rate outside of the sizes that it was fitted on."""
    low, high = FITTED_KAPLAN
    if low <= n <= high:
        return f"Kaplan lr {short_rate(kaplan_lr(n))}"
    return f"Kaplan none (fitted on {short_count(low)} to {short_count(high)} parameters)"
