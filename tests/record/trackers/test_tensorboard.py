"""TensorBoard: what its own reader finds in the event files of a run."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.trackers.tensorboard import TensorBoardTracker

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra")


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/tokens": 64 * step, "train/loss": 4 / step, "time": 1.8e9 + step} | more


def recorded(path: Path) -> Run:
    run = Run.create(path, id="x3k9a2pq", name="a-run", task="train", config_yaml="seed: 1\n", overrides=[])
    for step in range(1, 13):
        run.append_row(row(step, **({"val/loss": 2.5} if step == 7 else {})))
    run.sample(3, 192, "<b>bold</b>\n# head", "The ")
    return run


def read(run: Run) -> Any:
    events = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return events


def test_rows_are_scalars_over_steps_with_their_own_times(tmp_path: Path) -> None:
    run, tracker = recorded(tmp_path), TensorBoardTracker(every=5)
    tracker.start(run)
    tracker.row(row(13))
    tracker.row(row(15))
    tracker.finish()
    tracker.finish()
    losses = read(run).Scalars("train/loss")
    assert [event.step for event in losses] == [5, 7, 10, 15]  # every fifth, and the validation
    assert losses[0].value == pytest.approx(0.8) and losses[0].wall_time == 1.8e9 + 5
    assert [event.value for event in read(run).Scalars("val/loss")] == [2.5]


def test_a_run_that_goes_on_has_one_whole_history(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    for _ in range(2):
        tracker = TensorBoardTracker(every=1)
        tracker.start(run)
        tracker.finish()
    assert [event.step for event in read(run).Scalars("train/tokens")] == list(range(1, 13))


def test_a_sample_is_shown_as_it_was_written(tmp_path: Path) -> None:
    run, tracker = recorded(tmp_path), TensorBoardTracker()
    tracker.start(run)
    tracker.finish()
    (event,) = read(run).Tensors("samples/text_summary")
    assert event.step == 3
    assert event.tensor_proto.string_val[0].decode() == "    The, after 192 tokens\n    \n    <b>bold</b>\n    # head"


def test_pictures_are_shown_beside_a_metric_of_their_name_and_drawings_passed_over(tmp_path: Path) -> None:
    from PIL import Image

    run, tracker = recorded(tmp_path), TensorBoardTracker()
    Image.new("RGB", (30, 20)).save(tmp_path / "loss.png")
    (tmp_path / "loss.svg").write_text("<svg/>")
    tracker.start(run)
    tracker.row(row(10, loss=2.5))
    tracker.image("loss", tmp_path / "loss.png")
    tracker.image("drawing", tmp_path / "loss.svg")
    tracker.finish()
    tags = read(run).Tags()
    assert tags["images"] == ["plots/loss"] and "loss" in tags["scalars"]  # under one tag TensorBoard would show neither
    (event,) = read(run).Images("plots/loss")
    assert (event.width, event.height) == (30, 20)


def test_without_the_package_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"gptshake\[tensorboard\]"):
        TensorBoardTracker().start(recorded(tmp_path))
