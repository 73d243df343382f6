"""That a prompt is a user's message."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chat:
    """That a prompt is a user's message, with what the system says before it."""

    system: str | None = None
