"""Secrets of a configuration: `${NAME}` in a value is taken from the environment, here and nowhere else.

Only the sections that open connections are expanded, the value never goes into a message or into what a run records
(`config_document` leaves these sections out), and an unset name is an error that says which key wants it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from schemas.config import Config
from schemas.errors import UserError
from telemetry.logs import is_secret, protect

VARIABLE = re.compile(r"\$\{([^}]*)\}")
SECTIONS = ("kafka", "exchange", "venue")


def expanded(config: Config, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration with every `${NAME}` of its sections kafka, exchange and venue filled in."""
    given = os.environ if environment is None else environment
    return replace(config, **{
        name: _filled(getattr(config, name), name, given) for name in SECTIONS if getattr(config, name) is not None
    })  # fmt: skip


def _filled(value: Any, where: str, given: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: _value(match[1], where, given), value)
    if isinstance(value, Mapping):
        return {key: _filled(inner, f"{where}.{key}", given) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_filled(inner, where, given) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _filled(getattr(value, f.name), f"{where}.{f.name}", given) for f in fields(value)})
    return value


def _value(name: str, where: str, given: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UserError(f'{where}: "${{{name}}}" does not name a variable; write it like ${{KAFKA_PASSWORD}}')
    if name not in given:
        raise UserError(f"{where} wants ${{{name}}}, which is not set in the environment; export {name}=…")
    if is_secret(name) or is_secret(where):
        protect(given[name])  # no log line shows it, whoever writes it
    return given[name]
