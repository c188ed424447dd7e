"""Files as people have them: each is recognised and read as it is meant, or refused in one line that says where."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from openpyxl import Workbook

from fieldbook import FieldbookError
from fieldbook.problems.fetch import fetch
from fieldbook.problems.reading import Reading, read
from fieldbook.problems.recognise import Unclear, recognise

ROWS = [  # order_id, placed, amount, kind
    ("1", "2024-12-31T18:30", 1234.5, "shoes"),
    ("2", "2024-12-30T08:05", 3.25, "books"),
    ("3", "2024-11-02T23:59", 12.0, "Möbel"),
    ("4", "2024-10-01T00:00", 7.75, "shoes"),
]
HEAD = ("order_id", "placed", "amount", "kind")


SECOND = pytest.mark.slow


def tiers(cases: dict[str, Any], first: str) -> list[Any]:
    """Return the names of cases; those that `make test` can do without are marked."""
    return [pytest.param(name, marks=[] if name in first.split(", ") else [SECOND]) for name in cases]


def text(sep: str = ",", rows: list[tuple[Any, ...]] = ROWS, head: tuple[str, ...] = HEAD, end: str = "\n") -> str:
    """Return the rows as text."""
    return "".join(sep.join(map(str, row)) + end for row in [head, *rows])


def taken(source: Path | str, **given: Any) -> tuple[pd.DataFrame, Reading, list[str]]:
    """Return a source as it is read once recognised, by settings that have gone through a file, and what was said."""
    needed = given.pop("needed", ())
    reading, sentences = recognise(str(source), given, needed)
    settings = json.loads(json.dumps(reading.model_dump(exclude_defaults=True)))
    return read(str(source), Reading(**settings)), reading, sentences


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def german(number: float) -> str:
    """Return a number as it is written in Germany."""
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


LOCAL = [(key, f"{at[8:10]}/{at[5:7]}/{at[:4]} {at[11:]}", german(amount), kind) for key, at, amount, kind in ROWS]
SAME: dict[str, tuple[str, bytes]] = {  # the same four rows; name of the file, content
    "comma": ("t.csv", text().encode()),
    "BOM": ("t.csv", text().encode("utf-8-sig")),
    "CRLF": ("t.csv", text(end="\r\n").encode()),
    "old Mac": ("t.csv", text(end="\r").encode()),
    "no last line end": ("t.csv", text().rstrip().encode()),
    "tab": ("t.tsv", text("\t").encode()),
    "tab that is called csv": ("t.csv", text("\t").encode()),
    "bar": ("t.txt", text("|").encode()),
    "semicolon and decimal comma": ("t.csv", text(";", LOCAL).encode("cp1252")),
    "semicolon and latin-1": ("t.csv", text(";", LOCAL, end="\r\n").encode("latin-1")),
    "UTF-16": ("t.csv", text(";", LOCAL).encode("utf-16")),
    "UTF-16 without a mark": ("t.csv", text("\t").encode("utf-16-le")),
    "sep=": ("t.csv", ("sep=;\n" + text(";", LOCAL)).encode()),
    "gzip": ("t.csv.gz", gzip.compress(text().encode())),
    "bzip2": ("t.csv.bz2", bz2.compress(text().encode())),
    "xz": ("t.csv.xz", lzma.compress(text().encode())),
    "gzip that is called csv": ("t.csv", gzip.compress(text().encode())),
    "all quoted": ("t.csv", text('","').replace("\n", '"\n"').removesuffix('"').join(['"', ""]).encode()),
    "title above": ("t.csv", f"Orders of 2024\nmade by a spreadsheet, on Monday\n\n{text()}".encode()),
    "comments above": ("t.csv", f"# Orders\n# amount in EUR\n{text()}".encode()),
    "title filled up": ("t.csv", f"Orders of 2024;;;\n;;;\n{text(';', LOCAL)}".encode()),
    "notes below": ("t.csv", f"{text()}\nSource: the shop\n".encode()),
    "notes with commas below": ("t.csv", f"{text()}\nSource: the shop, 2024, all of it\nNote: none\n".encode()),
    "total below": ("t.csv", f"{text(';', LOCAL)}Total;;1.257,50;\n".encode()),
    "empty rows": ("t.csv", f"{text(';', LOCAL)};;;\n;;;\n".encode()),
    "trailing delimiter in rows": ("t.csv", text().replace("\n", ",\n").replace("kind,", "kind", 1).encode()),
    "trailing delimiter everywhere": ("t.csv", text(",").replace("\n", ",\n").encode()),
    "blanks around": ("t.csv", text(" , ").encode()),
    "no suffix": ("table", text(";").encode()),
}


@pytest.mark.parametrize(
    "form", tiers(SAME, "comma, tab, UTF-16, gzip, CRLF, notes below, trailing delimiter in rows, blanks around")
)
def test_the_same_rows_in_many_forms(tmp_path: Path, form: str) -> None:
    name, content = SAME[form]
    table, _, sentences = taken(write(tmp_path, content, name))
    assert list(table) == list(HEAD), sentences
    assert table.order_id.tolist() == [1, 2, 3, 4] and table.amount.tolist() == [row[2] for row in ROWS], sentences
    assert table.placed.dt.strftime("%Y-%m-%dT%H:%M").tolist() == [row[1] for row in ROWS], sentences
    assert table.kind.tolist() == [row[3] for row in ROWS], sentences


SAID = {  # and what must be said of it
    "semicolon and decimal comma": [
        "semicolon",
        "decimal comma",
        "cp1252",
        "'Möbel'",
        "day/month/year hour:minute",
    ],
    "UTF-16": ["UTF-16", "BOM"],
    "title above": ["3 lines above the header", "Orders of 2024"],
    "total below": ["1 row below the table", "Total"],
    "trailing delimiter in rows": ["each row ends in a delimiter"],
    "blanks around": ["blanks around fields"],
}


@pytest.mark.parametrize("form", tiers(SAID, "semicolon and decimal comma, total below"))
def test_what_is_recognised_is_said(tmp_path: Path, form: str) -> None:
    name, content = SAME[form]
    said = "\n".join(recognise(str(write(tmp_path, content, name))).sentences)
    assert [part for part in SAID[form] if part not in said] == [], said


def frame() -> pd.DataFrame:
    """Return the rows with types."""
    return pd.DataFrame(ROWS, columns=HEAD).assign(order_id=[1, 2, 3, 4], placed=lambda t: pd.to_datetime(t.placed))


def workbook(path: Path, rows: list[list[Any]], **sheets: list[list[Any]]) -> Path:
    """Write a workbook."""
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for title, others in sheets.items():
        sheet = book.create_sheet(title)
        for row in others:
            sheet.append(row)
    book.save(path)
    return path


def typed(folder: Path, kind: str) -> Path:
    """Write the rows in a format that has types."""
    rows, path = frame(), folder / kind
    records = json.loads(rows.to_json(orient="records", date_format="iso"))
    cells = [
        [value.to_pydatetime() if isinstance(value, pd.Timestamp) else value for value in row]
        for row in rows.itertuples(index=False)
    ]
    if kind.endswith("parquet"):
        rows.to_parquet(path)
    elif kind.endswith("feather"):
        rows.to_feather(path)
    elif kind.endswith("jsonl"):
        path.write_text("\n".join(map(json.dumps, records)))
    elif kind == "lines.json":
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    elif kind == "columns.json":
        path.write_text(json.dumps({name: [record[name] for record in records] for name in HEAD}))
    elif kind == "under.json":
        path.write_text(json.dumps({"count": 4, "orders": records}))
    elif kind == "t.json":
        path.write_text(json.dumps(records, indent=1))
    elif kind == "t.xlsx":
        workbook(path, [list(HEAD), *cells])
    elif kind == "titled.xlsx":
        workbook(path, [["Orders of 2024"], [], list(HEAD), *cells, ["Total", None, 1257.5]], Notes=[["nothing of it"]])
    elif kind == "t.sqlite":
        with sqlite3.connect(path) as store:
            rows.assign(placed=rows.placed.dt.strftime("%Y-%m-%d %H:%M:%S")).to_sql("orders", store, index=False)
    return path


TYPED = [
    "t.parquet",
    "t.feather",
    "t.jsonl",
    "lines.json",
    "columns.json",
    "under.json",
    "t.json",
    "t.xlsx",
    "titled.xlsx",
    "t.sqlite",
]


@pytest.mark.parametrize("kind", tiers(dict.fromkeys(TYPED), "t.jsonl, titled.xlsx, under.json"))
def test_formats_with_types(tmp_path: Path, kind: str) -> None:
    table, _, sentences = taken(typed(tmp_path, kind))
    assert list(table) == list(HEAD), sentences
    pd.testing.assert_frame_equal(table, frame(), check_dtype=False)
    assert table.placed.dtype == "datetime64[us]" and table.order_id.dtype == "int64"


def test_a_plain_file_needs_no_settings(tmp_path: Path) -> None:
    table, reading, _ = taken(write(tmp_path, "a,b,c\n1,x,2.5\n2,,3\n"))
    assert reading == Reading() and table.b.isna().tolist() == [False, True]


# Columns: what the fields are, what becomes of them, and what is said.
WORDS = ["None", "NA", "null", "NaN", "n/a", "nan"]
COLUMNS: dict[str, tuple[list[str], list[Any], str]] = {
    "classes that are words for nothing": (WORDS, WORDS, "stays a word"),
    "gaps among numbers": (["1", "NA", "3", "n/a", "NA"], [1.0, None, 3.0, None, None], "'NA' in 2 rows"),
    "question marks among numbers": (["1.5", "?", "??", "3", "4"], [1.5, None, None, 3.0, 4.0], "missing"),
    "a number for none": (["30", "-999", "41", "28", "-999", "33"], [30, None, 41, 28, None, 33], "-999 in 2 rows"),
    "leading zeros": (["02134", "10115", "00501"], ["02134", "10115", "00501"], "begins with a zero"),
    "a telephone": (["+49301234", "+49401234"], ["+49301234", "+49401234"], "begins with a plus"),
    "eighteen digits": (["123456789012345678", "123456789012345679"], [123456789012345678, 123456789012345679], ""),
    "eighteen digits and a gap": (["123456789012345679", "", "5"], [123456789012345679, None, 5], ""),
    "2^63": (["9223372036854775808", "1"], ["9223372036854775808", "1"], "more digits"),
    "seven digits": (["2987001", "2987002"], [2987001, 2987002], ""),
    "per cent": (["12%", "3.5%", "100 %"], [12.0, 3.5, 100.0], "12% is the number 12"),
    "dollars": (["$1,234.50", "$3.00", "-$2.50"], [1234.5, 3.0, -2.5], "'$'"),
    "euros": (["1234.50 €", "3.00 €"], [1234.5, 3.0], "'€'"),
    "a unit": (["12 kg", "3.5 kg"], [12.0, 3.5], "'kg'"),
    "two currencies": (["12 €", "12 $"], ["12 €", "12 $"], ""),
    "exponents": (["1e-7", "2.5E+3"], [1e-7, 2500.0], ""),
    "truth values": (["true", "false"], ["true", "false"], ""),
    "yes and no": (["yes", "No"], ["yes", "No"], ""),
    "a version": (["1.2.3", "1.10.0"], ["1.2.3", "1.10.0"], ""),
    "codes": (["A12", "A13"], ["A12", "A13"], ""),
    "numbers and a word": (["1", "2", "3", "4", "5", "dear"], ["1", "2", "3", "4", "5", "dear"], "row 5: 'dear'"),
    "typographer's minus": (["\u22123", "4"], [-3, 4], ""),
    "blank fields": (["1", " ", "3"], [1.0, None, 3.0], ""),
}


@pytest.mark.parametrize(
    "kind",
    tiers(
        COLUMNS,
        "classes that are words for nothing, gaps among numbers, a number for none, leading zeros, eighteen digits, "
        "eighteen digits and a gap, 2^63, per cent, euros, numbers and a word",
    ),
)
def test_fields_become_values_without_loss(tmp_path: Path, kind: str) -> None:
    fields, expected, said = COLUMNS[kind]
    content = "".join(f'{n},"{field}"\n' for n, field in enumerate(fields))
    table, _, sentences = taken(write(tmp_path, f"n,x\n{content}"))
    found = table.x.astype(object).where(table.x.notna(), None).tolist()
    assert found == expected, sentences
    assert said in "\n".join(sentences)


TIMES: dict[str, tuple[list[str], str, str]] = {  # the fields, the form, the first of them
    "day first": (["31/12/2024 18:30", "01/02/2024 07:05"], "%d/%m/%Y %H:%M", "2024-12-31 18:30:00"),
    "month first": (["12/31/2024", "1/2/2024"], "%m/%d/%Y", "2024-12-31 00:00:00"),
    "points": (["1.12.2024", "2.3.2024"], "%d.%m.%Y", "2024-12-01 00:00:00"),
    "two digits": (["31.12.24", "01.02.24"], "%d.%m.%y", "2024-12-31 00:00:00"),
    "a month's name": (["Mar-2018", "Apr-2018"], "%b-%Y", "2018-03-01 00:00:00"),
    "a date alone": (["2024-05-01", "2024-05-02"], "iso", "2024-05-01 00:00:00"),
    "a zone": (["2024-05-01T12:00:00.000Z", "2024-05-01T14:00:00+02:00"], "iso", "2024-05-01 12:00:00"),
    "microseconds": (["2024-05-01 12:00:00.123456", "2024-05-01 12:00:01.5"], "iso", "2024-05-01 12:00:00.123456"),
    "AM and PM": (["05/13/2024 03:04 PM", "05/14/2024 11:59 AM"], "%m/%d/%Y %I:%M %p", "2024-05-13 15:04:00"),
    "spoken": (["May 13, 2024", "June 1, 2024"], "%B %d, %Y", "2024-05-13 00:00:00"),
    "of a mail": (
        ["Mon, 13 May 2024 12:00:00 +0200", "Tue, 14 May 2024 12:00:00 +0000"],
        "%a, %d %b %Y %H:%M:%S %z",
        "2024-05-13 10:00:00",
    ),
    "seconds": (["1714564800", "1714564900"], "epoch_s", "2024-05-01 12:00:00"),
    "milliseconds": (["1714564800000", "1714564900000"], "epoch_ms", "2024-05-01 12:00:00"),
    "eight digits": (["20240501", "20240502"], "%Y%m%d", "2024-05-01 00:00:00"),
    "year first": (["2024/05/01 12:00", "2024/05/02 12:00"], "%Y/%m/%d %H:%M", "2024-05-01 12:00:00"),
    "with gaps": (["31/12/2024", "NA", "01/12/2024"], "%d/%m/%Y", "2024-12-31 00:00:00"),
    "with zeros for none": (["2024-05-01", "0000-00-00", "2024-05-02"], "iso", "2024-05-01 00:00:00"),
}


@pytest.mark.parametrize("kind", tiers(TIMES, "day first, a month's name, a zone, seconds, with gaps"))
def test_times_are_recognised(tmp_path: Path, kind: str) -> None:
    fields, form, first = TIMES[kind]
    content = "".join(f'{n},"{field}"\n' for n, field in enumerate(fields))
    table, reading, sentences = taken(write(tmp_path, f"n,created_at\n{content}"), needed=["created_at"])
    assert reading.times == {"created_at": form} and str(table.created_at[0]) == first, sentences
    assert any(sentence.startswith("created_at: ") for sentence in sentences)


def test_ambiguous_times_are_asked_for_with_three_examples(tmp_path: Path) -> None:
    path = write(tmp_path, "day,x\n03/04/2024,1\n05/06/2024,2\n07/08/2024,3\n09/10/2024,4\n")
    with pytest.raises(Unclear) as asked:
        recognise(str(path))
    assert asked.value.doubts["day"] == (["%d/%m/%Y", "%m/%d/%Y"], ["03/04/2024", "05/06/2024", "07/08/2024"])
    assert "--times 'day=%d/%m/%Y'" in str(asked.value)
    table, _, _ = taken(path, times={"day": "%m/%d/%Y"})
    assert str(table.day[0]) == "2024-03-04 00:00:00"
    assert taken(path, words=["day"])[0].day[0] == "03/04/2024"


def test_a_mixture_of_times_is_told_with_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "day,x\n31/12/2024,1\n30/12/2024,2\n2024-12-29,3\nsoon,4\n")
    table, _, sentences = taken(path)
    assert table.day[0] == "31/12/2024" and any("row 2: '2024-12-29'; row 3: 'soon'" in said for said in sentences)
    with pytest.raises(FieldbookError, match="row 2: '2024-12-29'; row 3: 'soon'"):
        recognise(str(path), needed=["day"])


def test_a_time_of_another_form_is_refused_later(tmp_path: Path) -> None:
    path = write(tmp_path, "day,x\n31/12/2024,1\n2024-12-29,3\n")
    with pytest.raises(FieldbookError, match="column day.*row 1: '2024-12-29'"):
        read(str(path), Reading(times={"day": "%d/%m/%Y"}))


REFUSED: dict[str, tuple[bytes, list[str]]] = {  # what is wrong, the file, what is said
    "a row too long": (b"a,b\n1,2\n3,4,5\n6,7\n", ["line 3", "3 fields", "has 2", "(3,4,5)"]),
    "a row too short": (b"a,b,c\n1,2,3\n4,5\n6,7,8\n", ["line 3", "2 fields", "has 3"]),
    "cut off": (b"a,b,c\n1,2,3\n4,5,6\n7,8,9\n1,2", ["line 5", "2 fields"]),
    "a header too short": (
        b"row,age,churn\n0,44,37.1,2\n1,31,3.5,4\n2,8,9.5,1\n",
        ["line 2", "4 fields", "(0,44,37.1,2)", "line 1"],
    ),
    "a quote never closed": (b'a,b\n1,"x\n2,y\n3,z\n', ["line 2", "never closed"]),
    "text after a quote": (b'a,b\n1,"x"y\n2,z\n', ["line 2", "text follows"]),
    "NUL": (b"a,b\n1,2\n3,\0\n", ["line 3", "NUL"]),
    "two encodings": ("ä,b\n".encode() * 20 + b"\xe4,b\n", ["line 21", "two encodings"]),
    "empty": (b"", ["is empty"]),
    "blanks": (b"  \n\n", ["is empty"]),
    "a header alone": (b"a,b\n", ["no rows"]),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_broken_text_is_refused_with_its_line(tmp_path: Path, fault: str) -> None:
    content, said = REFUSED[fault]
    with pytest.raises(FieldbookError) as told:
        taken(write(tmp_path, content))
    assert [part for part in said if part not in str(told.value)] == [], told.value


@pytest.mark.parametrize("content", ["row,age,churn\n0,44,1,\n1,31,0,\n", "a,b\n1,2\n3\n", 'a,b\n1,"2\n', "a,a\n1,2\n"])
def test_without_settings_nothing_is_mended_in_silence(tmp_path: Path, content: str) -> None:
    with pytest.raises(FieldbookError):
        read(str(write(tmp_path, content)))


def test_names_are_mended_and_said(tmp_path: Path) -> None:
    table, _, sentences = taken(write(tmp_path, ",a , weight (kg),a\n0,1,2.5,x\n1,3,4.5,y\n"))
    assert list(table) == ["column_1", "a", "weight (kg)", "a_2"]
    said = "\n".join(sentences)
    assert "'a' more than once" in said and "column_1" in said


def test_a_file_without_a_header(tmp_path: Path) -> None:
    table, reading, sentences = taken(
        write(tmp_path, "39, State-gov, 77516\n50, Private, 83311\n38, Private, 215646\n")
    )
    assert (
        reading.names == ["column_1", "column_2", "column_3"] and table.column_2[0] == "State-gov" and len(table) == 3
    )
    assert any("no header" in said for said in sentences)


@pytest.mark.parametrize("named", [["x.csv"], ["x.csv", "y.csv"]])
def test_an_archive_holds_one_file(tmp_path: Path, named: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for name in [*named, "__MACOSX/._x.csv"]:
            archive.writestr(name, text())
    if len(named) == 1:
        assert len(taken(tmp_path / "t.zip")[0]) == 4
    else:
        with pytest.raises(FieldbookError, match="holds 2 files"):
            recognise(str(tmp_path / "t.zip"))


def test_a_folder_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "months"
    folder.mkdir()
    for month in (1, 2):
        write(
            folder, f"id;x;day\n{month};1,5;0{month}.02.2024\n9{month};2,5;1{month + 3}.02.2024\n", f"2024-0{month}.csv"
        )
    write(folder, "no table", ".hidden")
    write(folder, "no table", "_notes.txt")
    table, _, sentences = taken(folder)
    assert table.id.tolist() == [1, 91, 2, 92] and "2 files as one table" in sentences[0]
    write(folder, "id;y;day\n1;1,5;01.02.2024\n", "2024-03.csv")
    with pytest.raises(FieldbookError, match="2024-01.csv and .*2024-03.csv differ in columns: 'x' is in"):
        recognise(str(folder))


def test_parquet_as_people_have_it(tmp_path: Path) -> None:
    twice = pd.concat([pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3, 4]})])
    twice.to_parquet(tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet")).index.tolist() == [0, 1, 2, 3]
    parquet.write_table(pa.table({"a": [1], "tags": [["x", "y"]]}), tmp_path / "l.parquet")
    with pytest.raises(FieldbookError, match="column 'tags' holds lists.*read.drop"):
        read(str(tmp_path / "l.parquet"))
    parquet.write_table(pa.table({"s": [{"x": 1}]}), tmp_path / "s.parquet")
    with pytest.raises(FieldbookError, match="column 's'"):
        recognise(str(tmp_path / "s.parquet"))


def test_a_list_column_can_be_left_out(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [1], "tags": [["x", "y"]]}), tmp_path / "l.parquet")
    assert list(read(str(tmp_path / "l.parquet"), Reading(drop=["tags"]))) == ["a"]
    path = write(tmp_path, '[{"a": 1, "tags": ["x"]}]', "t.json")
    assert list(taken(path, drop=["tags"])[0]) == ["a"]
    with pytest.raises(FieldbookError, match="column 'tags' holds lists"):
        recognise(str(path))


def test_json_inside_json(tmp_path: Path) -> None:
    table, _, _ = taken(
        write(
            tmp_path,
            '[{"id": 1, "at": {"town": "A", "zip": "02134"}}, {"id": 2, "at": {"town": null, "zip": "1"}}]',
            "t.json",
        )
    )
    assert list(table) == ["id", "at.town", "at.zip"] and table["at.zip"][0] == "02134"


def test_kinds_that_are_mixed_are_told(tmp_path: Path) -> None:
    table, _, sentences = taken(write(tmp_path, '[{"x": 1}, {"x": "a"}, {"x": true}]', "t.json"))
    assert table.x.tolist() == ["1", "a", "True"] and any("several kinds" in said for said in sentences)


def test_numbers_as_text_in_a_workbook(tmp_path: Path) -> None:
    rows = [
        ["id", "price", "at", "zip"],
        [1, "1,50", datetime(2024, 5, 1), "02134"],
        [2, 2, datetime(2024, 5, 2, 12), 10115],
    ]
    table, _, _ = taken(workbook(tmp_path / "t.xlsx", rows))
    assert (
        table.price.tolist() == [1.5, 2.0]
        and str(table["at"][1]) == "2024-05-02 12:00:00"
        and table.zip.tolist() == ["02134", "10115"]
    )


def test_several_sheets(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [["a"], [1]], More=[["b"], [1], [2], [3]])
    table, reading, sentences = taken(path)
    assert list(table) == ["b"] and reading.sheet == "More" and any("of 2 sheets" in said for said in sentences)
    assert list(taken(path, sheet="Sheet")[0]) == ["a"]
    with pytest.raises(FieldbookError, match="no sheet 'Other'.*Sheet, More"):
        recognise(str(path), {"sheet": "Other"})


def test_a_reader_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "t.xlsx", [["a"], [1]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(FieldbookError, match=r"pip install 'fieldbook\[excel\]'"):
        recognise(str(path))
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(FieldbookError, match=r"pip install 'fieldbook\[postgres\]'"):
        fetch("postgresql://ann:secret@127.0.0.1:1/shop", tmp_path)


@pytest.mark.parametrize("name", ["t.xls", "t.sas7bdat", "t.pdf"])
def test_what_is_not_read_is_said(tmp_path: Path, name: str) -> None:
    content = b"\xd0\xcf\x11\xe0\0\0" if name == "t.xls" else b"\0\1\2\3\0"
    with pytest.raises(FieldbookError, match="xlsx"):
        recognise(str(write(tmp_path, content, name)))


def test_a_large_table_takes_seconds(tmp_path: Path) -> None:
    """Five thousand rows here; a hundred thousand take twenty times as long."""
    import time

    rows = [(n, f"0{n % 9 + 1}/{n % 12 + 1:02d}/2024", n / 7, f"kind {n % 5}") for n in range(5_000)]
    path = write(tmp_path, text(rows=[*rows, (1, "31/12/2024", 1.5, "x")]))
    began = time.process_time()
    taken(path)
    assert time.process_time() - began < 3


def test_ids_keep_all_their_digits_as_key_class_and_cluster(tmp_path: Path) -> None:
    from fieldbook.problems.table import Tabular

    rows = [(2_987_000 + n, 10**17 + n % 40, f"{1_000_001 + n % 2}.0") for n in range(200)]
    path = write(tmp_path, text(rows=rows, head=("order", "customer", "shop")))
    label = {"column": "shop", "classes": ["1000001", "1000002"]}
    orders = Tabular(source=str(path), labels={"shop": label}, key=["order"], cluster="customer")
    examples = orders.examples(orders.ingest(), "shop")
    assert examples.example_id.tolist()[:2] == ["2987000", "2987001"] and examples.example_id.is_unique
    assert examples.cluster.nunique() == 40 and examples.label.tolist()[:2] == [0, 1]


ODD: dict[str, tuple[str, list[str]]] = {  # the file, and what must be said of it
    "several signs for decimals": ("a;b\n1,5;2.5\n3,25;4.75\n", ["another decimal sign"]),
    "thousands or decimals": ("a;b\n1.234;x\n5.678;y\n", ["1.234", "which nothing proves"]),
    "brackets for minus": ("a,b\n(12.50),x\n3,y\n", ["'(12.50)' is a negative number"]),
    "times that are not known": ("datum,x\n01. Mai 2024,1\n02. Mai 2024,2\n", ["--times 'datum=FORM'"]),
    "seconds or not": ("phone,x\n2025550123,1\n1234567890,2\n", ["--times 'phone=epoch_s'"]),
    "a unit below the header": ("t,w\ns,kg\n1,2.5\n2,3.5\n3,4.5\n", ["row 0: 'kg'"]),
    "a zone in some rows": (
        "at,x\n2024-05-01T12:00:00Z,1\n2024-05-01T13:00:00,2\n",
        ["1 without, taken as UTC", "row 1"],
    ),
    "a day there is not": ("d,x\n31/02/2024,1\n30/01/2024,2\n15/03/2024,3\n", ["row 0: '31/02/2024'"]),
}


@SECOND
@pytest.mark.parametrize("kind", ODD)
def test_what_may_be_meant_otherwise_is_said(tmp_path: Path, kind: str) -> None:
    content, said = ODD[kind]
    sentences = "\n".join(recognise(str(write(tmp_path, content))).sentences)
    assert [part for part in said if part not in sentences] == [], sentences


@SECOND
@pytest.mark.parametrize("encoding", ["cp1250", "mac_roman", "cp850", "cp1251", "shift_jis"])
def test_an_encoding_that_is_not_proven_is_named(tmp_path: Path, encoding: str) -> None:
    words = {
        "cp1250": ["Łukasz", "Żaneta", "Świętosława"],
        "mac_roman": ["Müller", "Schöße", "Ärger"],
        "cp850": ["Müller", "Schöße", "Ärger"],
        "cp1251": ["Москва", "Новгород", "Владивосток"],
        "shift_jis": ["東京の店", "大阪の店舗", "京都の駅"],
    }[encoding]
    content = "name,x\n" + "".join(f"{word},{n}\n" for n, word in enumerate(words))
    table, reading, sentences = taken(write(tmp_path, content.encode(encoding)))
    assert table.name.tolist() == words and reading.encoding in sentences[0].lower(), sentences
