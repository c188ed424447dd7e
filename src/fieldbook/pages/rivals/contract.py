"""What the rivals share: the champion's manifest, its problem, and the fields of a request."""

import json
import os
from datetime import datetime
from pathlib import Path

from fieldbook.scope import Column, build_problem
from pydantic import create_model

project = Path(os.environ["BENCH_PROJECT"])
manifest = json.loads((project / "data/champion/manifest.json").read_text())
problem = build_problem(manifest["problem"])
request = {name: Column(**column) for name, column in manifest["request"].items()}
TYPES = {"float": float, "int": int, "str": str, "datetime": datetime}
fields = {
    name: (TYPES[column.type] | (None if column.nullable else TYPES[column.type]), ...)
    for name, column in request.items()
}
Record = create_model("Record", **fields)
