"""Walk-forward: every prediction is of a model that saw nothing of its rows; costs are what they are; the page draws it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from research.learning.boosting import Recipe
from research.learning.dataset import Dataset
from research.learning.walk_forward import WalkForward, fit_by, walk_forward
from research.learning.walk_report import walk_html, write_walk
from schemas.errors import UserError
from tests.training_made import MINUTE, made

HOUR = 60 * MINUTE
DATA = made(3600, strength=1.0)  # two symbols, 30 hours
RECIPE = Recipe(parameters={"rounds": 20, "learning_rate": 0.2, "min_data_in_leaf": 20}, early_stopping=5)


def walked(data: Dataset = DATA, **more: Any) -> WalkForward:
    settings = {"train_ns": 10 * HOUR, "test_ns": 5 * HOUR, "embargo_ns": 5 * MINUTE, "fit": fit_by(RECIPE), "period_ns": HOUR, **more}
    return walk_forward(data, **settings)


def test_it_finds_the_signal_and_nothing_in_noise() -> None:
    found = walked()
    assert found.document["overall"]["rows"] == 2400 == len(found.outcomes) and len(found.document["windows"]) == 4
    assert found.document["overall"]["accuracy"] > 0.65 and found.document["overall"]["ic"] > 0.3
    order = np.random.default_rng(2).permutation(len(DATA))
    noise = walked(replace(DATA, up=DATA.up[order], value=DATA.value[order], return_=DATA.return_[order])).document["overall"]
    low, high = binom.ppf([0.0005, 0.9995], noise["rows"], 0.5)
    assert low <= noise["accuracy"] * noise["rows"] <= high


def test_a_window_never_sees_its_rows_or_what_comes_after() -> None:
    """Everything after a window's rows may be anything: its predictions and its figures stay."""
    whole = walked()
    cut = whole.document["windows"][1]["test_to_ns"]
    later = DATA.ts_made_ns >= cut
    poisoned = replace(DATA, x=np.where(later[:, None], 9.0, DATA.x), up=np.where(later, 1 - DATA.up, DATA.up))
    again = walked(poisoned)
    before = whole.outcomes.ts_ns < cut
    assert before.sum() == 1200 and again.outcomes.score[before].tobytes() == whole.outcomes.score[before].tobytes()
    assert again.outcomes.score[~before].tobytes() != whole.outcomes.score[~before].tobytes()
    for a, b in zip(whole.document["windows"][:2], again.document["windows"][:2], strict=True):
        assert a == b


def test_what_is_fitted_is_the_past() -> None:
    """The rows that `fit` is given end, with their labels, an embargo before the window; anchored, they begin at the first row."""
    seen: list[Dataset] = []

    def fit(data: Dataset) -> tuple[Any, int]:
        seen.append(data)
        return lambda rows: np.full(len(rows), 0.75), 3

    for anchored in (False, True):
        seen.clear()
        document = walked(fit=fit, anchored=anchored).document
        for data, w in zip(seen, document["windows"], strict=True):
            assert data.ts_end_ns.max() + 5 * MINUTE < w["test_from_ns"] and len(data) == w["train_rows"]
            assert data.ts_made_ns.min() == (DATA.ts_made_ns[0] if anchored else w["train_from_ns"])
    assert document["overall"]["accuracy"] == pytest.approx(DATA.up[DATA.ts_made_ns >= document["windows"][0]["test_from_ns"]].mean())


def test_the_money_is_that_of_plain_python() -> None:
    """One position per symbol at a time, opened at each forecast that finds none open, closed when its label is known."""
    found = walked(cost_bps=7.0, threshold=0.1)
    o = found.outcomes
    nets, grosses = [], []
    for symbol in (0, 1):
        free_from = 0
        for k in np.flatnonzero(o.symbol == symbol):
            if o.ts_ns[k] >= free_from and abs(o.score[k] - 0.5) >= 0.1:
                gross = (1 if o.score[k] > 0.5 else -1) * (np.exp(o.return_[k]) - 1)
                nets.append(gross - 2 * 7.0 / 1e4)
                grosses.append(gross)
                free_from = o.ts_end_ns[k]
    trading = found.document["trading"]
    assert trading["trades"] == len(nets) > 100
    assert trading["net"] == pytest.approx(sum(nets) / 2) and trading["gross"] == pytest.approx(sum(grosses) / 2)
    assert sum(p["net"] for p in found.document["periods"]) == pytest.approx(trading["net"])
    even = walked(cost_bps=trading["break_even_cost_bps"], threshold=0.1).document["trading"]
    assert even["net"] == pytest.approx(0, abs=1e-12) and even["trades"] == trading["trades"]


def test_regression_walks_too() -> None:
    found = walked(fit=fit_by(replace(RECIPE, task="regress")), task="regress").document
    assert found["overall"]["r2"] > 0.2 and np.isnan(found["overall"]["log_loss"]) and found["reliability"] == []
    assert "R²" in walk_html(found)


def test_windows_that_cannot_be_are_named() -> None:
    with pytest.raises(UserError, match="no window: the data spans 1.2 days; one trains on 2d"):
        walked(train_ns=48 * HOUR)
    with pytest.raises(UserError, match="windows; at most 1,000"):
        walked(test_ns=MINUTE)
    with pytest.raises(UserError, match="rows to train a window on"):
        walked(train_ns=HOUR)
    with pytest.raises(UserError, match="above 0"):
        walked(test_ns=0)


def test_the_page_says_what_the_document_says(tmp_path: Path) -> None:
    document = {**walked().document, "model": "<b>x</b>"}
    page = walk_html(document)
    assert page == walk_html(document) and "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    for figure in ("figure-walk-money", "figure-walk-windows", "figure-walk-calibration"):
        assert page.count(f'id="{figure}"') == 1
    assert f"{100 * document['overall']['accuracy']:.2f} %" in page and page.count("<tr>") == 2 + 4 + 2
    assert "http://" not in page.replace("http://www.w3.org", "").split("<body>")[1]
    assert write_walk(document, tmp_path / "walk.html").read_text("utf-8") == page
    with pytest.raises(UserError, match="cannot write the report"):
        write_walk(document, tmp_path / "no" / "walk.html")
