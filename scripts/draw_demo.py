"""The picture on README's first screen: the top of a run's report, as Chromium shows it.

python scripts/draw_demo.py runs/demo [docs/demo.png]
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from strop.report import write_report

WIDTH, HEIGHT = 820, 600
"""Of the window, in pixels of which two by two are drawn: as far as the decision reaches."""
COLOURS = 48
"""That are kept: text on paper needs few, and the file is small."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str:
    """Return where a Chromium is.

    Raises:
        SystemExit: there is none.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit("No Chromium is installed: apt install chromium.")
    return found


def photograph(page: Path, picture: Path, *, height: int) -> None:
    """Write what a browser shows of a page as a picture of few colours.

    Args:
        page: an HTML file.
        picture: the PNG file to write.
        height: of the window.
    """
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "taken.png"
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2",
            f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}", f"--screenshot={taken}",
        ]  # fmt: skip
        subprocess.run([browser(), *options, page.absolute().as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(taken).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("picture", type=Path, nargs="?", default=Path("docs/demo.png"))
    parser.add_argument("--height", type=int, default=HEIGHT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        written = write_report(given.run, out=Path(own) / "report.html")
        photograph(written.path, given.picture, height=given.height)
    print(f"{given.picture}: {given.picture.stat().st_size / 1000:.0f} kB")
