"""Reading rows: every format gives the same rows, and every bad file one sentence that names the place."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from strop.errors import TaskError
from strop.tasks import check_task, load_task
from strop.tasks.rows import read_rows

ROWS = [{"prompt": "Où est Zürich ?", "answer": " en Suisse"}, {"prompt": "2 + 2 =", "answer": " 4"}]


def write(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix.lower() in (".csv", ".tsv"):
        lines = ['"prompt","answer"', *(f'"{row["prompt"]}","{row["answer"]}"' for row in rows)]
        text = "".join(f"{line}\n" for line in lines)
        path.write_text(text if path.suffix.lower() == ".csv" else text.replace('","', '"\t"'), "utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "ROWS.CSV", "rows.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert [dict(row) for row in read_rows(name, relative_to=tmp_path)] == ROWS


def test_a_data_file_is_found_beside_its_task_file_from_anywhere(
    write_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_task()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert sum(load_task(path).counts.values()) == 20


def test_blank_lines_of_json_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"prompt": "a"}\n   \n{"prompt": "b"}\n\n')
    assert [row["prompt"] for row in read_rows("a.jsonl", relative_to=tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert [dict(row) for row in read_rows(name, relative_to=tmp_path)] == ROWS


def test_a_quoted_csv_field_may_hold_commas_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,answer\n"one, two\nthree ""four""", five\n')
    assert [dict(row) for row in read_rows("a.csv", relative_to=tmp_path)] == [
        {"prompt": 'one, two\nthree "four"', "answer": " five"}
    ]


def test_a_local_folder_serves_as_a_hub_data_set_with_all_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", ROWS[:1])
    write(tmp_path / "set" / "test.jsonl", ROWS[1:])
    assert [dict(row) for row in read_rows("hf://set", relative_to=tmp_path)] == ROWS
    assert [dict(row) for row in read_rows("hf://set#test", relative_to=tmp_path)] == ROWS[1:]


def test_a_config_of_a_hub_data_set_is_chosen_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.jsonl", ROWS[:1])
    write(tmp_path / "set" / "two.jsonl", ROWS[1:])
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: one.jsonl\n- config_name: two\n  data_files: two.jsonl\n---\n"
    )
    assert [dict(row) for row in read_rows("hf://set:two", relative_to=tmp_path)] == ROWS[1:]
    assert [dict(row) for row in read_rows("hf://set:one#train", relative_to=tmp_path)] == ROWS[:1]


