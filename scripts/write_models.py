"""Write what the conformance suite shows of each architecture as docs/models.md; --check says if the page is current.

The suite is run, and the page says nothing that it did not show.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE, SUITE = ROOT / "docs" / "models.md", "tests/conformance/test_conformance.py"
ITSELF = f"{SUITE}::test_the_page_of_models_says_what_the_suite_found"
COLUMNS: Mapping[str, str] = {
    "matrices": "matrices",
    "effects": "effects",
    "from a block on": "from a block on",
    "streams": "hidden states edited",
    "generates": "generates",
    "biases": "biases baked",
}
NOT_SHOWN = "not shown"
GROUPS: Mapping[str, str] = {
    "dense": "Decoders",
    "mixture": "Mixtures of experts",
    "hybrid": "State space, and blocks of several kinds",
    "encoder": "Encoders",
    "encoder-decoder": "Encoders with decoders",
    "several inputs": "Text within models of several inputs",
}
HEAD = """# Models

Any model of transformers whose structure can be read works; these are the ones the tests run. Of each a tiny random model
is built, and the suite in `tests/conformance/` asks of it: every matrix is where raw tensors hold it; a rank reduction is
that of numpy; effects are autograd's; a pass from a block on is the whole pass; edits of hidden states reach the right
tokens under padding on either side, with a cache and in beams; a recipe is read back; a baked checkpoint is loaded by
`from_pretrained` with the same logits; recomputed blocks give the same gradients; in bfloat16 every method comes off bit
for bit. The page is written by `scripts/write_models.py` from what the suite found. Classifiers of images have
[tests of their own](guides/images.md).

- **matrices**: those that can be reduced, pruned, scaled and baked.
- **effects**: `search`, `prune` and `sharpen` may ask the gradient.
- **from a block on**: what lies below an edit is run once, and not for each candidate.
- **biases baked**: of the matrices whose biases a checkpoint can hold; of others a recipe keeps them.
- *not shown*: the suite does not ask this of the model yet, or expects it to fail.
"""


def page_of(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page.

    Args:
        found: by the name of each member, what the suite found of it.
    """
    lines = [HEAD]
    for group, heading in GROUPS.items():
        rows = {name: own for name, own in found.items() if own["group"] == group}
        lines += [
            f"## {heading}",
            "",
            f"| model | {' | '.join(COLUMNS.values())} |",
            f"| {'--- | ' * len(COLUMNS)}--- |",
        ]
        lines += [
            f"| {name} | {' | '.join(own.get(column, NOT_SHOWN) for column in COLUMNS)} |" for name, own in rows.items()
        ]
        lines.append("")
    refused: dict[str, list[str]] = defaultdict(list)
    for name, own in found.items():
        for key in sorted(own):
            if key.startswith("not: "):
                refused[f"{key.removeprefix('not: ')}: {own[key]}"].append(name)
    lines += ["## What cannot be done, and why", ""]
    lines += [f"- {what}\n  ({', '.join(names)})" for what, names in sorted(refused.items())]
    left: dict[str, list[str]] = defaultdict(list)
    for name, own in found.items():
        if own["left alone"]:
            left[own["left alone"]].append(name)
    lines += [
        "",
        "## Matrices that are left alone",
        "",
        "What they do could not be told, so that no address names them.",
        "",
    ]
    lines += [f"- {', '.join(names)}: {what}" for what, names in left.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the suite and write the page, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is not current")
    check = parser.parse_args().check
    if pytest.main(["-q", "-p", "no:xdist", "--rootdir", str(ROOT), SUITE, "--deselect", ITSELF]):
        sys.exit("The suite does not pass, and the page says only what it shows.")
    from tests.conformance.suite import FOUND  # what that run has filled

    page = page_of(FOUND)
    if check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        sys.exit(0 if current else f"{PAGE.relative_to(ROOT)} is not current: run python scripts/write_models.py.")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
