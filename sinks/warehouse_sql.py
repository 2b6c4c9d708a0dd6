"""What the warehouse must know about a statement before the engine sees it: a scan of its words, not a parse.

Quoted text, names and comments are skipped, so no word inside them counts. The scan stops where the data of an INSERT
begins; data is never looked at.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"(?P<skip>\s+|--[^\n]*|/\*.*?\*/)|(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<name>\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`)"
    rb"|(?P<word>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>.)",
    re.DOTALL,
)
_OUTSIDE = re.compile(
    r"(file|filecluster|filesystem|url|urlcluster|s3\w*|gcs\w*|oss|cosn|hdfs\w*|azureblobstorage\w*|remote|remotesecure|"
    r"mysql|postgresql|materialized(mysql|postgresql)|sqlite|mongodb|redis|kafka|nats|rabbitmq|jdbc|odbc|executable\w*|"
    r"iceberg\w*|deltalake\w*|hudi\w*|paimon\w*|ytsaurus|bigquery|arrowflight|hive|python|disk|http|clickhouse)"
)
"""Functions, engines, disks and dictionary sources that reach beyond the warehouse's own tables."""


@dataclass(frozen=True)
class Statement:
    """One statement.

    verb: its first word, in capitals. format: the word after FORMAT, None without. format_span: where that clause is.
    data_at: where the data of an INSERT … FORMAT begins, None where the statement carries none. outside: the first word
    that reaches beyond the warehouse's own tables.
    """

    verb: str
    format: str | None
    format_span: tuple[int, int]
    data_at: int | None
    outside: str | None


def scan(sql: bytes) -> Statement:
    """The facts about one statement, in one pass over its words."""
    verb, form, outside, last = "", None, None, ""
    span, at, depth, inline = (0, 0), 0, 0, False
    while at < len(sql):
        token = _TOKEN.match(sql, at)
        if token is None:  # an unfinished quote: the engine will say so
            break
        at = token.end()
        kind = token.lastgroup
        if kind == "skip":
            continue
        word = token.group().decode("utf-8", "replace")
        if kind == "mark":
            if word == "(":
                depth += 1
                outside = outside or (last if _OUTSIDE.fullmatch(last.strip('"`').lower()) else None)
            elif word == ")":
                depth -= 1
        elif kind == "word":
            verb = verb or word.upper()
            outside = outside or (word if word.upper() in ("INFILE", "OUTFILE") and depth == 0 else None)
            if depth == 0 and last.upper() == "FORMAT":
                form, span = word, (span[0], at)
                if verb == "INSERT" and not inline:
                    return Statement(verb, form, span, _after_format(sql, at), outside)
            elif depth == 0 and word.upper() == "FORMAT":
                span = (token.start(), at)
            elif depth == 0 and verb == "INSERT" and word.upper() == "VALUES":
                return Statement(verb, None, (0, 0), None, outside)
            elif depth == 0 and word.upper() in ("SELECT", "WITH", "INFILE"):
                inline = True
        last = word if kind in ("word", "name") else ""
    return Statement(verb, form, span, None, outside)


def _after_format(sql: bytes, at: int) -> int:
    """ClickHouse's rule: spaces, then at most one line end, belong to the statement."""
    while at < len(sql) and sql[at : at + 1] in (b" ", b"\t", b"\f"):
        at += 1
    if sql[at : at + 1] == b";":
        at += 1
    if sql[at : at + 1] == b"\r":
        at += 1
    if sql[at : at + 1] == b"\n":
        at += 1
    return at


def literal(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
