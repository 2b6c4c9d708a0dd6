"""Secrets come from the environment, once, and an unset one is named with the key that wants it."""

import pytest

from cli.secrets import expanded
from schemas.config import Config, config_document, parse_config
from schemas.errors import UserError
from telemetry.logs import redacted_text

DOCUMENT = {
    "kafka": {"servers": "${KAFKA_HOST}:9092", "options": {"sasl.username": "${KAFKA_USER}", "sasl.password": "a${KAFKA_PASS}b"}},
    "venue": {"name": "binance", "key": "${VENUE_KEY}", "secret": "${VENUE_SECRET}"},
    "exchange": {"names": ["binance"], "symbols": ["BTC/USDT"], "options": {"headers": {"X-Token": "${PROXY_TOKEN}"}, "limits": [1, "${VENUE_KEY}"]}},
}
ENVIRONMENT = {"KAFKA_HOST": "broker", "KAFKA_USER": "penstock", "KAFKA_PASS": "hunter2!", "VENUE_KEY": "key-123", "VENUE_SECRET": "sec-456",
               "PROXY_TOKEN": "tok-789"}


def test_every_section_is_filled_in() -> None:
    config = parse_config(DOCUMENT, "config")
    made = expanded(config, ENVIRONMENT)
    assert made.kafka is not None and made.venue is not None and made.exchange is not None
    assert made.kafka.servers == "broker:9092"
    assert dict(made.kafka.options) == {"sasl.username": "penstock", "sasl.password": "ahunter2!b"}
    assert (made.venue.key, made.venue.secret) == ("key-123", "sec-456")
    assert made.exchange.options == {"headers": {"X-Token": "tok-789"}, "limits": [1, "key-123"]}
    assert config.kafka is not None and config.kafka.servers == "${KAFKA_HOST}:9092"  # the one that was read is as it was
    assert "hunter2" not in str(config_document(made))
    assert redacted_text("said hunter2! of penstock") == "said [hidden] of penstock"


def test_nothing_to_fill_in() -> None:
    assert expanded(Config(), {}) == Config()


@pytest.mark.parametrize(("key", "value", "said"), [
    ("sasl.password", "${NOT_SET}", r"kafka\.options\.sasl\.password wants \$\{NOT_SET\}, which is not set in the environment"),
    ("sasl.password", "${}", r'kafka\.options\.sasl\.password: "\$\{\}" does not name a variable'),
    ("ssl.ca.location", "${A-B}", "does not name a variable"),
])
def test_what_is_not_set_is_named(key: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        expanded(parse_config({"kafka": {"options": {key: value}}}, "config"), {})


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_HOST", "elsewhere")
    made = expanded(parse_config({"kafka": {"servers": "${PENSTOCK_TEST_HOST}:1"}}, "config"))
    assert made.kafka is not None and made.kafka.servers == "elsewhere:1"
