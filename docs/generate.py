"""Writes the pages that follow from the code: `python docs/generate.py`. The tests run the same functions and compare.

`policy.md` comes from the policy's table, `features.md` from the register of features, the metrics in `operations.md` from
`telemetry/metrics.py`, the table in `topics.md` and the JSON Schema files in `schemas/` from the tables; in `life_of_a_tick.md` the output
under each block of code is what the block printed.
"""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?P<gap>\n```text\n)?(?P<said>(?(gap).*?)(?(gap)```\n))", re.DOTALL)

POLICY_HEAD = """# Policy reference

Generated from `schemas/policy.py` by `python docs/generate.py`.

The policy is every limit of the money side. It is the section `policy` of a configuration:

```yaml
policy:
  version: 2
  capital: 50000
  risk_per_trade: 0.5 %
  latency: 80 ms
```

A value is written with its unit. A fraction is written in `%`, `bps` or `x` (times); a duration in `ns`, `us`, `ms`, `s`,
`min`, `h` or `d`; an amount (quote units such as dollars, or base units for `lot`) and a count without a unit. A wrong
unit, an unknown key or a value outside its bounds stops the command before anything runs. A key that is left out has its
default. `penstock policy show --config FILE` prints the policy in force and its digest; every decision carries its version.

"""

FEATURES_HEAD = """# Features

Generated from the register in `operators/market/features` by `python docs/generate.py`. {count} features in {families} families.

A feature is asked for by name with its parameters in brackets, `rsi(14)`; where it has several outputs, one is
`macd(12,26,9).signal`. Without brackets it has its defaults. `C`, `O`, `H`, `L`, `V` are close, open, high, low and
volume of a bar, `t` is the bar. The warm-up is the number of bars before the first value; until then the value is NaN.
Values are computed on closed bars of one symbol and one timeframe. `penstock features show NAME` prints one entry with
the bounds of its parameters.
"""


def policy_page() -> str:
    """The policy reference."""
    from schemas.policy import reference
    return POLICY_HEAD + reference() + "\n"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def features_page() -> str:
    """The catalogue of features, a table per family."""
    from operators.market.features import FAMILIES, catalogue
    found: list[dict[str, Any]] = catalogue()
    parts = [FEATURES_HEAD.format(count=len(found), families=len(FAMILIES))]
    for family in FAMILIES:
        parts.append(f"\n## {family}\n\n| columns by default | warm-up | what it is | formula | source |\n|---|---|---|---|---|\n")
        for f in (f for f in found if f["family"] == family):
            columns = "<br>".join(f"`{c}`" for c in f["columns"])
            warm_up = "<br>".join(str(f["warm_up_bars"][c]) for c in f["columns"])
            parts.append(f"| {columns} | {warm_up} | {_cell(f['doc'])} | {_cell(f['formula'])} | {_cell(f['source'])} |\n")
    return "".join(parts)


def operations_page(page: str) -> str:
    """The page on operations with the table of metrics between its two marks."""
    from telemetry.metrics import DECLARED
    said = {"every": "every flow", "pipeline": "the pipeline", "desk": "the desk, in the pipeline", "execute": "execute",
            "ingest": "ingest", "archive": "the archive"}
    parts = []
    for flow, title in said.items():
        parts.append(f"\nOf {title}:\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n")
        parts += [f"| `{d.name}` | {d.kind} | {', '.join(f'`{name}`' for name in d.labels) or '–'} | {_cell(d.doc)} |\n"
                  for d in DECLARED if d.flow == flow]
    begin, end = "<!-- metrics, generated -->\n", "\n<!-- end of metrics -->"
    return page[: page.index(begin) + len(begin)] + "".join(parts) + page[page.index(end):]


def topics_page(page: str) -> str:
    """The page on topics with the table of them between its two marks."""
    from schemas.topics import FOR_EVER, TOPICS
    parts = ["| topic | key | partitions | codec | kept | what identifies a row | what it holds |\n|---|---|---|---|---|---|---|\n"]
    for name, topic in TOPICS.items():
        kept = "for ever" if topic.retention_ms == FOR_EVER else f"{topic.retention_ms // 86_400_000} days"
        identity = ", ".join(f"`{column}`" for column in topic.table.key)
        parts.append(f"| [`{topic.name}`](schemas/{name}.json) | {topic.key} | {topic.partitions} | {topic.codec} | {kept} | {identity} "
                     f"| {_cell(topic.table.doc)} |\n")
    begin, end = "<!-- topics, generated -->\n", "<!-- end of topics -->"
    return page[: page.index(begin) + len(begin)] + "".join(parts) + page[page.index(end):]


def schema_files() -> dict[Path, str]:
    """The JSON Schema of every topic's messages, a file each."""
    from schemas.json_schema import json_schema
    from schemas.topics import TOPICS
    return {DOCS / "schemas" / f"{name}.json": json.dumps(json_schema(topic), indent=2, ensure_ascii=False) + "\n"
            for name, topic in TOPICS.items()}


def executed(page: str) -> str:
    """A page with the output of its Python blocks, run in order as one programme, under each of them."""
    scope: dict[str, Any] = {"__name__": "page"}

    def run(match: re.Match[str]) -> str:
        said = io.StringIO()
        line = page[: match.start()].count("\n") + 1
        with redirect_stdout(said):
            exec(compile("\n" * line + match["code"], "page", "exec"), scope)
        text = f"```python\n{match['code']}```\n"
        return text + (f"\n```text\n{said.getvalue()}```\n" if said.getvalue() else "")

    return BLOCK.sub(run, page)


def main() -> None:
    """Write all of them."""
    life = DOCS / "life_of_a_tick.md"
    pages = {DOCS / "policy.md": policy_page(), DOCS / "features.md": features_page(), life: executed(life.read_text("utf-8"))}
    operations = DOCS / "operations.md"
    pages[operations] = operations_page(operations.read_text("utf-8"))
    topics = DOCS / "topics.md"
    pages[topics] = topics_page(topics.read_text("utf-8"))
    pages.update(schema_files())
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
