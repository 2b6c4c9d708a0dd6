"""From the configuration to a venue: which exchange, its testnet or the real one, with which key.

Real money takes two deliberate acts: a key in the configuration, and `live`. Without `live` an exchange's testnet is
used, or one that listens on this machine.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from schemas.config_live import VenueConfig
from schemas.errors import UserError
from sinks.venue_ccxt import CcxtVenue, exchange_class
from telemetry import logs

FAKE = "fake"
FAKE_URL = "http://127.0.0.1:8765"
FAKE_KEY = "fake-exchange"
"""Key and secret of the fake exchange, which knows no others."""


def open_venue(config: VenueConfig, live: bool) -> CcxtVenue:
    """The venue, not yet connected; UserError for an unknown exchange, a missing key, or no testnet where one is needed."""
    if config.name == FAKE:
        return _fake(config)
    if config.name == "paper":
        raise UserError("the paper venue fills inside the pipeline: there is nothing to execute; name an exchange, or fake")
    exchange_class(config.name)
    for key in ("key", "secret"):
        if not getattr(config, key):
            raise UserError(f"venue {key} is empty; write {key}: ${{{config.name.upper()}_{key.upper()}}} and export that variable")
    logs.protect(config.key, config.secret, *(v for k, v in config.options.items() if isinstance(v, str) and logs.is_secret(k)))
    settings = {**config.options, "apiKey": config.key, "secret": config.secret}
    sandbox = not live and not _here(config.options)
    return CcxtVenue(config.name, settings, config.recv_window_s, config.timeout_s, sandbox)


def is_real(config: VenueConfig, live: bool) -> bool:
    """Whether orders would cost money."""
    return live and config.name != FAKE and not _here(config.options)


def _fake(config: VenueConfig) -> CcxtVenue:
    """ccxt's own Binance class, talking to the fake exchange."""
    url = str(config.options.get("url", FAKE_URL)).rstrip("/")
    if not _loopback(url):
        raise UserError(f'venue options url: "{url}" is not on this machine; the fake exchange listens on loopback')
    settings: dict[str, Any] = {
        "enableRateLimit": False, **{k: v for k, v in config.options.items() if k != "url"},
        "apiKey": config.key or FAKE_KEY, "secret": config.secret or FAKE_KEY,
        "urls": {"api": {"public": f"{url}/api/v3", "private": f"{url}/api/v3"}},
        "has": {"fetchCurrencies": False},
    }
    settings["options"] = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, **settings.get("options", {})}
    return CcxtVenue("binance", settings, config.recv_window_s, config.timeout_s)


def with_venue(config: VenueConfig | None, name: str | None) -> VenueConfig:
    """The section with the venue that the command line names; UserError where neither names one."""
    if config is None and name is None:
        raise UserError("no venue: the configuration has no section venue; add one, or rehearse with --venue fake")
    found = config or VenueConfig(name=str(name))
    if name is None or name == found.name:
        return found
    # another exchange never sees the key of the one in the file
    return replace(found, name=name, key="", secret="", options={})


def _here(options: Mapping[str, Any]) -> bool:
    """Whether the options lead every request to this machine."""
    urls = re.findall(r"https?://[^\s'\"]+", str(options.get("urls", "")))
    return bool(urls) and all(_loopback(u) for u in urls)


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
