"""The commands that train, as `cli.main` registers them: `penstock model train`, `model retrain`, `walk-forward`."""

from typing import Annotated, Optional

import typer

from cli.models import Folder, Json, model

Data = Annotated[Optional[list[str]], typer.Option(
    "--data", metavar="PATH", help="Files, folders or quoted globs of trades, quotes or bars, or sim:SYMBOLS:HOURS:SEED; may be repeated.")]
Run = Annotated[Optional[str], typer.Option("--run", metavar="RUN", help="Instead of --data: the bars of a run in the warehouse.")]
Warehouse = Annotated[Optional[str], typer.Option("--warehouse", help="ClickHouse URL. Default: PENSTOCK_WAREHOUSE, else embedded.")]
From = Annotated[Optional[str], typer.Option("--from", metavar="TIME", help="First event time of --data, e.g. 2021-04-02.")]
To = Annotated[Optional[str], typer.Option("--to", metavar="TIME", help="End of event time of --data, exclusive.")]
Timeframe = Annotated[Optional[str], typer.Option(help="Bars to predict on. Default: the recording's, 1m for trades.")]
FeaturesList = Annotated[Optional[list[str]], typer.Option(
    "--features", metavar="FEATURE", help="Such as 'rsi(14)'; may be repeated, or several divided by spaces. Default: 24 that are listed "
    "above; `penstock features list` shows all there are.")]
Horizon = Annotated[Optional[str], typer.Option(help="How far ahead, such as 15m. Default: 15 bars.")]
Label = Annotated[str, typer.Option(help="forward_return, volatility_scaled or triple_barrier.")]
Barriers = Annotated[float, typer.Option(help="triple_barrier: barriers, in units of the volatility over the horizon.")]
Border = Annotated[float, typer.Option("--label-threshold", help="A label counts as up where it is above this.")]
Task = Annotated[str, typer.Option(help="classify: probability of up. regress: the label itself.")]
Kind = Annotated[str, typer.Option("--model", help="lightgbm, or xgboost where it is installed.")]
Parameters = Annotated[Optional[list[str]], typer.Option(
    "--param", metavar="NAME=VALUE", help="A parameter of the library by its own name, or rounds=N: the most trees; may be repeated.")]
Weight = Annotated[str, typer.Option("--class-weight", help="none, or balanced: up and not up weigh the same in all.")]
Seed = Annotated[int, typer.Option(help="The same data, recipe and seed give the same bytes.")]
Stopping = Annotated[int, typer.Option("--early-stopping", help="Trees without improvement on the validation rows to stop at; 0: never.")]
Valid = Annotated[float, typer.Option("--valid-share", help="Share of the rows, the last ones in time, that decide when to stop.")]
Embargo = Annotated[Optional[str], typer.Option(help="Time left out around tested rows, beyond the purge. Default: the horizon.")]
Threads = Annotated[int, typer.Option(help="Threads to train on; part of the recipe.")]
Limit = Annotated[int, typer.Option(help="Only the last N rows; 0: all.")]
Trials = Annotated[int, typer.Option(help="Search parameters with Optuna first, so many trials on purged folds; 0: none.")]
Storage = Annotated[Optional[str], typer.Option(
    help="Where the search keeps its study, such as sqlite:///study.db: it can be gone on with, and machines can share it.")]
Study = Annotated[str, typer.Option(help="Name of the study. Default: made of the data and the recipe.")]
Worker = Annotated[int, typer.Option(help="A number of its own for each machine that shares a study.")]
Tag = Annotated[str, typer.Option(help="A word to find the version by, such as exp1.")]


