"""Hydra's own contract suites, run with our sweeper in the place of its basic one."""

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from gptshake import processes
from hydra_plugins.gptshake_sweeper.sweeper import GptshakeSweeper

OURS = "hydra/sweeper=gptshake"


def test_hydra_finds_the_sweeper() -> None:
    assert GptshakeSweeper.__name__ in [plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)]


@pytest.fixture
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's task functions lie inside of functions, where only a forked child finds them."""
    monkeypatch.setattr(processes, "METHOD", "fork")


@pytest.mark.usefixtures("_forks")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", [OURS])])
class TestAsEverySweeper(LauncherTestSuite):
    """Sweeps of one job and of several, over values and groups, strict and with resolvers."""


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({"defaults": [{"override hydra/sweeper": "gptshake"}]}, ["-m", "hydra/launcher=basic"])]
)
class TestInRealApps(IntegrationTestSuite):
    """Working directories, job names and subdirectories in apps of their own."""

    def test_to_absolute_path_multirun(self, task_launcher_cfg: object, extra_flags: object) -> None:
        pytest.skip("runs two apps into one folder of a study: here the second continues the first, which is through")
