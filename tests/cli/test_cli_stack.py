"""`--stack` says in which of a model's lists of blocks a method works."""

import json
from pathlib import Path

from tests.fixtures.paired import make_tiny_paired, paired_tokenizer
from typer.testing import CliRunner

from strop.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "encoders.md"


def test_a_search_in_the_cross_attention_of_an_encoder_decoder(tmp_path: Path, facts: Path) -> None:
    make_tiny_paired().save_pretrained(tmp_path / "model")
    paired_tokenizer().save_pretrained(tmp_path / "model")
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "t5.yaml").write_text("name: T5\n" + page.partition("name: T5\n")[2].partition("```")[0])
    call = [
        "search",
        str(tmp_path / "model"),
        "--task",
        str(facts),
        "--out",
        str(tmp_path / "run"),
        "--json",
        "--quiet",
    ]
    call += ["--family", str(tmp_path / "t5.yaml"), "--select-limit", "4", "--test-limit", "4", "--no-rivals"]
    call += ["--strategy", "exhaustive", "--rank-fractions", "0.5", "--matrix-types", "value"]
    found = CliRunner().invoke(app, [*call, "--stack", "cross", "--layers", "2"])
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"]["stack"] == "cross"
    assert all(entry["stack"] == "cross" for entry in json.loads(found.stdout)["interventions"])
    refused = CliRunner().invoke(app, [*call[:4], "--out", str(tmp_path / "other"), *call[6:], "--layers", "7"])
    assert refused.exit_code == 1
    assert "names a layer this model has not: it has layers 0 to 2" in str(refused.exception)
