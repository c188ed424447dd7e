"""Fieldbook: from a notebook that works to a model in production."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime's Linux builds report usage unless told not to


class FieldbookError(Exception):
    """An error a person can mend. Its message is one line: what is wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))  # what other libraries say, and is quoted, may have several
