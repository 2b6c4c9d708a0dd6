"""`penstock topics`: make the topics, list them, describe one, look at its last rows."""

import json
import sys
from typing import Any

from cli.connecting import kafka_of
from cli.output import err, out, print_json, print_table
from schemas.errors import UserError, unknown
from schemas.topics import FOR_EVER, TOPICS, Topic

DAY_MS = 86_400_000


def create_command(config: str | None, servers: str | None, partitions: list[str] | None, replication: int, update: bool,
                   as_json: bool) -> None:
    """Make what is missing; say what differs."""
    _, kafka = kafka_of(config, servers)
    given = dict(_count(text) for text in partitions or [])
    from sinks.kafka_admin import KafkaAdmin
    made = KafkaAdmin(kafka).create(given, replication, update)
    if as_json:
        print_json({"servers": kafka.servers, "prefix": kafka.prefix, **made})
        return
    out.print(f"{len(made['created'])} topics made, {len(made['existing'])} were there, {len(made['updated'])} updated", highlight=False)
    for said in made["differences"]:
        out.print(said, highlight=False)
    if made["differences"]:
        out.print("penstock topics create --update sets them as wanted", highlight=False)


def list_command(config: str | None, servers: str | None, as_json: bool) -> None:
    """All topics with what they hold."""
    _, kafka = kafka_of(config, servers)
    from sinks.kafka_admin import KafkaAdmin
    states = KafkaAdmin(kafka).states()
    if as_json:
        print_json({"servers": kafka.servers, "prefix": kafka.prefix, "topics": [
            {"topic": s.name, "table": s.topic.table.name, "exists": s.exists, "partitions": len(s.partitions), "messages": s.messages,
             "key": s.topic.key, "codec": s.topic.codec, "retention_ms": s.topic.retention_ms, "differences": s.differences()}
            for s in states]})  # fmt: skip
        return
    print_table(("topic", "partitions", "messages", "key", "codec", "kept", ""), [
        (s.name, len(s.partitions) if s.exists else s.topic.partitions, s.messages, s.topic.key, s.topic.codec, kept(s.topic),
         "; ".join(s.differences()) if s.exists else "missing") for s in states])
    if not all(s.exists for s in states):
        out.print("penstock topics create makes those that are missing", highlight=False)


def describe_command(name: str, config: str | None, servers: str | None, as_json: bool) -> None:
    """One topic: what it is, its columns, its partitions."""
    _, kafka = kafka_of(config, servers)
    topic = topic_named(name, kafka.prefix)
    from schemas.json_schema import OPTIONAL, json_schema
    from sinks.kafka_admin import KafkaAdmin
    state = KafkaAdmin(kafka).states([topic.table.name])[0]
    shown: dict[str, Any] = {
        "topic": state.name, "table": topic.table.name, "doc": topic.table.doc, "exists": state.exists, "key": topic.key,
        "codec": topic.codec, "retention_ms": topic.retention_ms, "settings": {k: v for k, v in state.settings.items() if k in _SHOWN},
        "differences": state.differences(), "messages": state.messages,
        "partitions": [{"partition": p.partition, "first": p.first, "end": p.end, "messages": p.messages, "leader": p.leader,
                        "replicas": p.replicas} for p in state.partitions],
        "schema": json_schema(topic),
    }  # fmt: skip
    if as_json:
        print_json(shown)
        return
    out.print(f"{state.name}: {topic.table.doc}", highlight=False)
    optional = OPTIONAL.get(topic.table.name, {})
    print_table(("column", "kind", "", "what it is"), [
        (f.name, f.kind, "key" if f.name in topic.table.key else f"optional, {optional[f.name]!r}" if f.name in optional else "", f.doc)
        for f in topic.table.fields])
    out.print(f"key {topic.key}, codec {topic.codec}, kept {kept(topic)}; what identifies a row: run, {', '.join(topic.table.key)}",
              highlight=False)
    if not state.exists:
        out.print(f"it is not on {kafka.servers}: penstock topics create makes it", highlight=False)
        return
    for said in state.differences():
        out.print(said, highlight=False)
    print_table(("partition", "first offset", "end", "messages", "leader", "replicas"), [
        (p.partition, p.first, p.end, p.messages, p.leader, p.replicas) for p in state.partitions])


def tail_command(name: str, config: str | None, servers: str | None, count: int, follow: bool, as_json: bool) -> None:
    """The last rows as JSON, a line each."""
    _, kafka = kafka_of(config, servers)
    if count < 0:
        raise UserError(f"-n {count} is negative; give how many rows to show")
    topic = topic_named(name, kafka.prefix)
    from sources.kafka_tail import last_rows
    shown = 0
    try:
        for found in last_rows(kafka, topic.table.name, count, follow):
            sys.stdout.write((json.dumps(found, ensure_ascii=False) if as_json else _line(found)) + "\n")
            sys.stdout.flush()
            shown += 1
        if not shown and count:
            err.print(f"{topic.named(kafka.prefix)} is empty", highlight=False)
    except KeyboardInterrupt:
        if not follow:
            raise
        err.print("stopped", highlight=False)  # the only way to end --follow


def topic_named(name: str, prefix: str) -> Topic:
    """A topic by its table's name or its own; UserError with the nearest where there is none."""
    table = name.removeprefix(prefix)
    if table not in TOPICS:
        raise unknown("topic", name, TOPICS)
    return TOPICS[table]


def kept(topic: Topic) -> str:
    """Its retention for people."""
    return "for ever" if topic.retention_ms == FOR_EVER else f"{topic.retention_ms // DAY_MS} days"


_SHOWN = ("cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type", "max.message.bytes", "min.insync.replicas")


def _line(found: dict[str, Any]) -> str:
    place = f"{found['partition']}:{found['offset']}"
    if "error" in found:
        return f"{place} {found['error']}; payload in base64: {found['payload']}"
    run = f" {found['run']}" if found["run"] else ""
    return f"{place}{run} {json.dumps(found['row'], ensure_ascii=False)}"


def _count(text: str) -> tuple[str, int]:
    table, _, count = text.partition("=")
    if not count.isdigit():
        raise UserError(f'--partitions "{text}" is not a topic and a number; write it like --partitions trades=4')
    return table, int(count)
