"""A prediction log as the service writes it: rows of the example's last months, answered by the champion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from fieldbook.features.request import frame_arrays, records
from fieldbook.serve.servable import Servable

Line = dict[str, Any]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def lines(
    project: Path, begins: str, ends: str, change: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> list[Line]:
    """Return the log's rows of the requests between two days, and what came of them under `outcome` and `came`."""
    examples = pd.read_parquet(project / "data/examples/examples.parquet")
    inside = ((examples["as_of"] >= begins) & (examples["as_of"] < ends)).to_numpy()
    requests = pd.read_parquet(project / "data/features/requests.parquet")[inside].reset_index(drop=True)
    examples = examples[inside].reset_index(drop=True)
    requests = change(requests.assign(as_of=examples["as_of"])).drop(columns="as_of") if change else requests
    servable = Servable(project / "data/champion")
    request = servable.manifest.request
    answers = servable.answer(frame_arrays(requests, request)).columns
    answers["request_id"] = [f"{begins}-{row}" for row in range(len(requests))]
    common = {"lineage": servable.manifest.lineage.id, "trace_id": None, "subject": None}
    made = []
    for row, (sent, example) in enumerate(zip(records(requests, request), examples.to_dict("records"))):
        time = f"{example['as_of']:%Y-%m-%dT%H:%M:%S}.{row % 1000:03}+00:00"
        answer = {name: values[row] for name, values in answers.items()}
        came = {"outcome": example["outcome"], "came": example["label_time"]}
        made.append({"time": time, **common, **answer, "inputs": sent, **came})
    return made


def write(folder: Path, rows: Iterable[Line], outcomes: bool = True) -> Path:
    """Write rows as a log, and their outcomes as the feedback that came; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    encode, rows = msgspec.json.Encoder().encode_lines, list(rows)
    bare = [{name: value for name, value in row.items() if name not in ("outcome", "came")} for row in rows]
    (folder / "predictions-20131101T000000-1-aaaaaa.jsonl").write_bytes(encode(bare))
    told = (
        [row for row in rows if isinstance(row.get("outcome"), str) and row["came"] is not pd.NaT] if outcomes else []
    )
    feedback = [
        {
            "time": f"{row['came']:%Y-%m-%dT%H:%M:%S}.000+00:00",
            "request_id": row["request_id"],
            "outcome": row["outcome"],
        }
        for row in told
    ]
    if feedback:
        (folder / "feedback-20131101T000000-1-aaaaaa.jsonl").write_bytes(encode(feedback))
    return folder


def celsius(table: pd.DataFrame, since: str) -> pd.DataFrame:
    """Return requests in which the temperature comes in degrees Celsius from a day on."""
    later = table["as_of"] >= since
    converted = np.where(later, (table["temperature"] - 32) / 1.8, table["temperature"])
    return table.assign(temperature=converted)
