from gptshake.record.run import Run
from gptshake.record.trackers.process import describe


def test_a_run_is_described_from_its_record_alone(run: Run) -> None:
    told = describe(run)
    assert (told["name"], told["job_type"], told["group"], told["notes"]) == ("a-name-x3k9a2pq", "train", None, "why not?")
    assert told["tags"] == ["excerpt106", "data:wiki_char", "tokenizer:char", "model:tiny"]
    assert told["config"]["optimizer"] == {"lr": 0.001}
    assert told["config"]["derived"]["model"] == {"parameters": 4640}
    assert told["config"]["derived"]["budget"]["tokens_per_step"] == 100


def test_trials_are_grouped_by_study_and_recipes_by_experiment(run: Run) -> None:
    run.update(choices={"experiment": "demo"})
    assert describe(run)["group"] == "demo"
    run.update(trial={"study": "mine", "number": 3, "params": {"seed": 1}})
    told = describe(run)
    assert told["group"] == "mine" and told["config"]["trial"]["number"] == 3


def test_uncommitted_changes_and_debugging_are_tags(run: Run) -> None:
    run.update(git={"dirty": True, "commit": "abc"}, choices={"debug": "smoke"})
    told = describe(run)
    assert {"dirty", "debug:smoke"} <= set(told["tags"]) and told["config"]["derived"]["commit"] == "abc"


def test_a_tag_is_as_long_as_the_service_takes_it(run: Run) -> None:
    run.update(data={"label": "x" * 100})
    assert describe(run)["tags"][0] == "x" * 64


def test_a_record_that_knows_nothing_is_described_as_well(run: Run) -> None:
    bare = Run.create(run.path.parent / "bare", id="t0000000", name="bare", task="find_lr", config_yaml="", overrides=[])
    told = describe(bare)
    assert told["job_type"] == "find_lr" and told["tags"] == [] and told["notes"] is None and told["group"] is None
