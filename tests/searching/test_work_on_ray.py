"""Two workers as actors of a Ray cluster on this machine find what one process finds."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import figures_of, trials_of

from strop.anatomy import MatrixType
from strop.progress import SILENT
from strop.proving import RunOptions
from strop.searching import SearchPlan, search


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    seen = {"STROP_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False,
        runtime_env={"env_vars": seen},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_finds_what_one_process_finds(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    answering().save_pretrained(tmp_path / "model")
    small_tokenizer.save_pretrained(tmp_path / "model")
    plan = SearchPlan(
        strategy="exhaustive", compose="greedy", max_edits=2, rank_fractions=(0.1, 0.5), layers=(1, 2),
        matrix_types=(MatrixType.UP, MatrixType.DOWN),
    )  # fmt: skip
    alone, together = (
        search(
            str(tmp_path / "model"),
            facts,
            plan,
            RunOptions(out=tmp_path / f"run{workers}", workers=workers, executor="ray", progress=SILENT),
        )
        for workers in (1, 3)
    )
    assert together.recipe == alone.recipe
    assert figures_of(together) == figures_of(alone)
    assert trials_of(together) == trials_of(alone)
