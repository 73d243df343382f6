"""A report of runs: what it says, that it stands alone, and that what a model wrote stays text."""

import dataclasses
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.reported import COUNT, HOSTILE, answers_of, full_result, write_full_run
from tests.fixtures.results import LARGE_DRIFT, SMALL_DRIFT, gain_of, price_of, result_of, write_run

from strop.errors import RunError, UsageError
from strop.files import write_json
from strop.findings import gain_by_frequency, paraphrase_robustness, read_paraphrases
from strop.report import write_report
from strop.runs import GuardReading, Leaderboard, RunResult, Standing, write_answers
from strop.statistics import Figures, Rival, Rivals

VOID = {"meta", "link", "br", "hr", "img", "input"}
FETCHES = re.compile(
    r"(?:src|href|action|srcset|poster|data|background)\s*=\s*[\"']?(?:https?:)?//|url\(\s*[\"']?(?!#)|@import"
)


class Page(html.parser.HTMLParser):
    """A page taken apart: every element is closed by its own end, and no name is given twice."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return (
            " ".join(" ".join(self.words).split()).replace("\u00a0", " ").replace("\u2212", "-").replace("\u2011", "-")
        )

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A run of an older version: figures, and nothing else."""
    return write_run(tmp_path / "bare", result_of())


@pytest.fixture
def run(full_run: Path) -> Path:
    return full_run


@pytest.fixture
def page(page_file: Path) -> str:
    return page_file.read_text(encoding="utf-8")


def test_a_page_is_well_formed_and_stands_alone(page: str) -> None:
    found = Page(page)
    assert len(page.encode()) < 300_000
    assert not FETCHES.search(page)
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert not {"script", "iframe", "object", "embed", "form", "img", "base"} & {tag for tag, _ in found.tags}
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [str(attributes["href"]) for attributes in found.named("a") + found.named("use")]
    assert all(link.startswith("#") and link[1:] in names for link in links)
    assert found.named("html")[0]["lang"] == "en"


