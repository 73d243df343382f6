"""Workers as actors of a Ray cluster: each calls `strop.work`, and nothing but text goes to it."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from strop.errors import UsageError, reason_in
from strop.progress import Progress


@contextlib.contextmanager
def ray_actors(study: str, *, count: int, on_gpu: bool, progress: Progress) -> Iterator[None]:
    """Let actors help with a study for the length of a block; a cluster that was joined stays as it was.

    Args:
        study: the address of its database, a # and its name.
        count: how many actors.
        on_gpu: each needs a GPU of its own, else a processor.
        progress: told of one that ends early.

    Raises:
        UsageError: Ray is not installed, or its machines could not reach the database.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--executor ray needs Ray: pip install 'strop[ray]', or leave the option out.") from None

    joined = not ray.is_initialized()
    if joined:
        where = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="ERROR", **where)
    actors: list[Any] = []
    try:
        if len([node for node in ray.nodes() if node["Alive"]]) > 1 and study.startswith("sqlite"):
            raise UsageError(
                "Workers on several machines cannot share an SQLite file: name a database with --storage postgresql://…."
            )
        own = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        helper = ray.remote(_Helper)
        actors += [helper.options(**own).remote() for _ in range(count)]
        done = [actor.work.remote(study) for actor in actors]
        threading.Thread(target=_tell_of_failures, args=(ray, done, progress), daemon=True).start()
        yield
    finally:
        for actor in actors:
            with contextlib.suppress(Exception):  # it has ended
                ray.kill(actor)
        if joined:
            ray.shutdown()


class _Helper:
    """What runs on a worker of the cluster."""

    def work(self, study: str) -> int:
        """Help a search until its choice is made."""
        import strop
        from strop.progress import SILENT

        return strop.work(study, progress=SILENT)


def _tell_of_failures(ray: Any, done: list[Any], progress: Progress) -> None:
    while done:
        try:
            ready, done = ray.wait(done)
            ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            progress.note(f"a worker has ended: {reason_in(error.cause)}")
        except Exception:  # the choice is made, and they are ended
            return
