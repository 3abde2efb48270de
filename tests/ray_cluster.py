"""A Ray of two nodes on this machine; their CPUs and GPUs are only numbers."""

import os
from pathlib import Path
from typing import Any

import pytest

NODE: dict[str, Any] = {"num_cpus": 3, "num_gpus": 1, "object_store_memory": 80 << 20}
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class RayCluster:
    """Runs from its construction to ``close``; what is started meanwhile finds Ray and the modules of the tests by PYTHONPATH."""

    def __init__(self) -> None:
        ray = pytest.importorskip("ray", reason="make test-ray installs it")
        from ray.cluster_utils import Cluster

        self.path = str(Path(ray.__file__).parents[1])
        os.environ.update(ENVIRONMENT, PYTHONPATH=f"{self.path}:{Path(__file__).parent}")
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.address: str = self._cluster.address
        self.second = self.add_node()

    def add_node(self) -> Any:
        return self._cluster.add_node(**NODE)

    def kill_node(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()
        for name in (*ENVIRONMENT, "PYTHONPATH"):
            os.environ.pop(name, None)


class Head:
    """A cluster of one node beside that of two."""

    def __init__(self, **options: Any) -> None:
        from ray.cluster_utils import Cluster

        node = {**NODE, "include_dashboard": False, **options}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=node)
        self.address: str = self._cluster.address
        self.port = int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