def test_its_headings_tables_and_figures_can_be_read_aloud(page: str) -> None:
    found = Page(page)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert len(found.named("caption")) == len(found.named("table"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in found.named("th"))
    drawings = [attributes for attributes in found.named("div") if attributes.get("role") == "img"]
    assert len(drawings) == len(found.named("figure")) == len(found.named("svg")) == 9
    assert all(len(str(attributes["aria-label"])) > 30 for attributes in drawings)
    assert [tag for tag, _ in found.tags if tag in ("header", "main", "footer")] == ["header", "main", "footer"]


def test_it_shows_what_the_run_found(page: str, run: Path) -> None:
    text = Page(page).text
    result = RunResult.read(run / "result.json")
    before, after = (100 * (figures["test"].accuracy or 0) for figures in (result.base, result.edited))
    low, high = result.comparison["test"].ci95
    assert f"accuracy before {before:.1f} % accuracy after {after:.1f} %" in text
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in text
    assert "LASER was chosen. It gains most. No guard is broken." in text
    for heading in (
        "Leaderboard", "Gain", "Rivals", "Price and guards", "Categories", "Frequency", "In other words", "Examples",
        "Edited matrices", "What the removed components say", "Sweep", "How the choice went", "Cost", "To repeat it",
    ):  # fmt: skip
        assert f"> {heading} <".strip("> <") in text
    table = gain_by_frequency(answers_of())
    assert table is not None
    first = table.bins[0]
    assert f"{first.least:.0f}–{first.most:.0f} {first.count} {100 * first.before:.1f} {100 * first.after:.1f}" in text
    asked = paraphrase_robustness(read_paraphrases(run))
    assert asked is not None
    assert f"facts right in every wording {100 * asked.whole_before:.1f} % {100 * asked.whole_after:.1f} %" in text
    assert "layer 1 up rank reduction 16 8 50.00 % 97.0 %" in text
    assert "The lowest loss is 2.000, of layer 0 key at 10 % of its rank, and 3.500 without an edit" in text
    assert "strop search 'a model' --task t" in text
    assert f"weights' fingerprint {'f' * 32}" in text
    assert "tiny at main" in text
    assert "Here only the smallest are kept, on 40 examples that the edit fixed." in text


def test_what_a_model_wrote_is_text_and_nothing_else(page: str) -> None:
    assert "<script" not in page
    assert "\x07" not in page
    shown = HOSTILE.replace("\x07", "\ufffd").replace("\u202e", "\ufffd")
    assert " ".join(shown.split()) in Page(page).text
    assert page.count("&lt;script&gt;") >= 4


def test_examples_are_capped_on_the_page_and_whole_beside_it(page: str, page_file: Path, run: Path) -> None:
    answers = answers_of()
    fixed, broken = [a for a in answers if a.fixed], [a for a in answers if a.broken]
    text = Page(page).text
    assert f"Fixed: {len(fixed)}, of which 12" in text
    assert f"Broken: {len(broken)} " in text
    assert text.count("right is ") == 14
    lines = page_file.with_name("report-examples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    kept = [json.loads(line) for line in lines]
    assert [(own["change"], own["row"]) for own in kept if own["change"] == "broken"] != []
    assert {own["row"] for own in kept if own["change"] == "fixed"} == {a.row for a in fixed}
    assert {own["row"] for own in kept if own["change"] == "broken"} == {a.row for a in broken}
    assert kept[0]["run"] == str(run)
    assert next(own for own in kept if own["row"] == 5)["before"] == HOSTILE


def test_the_same_run_makes_the_same_page(bare: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(bare, out=tmp_path / name / "report.html")
    pages = [(tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_markdown_says_the_same(run: Path, tmp_path: Path) -> None:
    write_report(run, out=tmp_path / "report.md", format="md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# tiny on small-facts\n\n## The decision\n")
    assert "<script" not in text.replace("\\<script", "")
    for said in (
        "### Frequency", "### Sweep", "**Better, beyond chance.**", "```sh\nstrop search 'a model'",
        "*Gain against frequency.*",
    ):  # fmt: skip
        assert said in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert sum(len(table.splitlines()) for table in tables) == len(widths)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_several_runs_are_compared_first_and_example_by_example(run: Path, tmp_path: Path) -> None:
    other = write_full_run(tmp_path / "other", shift=1, leaderboard=False)
    written = write_report(run, other, out=tmp_path / "both.md", format="md")
    assert len(written.verdicts) == 2
    text = (tmp_path / "both.md").read_text(encoding="utf-8")
    rates = {name: sum(bool(a.right_after) for a in answers_of(shift=n)) for n, name in enumerate(("facts", "other"))}
    best, worse = max(rates, key=lambda name: rates[name]), min(rates, key=lambda name: rates[name])
    assert f"Against {best} ({100 * rates[best] / COUNT:.1f} %), on the same {COUNT} examples" in text
    points = 100 * (rates[worse] - rates[best]) / COUNT
    assert f"| {worse} | {100 * rates[worse] / COUNT:.1f} % | {points:+.1f} |" in text
    assert text.index("## Side by side") < text.index("## facts") < text.index("## other")


def test_no_name_is_given_twice_on_a_page_of_several_runs(bare: Path, tmp_path: Path) -> None:
    """Although their figures are the same."""
    write_report(bare, bare, out=tmp_path / "both.html")
    found = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert len(found.named("svg")) == 3
    assert {attributes["href"] for attributes in found.named("use")} <= {f"#{name}" for name in names}


def test_runs_of_other_tasks_are_said_not_to_compare(run: Path, tmp_path: Path) -> None:
    base = dataclasses.replace(result_of().base_model, fingerprint="0" * 32)
    other = write_run(tmp_path / "facts", result_of(base_model=base))
    write_report(run, other, out=tmp_path / "both.md", format="md")
    text = (tmp_path / "both.md").read_text(encoding="utf-8")
    assert "The runs are not of one base and one task" in text
    assert "facts (1)" in text
    assert "facts (2)" in text


BROKEN = GuardReading("notes.txt", "perplexity", 20.0, 30.0, 0.5, 0.02, "share")


def rival_of(gain: float) -> Rival:
    """Return a rival over which the edited model gains so much."""
    return Rival(0.4, 2.0, 400, gain_of(gain, 0.05), tokens_per_request=60.0, edited_tokens_per_request=10.0)


CUT = {"method": "rank_reduction", "layer": 1, "matrix_type": "up", "rank_fraction": 0.1, "rank": 1}


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        (
            {},
            "Better, beyond chance",
            "goes from 5.0 % to 15.0 % (+10.0 points, 95 % interval +8.0 to +12.0), which chance does not explain.",
        ),
        ({"gain": 0.01}, "No gain is shown", "which chance may explain."),
        ({"gain": -0.04}, "Worse than before", "(-4.0 points, 95 % interval -6.0 to -2.0), a loss."),
        (
            {"interventions": ()},
            "Keep the model as it is",
            "No edit helped on the examples that choose, so the model stays as it is, at 5.0 % accuracy on 400",
        ),
        ({"guards": (BROKEN,)}, "A guard is broken", "The guard on notes.txt is broken."),
        (
            {"rivals": Rivals({"shots_1": rival_of(0.0), "shots_5": rival_of(-0.1)})},
            "Better, beyond chance",
            "Five examples in the prompt do better (40.0 % against 30.0 %)",
        ),
        (
            {"rivals": Rivals({"shots_1": rival_of(0.0)})},
            "Better, beyond chance",
            "One example in the prompt does as well",
        ),
        (
            {"price": price_of(SMALL_DRIFT), "guards": (dataclasses.replace(BROKEN, harm=0.01),)},
            "Better, beyond chance",
            "try your other uses first (drift 0.03 nats per token), and every guard holds.",
        ),
        (
            {"price": price_of(LARGE_DRIFT)},
            "Better, beyond chance",
            "It changes 2 of 5 words the base would say: for this task only (drift 0.60 nats per token).",
        ),
    ],
)
def test_the_decision_is_told_in_words(tmp_path: Path, changes: dict[str, Any], verdict: str, said: str) -> None:
    run = write_run(tmp_path / "run", result_of(**{"interventions": (CUT,), **changes}))
    written = write_report(run, out=tmp_path / "report.md", format="md")
    assert written.verdicts == (verdict,)
    assert said in (tmp_path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert written.missing[0].startswith("There are no single answers (answers.jsonl)")
    assert written.examples_path is None


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    run = write_full_run(tmp_path / "run", leaderboard=False)
    for name in ("result.json", "answers.jsonl", "spectra.json"):
        (run / name).unlink()
    written = write_report(run, out=tmp_path / "report.md", format="md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert written.verdicts == ("Not finished",)
    assert "nothing is decided yet. 21 trials are kept" in text
    assert "there is no result.json, and no held-out figure; go on by --resume." in text
    assert "Loss against layer and rank" in text


def test_a_portfolio_that_is_still_at_work_shows_its_leaderboard(tmp_path: Path) -> None:
    run = tmp_path / "portfolio"
    figures = Figures(0.4, 2.0, 50)
    leads = Standing(
        name="sharpen",
        family="sharpen",
        setting="4 steps",
        state="tried",
        select=figures,
        comparison=gain_of(0.1, 0.05),
    )
    left = Standing(name="lora", family="train", setting="rank 8", state="left out", why="peft is not installed.")
    Leaderboard(standings=(leads, left)).save(run / "leaderboard.json")
    written = write_report(run, out=tmp_path / "report.md", format="md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert written.verdicts == ("Not finished",)
    assert text.startswith("# portfolio\n")
    assert "Gains in points with 95 % intervals: sharpen +10 (+5 to +15)." in text
    assert "| sharpen | 40.0 % | 2.000 | +10.0 (+5.0 to +15.0) of 50 |" in text
    assert "lora: peft is not installed." in text


def test_a_task_of_losses_and_one_of_a_metric_are_reported_in_their_own_units(tmp_path: Path) -> None:
    bare = result_of(comparison={"test": gain_of(0.25, 0.1)})
    figures = {"select": Figures(None, 3.0, 50, perplexity=20.0), "test": Figures(None, 3.0, 50, perplexity=20.0)}
    run = write_run(tmp_path / "losses", dataclasses.replace(bare, base=figures, edited=figures))
    write_report(run, out=tmp_path / "losses.md", format="md")
    assert "| loss before | after | gain, nats per token |" in (tmp_path / "losses.md").read_text()
    assert "| 3.000 | 3.000 | +0.2500 | +0.1500 to +0.3500 | 50 |" in (tmp_path / "losses.md").read_text()
    judged = {"select": Figures(0.8, 0.5, 50, metric=("f1", 0.7)), "test": Figures(0.8, 0.5, 50, metric=("f1", 0.7))}
    run = write_run(tmp_path / "f1", dataclasses.replace(bare, base=judged, edited=judged, metric="f1"))
    write_report(run, out=tmp_path / "f1.md", format="md")
    assert "| f1 before | after | gain, of f1 |" in (tmp_path / "f1.md").read_text()
    assert "| 0.7000 | 0.7000 | +0.2500 |" in (tmp_path / "f1.md").read_text()


def test_a_page_that_would_be_too_large_goes_without_figures(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.report.page.write.LARGEST_BYTES", 20_000)
    write_report(bare, bare, out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 1  # of the comparison
    assert "Figures of single runs are left out, for the page would be larger than a megabyte" in text
    assert "Gains in points with 95 % intervals: over the base +10" in Page(text).text


def test_what_is_no_run_or_cannot_be_written_is_told(run: Path, tmp_path: Path) -> None:
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: write_report(), UsageError, "A report is of one run or more: give their folders."),
        (lambda: write_report(run, format="pdf"), UsageError, "A report is written as html or md, not as 'pdf'."),  # type: ignore[arg-type]
        (lambda: write_report(tmp_path / "no"), RunError, f"There is no folder {tmp_path / 'no'}: give one that a run left"),
        (lambda: write_report(run / "result.json"), RunError, "result.json is a file: give the folder that a run left (--out)."),
        (lambda: write_report(tmp_path), RunError, f"{tmp_path} is no run, for it holds no config.json and no result.json of one"),
        (lambda: write_report(run, out=tmp_path), UsageError, f"{tmp_path} is a folder, and a file is to be written there"),
    ]  # fmt: skip
    for call, kind, said in cases:
        with pytest.raises(kind) as error:
            call()
        assert said in str(error.value)
    (tmp_path / "recipe").mkdir()
    write_json(tmp_path / "recipe" / "recipe.json", {})
    with pytest.raises(UsageError, match="is a recipe, and a report is of a run: give the folder of its run"):
        write_report(tmp_path / "recipe")


def test_a_report_that_is_there_is_overwritten_only_by_force(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    write_report(run, out=out, format="md")
    with pytest.raises(
        UsageError, match=r"report\.md is there already: name another file, or overwrite it by --force\."
    ):
        write_report(run, out=out, format="md")
    bare = write_run(tmp_path / "bare", full_result(answers_of()))
    assert write_report(bare, out=out, format="md", force=True).examples_path is None
    assert not (tmp_path / "report-examples.jsonl").exists()  # those of the run before are not this one's


def test_damage_is_told_with_its_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", result_of())
    write_answers(run, answers_of(4))
    (run / "answers.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"answers\.jsonl is damaged"):
        write_report(run, out=tmp_path / "report.md", format="md")
    assert not (tmp_path / "report.md").exists()
