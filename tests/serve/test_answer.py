"""The worked example of CONTRIBUTING.md: a field more in the answer, by one function."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from fieldbook.observe.log import read
from fieldbook.serve import answer
from fieldbook.serve.api import openapi
from fieldbook.serve.front import Front
from fieldbook.serve.rehearsal import nothing_behind, post
from fieldbook.serve.small import small_champion

ROOT = Path(__file__).resolve().parents[2]


def test_a_field_more_is_one_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's function alone puts the field into answers, log and description; nothing else of them changes."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("\n## A field in the answer\n")[1].split("\n## ")[0]
    example = dict(vars(answer))
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], example)
    assert "notebooks/10_serve/10_answer.ipynb" in section and (ROOT / "notebooks/10_serve/10_answer.ipynb").exists()
    (tmp_path / "champion").mkdir()
    champion, body = small_champion(tmp_path / "champion"), b'{"origin": "EWR", "wind": 31.5}'

    def heard(logs: Path) -> tuple[dict, dict, list[str]]:
        front = Front(nothing_behind, champion, logs)
        status, reply = asyncio.run(post(front, body))
        assert status == 200
        front.app.close()
        schema = openapi(front.app.servable, private=False)["components"]["schemas"]["Answer"]
        return json.loads(reply), schema["properties"], list(read(logs).columns)

    before, described, logged = heard(tmp_path / "before")
    monkeypatch.setattr(answer, "PARTS", (example["margin"], *answer.PARTS))
    after, more, columns = heard(tmp_path / "after")
    assert after == {"margin": 0.4, **before, "request_id": after["request_id"]} and list(after)[0] == "margin"
    assert more == {"margin": {"type": "number", "description": "probability minus threshold"}, **described}
    assert set(columns) - set(logged) == {"margin"} and len(columns) == len(logged) + 1
