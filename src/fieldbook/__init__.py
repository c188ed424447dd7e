"""Fieldbook: from a notebook that works to a model in production."""


class FieldbookError(Exception):
    """An error a person can mend. Its message is one line: what is wrong, where, and what to do."""
