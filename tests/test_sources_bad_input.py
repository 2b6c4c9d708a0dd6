"""Bad input: one line that names the file, the line or row and the value, and says what to do; nothing else escapes."""

import gzip
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.codec import to_arrow
from schemas.errors import UserError
from schemas.tables import BARS, TRADES
from sources.tape import open_tape
from tests.sources_files import some_rows, whole, write_rows

T_MS = 1_704_067_200_000
HEADER = "timestamp,price,size,side\n"
ROW = f"{T_MS},1.5,2,buy\n"


def refused(*paths, **cut):
    with pytest.raises(UserError) as caught:
        whole(open_tape([str(p) for p in paths], **cut).frames(1000))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def text_file(path, text):
    path.write_text(text)
    return path


def test_paths(tmp_path):
    text_file(tmp_path / "BTCUSDT-trades.csv", HEADER + ROW)
    assert "no such file; did you mean BTCUSDT-trades.csv?" in refused(tmp_path / "BTCUSDT-trade.csv")
    assert "the folder" in refused(tmp_path / "nowhere" / "x.csv")
    assert "*.parquet: the pattern matches no file" in refused(tmp_path / "*.parquet")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    assert "no data files in this folder; it has folders: inner" in refused(tmp_path / "empty")
    assert "no path given" in refused()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty (0 bytes)"),
        ("\n\n", "is empty"),
        (HEADER, "has a header but no rows"),
        ("a,b,c\n1,2,3\n", 'columns "a, b, c" are not recognised; recognised are: trades (timestamp, price, size'),
        ("hello world\n", 'line 1: "hello world" is neither a known header nor a row of a known format'),
        ("1,2,3\n4,5,6\n", 'line 1: "1,2,3" is neither'),
        (HEADER + ROW + f"{T_MS},abc,2,buy\n", 'line 3: price "abc" is not a number'),
        (HEADER + ROW + "\n\n" + f"{T_MS},abc,2,buy\n", 'line 5: price "abc" is not a number'),
        (HEADER + ROW + "yesterday,1,2,buy\n", 'line 3: timestamp "yesterday" is not a whole number'),
        (HEADER + "soon,1,2,buy\n", 'line 2: timestamp "soon" is not a time'),
        (HEADER + "2024-01-01,1,2,buy\n\n2024-13-01,1,2,buy\n", 'line 4: timestamp "2024-13-01" is not a time like "2024-01-01"'),
        (HEADER + "12,1,2,buy\n", 'line 2: timestamp "12" is not a time'),
        (HEADER + ROW + f"{T_MS}000,1,2,buy\n", f'line 3: timestamp "{T_MS}000" is not a time in the unit of "{T_MS}"'),
        (HEADER + ROW + ",1,2,buy\n", "line 3: timestamp is missing"),
        (HEADER + ROW + f"{T_MS},1,2,long\n", 'line 3: side "long" is neither buy, sell nor none'),
        (HEADER + ROW + f"{T_MS},1\n", "line 3: has 2 values where the file has 4 columns"),
        (HEADER + ROW + f"{T_MS},1,2,buy,5\n", "line 3: has 5 values where the file has 4 columns"),
        ("symbol," + HEADER + "A," + ROW + "," + ROW, "line 3: symbol is missing"),
        (f"{T_MS}000001 {{}}\n", "holds frames but no trade and no bookTicker"),
        (f'{T_MS}000001 {{"stream":"a@trade","da', "line 1: "),
        (f'{T_MS}000001 {{"e":"trade","s":"A","p":"x","q":"1","T":{T_MS}}}\n', "line 1: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["csv", "gz", "zip"])
def test_text(tmp_path, content, message, how):
    path = tmp_path / f"ABC.{how}"
    if how == "csv":
        path.write_text(content)
    elif how == "gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ABC.csv", content)
    said = refused(path)
    assert str(path) in said
    assert message.replace(" (0 bytes)", "" if how != "csv" else " (0 bytes)") in said


def test_symbol_that_no_name_gives(tmp_path):
    said = refused(text_file(tmp_path / "trades-2024-01.csv", HEADER + ROW))
    assert 'rename it to something like "BTCUSDT-trades-2024-01.csv" or add a column "symbol"' in said


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", ["a.csv.gz", "a.zip", "a.parquet", "a.arrow", "a.arrows", "frames.gz"])
def test_truncated(tmp_path, name, keep):
    path = tmp_path / name
    table = to_arrow(TRADES, some_rows(TRADES, range(5000)), ("A",))
    csv = (HEADER + "".join(f"{T_MS + k},{1 + k * 0.37},2,buy\n" for k in range(5000))).encode()
    if name == "frames.gz":
        line = f'{T_MS}000001 {{"e":"trade","s":"A","t":1,"p":"1","q":"1","T":{T_MS}}}\n'
        path.write_bytes(gzip.compress((line * 500).encode()))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(csv))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("A.csv", csv)
    elif name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        new = pa.ipc.new_file if name.endswith(".arrow") else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=500)
    whole_bytes = path.read_bytes()
    path.write_bytes(whole_bytes[: int(len(whole_bytes) * keep)])
    said = refused(path)
    assert str(path) in said


