"""Rows of a real PostgreSQL become a snapshot in the project, and no password is written anywhere."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from fieldbook import FieldbookError
from fieldbook.problems.database import table_of
from fieldbook.problems.fetch import fetch
from fieldbook.problems.reading import read
from fieldbook.problems.recognise import recognise

pytestmark = pytest.mark.slow  # the notebooks' examples are in the first tier

SECRET = "s3cr:et@word"
SETUP = f"""
CREATE ROLE ann LOGIN PASSWORD '{SECRET}';
CREATE TABLE orders (id bigint, placed timestamptz, price numeric(10, 2), kind text, back boolean, day date);
INSERT INTO orders VALUES (123456789012345679, '2024-05-01 14:00+02', 12.50, 'None', true, '2024-05-01'),
    (2, '2024-05-02 12:00+00', NULL, NULL, false, NULL), (3, '2024-05-03 12:00+00', 7, 'Möbel', NULL, '2024-05-03');
CREATE SCHEMA "old shop";
CREATE TABLE "old shop"."Order Lines" ("a b" int, tags text[], who json);
INSERT INTO "old shop"."Order Lines" VALUES (1, '{{x}}', '{{}}');
GRANT SELECT ON orders TO ann;
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Return the address of a PostgreSQL on loopback, started for this module by a user who is not root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (.ci/postgres installs it on Debian)")
    folder, home = found[-1].parent, Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own are root's alone
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    (home / "owner").write_text("of the owner\n")
    for path in (home, home / "owner") if user else ():
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(*command: str, given: str = "") -> None:
        done = subprocess.run(command, cwd=home, user=user, capture_output=True, text=True, timeout=60, input=given)
        assert done.returncode == 0, done.stderr + done.stdout

    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home} -c fsync=off"
    try:
        who = ("-U", "owner", f"--pwfile={home}/owner", "-A", "scram-sha-256", "--auth-local=trust")
        call(f"{folder}/initdb", "-D", f"{home}/data", *who, "--no-locale", "-E", "UTF8", "-N")
        call(f"{folder}/pg_ctl", "-D", f"{home}/data", "-o", options, "-l", f"{home}/log", "-w", "start")
        call(
            f"{folder}/psql",
            "-q",
            "-h",
            str(home),
            "-p",
            str(port),
            "-U",
            "owner",
            "-v",
            "ON_ERROR_STOP=1",
            "postgres",
            given=SETUP,
        )
        yield f"postgresql://ann:{SECRET.replace('@', '%40').replace(':', '%3A')}@127.0.0.1:{port}/postgres"
    finally:
        if (home / "data/postmaster.pid").exists():
            call(f"{folder}/pg_ctl", "-D", f"{home}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(home)


def test_a_table_of_postgres_becomes_a_snapshot(postgres: str, tmp_path: Path) -> None:
    fetched = fetch(postgres, tmp_path, table="orders")
    assert fetched.source == f"{tmp_path}/orders.parquet" and "3 rows" in fetched.sentences[0]
    reading, sentences = recognise(fetched.source)
    table = read(fetched.source, reading)
    assert table.id.tolist() == [123456789012345679, 2, 3] and table.kind.fillna("").tolist() == ["None", "", "Möbel"]
    assert str(table.placed[0]) == "2024-05-01 12:00:00" and table.price.fillna(0).tolist() == [12.5, 0, 7]
    assert str(table.day[2]) == "2024-05-03 00:00:00" and table.back.tolist()[:2] in ([True, False], ["True", "False"])
    said = "\n".join([*fetched.sentences, *sentences])
    assert SECRET not in said and "s3cr" not in said and "password" in said
    assert not any(b"s3cr" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_query_and_a_password_from_the_environment(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _, after = postgres.partition("ann:")
    monkeypatch.setenv("SHOP_PASSWORD", after.partition("@")[0])
    source = f"{before}ann:${{SHOP_PASSWORD}}@{after.partition('@')[2]}"
    fetched = fetch(source, tmp_path, query="SELECT id, kind FROM orders WHERE kind LIKE 'M%'", name="few")
    assert fetched.source.endswith("few.parquet") and read(fetched.source).kind.tolist() == ["Möbel"]


def test_what_a_database_refuses_is_one_line_without_the_password(postgres: str, tmp_path: Path) -> None:
    for source, more, said in (
        (postgres.replace("s3cr", "wrong"), {"table": "orders"}, "password authentication failed"),
        (postgres, {"table": "nothing"}, "nothing"),
        (postgres, {"query": "SELECT * FROM orders WHERE"}, "syntax error"),
        (postgres, {"query": "CREATE TEMPORARY TABLE x (a int)"}, "must be a SELECT"),
        (postgres.replace("127.0.0.1:", "127.0.0.1:1"), {"table": "orders"}, "127.0.0.1"),
    ):
        with pytest.raises(FieldbookError) as told:
            fetch(source, tmp_path, **more)
        assert said in str(told.value) and "s3cr" not in str(told.value) and "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_names_of_any_kind_and_columns_that_hold_several_values(postgres: str) -> None:
    owner = postgres.replace(postgres.partition("//")[2].partition("@")[0], "owner:of the owner".replace(" ", "%20"))
    with pytest.raises(FieldbookError, match="column 'tags' holds lists.*--drop"):
        table_of(owner, "old shop.Order Lines", None)
    assert table_of(owner, "old shop.Order Lines", None, drop=["tags", "who"])["a b"].tolist() == [1]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return an SQLite file of two tables."""
    path = tmp_path / "Läden & Co.db"
    with sqlite3.connect(path) as store:
        store.execute('CREATE TABLE orders (id INTEGER, "Order Date" TEXT, kind TEXT, x)')
        rows = [(2**60 + 1, "31/12/2024", "NA", 1.5), (2, "30/12/2024", None, "n/a"), (3, "29/12/2024", "a", 7)]
        store.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
        store.execute("CREATE TABLE users (id INTEGER)")
    return path


def test_a_table_of_sqlite(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldbookError, match="which table is meant.*orders, users"):
        fetch(str(shop), tmp_path / "sources")
    fetched = fetch(str(shop), tmp_path / "sources", table="orders")
    reading, _ = recognise(fetched.source)
    table = read(fetched.source, reading)
    assert table.id[0] == 2**60 + 1 and str(table["Order Date"][0]) == "2024-12-31 00:00:00"
    assert table.x.tolist()[0] == 1.5 and table.x.isna().tolist() == [False, True, False] and table.kind[0] == "NA"
    again = fetch(str(shop), tmp_path / "sources", table="orders")
    assert again.source == fetched.source and len(list((tmp_path / "sources").iterdir())) == 1
    with sqlite3.connect(shop) as store:
        store.execute("DELETE FROM orders WHERE id = 3")
    with pytest.raises(FieldbookError, match="--force"):
        fetch(str(shop), tmp_path / "sources", table="orders")
    assert len(pd.read_parquet(fetch(str(shop), tmp_path / "sources", table="orders", force=True).source)) == 2


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_lies_outside_is_copied_into_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project, outside / "months"):
        folder.mkdir(parents=True)
    (outside / "months" / "one.csv").write_text("a\n1\n")
    (outside / "link").symlink_to(outside / "months" / "one.csv")
    monkeypatch.chdir(project)
    source = {"file": outside / "months/one.csv", "folder": outside / "months", "link": outside / "link"}[what]
    fetched = fetch(str(source))
    assert fetched.source.startswith("data/sources/") and read(fetched.source).a.tolist() == [1]
    assert fetch(fetched.source) == (fetched.source, []) and "data/sources" in fetched.sentences[0]
    (outside / "months" / "one.csv").write_text("a\n2\n")
    with pytest.raises(FieldbookError, match="holds something else"):
        fetch(str(source))
    assert read(fetched.source).a.tolist() == [1], "nothing was changed"
