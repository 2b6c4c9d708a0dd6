"""`penstock archive`: the topics into ClickHouse, for as long as it runs or up to where they end now."""

import os
import re
from typing import Any

from cli.connecting import kafka_of
from cli.output import out, print_json, print_table, progress
from cli.stopping import stopping
from cli.warehousing import warehouse_at
from schemas.errors import UserError, unknown
from schemas.topics import TOPICS

NICE = 10
"""How far it stands back, with the warehouse that it starts, for what shares its processors: a pipeline has orders to send."""


def archive_command(config: str | None, servers: str | None, url: str | None, table: list[str] | None, group: str | None, once: bool,
                    rewind: bool, accept_loss: bool, process: str | None, as_json: bool) -> None:
    """Run it; print what was stored."""
    loaded, kafka = kafka_of(config, servers)
    for name in table or ():
        if name not in TOPICS:
            raise unknown("topic", name, TOPICS)
    share = _share(process)
    if not once:
        os.nice(NICE)
    from dataflows.archive import run_archive
    from telemetry.serve import start
    exporter = start(loaded.live, "archive", "", share[0])
    try:
        with warehouse_at(url or loaded.warehouse or None) as where, stopping() as stop, progress(
            f"archiving {kafka.servers} {kafka.prefix}*", 1.0, as_json,
        ) as update:  # fmt: skip
            shown = _Shown(update)
            done = run_archive(kafka, where, tables=tuple(dict.fromkeys(table or ())), group=group or "", once=once, rewind=rewind,
                               accept_loss=accept_loss, share=share, stopping=stop.is_set, progress=shown.settled, begun=shown.begun)
    finally:
        if exporter is not None:
            exporter.stop()
    if as_json:
        print_json({"rows": done.rows, "dead_letters": done.dead_letters, "lag": done.lag, "commits": done.commits})
        return
    print_table(("table", "rows"), [(name, rows) for name, rows in sorted(done.rows.items())])
    out.print(f"{done.total:,} rows stored, {done.dead_letters:,} dead letters, {done.lag:,} messages behind", highlight=False)


class _Shown:
    """The share of what there was to read at the start, and how far behind it is."""

    def __init__(self, update: Any) -> None:
        self._update, self._messages = update, 1

    def begun(self, messages: int) -> None:
        self._messages = max(messages, 1)

    def settled(self, done: Any) -> None:
        self._update(max(0.0, 1.0 - done.lag / self._messages), f"{done.total:,} rows, {done.lag:,} messages behind")


def _share(process: str | None) -> tuple[int, int]:
    if process is None:
        return 0, 1
    found = re.fullmatch(r"(\d+)/(\d+)", process)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f'--process "{process}" is not I/N with I below N; write it like 0/2 and 1/2')
    return int(found[1]), int(found[2])