def test_damaged_and_disguised(tmp_path):
    good = tmp_path / "good.parquet"
    write_rows(good, TRADES, some_rows(TRADES, range(3000)), ("A",))
    data = bytearray(good.read_bytes())
    data[200:400] = bytes(200)
    (tmp_path / "bad.parquet").write_bytes(data)
    assert "bad.parquet: cannot be read" in refused(tmp_path / "bad.parquet")
    (tmp_path / "inside.gz").write_bytes(gzip.compress(good.read_bytes()))
    assert "holds a binary file inside gzip" in refused(tmp_path / "inside.gz")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert "is neither Parquet, Arrow IPC nor text" in refused(tmp_path / "picture.csv")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", HEADER + ROW)
        archive.writestr("b.csv", HEADER + ROW)
    assert "holds 2 files; a zip must hold one" in refused(tmp_path / "two.zip")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": pa.array([None, T_MS]), "price": [1.0, 2.0], "size": [1, 2]}, "row 1: timestamp is missing"),
        ({"timestamp": [T_MS, T_MS], "price": ["1.5", "1,5"], "size": [1, 2]}, 'row 2: price "1,5" is not a number'),
        ({"timestamp": [T_MS, 3], "price": [1.0, 2.0], "size": [1, 2]}, 'row 2: timestamp "3" is not a time'),
        ({"timestamp": [True, False], "price": [1.0, 2.0], "size": [1, 2]}, "row 1: timestamp is of type bool, not a time"),
        ({"timestamp": [T_MS, T_MS], "price": [[1], [2]], "size": [1, 2]}, 'row 1: price "[1]" is not a number'),
        ({"timestamp": [T_MS, T_MS], "price": [1.0, 2.0], "size": [1, 2], "side": [1, 7]}, 'row 2: side "7" is neither'),
        ({"timestamp": [T_MS, T_MS], "price": [1.0, 2.0], "size": [1, 2], "trade_id": ["1", "x"]}, 'row 2: trade_id "x" is not a whole'),
        ({"timestamp": pa.array([], pa.int64()), "price": pa.array([], pa.float64()), "size": pa.array([], pa.float64())}, "holds no rows"),
        ({"foo": [1], "bar": [2]}, 'columns "foo, bar" are not recognised'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ABC.parquet", "ABC.arrow"])
def test_columns(tmp_path, columns, message, name):
    table = pa.table(columns)
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as file:
            file.write_table(table)
    said = refused(tmp_path / name)
    assert name in said and message in said


def test_files_that_overlap(tmp_path):
    january = text_file(tmp_path / "ABC-2024-01.csv", HEADER + f"{T_MS},1,1,buy\n{T_MS + 1000},1,1,buy\n")
    february = text_file(tmp_path / "ABC-2024-02.csv", HEADER + f"{T_MS + 1000},1,1,buy\n{T_MS + 2000},1,1,buy\n")
    assert len(whole(open_tape([str(january), str(february)]).frames(9))["trades"]) == 4
    again = text_file(tmp_path / "ABC-2024-03.csv", HEADER + f"{T_MS + 1500},1,1,buy\n{T_MS + 3000},1,1,buy\n")
    said = refused(tmp_path)
    assert str(february) in said and str(again) in said and "both cover ABC at 2024-01-01T00:00:01Z; give one of them" in said
    copy = text_file(tmp_path / "ABC-copy.csv", february.read_text())
    assert "ABC-2024-02.csv" in refused(february, text_file(tmp_path / "ABC-spot.csv", copy.read_text()))


def test_bars_of_two_intervals_in_one_table(tmp_path):
    bars = some_rows(BARS, range(4))
    bars["interval_ns"][2] = 5 * 10**9
    path = write_rows(tmp_path / "bars.parquet", BARS, bars, ("A",))
    assert "row 3: holds bars of intervals 1000000000 ns and 5000000000 ns; keep one interval" in refused(path)


def test_every_byte_that_is_lost_is_noticed(tmp_path):
    """A Parquet file cut anywhere never gives rows and never throws anything of the reader's own."""
    path = tmp_path / "cut.parquet"
    write_rows(path, TRADES, some_rows(TRADES, range(50)), ("A",))
    data = path.read_bytes()
    for n in np.linspace(1, len(data) - 1, 25).astype(int):
        path.write_bytes(data[:n])
        assert "cut.parquet" in refused(path)
