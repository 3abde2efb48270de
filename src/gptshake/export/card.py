"""The model card of an exported run: README.md with the front matter of the Hugging Face hub, from the run's record alone."""

import re
import shlex
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from gptshake.keys import RESULT, not_free
from gptshake.markdown import fenced, table
from gptshake.record.index import Entry
from gptshake.record.texts import Sample

METRICS = {"val/loss": "loss on the validation split, nats per token", "val/bpb": "the same, bits per byte"}
METRICS |= {"test/loss": "loss on the test split, nats per token", "test/bpb": "the same, bits per byte"}
PLOT = "loss.png"
# "Wikipedia authors, CC BY-SA 3.0", or "wikimedia/wikipedia, licence cc-by-sa-3.0" as a hub's card has it
_LICENSE = re.compile(r"\b(?:(CC BY(?:-SA)? \d\.\d)|licence ([a-z0-9.-]+)(?=$|,))")

_FOLDERS = re.compile(r"(?<![\w./])~?/(?!/)(?:[^/'\",\]]+/)*")  # what leads from the root, or from home, to a file


def model_card(entry: Entry, samples: list[Sample], *, plot: bool, use: str, library: str) -> str:
    """README.md: licence, data, metrics, curve, command, commit and the last sample.

    Args:
        samples: of the run, the oldest first.
        plot: whether the picture of its losses lies beside the card.
        use: how the exported folder is used, in Markdown.
        library: the hub's name of the program that loads it.
    """
    data, summary = entry.part("data"), entry.summary
    found = {name: float(summary[name]) for name in METRICS if isinstance(summary.get(name), int | float)}
    rows = [[METRICS[name], f"{value:.4f}"] for name, value in found.items()]
    budget, git = entry.part("budget"), entry.part("git")
    asked = [_FOLDERS.sub("", text) for text in not_free(map(str, entry.info.get("overrides") or ()), RESULT)]
    command = shlex.join(["python", "-m", "gptshake", *asked])
    begun = Path(str(entry.part("pretrained").get("source") or entry.info.get("parent") or "")).name  # a folder's path is nobody's business
    start = f"the weights of {begun}" if begun else "scratch"
    parts = [
        f"# {entry.title}",
        f"A GPT of {entry.part('model').get('parameters', 0):,} parameters, trained from {start} with gptshake on {data.get('label')} "
        f"({data.get('licence')}) for {budget.get('steps', 0):,} steps ({summary.get('train/tokens', 0):,} tokens).",
        table(["metric", "value"], rows) if rows else "",
        f"![loss over training tokens]({PLOT})" if plot else "",
        "## Use",
        use,
        "## Training",
        f"```sh\n{command}\n```",
        f"Run `{entry.id}`, commit `{git.get('commit')}`{' with changes' if git.get('dirty') else ''}, seed {entry.info.get('seed')}.",
        f"## Sample\n\nAfter {samples[-1].step:,} steps:\n\n{fenced(samples[-1].text)}" if samples else "",
    ]
    return f"---\n{_front_matter(entry, found, library).to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(entry: Entry, found: dict[str, float], library: str) -> ModelCardData:
    data = entry.part("data")
    label = str(data.get("label"))
    licence = _LICENSE.search(str(data.get("licence")))
    results = [
        EvalResult(
            task_type="text-generation", dataset_type=label, dataset_name=label, metric_type=name.replace("/", "_"), metric_value=value
        )
        for name, value in found.items()
    ]
    return ModelCardData(
        license=(licence[1] or licence[2]).lower().replace(" ", "-") if licence else None,  # unknown is left out, never guessed
        library_name=library,
        pipeline_tag="text-generation",
        tags=["gptshake"],
        model_name=entry.title if results else None,
        eval_results=results or None,
    )
