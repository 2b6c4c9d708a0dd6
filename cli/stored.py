"""Commands about runs in the warehouse: list, show, compare, report, explain, audit verify."""

from pathlib import Path
from typing import Any

from cli.output import out, print_json, print_table
from cli.warehousing import warehouse_at
from schemas.errors import UserError


def runs_list_command(url: str | None, as_json: bool) -> None:
    """All runs."""
    from research.stored import list_runs
    with warehouse_at(url) as where:
        found = list_runs(where)
    if as_json:
        print_json({"runs": found})
    else:
        print_table(("run", "state", "started", "rows", "trades", "P&L"),
                    [(r["run_id"], r["state"], r["started"], r["rows"], r["trades"] or 0, r["pnl"] or "") for r in found])


def runs_show_command(run_id: str, url: str | None, as_json: bool) -> None:
    """One run."""
    from cli.replaying import print_summary
    from research.stored import StoredRun
    with warehouse_at(url) as where:
        run = StoredRun(where, run_id)
        if as_json:
            print_json({**run.summary, "run_id": run_id, "state": run.state, "command": run.command, "data": run.data,
                        "policy": run.policy_yaml})
            return
        out.print(f"{run.command} — {run.state}", highlight=False, markup=False)
        if run.summary:
            print_summary(run.summary)
            if run.summary["hashes"]:
                print_table(("stage", "hash"), list(run.summary["hashes"].items()))


def runs_compare_command(a: str, b: str, url: str | None, as_json: bool) -> int:
    """Two runs; 1 where a stage differs."""
    from research.stored import StoredRun
    with warehouse_at(url) as where:
        one, two = StoredRun(where, a).summary, StoredRun(where, b).summary
    for run_id, summary in ((a, one), (b, two)):
        if not summary.get("hashes"):
            raise UserError(f"run {run_id} has no stage hashes: it is a live run, or was cut off; `penstock parity {run_id}` compares "
                            "a live run with its replay, row by row")
    stages = [(s, h, two.get("hashes", {}).get(s), h == two.get("hashes", {}).get(s)) for s, h in one.get("hashes", {}).items()]
    first = next((s for s, _, _, same in stages if not same), None)
    keys = ("rows", "trades", "pnl", "fees", "drawdown_max", "sharpe", "win_rate", "profit_factor")
    if as_json:
        print_json({"a": a, "b": b, "same": first is None, "first_stage_that_differs": first,
                    "values": {k: [one.get(k), two.get(k)] for k in keys}, "hashes": {s: [x, y] for s, x, y, _ in stages}})
    else:
        print_table(("", a, b), [(k, str(one.get(k)), str(two.get(k))) for k in keys])
        print_table(("stage", a, b, "same"), [(s, x[:12], (y or "")[:12], "yes" if same else "NO") for s, x, y, same in stages])
        out.print("every stage is the same" if first is None else f"the first stage that differs is {first}", highlight=False)
    return 0 if first is None else 1


