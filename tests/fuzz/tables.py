"""Tables of text whose values are known, and arrays whose likelihood means little, or is sound."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.case import Case
from tests.fuzz.suspicious import arrays
from tests.fuzz.text import texts


def tables() -> st.SearchStrategy[Case]:
    """Half of them text to read, half arrays to train on."""
    return st.one_of(texts(), arrays())
