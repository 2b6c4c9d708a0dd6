"""Which Kafka a command talks to: the section `kafka` of its configuration, or the address that was given."""

from dataclasses import replace

from cli.secrets import expanded
from schemas.config import Config
from schemas.config_live import KafkaConfig
from schemas.errors import UserError


def kafka_of(config: str | None, servers: str | None) -> tuple[Config, KafkaConfig]:
    """The configuration with its secrets filled in, and its Kafka; UserError where there is none."""
    from research.replaying import load_config
    loaded = expanded(load_config(config))
    if servers is not None:
        return loaded, replace(loaded.kafka or KafkaConfig(), servers=servers)
    if loaded.kafka is None:
        where = f"{config} has no section kafka" if config else "no configuration was given"
        raise UserError(f"{where}; give --servers HOST:PORT, or --config with a section such as `kafka: {{servers: 127.0.0.1:9092}}`")
    return loaded, loaded.kafka
