"""A real Ray and a real Slurm, started once for all tests, and launchers that use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clbench.launch.engines.ray import Ray
from clbench.launch.engines.slurm import Slurm
from clbench.launch.records import Records
from tests.launch.conftest import PROGRAM, until
from tests.launch.engines.slurm_cluster import Cluster, require_slurm


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Ray with one node of one core; tests may add others."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as RayCluster

    cluster = RayCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Slurm with one node of two cores."""
    require_slurm()
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def ray_launcher(ray_cluster: Any, records: Records) -> Callable[..., Ray]:
    return lambda: Ray(records, ray_cluster.address, PROGRAM)


@pytest.fixture
def cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The Slurm that `sbatch` talks to, with an empty queue before and after."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.settings))
    yield slurm_cluster
    slurm_cluster.said("scancel", *slurm_cluster.jobs())
    until(lambda: not slurm_cluster.jobs())


@pytest.fixture
def slurm(cluster: Cluster, records: Records) -> Callable[..., Slurm]:
    return lambda *options: Slurm(records, options, PROGRAM, pause=0.3)