def report_command(run_id: str, target: str | None, url: str | None, as_json: bool) -> None:
    """The report of a stored run."""
    from research.stored import StoredRun
    path = Path(target) if target else Path(".penstock") / "reports" / f"{run_id}.html"
    with warehouse_at(url) as where:
        run = StoredRun(where, run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        run.report(path)
    if as_json:
        print_json({"run_id": run_id, "report": str(path)})
    else:
        out.print(str(path), highlight=False)


def explain_command(order_id: str, run_id: str | None, url: str | None, as_json: bool) -> None:
    """The story of an order."""
    from research.stored import StoredRun, find_order
    with warehouse_at(url) as where:
        story = StoredRun(where, run_id or find_order(where, order_id)).explain(order_id)
    if as_json:
        print_json(story)
        return
    d = story["decision"]
    sent = "approved" if story["approved"] else f"refused: {story['reason']}"
    out.print(f"[bold]{order_id}[/bold] {d['action']} {d['symbol']} for {d['strategy']} — {sent}", highlight=False)
    print_table(("what", "value"), [
        ("decided at", _utc(d["ts_event_ns"])), ("quantity", str(d["quantity"])), ("price", str(d["price"])),
        ("stop", str(d["stop"])), ("target", str(d["target"])), ("equity", str(d["equity"])),
        ("trading", d["trading_state"]), ("policy", f"version {story['policy']['version']}, {story['policy']['digest']}"),
        ("run", story["run_id"]),
    ])
    verdicts = [(v["limit"], v["verdict"], v["observed"], v["bound"]) for v in story["verdicts"]]
    print_table(("limit", "verdict", "observed", "bound"), verdicts, "gate (amounts in 1e-8, times in ns)")
    if story["strategy"]:
        out.print(story["strategy"], highlight=False, markup=False)
    print_table(("feature", "value"), [(k, float(v)) for k, v in story["features"].items()], "features on that bar")
    _print_models(story)
    for name in ("bar", "first_tick", "last_tick"):
        row = story[name]
        if row:
            shown = {k: v for k, v in row.items() if k in _SHOWN}
            how = f" (found by {story['ticks_found_by']})" if name != "bar" else ""
            out.print(f"{name.replace('_', ' ')}{how}: {_utc(row['ts_event_ns'])} {shown}", highlight=False, markup=False)
    print_table(("time", "state", "type", "side", "quantity", "filled"),
                [(_utc(o["ts_event_ns"]), o["state"], o["order_type"], o["side"], f"{o['quantity']:f}", f"{o['filled']:f}")
                 for o in story["orders"][:20]], f"states of the order and its bracket ({len(story['orders'])} in all)")


def _print_models(story: dict[str, Any]) -> None:
    """What models said, how they voted, and what the validator made of it; nothing where the rule looks at no model."""
    if story["predictions"]:
        print_table(("model", "version", "learned", "role", "state", "score", "p_up", "direction", "confidence"), [
            (p["model"], str(p["version"]), p["learned"], p["role"], p["state"].replace("_", " "), p["score"], p["p_up"], p["direction"],
             p["confidence"]) for p in story["predictions"]], "models, as the rule could see them")
    for vote in story["votes"]:
        said = {1: "up", 0: "hold", -1: "down"}[vote["direction"]]
        ended = f"{vote['verdict'].replace('_', ' ')}, {said}, p_up {vote['p_up']:.6g}, confidence {vote['confidence']:.6g}"
        print_table(("member", "version", "p_up", "weight"), [
            (m["model"], "" if m["version"] is None else str(m["version"]), m["p_up"], m["weight"]) for m in vote["members"]],
            f"vote of {vote['model']}: {ended}")
    if story["validation"]:
        passed = "passed" if story["validation"]["passed"] else "refused"
        print_table(("layer", "verdict", "observed", "bound"), [
            (v["layer"], v["verdict"], v["observed"], v["bound"]) for v in story["validation"]["layers"]], f"signal validator: {passed}")


def audit_verify_command(run_id: str, url: str | None, as_json: bool) -> int:
    """0 where every block is what it was."""
    from research.stored import StoredRun
    with warehouse_at(url) as where:
        found = StoredRun(where, run_id).verify()
    if as_json:
        print_json(found)
    else:
        rows: list[Any] = [(name, "" if s["ok"] is None else s["records"], s["blocks"],
                            f"not verified: {s['why']}" if s["ok"] is None else "ok" if s["ok"] else "DIFFERS")
                           for name, s in found["streams"].items()]
        print_table(("stream", "records", "blocks", ""), rows)
        if any(s["ok"] is None for s in found["streams"].values()):
            out.print(f"what is not verified here, `penstock parity {run_id}` follows from the topics on", highlight=False)
        b = found["broken"]
        out.print("the audit chain holds" if found["ok"] else
                  f"stream {b['stream']} differs in block {b['block']}: records {b['first_record']} to {b['last_record']}", highlight=False)
    return 0 if found["ok"] else 1


_SHOWN = ("open", "high", "low", "close", "volume", "price", "size", "side", "seq", "trades")


def _utc(ts_ns: int) -> str:
    import numpy as np
    return str(np.datetime64(ts_ns, "ns"))[:23].replace("T", " ")
