"""The commands of the model registry, as `cli.main` registers them: `penstock model list`, `show`, `promote` and so on.

`model` is the group: other files of this room add their commands to it.
"""

from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Folder = Annotated[Optional[str], typer.Option(
    "--registry", metavar="PATH", help="Folder of the registry. Default: PENSTOCK_MODELS, else .penstock/models.")]
ConfigFile = Annotated[Optional[str], typer.Option(
    "--config", help="Configuration in YAML; with a section `kafka`, the change is also written to the topic `promotions`.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a model in the registry.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="A version's number, or its tag.")]
At = Annotated[Optional[str], typer.Option(
    "--at", metavar="TIME", help="Event time from which it holds, such as 2026-01-31T10:30. Default: now.")]
Backdate = Annotated[bool, typer.Option(
    "--backdate", help="Allow a time in the past. It changes which version replays of the time since then use.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the event.")]
RunName = Annotated[Optional[str], typer.Option(
    "--run", metavar="RUN", help="A run without a broker: the change is also left for it, and it switches when it reads it.")]
Actor = Annotated[Optional[str], typer.Option(help="Who; kept with the event. Default: your login name.")]

model = typer.Typer(no_args_is_help=True, help="Trained models: versions, which one is live from when, and how to go back.")


@model.command("list")
def list_models(name: Annotated[Optional[str], typer.Option(help="All versions of this model.")] = None, registry: Folder = None,
                json: Json = False) -> None:
    """The models of the registry, or the versions of one with their states."""
    from cli.model_registry import list_command
    list_command(name, registry, json)


@model.command("show")
def show(reference: Annotated[str, typer.Argument(
             metavar="NAME[@VERSION|@TAG]", help="A model; without a version the active one, else the latest.")],
         registry: Folder = None, json: Json = False) -> None:
    """One version: what it is, what it was trained on, how good it was, and whether its files are what was registered."""
    from cli.model_registry import show_command
    show_command(reference, registry, json)


@model.command("promote")
def promote(name: Name, version: Number, at: At = None,
            shadow: Annotated[bool, typer.Option("--shadow", help="Only into shadow: it predicts beside the active one.")] = False,
            backdate: Backdate = False, reason: Reason = "", actor: Actor = None, config: ConfigFile = None, run: RunName = None,
            registry: Folder = None, json: Json = False) -> None:
    """Make a version the active one; the one before it is retired at that moment.

    Running pipelines switch between two rows, and every prediction says which version made it. A version whose files are not what was
    registered is refused, and the one before stays. `penstock model rollback` goes back.
    """
    from cli.model_registry import change_command
    change_command("shadow" if shadow else "activate", name, version, at, backdate, reason, actor, config, run, registry, json)


@model.command("rollback")
def rollback(name: Name, to: Annotated[Optional[str], typer.Option(metavar="VERSION", help="A retired version to go back to.")] = None,
             at: At = None, backdate: Backdate = False, reason: Reason = "", actor: Actor = None, config: ConfigFile = None,
             run: RunName = None, registry: Folder = None, json: Json = False) -> None:
    """Go back to the version that was active before; once more goes one further back.

    It is an event like any other: nothing is deleted, and a replay has both versions, each in its time. To undo a promotion that is yet to
    come, give its time with --at.
    """
    from cli.model_registry import change_command
    change_command("rollback", name, to, at, backdate, reason, actor, config, run, registry, json)


@model.command("retire")
def retire(name: Name, version: Number, at: At = None, backdate: Backdate = False, reason: Reason = "", actor: Actor = None,
           config: ConfigFile = None, run: RunName = None, registry: Folder = None, json: Json = False) -> None:
    """Take a version out. Where it is the active one, none is active afterwards, and the model abstains."""
    from cli.model_registry import change_command
    change_command("retire", name, version, at, backdate, reason, actor, config, run, registry, json)


@model.command("diff")
def diff(name: Name, a: Annotated[str, typer.Argument(metavar="V1", help="A version or a tag.")],
         b: Annotated[str, typer.Argument(metavar="V2", help="Another.")], registry: Folder = None, json: Json = False) -> None:
    """What differs between two versions: parameters, features, data, metrics, label, importance."""
    from cli.model_registry import diff_command
    diff_command(name, a, b, registry, json)


@model.command("history")
def history(name: Name, registry: Folder = None, json: Json = False) -> None:
    """Every event of a model: what, from when, decided when, by whom and why, and which version is active after it."""
    from cli.model_registry import history_command
    history_command(name, registry, json)


@model.command("publish")
def publish(config: ConfigFile = None, registry: Folder = None, json: Json = False) -> None:
    """Write the events that the topic `promotions` has not been given yet, as after a promotion that found no broker."""
    from cli.model_registry import publish_command
    publish_command(config, registry, json)


@model.command("prune")
def prune(keep: Annotated[int, typer.Option(help="How many of the latest versions of each model keep their files.")] = 10,
          registry: Folder = None, json: Json = False) -> None:
    """Delete the files of old versions; their cards and events stay. Never of one in force, or that a rollback would go to.

    A replay of a time when a pruned version was live cannot be made any more, and says so.
    """
    from cli.model_registry import prune_command
    prune_command(keep, registry, json)


@model.command("repair")
def repair(registry: Folder = None, json: Json = False) -> None:
    """Verify all files; where the database is missing or damaged, make it again from them. Exit code 1 where a version cannot be used.

    Stop what uses the registry meanwhile. The database that was there is put aside.
    """
    from cli.model_registry import repair_command
    raise typer.Exit(repair_command(registry, json))


@model.command("learners")
def learners(json: Json = False) -> None:
    """The online learners that a configuration may name, with their parameters."""
    from cli.model_registry import learners_command
    learners_command(json)


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(model, name="model")
