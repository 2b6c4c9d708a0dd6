"""The commands of learning on: `penstock learn`, `penstock model evaluate`, `penstock model certify`, `penstock model certificates`."""

from typing import Annotated, Optional

import typer

from cli.models import Folder, Json, model
from cli.training import Data, From, Limit, Run, To, Warehouse

ConfigFile = Annotated[Optional[str], typer.Option(help="Configuration in YAML; its section `learn` has the triggers and gates.")]
Reference = Annotated[str, typer.Argument(
    metavar="NAME[@VERSION|@TAG]", help="A model of the registry; without a version the active one, else the latest.")]
Everything = Annotated[bool, typer.Option(
    "--all", help="Also the rows that the version was trained on. By default only those after them count.")]


def learn(
    config: ConfigFile = None,
    name: Annotated[Optional[str], typer.Option(help="A model of the registry. Default: all registered ones of the configuration.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end. Default: look again and again until Ctrl-C or SIGTERM.")] = False,
    now: Annotated[Optional[str], typer.Option(metavar="REASON", help="Begin a cycle, whatever the triggers say.")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Promote the version that waits for approval, and end.")] = False,
    abort: Annotated[Optional[str], typer.Option(metavar="REASON", help="End the cycle that is under way, and end.")] = None,
    data: Data = None, run: Run = None, limit: Limit = 0,
    every: Annotated[float, typer.Option(help="Seconds between looks.")] = 60.0,
    warehouse: Warehouse = None, registry: Folder = None, json: Json = False,
) -> None:
    """Train models again when there is a reason, judge them, and promote what is better by written gates.

    A cycle: trigger (age, rows, decay, drift, regime shift, --now) → train by the recipe of the version in use → evaluate on rows that
    training did not see, against the active version, the base rate and the rules → register as CANDIDATE, with a certificate → SHADOW →
    gates → promote or not. With --run the bars and the scores are those of that run, shadow waits for its scores, and a promoted version
    that proves worse is rolled back; without, the last stretch of --data (or of `learn: data:`) is the shadow.

    Killed or stopped at any step, the version in use keeps serving and the next start goes on. A report of each cycle lies in the
    registry under .cycles/NAME/NUMBER/report.md. --json prints one object per event. The first version comes from `penstock model train`.
    """
    from cli.learning_runs import LearnOptions, learn_command
    learn_command(LearnOptions(config, name, once, now, approve, abort, data, run, limit, every, warehouse, registry, json))


@model.command("evaluate")
def evaluate(
    reference: Reference, data: Data = None, run: Run = None, limit: Limit = 0, everything: Everything = False,
    window: Annotated[str, typer.Option(help="Time per figure of the course over time, such as 1d.")] = "1d",
    out: Annotated[Optional[str], typer.Option(metavar="FILE", help="Write an HTML report.")] = None,
    ts_from: From = None, ts_to: To = None, warehouse: Warehouse = None, registry: Folder = None, json: Json = False,
) -> None:
    """How good a version is on data: errors, direction, ranking and calibration, in all, per symbol, per regime and over time.

    Example: penstock model evaluate trees_15m@2 --data bars/ --from 2021-05-01 --out evaluation.html
    """
    from cli.judging import JudgeOptions, evaluate_command
    evaluate_command(JudgeOptions(reference, data, run, limit, everything, ts_from, ts_to, warehouse, registry, json), window, out)


@model.command("certify")
def certify(
    reference: Reference, data: Data = None, run: Run = None, limit: Limit = 0, everything: Everything = False, config: ConfigFile = None,
    ts_from: From = None, ts_to: To = None, warehouse: Warehouse = None, registry: Folder = None, json: Json = False,
) -> None:
    """Judge a version by the thresholds of `learn: governance:` and add the certificate to the chain. Exit code 1 where it is refused.

    Drawdown, value at risk and expected shortfall of following it after costs, uplift over the configuration's rules, accuracy,
    calibration, rows. The certificate holds every figure, every threshold and the plan for when the model fails.
    """
    from cli.judging import JudgeOptions, certify_command
    judge = JudgeOptions(reference, data, run, limit, everything, ts_from, ts_to, warehouse, registry, json)
    raise typer.Exit(certify_command(judge, config))


@model.command("certificates")
def certificates(registry: Folder = None, json: Json = False) -> None:
    """Verify the chain of certificates and list them. Exit code 1 where one was changed, left out or put in between."""
    from cli.judging import certificates_command
    raise typer.Exit(certificates_command(registry, json))


def register(app: typer.Typer) -> None:
    """Add what is not in the group `model`."""
    app.command("learn")(learn)