def test_a_task_runs_from_a_hub_folder(write_task: Callable[..., Path], tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", [{"prompt": f"p{i}", "answer": f" a{i}"} for i in range(10)])
    assert sum(load_task(write_task(data="hf://set")).counts.values()) == 10


@pytest.mark.parametrize("place", ["owner/set", "set"])
def test_a_hub_data_set_is_looked_for_in_the_named_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write(tmp_path / "shelf" / place / "train.jsonl")
    monkeypatch.setenv("STROP_DATA", str(tmp_path / "shelf"))
    assert [dict(row) for row in read_rows("hf://owner/set", relative_to=tmp_path)] == ROWS


def test_a_folder_beside_the_task_file_goes_before_the_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set" / "train.jsonl", ROWS[:1])
    write(tmp_path / "shelf" / "set" / "train.jsonl", ROWS[1:])
    monkeypatch.setenv("STROP_DATA", str(tmp_path / "shelf"))
    assert [dict(row) for row in read_rows("hf://set", relative_to=tmp_path)] == ROWS[:1]


def test_a_subfolder_is_a_config_where_no_readme_declares_it(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one" / "train.jsonl", ROWS[:1])
    write(tmp_path / "set" / "two" / "train.jsonl", ROWS[1:])
    assert [dict(row) for row in read_rows("hf://set:two", relative_to=tmp_path)] == ROWS[1:]
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: two\n  data_files: one/train.jsonl\n---\n"
    )
    assert [dict(row) for row in read_rows("hf://set:two", relative_to=tmp_path)] == ROWS[:1]


@pytest.mark.parametrize("slices", [("train[:70%]", "train[70%:]"), ("train[:7]", "train[7:]")])
def test_slices_of_a_split_share_no_row_and_leave_none_out(tmp_path: Path, slices: tuple[str, str]) -> None:
    rows = [{"prompt": f"p{number}", "answer": " a"} for number in range(10)]
    write(tmp_path / "set" / "train.jsonl", rows)
    write(tmp_path / "set" / "validation.jsonl", ROWS)
    first, rest = ([dict(row) for row in read_rows(f"hf://set#{part}", relative_to=tmp_path)] for part in slices)
    assert (first, rest) == (rows[:7], rows[7:])


@pytest.mark.parametrize("source", ["hf://set", "a.parquet"])
def test_reading_with_datasets_leaves_the_terminal_and_its_settings_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], source: str
) -> None:
    import datasets

    write(tmp_path / "set" / "train.jsonl")
    write(tmp_path / "a.parquet")
    before = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    read_rows(source, relative_to=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()) == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.jsonl",
            b'{"prompt": "a"}\n{"prompt": "\xff"}\n',
            ("line 2 has the byte 0xff (byte 28", "save it as UTF-8"),
        ),
        ("a.jsonl", '{"prompt": "a"}\n'.encode("utf-16"), ("is UTF-16 text, not UTF-8", "save it as UTF-8")),
        ("a.jsonl", '{"prompt": "a"}\n'.encode("utf-16-le"), ("holds a NUL byte in line 1",)),
        ("a.json", b'[{"n": ' + b'{"a":' * 100_000 + b"}]", ("nests lists or objects too deeply",)),
        ("a.json", b'[{"a": 1}, {"a": 1, "a": 2}]', ("names 'a' twice",)),
        ("a.json", b'[{"a": 1},\n {"a": tru}]', ("is not JSON: Expecting value (line 2, column 8)",)),
        ("a.csv", b"a,b,a\n1,2,3\n", ("The header of", "names the column 'a' twice; rename one")),
        (
            "a.csv",
            b"q;a\n1;2\n",
            ("is one column, 'q;a'; part the columns by commas, or by tabs in a file ending in .tsv",),
        ),
        (
            "a.tsv",
            b"q,a\n1,2\n",
            ("is one column, 'q,a'; part the columns by tabs, or by commas in a file ending in .csv",),
        ),
        ("a.csv", b"a,b\n1,\0\n", ("holds a NUL byte in line 2, which no text has",)),
        ("a.jsonl", b"", ("holds no rows",)),
        ("a.jsonl", b"\n\n", ("holds no rows",)),
        ("a.json", b"{]", ("is not JSON",)),
        ("a.json", b'{"prompt": "a"}', ("is not a JSON list of objects", "name it .jsonl")),
        ("a.json", b'[{"prompt": "a"}, 7]', ("is not a JSON list of objects (entry 2 is none)",)),
        ("a.json", b'["\xff"]', ("is not UTF-8 text",)),
        ("a.json", b"[]", ("holds no rows",)),
        (
            "a.csv",
            b'prompt,answer\na,b\nc,"d\ne,f\n',
            ("line 3 is not CSV: a quote in it is never closed", 'write "" for a quote inside a quoted value'),
        ),
        ("a.csv", b'prompt,answer\na,"b"c\n', ("line 2 is not CSV", 'write "" for a quote')),
        ("a.csv", b"prompt,answer\n\xff,b\n", ("is not UTF-8 text",)),
        ("a.csv", b"prompt,answer\n", ("holds no rows",)),
        ("a.csv", b"", ("holds no rows",)),
        ("a.parquet", b"not parquet at all", ("cannot be read as Parquet",)),
        ("a.parquet", b"", ("cannot be read as Parquet",)),
        ("a.txt", b"a", ("is none of .csv, .json, .jsonl, .parquet, .tsv", "convert it")),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, name: str, text: bytes, said: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(TaskError) as raised:
        read_rows(name, relative_to=tmp_path)
    message = str(raised.value)
    assert name in message
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", b'{"prompt": \n', "line 3 is not JSON: "),
        ("a.jsonl", b'["b"]\n', "line 3 is not a JSON object with named columns."),
        (
            "a.jsonl",
            b'{"prompt": "a", "prompt": "b"}',
            "line 3 holds an object that names 'prompt' twice; rename one.",
        ),
        ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}", "line 3 holds a number of 5,000 digits; write it as a text"),
        (
            "a.jsonl",
            b'{"n": ' + b"[" * 100_000 + b"}",
            "line 3 nests lists or objects too deeply to be read; flatten it.",
        ),
        (
            "a.csv",
            b"c,d,e\n",
            "line 3 has 3 values, not the header's 2 columns; quote a value that holds the separator, or skip the row.",
        ),
        (
            "a.tsv",
            b"   \n",
            "line 3 has 1 value, not the header's 2 columns; write a separator for each blank, or skip the row.",
        ),
    ],
)
def test_lines_that_cannot_be_read_are_told_with_all_other_bad_rows_and_can_be_skipped(
    tmp_path: Path, name: str, text: bytes, said: str
) -> None:
    """The damaged line is the third; the last row has no answer."""
    rows = [{"prompt": f"{n} + 1 =", "answer": f" {n + 1}"} for n in range(9)] + [{"prompt": "x", "answer": ""}]
    mark = {".csv": ",", ".tsv": "\t"}.get(Path(name).suffix, "")
    lines = [(mark.join(row.values()) if mark else json.dumps(row)).encode() + b"\n" for row in rows]
    if mark:
        lines.insert(0, mark.join(rows[0]).encode() + b"\n")
    (tmp_path / name).write_bytes(b"".join([*lines[:2], text.rstrip(b"\n"), b"\n", *lines[2:]]))
    task = {"name": "sums", "data": str(tmp_path / name)}
    damaged = 2 if mark else 3
    found = check_task(task)
    assert [row.row for row in found.bad] == [damaged, 11]
    assert found.bad[0].problem.startswith(said)
    with pytest.raises(
        TaskError, match=rf"row {damaged}: line 3 .*; 1 more row does not fit, and strop\.check_task lists"
    ):
        load_task(task)
    assert sum(load_task({**task, "skip": [damaged, 11]}).counts.values()) == 9
    assert [row.row for row in check_task({**task, "skip": {"prompt": ["x"]}}).bad] == [damaged]