@model.command("train")
def train(
    data: Data = None, run: Run = None, name: Annotated[str, typer.Option(help="Name in the registry.")] = "model", kind: Kind = "lightgbm",
    horizon: Horizon = None, timeframe: Timeframe = None, features: FeaturesList = None, label: Label = "forward_return",
    barriers: Barriers = 2.0, border: Border = 0.0, task: Task = "classify", param: Parameters = None, class_weight: Weight = "none",
    seed: Seed = 1, early_stopping: Stopping = 50, valid_share: Valid = 0.2, embargo: Embargo = None, threads: Threads = 1,
    limit: Limit = 0, trials: Trials = 0, storage: Storage = None, study: Study = "", worker: Worker = 0, tag: Tag = "",
    ts_from: From = None, ts_to: To = None, warehouse: Warehouse = None, registry: Folder = None, json: Json = False,
) -> None:
    """Train a model on recorded data and register it as the next version of its name. It is not promoted by that.

    Features and labels are made by the pipeline's own operators. The last rows decide when to stop, with the rows before them purged of
    labels that look into them. Example: penstock model train --data bars/ --horizon 15m --name trees_15m --tag exp1

    Features by default, none in units of price, so that symbols can be pooled: log_ret(1) log_ret(5) log_ret(15) log_ret(60) rsi(14)
    zscore(20) zscore(60) bollinger(20,2).width natr(14) realized_vol(20) atr_ratio(20,100) range_ratio volume_z(20) vwap_distance(20)
    cmf(20) mfi(14) adx(14).adx efficiency_ratio(10) dist_high(60) dist_low(60) autocorr(50,1) skew(50) day_sin day_cos
    """
    from cli.training_runs import DataOptions, ModelOptions, SearchOptions, train_command
    train_command(
        DataOptions(data, run, timeframe, horizon, features, label, barriers, border, limit, ts_from, ts_to, warehouse),
        ModelOptions(kind, task, param, class_weight, seed, early_stopping, valid_share, embargo, threads),
        SearchOptions(trials, storage, study, worker), name, tag, registry, json)


@model.command("retrain")
def retrain(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="A model; not needed where the registry has one alone.")] = None,
    base: Annotated[Optional[str], typer.Option(
        metavar="VERSION|TAG", help="Whose recipe. Default: the active version's, else the latest's.")] = None,
    data: Data = None, run: Run = None, limit: Limit = 0, tag: Tag = "", trials: Trials = 0, storage: Storage = None, study: Study = "",
    worker: Worker = 0, ts_from: From = None, ts_to: To = None, warehouse: Warehouse = None, registry: Folder = None, json: Json = False,
) -> None:
    """Train again by the recipe of a version: same features, label, parameters and seed, on new data, as the next version.

    Without --data or --run it reads again what that version was trained on, with whatever has been added to those files since.
    Example: penstock model retrain trees_15m --limit 2000 --tag exp2
    """
    from cli.training_runs import SearchOptions, retrain_command
    retrain_command(name, base, data, run, limit, tag, SearchOptions(trials, storage, study, worker), ts_from, ts_to, warehouse, registry,
                    json)


def walk_forward(
    train_for: Annotated[str, typer.Option("--train", help="Time that each window trains on, such as 6mo (of 30 days), 2w, 36h.")],
    test: Annotated[str, typer.Option("--test", help="Time that each window tests, and moves on by.")],
    data: Data = None, run: Run = None, kind: Kind = "lightgbm", horizon: Horizon = None, timeframe: Timeframe = None,
    features: FeaturesList = None, label: Label = "forward_return", barriers: Barriers = 2.0, border: Border = 0.0, task: Task = "classify",
    param: Parameters = None, class_weight: Weight = "none", seed: Seed = 1, early_stopping: Stopping = 50, valid_share: Valid = 0.2,
    embargo: Embargo = None, threads: Threads = 1, limit: Limit = 0,
    anchored: Annotated[bool, typer.Option("--anchored", help="Train on everything before, not on the last --train alone.")] = False,
    cost_bps: Annotated[float, typer.Option(help="Cost of one side of a trade, hundredths of a percent.")] = 10.0,
    threshold: Annotated[float, typer.Option(help="How far a probability has to be from 0.5, or a score from 0, to be traded.")] = 0.0,
    out: Annotated[Optional[str], typer.Option(metavar="FILE", help="Write an HTML report.")] = None,
    ts_from: From = None, ts_to: To = None, warehouse: Warehouse = None, json: Json = False,
) -> None:
    """Train on a stretch of time, predict the next, move on: what a recipe is worth out of sample, before and after costs.

    Windows are purged and kept an embargo apart. Nothing is chosen by the rows that are reported, unless you come back and choose.
    Example: penstock walk-forward --data bars/ --train 6mo --test 1mo --horizon 4h --out walk.html
    """
    from cli.training_runs import DataOptions, ModelOptions, walk_forward_command
    walk_forward_command(
        DataOptions(data, run, timeframe, horizon, features, label, barriers, border, limit, ts_from, ts_to, warehouse),
        ModelOptions(kind, task, param, class_weight, seed, early_stopping, valid_share, embargo, threads),
        train_for, test, anchored, cost_bps, threshold, out, json)


def register(app: typer.Typer) -> None:
    """Add what is not in the group `model`."""
    app.command("walk-forward")(walk_forward)
