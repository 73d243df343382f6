"""The picture of the rooms is what the code draws; and this guard can fail."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def drawing(repository: Path) -> Any:
    spec = importlib.util.spec_from_file_location("draw_rooms", repository / "scripts" / "draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rooms_is_current(drawing: Any) -> None:
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.picture(), "run python scripts/draw_rooms.py"


def test_every_room_is_drawn_and_no_arrow_points_up(drawing: Any) -> None:
    rows = drawing.layers()
    height = {room: index for index, row in enumerate(rows) for room in row}
    assert set(drawing.imports()) - {"progress"} <= height.keys()
    assert all(height[room] < height[other] for room, other in drawing.arrows(rows))


def test_the_guard_of_the_picture_can_fail(drawing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawing.picture()
    monkeypatch.setattr(drawing, "imports", lambda: {"linalg": {"cli"}})
    monkeypatch.setattr(drawing, "arrows", lambda rows: [("linalg", "cli")])
    assert drawing.picture() != before
    assert "#c22" in drawing.picture()