def test_a_data_file_that_is_not_there_is_named_with_the_rule(write_task: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match=r"There is no data file .*gone\.jsonl; data: is relative to the task file"):
        load_task(write_task(data="gone.jsonl"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf://set#dev", "Unknown split"),
        ("hf://set:other", "'other' not found"),
        ("hf://nobody/nothing", "give owner/name as on the hub, or set STROP_DATA to a FOLDER that holds it"),
    ],
)
def test_a_hub_data_set_that_cannot_be_loaded_is_named(tmp_path: Path, source: str, said: str) -> None:
    write(tmp_path / "set" / "train.jsonl")
    with pytest.raises(TaskError) as raised:
        read_rows(source, relative_to=tmp_path)
    assert source in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_long_field_of_a_csv_is_read_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    text = "word " * 60_000
    (tmp_path / "a.csv").write_text(f"n,text\n1,{text}\n")
    assert [dict(row) for row in read_rows("a.csv", relative_to=tmp_path)] == [{"n": "1", "text": text}]
    assert csv.field_size_limit() == before


def test_a_blank_in_a_csv_is_a_missing_value_and_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",q,a,\n0,x,,\n1,,y,\n")
    assert [dict(row) for row in read_rows("a.csv", relative_to=tmp_path)] == [
        {"q": "x", "a": None},
        {"q": None, "a": "y"},
    ]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_as_on_any_system(tmp_path: Path, ending: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(ending.join([b"a,b", b"1,2", b""]))
    (tmp_path / "a.jsonl").write_bytes(ending.join([b'{"a": "1"}', b'{"a": "2"}']))
    assert [dict(row) for row in read_rows("a.csv", relative_to=tmp_path)] == [{"a": "1", "b": "2"}]
    assert [dict(row) for row in read_rows("a.jsonl", relative_to=tmp_path)] == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("source", ["a.json", "hf://set#train"])
def test_one_object_a_line_is_read_from_a_json_file_too(tmp_path: Path, source: str) -> None:
    for path in (tmp_path / "a.json", tmp_path / "set" / "train.json"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert [dict(row) for row in read_rows(source, relative_to=tmp_path)] == ROWS


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table([["1"], ["2"]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(TaskError, match="has the column 'a' twice; rename one"):
        read_rows("a.parquet", relative_to=tmp_path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("sub", "is a folder; name a file in it, or write hf://sub"),
        ("a\0.csv", "cannot be looked for"),
        ("\ud83d.csv", "cannot be looked for"),
        ("x" * 5000 + ".csv", "cannot be looked for: File name too long"),
        ("~nobody-here/a.csv", "cannot be looked for: Could not determine home directory"),
    ],
)
def test_a_name_that_no_data_file_can_have_is_refused_in_a_sentence(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(TaskError) as raised:
        read_rows(source, relative_to=tmp_path)
    assert said in str(raised.value)
    str(raised.value).encode()


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(TaskError, match=r"The data file .*a\.jsonl cannot be read: Permission denied"):
        read_rows("a.jsonl", relative_to=tmp_path)


def test_a_compressed_file_of_a_hub_folder_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with gzip.open(tmp_path / "set" / "train.csv.gz", "wt") as file:
        file.write("code,zip\nNA,02108\n")
    assert [dict(row) for row in read_rows("hf://set#train", relative_to=tmp_path)] == [{"code": "NA", "zip": "02108"}]


def test_the_layout_that_a_hub_folder_declares_is_read_by_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "rows.csv").write_text("x;02108\ny;NA\n")
    head = "---\nconfigs:\n- config_name: default\n  data_files: rows.csv\n"
    (folder / "README.md").write_text(head + '  sep: ";"\n  names: [q, a]\n---\n')
    found = [dict(row) for row in read_rows("hf://set", relative_to=tmp_path)]
    assert found == [{"q": "x", "a": "02108"}, {"q": "y", "a": "NA"}]
    (folder / "README.md").write_text(head + "  skiprows: 1\n---\n")
    with pytest.raises(TaskError, match=r"README\.md says skiprows: 1 of .*rows\.csv, which Strop does not read by"):
        read_rows("hf://set", relative_to=tmp_path)


def test_the_field_that_a_hub_folder_declares_holds_the_rows(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    head = "---\nconfigs:\n- config_name: default\n  data_files: rows.json\n"
    (folder / "README.md").write_text(f"{head}  field: data\n---\n")
    assert [dict(row) for row in read_rows("hf://set", relative_to=tmp_path)] == ROWS


def test_splits_and_slices_may_be_added(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", [{"prompt": f"p{number}", "answer": " a"} for number in range(4)])
    write(tmp_path / "set" / "validation.jsonl", ROWS)
    found = read_rows("hf://set#train[-1:]", relative_to=tmp_path)
    assert [row["prompt"] for row in found] == ["p3"]
    assert len(read_rows("hf://set#all", relative_to=tmp_path)) == 6


def test_text_files_of_the_hub_are_fetched_and_read_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.csv").write_text("q,a\nNamibia,NA\nBoston,02108\nNowhere,\n")
    asked = []
    build = datasets.load_dataset_builder

    def hub(place: str, config: str | None, *, data_dir: str | None) -> object:
        asked.append((place, config, data_dir))
        return build(str(tmp_path / "hub"))

    monkeypatch.setattr("datasets.load_dataset_builder", hub)
    found = [dict(row) for row in read_rows("hf://owner/codes#train[:2]", relative_to=tmp_path)]
    assert found == [{"q": "Namibia", "a": "NA"}, {"q": "Boston", "a": "02108"}]
    assert asked == [("owner/codes", None, None)]


def test_what_datasets_keeps_of_csv_files_is_not_read_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = SimpleNamespace(name="cache", info=SimpleNamespace(builder_name="csv"))
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *_, **__: kept)
    with pytest.raises(TaskError, match=r"CSV files of owner/codes has lost texts such as NA and 02108; fetch it"):
        read_rows("hf://owner/codes", relative_to=tmp_path)
