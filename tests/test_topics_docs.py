"""What `docs/topics.md` and the schema files promise: the examples run on a Kafka, and schema and decoder take the same messages."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from schemas.codec import has_text
from schemas.codec_features import FEATURES
from schemas.codec_json import encode_json
from schemas.config_live import KafkaConfig
from schemas.json_schema import OPTIONAL, json_schema
from schemas.topics import TOPICS
from sources.kafka_polled import PADDING, Polled
from sources.kafka_rows import Decoder, Interner
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.test_codec import STRATEGIES, SYMBOLS, rows_of

PAGE = (Path(__file__).parents[1] / "docs" / "topics.md").read_text("utf-8")
EXAMPLES = re.findall(r"<!-- runs on Kafka -->\n```python\n(.*?)```", PAGE, re.DOTALL)
ROW_TOPICS = [t for t in TOPICS.values() if not has_text(t.table) and t.table is not FEATURES]
INPUTS = [TOPICS[name] for name in OPTIONAL]


def test_the_examples_run(kafka: KafkaConfig) -> None:  # noqa: F811
    assert len(EXAMPLES) == 4
    code = "\n".join(EXAMPLES).replace("127.0.0.1:9092", kafka.servers).replace("penstock.", kafka.prefix).replace("my-dashboard", kafka.prefix)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "topics.md", "exec"), {"__name__": "page"})
    assert said.getvalue() == "[3000.0, 3000.5, 3001.0, 60000.0, 60010.5]\n"


def decoded(table: str, message: dict[str, Any]) -> Any:
    """(rows, dead letters) of one JSON message."""
    payload = json.dumps(message).encode()
    one = np.zeros(1, np.int64)
    data = np.frombuffer(payload + bytes(PADDING), np.uint8).copy()
    polled = Polled((table,), (table,), one, one, one, one, one, ([],), data, np.array([0, len(payload)]))
    made = Decoder(Interner(), Interner()).decode(polled)
    return np.concatenate([b.rows for b in made.blocks]), made.dead


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_a_schema_is_one(topic: Any) -> None:
    schema = json_schema(topic)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == [f.name for f in topic.table.fields]
    assert all(p.get("description") for p in schema["properties"].values())


@pytest.mark.parametrize("topic", ROW_TOPICS, ids=lambda t: t.table.name)
def test_what_we_write_is_valid(topic: Any) -> None:
    rows = rows_of(topic.table, 20, seed=5)
    for f in topic.table.fields:
        if f.kind == "time":
            rows[f.name] = np.abs(rows[f.name] // 2)
        elif f.name == "symbol":
            rows[f.name] = np.arange(20) % len(SYMBOLS)
    validator = jsonschema.Draft202012Validator(json_schema(topic))
    for payload in encode_json(topic.table, rows, SYMBOLS, STRATEGIES):
        validator.validate(json.loads(payload))


@pytest.mark.parametrize("topic", INPUTS, ids=lambda t: t.table.name)
def test_schema_and_decoder_take_the_same(topic: Any) -> None:
    name, schema = topic.table.name, json_schema(topic)
    validator = jsonschema.Draft202012Validator(schema)
    rows = rows_of(topic.table, 1, seed=1)
    for f in topic.table.fields:
        if f.kind in ("time", "int"):
            rows[f.name] = 7
        elif f.name == "symbol":
            rows[f.name] = 0
    full = json.loads(encode_json(topic.table, rows, SYMBOLS, STRATEGIES)[0])
    least = {key: full[key] for key in schema["required"]}
    assert validator.is_valid(full) and validator.is_valid(least)
    assert len(decoded(name, full)[0]) == 1
    found, dead = decoded(name, least)
    assert not dead and len(found) == 1
    for key, value in OPTIONAL[name].items():
        f = topic.table.field(key)
        expected = f.labels.index(value) if f.kind == "enum" else -1 if f.kind == "symbol" else np.nan if value is None else value
        assert np.array_equal(found[key][0], expected, equal_nan=f.kind == "float"), key
    for key in schema["required"]:
        without = {k: v for k, v in full.items() if k != key}
        assert not validator.is_valid(without) and len(decoded(name, without)[1]) == 1, key
    for key, part in schema["properties"].items():
        for bad in ({}, [1], "no such thing" if part.get("type") != "string" or "pattern" in part else 5):
            wrong = {**full, key: bad}
            assert not validator.is_valid(wrong) and len(decoded(name, wrong)[1]) == 1, (key, bad)
