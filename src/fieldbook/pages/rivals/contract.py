"""What the rivals share: the champion's manifest, its problem, and the fields of a request."""

import os
from datetime import datetime
from pathlib import Path

from pydantic import create_model

from fieldbook.package.manifest import read_manifest
from fieldbook.scope.problem import build_problem

project = Path(os.environ["BENCH_PROJECT"])
manifest = read_manifest(project / "data/champion")
problem, request = build_problem(manifest.problem), manifest.request
TYPES = {"float": float, "int": int, "str": str, "datetime": datetime}
fields = {
    name: (TYPES[column.type] | (None if column.nullable else TYPES[column.type]), ...)
    for name, column in request.items()
}
Record = create_model("Record", **fields)
