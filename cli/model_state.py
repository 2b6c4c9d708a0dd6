"""`penstock model at`: online learners as they were at a place on the tape of a run or of recorded data."""

from typing import Annotated, Optional

import typer

from cli.models import Json


def at(
    place: Annotated[str, typer.Argument(metavar="OFFSET|TIME", help="A tape position such as 120000, or an event time such as "
                                         "2026-01-31T10:30.")],
    run: Annotated[Optional[str], typer.Option(help="A live or paper run, from its recorded input.")] = None,
    data: Annotated[Optional[list[str]], typer.Option(help="Instead: recorded data, as a replay takes it; may be repeated.")] = None,
    config: Annotated[Optional[str], typer.Option(help="Configuration in YAML; with --data its `models:` are what is asked about.")] = None,
    json: Json = False,
) -> None:
    """The state of every online learner as it was: what it had learned, the digest of its state, its weights or size.

    The input up to there goes through the same operators again, so the answer does not depend on any snapshot. Two learners whose digests
    are equal will go on alike, to the bit.
    """
    from cli.model_state import show_states
    show_states(place, run, data, config, json)


def show_states(place: str, run: str | None, data: list[str] | None, config: str | None, as_json: bool) -> None:
    """Find the input, go over it, print."""
    from cli.output import print_json, print_table, progress
    from cli.replaying import open_source, parse_time
    from research.learning.state_at import Place, learners_at, states
    from research.replaying import load_config, make_plan, steered
    from schemas.errors import UserError
    if bool(run) == bool(data):
        raise UserError("give either --run RUN or --data PATH")
    where = Place(seq=int(place)) if place.isdigit() else Place(ts_ns=parse_time(place, "OFFSET|TIME"))
    loaded = load_config(config)
    with progress("replaying", None, as_json) as update:
        if data:
            source = open_source(list(data), None, None)
            made = make_plan(loaded, None, source)
            found = learners_at(made, steered(made, source, source.frames(made.config.batch_rows)), where, update)
        else:
            from research.parity_runs import kafka_recording, local_recording
            from sources.local_log import LocalLog
            assert run is not None
            if loaded.kafka is not None:
                given = kafka_recording(loaded.kafka, run)
            else:
                from pathlib import Path
                given = local_recording(LocalLog(Path(loaded.live.state_dir) / run, create=False), run)
            found = learners_at(given.plan, given.source().frames(), where, update)
    shown = states(found)
    if as_json:
        print_json({"at": place, "learners": shown})
        return
    print_table(("model", "key", "version", "learned", "digest"),
                [(s["model"], s["key"], str(s["version"]), str(s.get("learned", "")), str(s.get("digest", ""))[:16]) for s in shown])


def register(group: typer.Typer) -> None:
    """Add it to the group `model`."""
    group.command("at")(at)
