"""What models had to do with an order: what the rule could see of them on the signal's bar, and what the validator said of the signal.

A rule sees of each model the last row at or before its signal's tape position, whatever the timeframe of the model; so does this.
"""

from typing import TYPE_CHECKING, Any

from research.model_numbers import models_named, models_seen
from schemas.ddl import RUN_ID
from schemas.tables import TableSpec
from schemas.tables_models import LAYERS, PREDICTIONS, VALIDATIONS, VOTES

if TYPE_CHECKING:
    from research.stored import StoredRun

_LAYER_VERDICTS = ("not applicable", "passed", "refused")


def models_of(run: "StoredRun", decision: dict[str, Any]) -> dict[str, Any]:
    """`predictions` and `votes` of the models that the strategy's rules look at, and of the one that the validator watches, members of
    ensembles too, with `named` where a rule names it; `validation`: the verdict on the signal, layer by layer, None where it was not
    asked. Empty where the run has no models."""
    made = run.plan
    spec = next((s for s in made.specs if s.name == decision["strategy"]), None)
    watched = made.config.validator.model if made.config.validator is not None else ""
    seen = {watched, *(n for m in made.models if m.name == watched for n in m.members)}
    seen.update(models_seen(made, spec) if spec is not None else ())
    named = models_named(made, spec) if spec is not None else ()
    predictions: dict[str, dict[str, Any]] = {}
    votes = []
    for m in made.models:
        if m.name not in seen:
            continue
        row = _last(run, VOTES if m.kind == "ensemble" else PREDICTIONS, m.name, decision)
        if row is not None and m.kind == "ensemble":
            votes.append((m, {**row, "named": m.name in named}))
        elif row is not None:
            predictions[m.name] = {**row, "kind": m.kind, "named": m.name in named}
    return {"predictions": list(predictions.values()), "votes": [_vote(m.members, row, predictions) for m, row in votes],
            "validation": _validation(run, decision)}


def _last(run: "StoredRun", spec: TableSpec, model: str, decision: dict[str, Any]) -> dict[str, Any] | None:
    """The last row of an active model that a signal could see."""
    columns = ", ".join(f"`{f.name}`" for f in spec.fields)
    role = "AND role = 'active'" if any(f.name == "role" for f in spec.fields) else ""
    rows = run.query(f"SELECT {columns} FROM {spec.name} FINAL WHERE {RUN_ID} = {{r:String}} AND model = {{m:String}} "
                     f"AND symbol = {{s:String}} AND seq <= {{q:Int64}} {role} ORDER BY seq DESC LIMIT 1",
                     m=model, s=decision["symbol"], q=decision["seq"]).to_pylist()
    return dict(rows[0]) if rows else None


def _vote(members: tuple[str, ...], row: dict[str, Any], predictions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A vote with its members by name."""
    rest = {k: v for k, v in row.items() if k not in ("member_p", "member_weight")}
    return {**rest, "members": [
        {"model": name, "version": predictions.get(name, {}).get("version"), "p_up": row["member_p"][k], "weight": row["member_weight"][k]}
        for k, name in enumerate(members)]}


def _validation(run: "StoredRun", decision: dict[str, Any]) -> dict[str, Any] | None:
    row = run.one(VALIDATIONS, "symbol = {s:String} AND strategy = {t:String} AND seq = {q:Int64} AND slot = {n:Int64}",
                  s=decision["symbol"], t=decision["strategy"], q=decision["seq"], n=decision["slot"])
    if row is None:
        return None
    return {"passed": bool(row["passed"]), "layers": [
        {"layer": layer, "verdict": _LAYER_VERDICTS[row["verdicts"][k]], "observed": row["observed"][k], "bound": row["bounds"][k]}
        for k, layer in enumerate(LAYERS)]}
