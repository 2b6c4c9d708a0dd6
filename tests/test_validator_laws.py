"""The signal validator on random tapes: a plain reference, and the laws of batches, resumption and prefixes."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.strategies.validator import Validator
from operators.strategies.validator_kernel import BUCKETS
from schemas.config_models import ValidatorConfig
from schemas.tables import ENTER_LONG, ENTER_SHORT, EXIT
from schemas.tables_models import LAYERS, P_OK, P_WARMING
from tests.validator_tapes import (
    DAY,
    MINUTE,
    MODELS,
    PASSED,
    REFUSED,
    START,
    STRATEGIES,
    Tape,
    bar,
    entry,
    frames,
    run,
    said,
    score,
    tape,
)

SYMBOLS = 4
FULL = ValidatorConfig("logit", 0.05, 0.5, 20, 1.2, 10_000.0, 0.012, 0.5, 20, 20.0, 2.0)


def random_tape(seed: int, minutes: int = 400) -> Tape:
    random = np.random.default_rng(seed)
    bars, signals, scores, predictions = [], [], [], []
    logs = np.zeros(SYMBOLS)
    for minute in range(minutes):
        common = random.normal(0, 0.001)
        for symbol in range(SYMBOLS):
            logs[symbol] += common * (symbol < 3) + random.normal(0, 0.0005 * (1 + 2 * (minute > minutes / 2)))
            if random.random() < 0.1:
                continue
            seq = 10 * minute + int(random.integers(0, 3))
            price = 100 * math.exp(logs[symbol])
            bars.append(bar(seq, price, symbol, notional=random.choice([1e5, 1e6, 1e7], p=[0.1, 0.4, 0.5]), ts_event_ns=START + minute * MINUTE,
                            ts_close_ns=START + minute * MINUTE))
            for strategy in range(2):
                if random.random() < 0.15:
                    action = int(random.choice([ENTER_LONG, ENTER_SHORT, EXIT], p=[0.3, 0.1, 0.6]))
                    signals.append(entry(seq, symbol, strategy, action, ts_event_ns=START + minute * MINUTE,
                                         strength=float(random.choice([0.0, 0.5, 1.0])), hold_ns=int(random.choice([0, 30 * MINUTE]))))
            late = int(random.integers(0, 3 * MINUTE))
            scores.append(score(seq, int(random.choice([-1, 0, 1])), START + minute * MINUTE - late, symbol=symbol))
            state = int(random.choice([P_OK, P_WARMING]))
            predictions.append(said(seq, random.normal(0, 0.005) if state == P_OK else math.nan, symbol=symbol, state=state))
    return tape(bars, signals, scores, predictions)


def reference(rows: Tape, config: ValidatorConfig) -> list[tuple[list[float], int]]:
    """(measurements, passed) of every entry, each from the whole history, in plain Python and numpy."""
    held: dict[tuple[int, int], int] = {}
    out = []
    bucket_ns, now = round(config.window_days * DAY) // BUCKETS, 0
    for g in rows["signals"]:
        known = {name: each[each["seq"] <= g["seq"]] for name, each in rows.items()}
        symbol, strategy = int(g["symbol"]), int(g["strategy"])
        if g["action"] == EXIT:
            held.pop((strategy, symbol), None)
            continue
        side = 1 if g["action"] == ENTER_LONG else -1
        labels = known["scores"][known["scores"]["hit"] >= 0]
        now = max(now, int(g["ts_event_ns"]) // bucket_ns, *(labels["ts_event_ns"] // bucket_ns).tolist())
        live = labels["hit"][labels["ts_event_ns"] // bucket_ns > now - BUCKETS]
        share = float(live.mean()) if len(live) else math.nan

        def window(s: int) -> dict[int, float]:
            own = known["bars"][known["bars"]["symbol"] == s][-config.correlation_bars - 1:]  # noqa: B023
            return dict(zip(own["ts_close_ns"].tolist(), np.log(own["close"]).tolist(), strict=True))

        mine = window(symbol)
        returns = np.diff(list(mine.values())) if len(mine) == config.correlation_bars + 1 else np.full(2, np.nan)
        worst = math.nan
        for (who, s), other_side in held.items():
            theirs = window(s)
            both = sorted(set(mine) & set(theirs))
            if who == strategy and s != symbol and len(both) > config.correlation_bars / 2:
                a, b = np.diff([mine[t] for t in both]), np.diff([theirs[t] for t in both])
                worst = float(np.fmax(worst, side * other_side * np.corrcoef(a, b)[0, 1]))
        spoken = known["predictions"][known["predictions"]["symbol"] == symbol]
        move = abs(float(spoken["score"][-1]))
        if math.isnan(move):
            move = float(np.abs(returns).mean()) * math.sqrt(g["hold_ns"] / MINUTE or 15)
        notional = known["bars"]["notional"][known["bars"]["symbol"] == symbol][-1]
        observed = [share, float(returns.std(ddof=1)) * math.sqrt(365 * DAY / MINUTE), config.notional / notional, worst, 1e4 * move]
        refused = [observed[0] < config.hits_min and len(live) >= config.labels_min, observed[1] > config.volatility_max,
                   observed[2] > config.participation_max, observed[3] > config.correlation_max, observed[4] < config.cost_bps * config.edge_min]
        if not any(refused) and g["strength"] > 0:
            held[strategy, symbol] = side
        out.append((observed, int(not any(refused))))
    return out


def full() -> Validator:
    return Validator(FULL, STRATEGIES, MODELS, score_is_return=True)


TAPE = random_tape(1)
WHOLE = run(full(), frames(TAPE))
END = int(TAPE["bars"]["seq"][-1]) + 1
positions = st.integers(0, END)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_verdicts_are_those_of_the_reference(seed: int) -> None:
    rows = random_tape(seed)
    validations, _ = run(full(), frames(rows))
    expected = reference(rows, FULL)
    assert list(validations["passed"]) == [passed for _, passed in expected] and len(expected) > 100
    np.testing.assert_allclose(validations["observed"], [observed for observed, _ in expected], rtol=1e-9, equal_nan=True)
    for layer in range(5):
        assert set(validations["verdicts"][:, layer]) >= {PASSED, REFUSED}, LAYERS[layer]


@given(st.lists(positions, max_size=10))
def test_batch_law(cuts: list[int]) -> None:
    validations, signals = run(full(), frames(TAPE, cuts))
    assert validations.tobytes() == WHOLE[0].tobytes() and signals.tobytes() == WHOLE[1].tobytes()


def test_frames_of_one_position() -> None:
    assert run(full(), frames(TAPE, range(END)))[0].tobytes() == WHOLE[0].tobytes()


@given(positions)
def test_resume_law(cut: int) -> None:
    before, after = frames(TAPE, [cut])
    first = full()
    a = run(first, [before])
    kept = first.snapshot()
    saved = pickle.dumps(kept)
    run(first, [after])
    assert pickle.dumps(kept) == saved
    second = full()
    second.restore(pickle.loads(saved))
    b = run(second, [after])
    assert all(np.concatenate([x, y]).tobytes() == whole.tobytes() for x, y, whole in zip(a, b, WHOLE, strict=True))


@given(positions)
def test_prefix_law(cut: int) -> None:
    poisoned = {name: rows.copy() for name, rows in TAPE.items()}
    for name, column, value in (("bars", "close", 1e9), ("bars", "notional", 1.0), ("scores", "hit", 0), ("predictions", "score", 1e9)):
        poisoned[name][column][poisoned[name]["seq"] >= cut] = value
    for made, whole in zip(run(full(), frames(poisoned)), WHOLE, strict=True):
        assert made[made["seq"] < cut].tobytes() == whole[whole["seq"] < cut].tobytes()
