"""The champion's scikit-learn pipeline behind BentoML and pandas, as tutorials write it."""

from typing import Any

import bentoml
import joblib
import pandas as pd
from contract import Record, manifest, problem, project

from fieldbook.core.section import section
from fieldbook.features.features import Features, build
from fieldbook.model.train import predict
from fieldbook.scope.framings import AnyFraming

settings = project / "data/settings"
task, rules = section("task", AnyFraming, settings), section("features", Features, settings)


@bentoml.service
class Textbook:
    def __init__(self) -> None:
        self.model = joblib.load(project / "data/models" / manifest.model / "model.joblib")

    def answer(self, records: list[Record]) -> list[dict[str, Any]]:
        frame = pd.DataFrame([record.model_dump() for record in records])
        features = build(problem, frame, rules)
        return task.answers(predict(self.model, features, task))

    @bentoml.api
    def predict(self, record: Record) -> dict[str, Any]:
        return self.answer([record])[0]

    @bentoml.api
    def batch(self, records: list[Record]) -> list[dict[str, Any]]:
        return self.answer(records)
