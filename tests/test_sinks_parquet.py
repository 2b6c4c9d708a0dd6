"""The Parquet sink: complete files or none, in bounded row groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.codec import from_arrow, has_text
from schemas.codec_features import FEATURES, features_to_arrow
from schemas.errors import UserError
from schemas.frame import FeatureRows
from schemas.tables import BARS, TRADES, TableSpec
from schemas.tables_desk import RUNS
from schemas.topics import TABLES
from sinks.parquet import ParquetSink
from tests.test_codec import STRATEGIES, SYMBOLS, rows_of


def _trades(n: int) -> Any:
    rows = TRADES.empty(n)
    rows["seq"], rows["symbol"] = np.arange(n), np.arange(n) % 4
    return rows


@pytest.mark.parametrize("spec", [s for s in TABLES.values() if not has_text(s) and s is not FEATURES], ids=lambda s: s.name)
def test_every_table_comes_back_bit_for_bit(tmp_path: Path, spec: TableSpec) -> None:
    rows = rows_of(spec, 25, seed=3)
    with ParquetSink(tmp_path / "new" / "folder", row_group_rows=10) as sink:
        for start in range(0, 25, 5):
            sink.write(spec, rows[start : start + 5], SYMBOLS, STRATEGIES)
    file = pq.ParquetFile(tmp_path / "new" / "folder" / f"{spec.name}.parquet")
    with file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 5]
        assert from_arrow(spec, file.read(), SYMBOLS, STRATEGIES).tobytes() == rows.tobytes()


def test_features_are_wide_and_records_are_kept(tmp_path: Path) -> None:
    bars = BARS.empty(2)
    values = np.array([[np.nan], [2.0]])
    features = FeatureRows(60 * 10**9, ("rsi(14)",), bars, values)
    other = FeatureRows(60 * 10**9, ("sma(3)",), bars, values)
    sink = ParquetSink(tmp_path)
    sink.write_features(features, SYMBOLS)
    sink.write_features(other, SYMBOLS)
    sink.write_features(features, SYMBOLS)
    sink.write(RUNS, [{f.name: 1 if f.kind == "time" else "x" for f in RUNS.fields}])
    assert [p.name for p in sink.close()] == ["features_1m.parquet", "features_1m_2.parquet", "runs.parquet"]
    wide = features_to_arrow(features, SYMBOLS).to_pylist()
    assert pq.read_table(tmp_path / "features_1m.parquet").to_pylist() == wide + wide
    assert pq.read_table(tmp_path / "runs.parquet").num_rows == 1


def test_an_empty_table_makes_an_empty_file(tmp_path: Path) -> None:
    with ParquetSink(tmp_path) as sink:
        sink.write(TRADES, _trades(0), SYMBOLS)
    assert pq.read_table(tmp_path / "trades.parquet").num_rows == 0


def test_nothing_is_left_when_the_work_fails(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, row_group_rows=2)
    with pytest.raises(KeyError), sink:
        sink.write(TRADES, _trades(5), SYMBOLS)
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "trades.parquet").write_text("mine")
    with pytest.raises(UserError, match=r'trades\.parquet" exists already; choose another directory'), ParquetSink(tmp_path) as sink:
        sink.write(TRADES, _trades(1), SYMBOLS)
    assert (tmp_path / "trades.parquet").read_text() == "mine"
    with ParquetSink(tmp_path, overwrite=True) as sink:
        sink.write(TRADES, _trades(1), SYMBOLS)
    assert pq.read_table(tmp_path / "trades.parquet").num_rows == 1


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r'file" cannot be written: .*; name another directory'):
        ParquetSink(tmp_path / "file")
