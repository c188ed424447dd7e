"""A BentoML service that does nothing."""

import bentoml


@bentoml.service
class Noop:
    @bentoml.api
    async def predict(self) -> dict[str, float]:
        return {"probability": 0.5}
