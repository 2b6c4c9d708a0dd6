"""The quick encoder of few rows gives the bytes of the plain one, for every table, number of rows and set of names."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec_templates
from schemas.codec import encode_ipc, to_arrow
from schemas.codec_templates import ROWS_MAX, TemplateEncoder
from schemas.tables import TRADES, TableSpec
from schemas.tables_desk import RUNS
from tests.test_codec import _EVERY_KIND, ROW_TABLES, STRATEGIES, SYMBOLS, rows_of


def plain(spec: TableSpec, rows: Any, symbols: Any, strategies: Any) -> bytes:
    return encode_ipc(to_arrow(spec, rows, symbols, strategies)).to_pybytes()


@pytest.mark.parametrize("spec", [*ROW_TABLES, _EVERY_KIND], ids=lambda s: s.name)
def test_the_same_bytes(spec: TableSpec) -> None:
    encoder = TemplateEncoder()
    for n in (1, 2, 3, 8, 9, ROWS_MAX, ROWS_MAX + 1, 0, 1, 2):
        for seed in range(4):
            rows = rows_of(spec, n, seed)
            assert encoder.encode(spec, rows, SYMBOLS, STRATEGIES) == plain(spec, rows, SYMBOLS, STRATEGIES), (n, seed)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), unique=True, max_size=6), st.integers(1, 12), st.integers(0, 99))
def test_any_names(names: list[str], n: int, seed: int) -> None:
    rows = rows_of(TRADES, n, seed)
    rows["symbol"] = np.random.default_rng(seed).integers(-1, len(names), n)
    for _ in range(2):
        assert _shared.encode(TRADES, rows, names, ()) == plain(TRADES, rows, names, ())
    swapped = [name[::-1] for name in names]  # of the same lengths, so of the same template
    assert _shared.encode(TRADES, rows, swapped, ()) == plain(TRADES, rows, swapped, ())


_shared = TemplateEncoder()


@pytest.mark.parametrize(("column", "value"), [("symbol", 4), ("symbol", -2), ("side", 3), ("side", -1)])
def test_a_code_without_a_name_is_refused_as_ever(column: str, value: int) -> None:
    rows = rows_of(TRADES, 2, seed=1)
    encoder = TemplateEncoder()
    encoder.encode(TRADES, rows, SYMBOLS, ())
    rows[column][1] = value
    with pytest.raises(ValueError, match=column):
        encoder.encode(TRADES, rows, SYMBOLS, ())


def test_rows_that_are_not_contiguous_and_text_tables() -> None:
    rows = rows_of(TRADES, 20, seed=1)[::3]
    assert TemplateEncoder().encode(TRADES, rows, SYMBOLS, ()) == plain(TRADES, rows, SYMBOLS, ())
    with pytest.raises(TypeError, match="text columns"):
        TemplateEncoder().encode(RUNS, rows, (), ())


def test_the_number_of_templates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_templates, "TEMPLATES_MAX", 3)
    encoder = TemplateEncoder()
    for n in range(1, 9):
        encoder.encode(TRADES, rows_of(TRADES, n, seed=1), SYMBOLS, ())
    assert len(encoder._templates) == 3


def test_a_feature_set_without_features() -> None:
    from sinks.kafka_payloads import feature_spec
    spec = feature_spec(())
    rows = spec.empty(3)
    for _ in range(3):
        assert TemplateEncoder().encode(spec, rows, ("A",), ("",)) == plain(spec, rows, ("A",), ("",))
