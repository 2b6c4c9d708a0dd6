"""Writes the pages that follow from the code: `python docs/generate.py`. The tests run the same functions and compare.

`policy.md` comes from the policy's table, `features.md` from the register of features, the metrics in `operations.md` from
`telemetry/metrics.py`, the reference in `learning.md` from the configuration's sections, the table in `topics.md` and the JSON Schema
files in `schemas/` from the tables; in `life_of_a_tick.md` the output under each block of code is what the block printed.
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

MODEL_KEYS: dict[str, dict[str, str]] = {
    "of every kind": {
        "kind": "river, registered or ensemble",
        "forecast": "KEEP; RESEARCH_ONLY and DISABLE_DEFAULT: predicts and is scored, without a vote; of an ensemble: it votes for nothing",
    },
    "river": {
        "timeframe": "of the bars that it predicts on",
        "features": "1 to 256, by the names in [features](features.md); they are computed without being named elsewhere",
        "label": "what is to be foreseen, see below",
        "task": "classify: the probability of up; regress: the label; anomaly: a score from 0 to 1, which learns without labels' values",
        "pipeline": "River classes, each with its parameters or alone: transformers first, the estimator last",
        "scope": "symbol: each symbol has a learner of its own; pooled: all share one; groups: each of `groups` does",
        "groups": "lists of symbols, with scope groups; a symbol in none is not predicted",
        "warmup": "labels that a learner learns before it says anything",
        "seed": "from it and the learner's key follow the seeds of all classes that take one",
        "drift": "a detector on its losses, see below",
        "bounds": "what keeps it stable, see below",
    },
    "registered": {
        "name": "of the model in the [registry](models.md)",
        "version": "active: follows the promotions; a number: that version, whatever is promoted",
        "initial": "version that a run begins with; 0: the one that was active when its tape begins. A run records it",
        "shadow": "whether a version in shadow predicts beside it",
        "timeframe, features, label, task": "from the card of the version that the run begins with; a run records them",
    },
    "ensemble": {
        "members": "1 to 8 models with the same timeframe and label; none an ensemble, none for anomalies",
        "consensus": "share of those present that have to say the same",
        "present_min": "share of the members that have to say anything",
        "volatility_high": "daily volatility above which `confidence_high` is asked for",
        "confidence_high": "confidence that has to be exceeded then",
        "learning_rate": "of the weights; 0: they stay equal",
        "calibrate": "whether the members' probabilities are calibrated first",
    },
}
SECTION_KEYS: dict[str, dict[str, str]] = {
    "label": {
        "kind": "forward_return, volatility_scaled or triple_barrier",
        "horizon": "how far it looks ahead; at least one bar",
        "upper": "triple_barrier: upper barrier, in volatilities over the horizon",
        "lower": "triple_barrier: lower barrier",
        "volatility_bars": "log returns that the volatility is of, 2 to 100,000",
        "threshold": "a label counts as up where it is above this; may be negative",
    },
    "drift": {
        "detector": "none, ADWIN, PageHinkley, KSWIN or CUSUM",
        "action": "alert: a row of `drift`, nothing else; reset: begin again; replace: by a learner that began at the first warning",
        "parameters": "of the detector, over its defaults",
    },
    "bounds": {
        "weight_max": "linear weights and intercepts are clipped to this",
        "learning_rate_max": "an optimiser that begins above it is refused before the run",
        "input_max": "scaled features are clipped to this many standard deviations, behind the scaler; 0: not",
    },
    "validator": {
        "model": "whose scores and predictions are looked at; empty: the layers that need none",
        "window_days": "statistics: days of labels that count",
        "hits_min": "statistics: share of right directions",
        "labels_min": "statistics: fewer labels, and the layer does not apply",
        "volatility_max": "regime: annualised volatility",
        "notional": "size: quote units that a position is taken to be; 0 switches the layer off",
        "participation_max": "size: share of the bar's notional",
        "correlation_max": "correlation: with a position that the strategy holds",
        "correlation_bars": "regime, correlation, cost: returns that they are computed from",
        "cost_bps": "cost: of the round trip",
        "edge_min": "cost: the expected move is at least this many times the cost",
    },
}


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


def _key_table(title: str, meanings: dict[str, str], defaults: dict[str, Any]) -> str:
    """A table of keys; AssertionError where the meanings and the code know different keys."""
    known = {key for keys in meanings for key in keys.split(", ")}
    assert known == set(defaults), f"docs/generate.py, {title}: {sorted(known ^ set(defaults))}"
    out = [f"\n{title}:\n\n| key | default | meaning |\n|---|---|---|\n"]
    for keys, meaning in meanings.items():
        value = defaults[keys.split(", ")[0]]
        shown = "" if value is None else "see below" if isinstance(value, dict) and value else f"`{json.dumps(value)}`".replace('"', "")
        out.append(f"| {', '.join(f'`{key}`' for key in keys.split(', '))} | {shown if shown != '``' else 'empty'} | {_cell(meaning)} |\n")
    return "".join(out)


def _models_reference() -> str:
    from dataclasses import asdict

    from schemas.config_models import BoundsConfig, DriftConfig, LabelConfig, ModelConfig, ValidatorConfig, label_document, models_document
    shared = MODEL_KEYS["of every kind"]
    parts = [_key_table("Of every kind", shared, {"kind": None, "forecast": ModelConfig("", "river").forecast})]
    for kind in ("river", "registered", "ensemble"):
        document = models_document((ModelConfig("m", kind),))["m"]
        defaults = {k: v for k, v in document.items() if k not in shared} | {k: None for k in ("features", "pipeline", "members", "name")
                                                                             if k in document}
        if kind == "registered":
            defaults["timeframe"] = None
        if kind == "river":
            defaults["groups"] = None
        parts.append(_key_table(f"`kind: {kind}`", MODEL_KEYS[kind], defaults))
    for title, defaults in (("label", label_document(LabelConfig())), ("drift", asdict(DriftConfig())), ("bounds", asdict(BoundsConfig()))):
        parts.append(_key_table(f"`{title}:`", SECTION_KEYS[title], defaults))
    parts.append(_key_table("The section `validator:`", SECTION_KEYS["validator"], asdict(ValidatorConfig())))
    return "".join(parts)


def _learn_reference() -> str:
    from dataclasses import asdict

    from schemas.config_learn import GovernanceConfig, LearnConfig
    learn = {k: v for k, v in asdict(LearnConfig()).items() if k != "governance"}
    lines = ["learn:", *(f"  {k}: {json.dumps(v)}" for k, v in learn.items()), "  governance:",
             *(f"    {k}: {json.dumps(v)}" for k, v in asdict(GovernanceConfig()).items())]
    says = [" ".join(line.strip() for line in paragraph.splitlines())
            for kind in (LearnConfig, GovernanceConfig) for paragraph in (kind.__doc__ or "").strip().split("\n\n")]
    return "\n<!-- file: defaults.yaml -->\n```yaml\n" + "\n".join(lines) + "\n```\n\n" + "\n".join(f"- {each}" for each in says) + "\n"


def learning_page(page: str) -> str:
    """The page on learning with the reference of the configuration between its marks."""
    for mark, text in (("models", _models_reference()), ("learn", _learn_reference())):
        begin, end = f"<!-- {mark}, generated -->\n", f"\n<!-- end of {mark} -->"
        page = page[: page.index(begin) + len(begin)] + text + page[page.index(end):]
    return page


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
    learning = DOCS / "learning.md"
    pages[learning] = learning_page(learning.read_text("utf-8"))
    topics = DOCS / "topics.md"
    pages[topics] = topics_page(topics.read_text("utf-8"))
    pages.update(schema_files())
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
