"""The champion behind FastAPI and onnxruntime, as a good engineer writes it in an afternoon."""

from typing import Any

import onnxruntime
from contract import Record, manifest, problem, project, request
from fastapi import FastAPI

from fieldbook.features.features import compute, matrices
from fieldbook.features.request import arrays
from fieldbook.scope.framing import Framing

rules = manifest.features.derive
numeric, categorical = manifest.features.numeric, list(manifest.features.categorical)


class Model:
    def __init__(self, name: str, task: Framing) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = project / "data/champion" / f"{name}.onnx"
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.task = task

    def answers(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        outputs = self.session.run(["outputs"], {name: inputs[name] for name in self.inputs})[0]
        return self.task.answers(outputs[:, -len(self.task.columns) :].astype(float))


champion = Model("model", manifest.framing.task)
also = {name: Model(name, other.framing) for name, other in manifest.also.items()}


def answer(records: list[Record]) -> list[dict[str, Any]]:
    fields = {name: [getattr(record, name) for record in records] for name in request}
    columns = compute(problem, arrays(fields, request), rules)
    inputs = matrices(columns, numeric, categorical)
    answers = champion.answers(inputs)
    for name, model in also.items():
        for found, other in zip(answers, model.answers(inputs)):
            found.setdefault("also", {})[name] = other
    return answers


app = FastAPI()


@app.get("/readyz")
async def readyz() -> None:
    return None


@app.post("/predict")
async def predict(record: Record) -> dict[str, Any]:
    return answer([record])[0]


@app.post("/batch")
async def batch(records: list[Record]) -> list[dict[str, Any]]:
    return answer(records)
