"""From names to River models: what a configuration may say, and one line for each thing that it may not."""

from typing import Any

import pytest
from river import compose, ensemble, linear_model, optim, preprocessing

from operators.learners.online import Online, check
from operators.learners.river_build import build, catalogue, derived, seeds
from operators.learners.river_catalogue import entries
from operators.learners.state_digest import state_digest
from schemas.config_models import ModelConfig, parse_models
from schemas.errors import UserError


def config(pipeline: list[Any], **more: Any) -> ModelConfig:
    return parse_models({"m": {"kind": "river", "features": ["a", "b"], "label": {"horizon": "15m"}, "pipeline": pipeline, **more}}, "models")[0]


def test_a_pipeline_is_what_river_would_build_by_hand() -> None:
    made = build(config(["StandardScaler", {"LogisticRegression": {"l2": 0.01, "optimizer": {"Adam": {"lr": 0.05}}, "loss": "Hinge"}}]), 7)
    hand = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.Adam(0.05), l2=0.01, loss=optim.losses.Hinge())
    assert repr(made) == repr(hand)
    assert state_digest(made) == state_digest(hand)


def test_dotted_names_nested_models_lists_and_schedulers() -> None:
    scheduler = {"InverseScaling": {"learning_rate": 0.1}}
    made = build(config([
        "preprocessing.StandardScaler",
        {"BaggingClassifier": {"n_models": 2, "model": ["MinMaxScaler", {"linear_model.LogisticRegression": {"optimizer": {"SGD": {"lr": scheduler}}}}]}},
    ]), 7)
    bagging = made["BaggingClassifier"]
    assert isinstance(bagging, ensemble.BaggingClassifier) and len(bagging) == 2
    assert isinstance(bagging.model, compose.Pipeline) and list(bagging.model.steps) == ["MinMaxScaler", "LogisticRegression"]
    assert bagging.model["LogisticRegression"].optimizer.learning_rate == 0.1
    voting = build(config([{"StackingClassifier": {"models": ["GaussianNB", ["StandardScaler", "PAClassifier"]], "meta_classifier": "LogisticRegression"}}]), 1)
    assert [type(each).__name__ for each in voting] == ["GaussianNB", "Pipeline"]


def test_every_seed_is_derived_recorded_and_different() -> None:
    made = config([{"BaggingClassifier": {"model": {"HoeffdingAdaptiveTreeClassifier": {"drift_detector": "KSWIN"}}}}])
    found = seeds(made, 11)
    assert list(found) == [".0.BaggingClassifier.model.HoeffdingAdaptiveTreeClassifier.drift_detector.KSWIN",
                           ".0.BaggingClassifier.model.HoeffdingAdaptiveTreeClassifier", ".0.BaggingClassifier"]
    assert len(set(found.values())) == 3 and all(0 <= seed < 2**31 for seed in found.values())
    assert found == seeds(made, 11) and not set(found.values()) & set(seeds(made, 12).values())
    model = build(made, 11)
    assert model.seed == found[".0.BaggingClassifier"] == derived(11, ".0.BaggingClassifier")
    assert build(config([{"ARFClassifier": {"seed": 5}}]), 11).seed == 5


def test_trees_are_bounded_by_depth_and_neighbours_by_an_exact_window() -> None:
    assert build(config(["HoeffdingTreeClassifier"]), 1).max_depth == 16
    assert build(config([{"HoeffdingTreeClassifier": {"max_depth": 3}}]), 1).max_depth == 3
    assert build(config(["KNNClassifier"]), 1).engine.window_size == 1000


def test_the_catalogue_lists_what_can_be_named() -> None:
    listed = {(e["module"], e["name"]): e for e in catalogue()}
    forest = listed["forest", "ARFClassifier"]
    assert forest["kind"] == "classifier" and forest["parameters"]["n_models"] == 10 and forest["about"].startswith("Adaptive Random Forest")
    assert listed["ensemble", "BaggingClassifier"]["parameters"]["model"] == "required"
    kinds = {e["kind"] for e in listed.values()}
    assert {"classifier", "regressor", "transformer", "anomaly", "forecaster", "optimizer", "loss", "detector"} <= kinds
    assert ("neighbors", "SWINN") not in listed
    assert all(e["about"] for e in listed.values() if e["kind"] in ("classifier", "regressor", "anomaly"))


@pytest.mark.parametrize("name", [name for name, e in entries().items() if e.kind == "classifier" and not any(p.required for p in e.parameters.values())])
def test_every_classifier_that_needs_no_parameters_is_usable(name: str) -> None:
    learner = Online(config([name], warmup=0), "k")
    check(learner.config)
    for n in range(30):
        x = {"a": n % 5 / 5.0, "b": n % 3 / 3.0}
        said = learner.predict(x)
        assert 0.0 <= said <= 1.0
        learner.learn(x, 1.0, n % 2, said)


BAD: list[tuple[list[Any], dict[str, Any], str]] = [
    (["StandardScalr", "LogisticRegression"], {}, 'unknown River class at models m pipeline[0] "StandardScalr"; did you mean "StandardScaler"?'),
    (["linear_model.LogisticRegresion"], {}, 'models m pipeline[0] "linear_model.LogisticRegresion"; did you mean "linear_model.LogisticRegression"?'),
    (["os.system"], {}, "unknown River class at models m pipeline[0]"),
    (["__import__"], {}, "unknown River class at models m pipeline[0]"),
    (["datasets.Phishing"], {}, "unknown River class at models m pipeline[0]"),
    ([{"LogisticRegression": {"l22": 0.1}}], {}, 'unknown parameter of models m pipeline[0] LogisticRegression "l22"; did you mean "l2"?'),
    ([{"LogisticRegression": {"l2": "much"}}], {}, 'models m pipeline[0] LogisticRegression l2: "much" is not a number'),
    ([{"LogisticRegression": {"l2": "1e-3"}}], {}, "write a number as 0.001, since YAML reads 1e-3 as text"),
    ([{"LogisticRegression": {"l2": True}}], {}, 'LogisticRegression l2: "True" is not a number'),
    ([{"LogisticRegression": {"l2": -1}}], {}, "LogisticRegression l2: -1 is not from 0 to"),
    ([{"LogisticRegression": {"l2": 0.1, "l1": 0.1}}], {}, "models m pipeline[0] LogisticRegression: The joint use of L1 and L2"),
    ([{"LogisticRegression": {"optimizer": {"SDG": {"lr": 0.1}}}}], {}, 'unknown River class at models m pipeline[0] LogisticRegression optimizer "SDG"; did you mean "SGD"?'),
    ([{"LogisticRegression": {"optimizer": {"SGD": {"rate": 0.1}}}}], {}, "unknown parameter of models m pipeline[0] LogisticRegression optimizer SGD"),
    ([{"LogisticRegression": {"optimizer": "StandardScaler"}}], {}, "StandardScaler is a transformer; what fits here is an optimizer"),
    ([{"LogisticRegression": {"optimizer": 0.1}}], {}, 'LogisticRegression optimizer: "0.1" is not an optimizer or null'),
    ([{"LogisticRegression": {"optimizer": {"SGD": {"lr": 5}}}}], {}, "LogisticRegression optimizer SGD lr: begins at 5, above bounds learning_rate_max 1"),
    ([{"LogisticRegression": {"intercept_lr": 0.5}}], {"bounds": {"learning_rate_max": 0.1}}, "intercept_lr: begins at 0.5, above bounds learning_rate_max 0.1"),
    ([{"LogisticRegression": {"optimizer": {"SGD": {"lr": {"InverseScaling": {"learning_rate": 3.0}}}}}}], {}, "SGD lr: begins at 3, above"),
    ([{"LogisticRegression": {"optimizer": {"SGD": {"lr": 0}}}}], {}, "SGD lr: 0 is not above 0"),
    ([{"HoeffdingTreeClassifier": {"grace_period": 1.5}}], {}, 'grace_period: "1.5" is not a whole number'),
    ([{"HoeffdingTreeClassifier": {"max_depth": 0}}], {}, "max_depth: 0 is not from 1 to 64"),
    ([{"HoeffdingTreeClassifier": {"split_criterion": "ginni"}}], {}, 'split_criterion "ginni"; did you mean "gini"?'),
    ([{"ARFClassifier": {"n_models": 1000}}], {}, "ARFClassifier n_models: 1000 is not from 1 to 256"),
    ([{"ARFClassifier": {"disable_weighted_vote": 1}}], {}, 'disable_weighted_vote: "1" is not true or false'),
    ([{"BaggingClassifier": {}}], {}, "models m pipeline[0] BaggingClassifier: model is missing"),
    ([{"BaggingClassifier": {"model": "LinearRegression"}}], {}, "LinearRegression is a regressor; what fits here is a classifier"),
    ([{"BaggingClassifier": {"model": ["StandardScaler"]}}], {}, "BaggingClassifier model[0]: StandardScaler is a transformer; the list ends with a classifier"),
    ([{"KNNClassifier": {"engine": "SWINN"}}], {}, "SWINN keeps a set that all models of a process share"),
    (["RandomTreesEmbedding", "LogisticRegression"], {}, "RandomTreesEmbedding finds its leaves by memory address"),
    ([{"GaussianNB": {"alpha": 1}}], {}, 'models m pipeline[0] GaussianNB: takes no parameters; drop "alpha"'),
    (["LogisticRegression", "StandardScaler"], {}, "models m pipeline[0]: LogisticRegression is a classifier and is not last"),
    (["StandardScaler"], {}, "models m pipeline[0]: StandardScaler is a transformer; the list ends with a classifier, since the task is classify"),
    (["LogisticRegression"], {"task": "regress"}, "LogisticRegression is a classifier; the list ends with a regressor or a forecaster"),
    (["LinearRegression"], {}, "LinearRegression is a regressor; the list ends with a classifier"),
    (["LogisticRegression"], {"task": "anomaly"}, "the list ends with an anomaly"),
    (["SGD"], {}, "SGD is an optimizer; the list ends with a classifier"),
    (["GaussianScorer"], {"task": "anomaly"}, "GaussianScorer is a supervised anomaly"),
    ([{"SNARIMAX": {"p": 1}}], {"task": "regress"}, "SNARIMAX: d is missing"),
    ([{"SNARIMAX": {"p": -1, "d": 0, "q": 0}}], {"task": "regress"}, "SNARIMAX p: -1 is not from 0 to 10000"),
    ([{"SNARIMAX": {"p": 1, "d": 0, "q": 0}}], {"task": "regress", "label": {"horizon": "1d"}}, "a horizon of 1440 bars is forecast in as many steps; SNARIMAX takes at most 512"),
    (["LogisticRegression"], {"bounds": {"input_max": 3.0}}, "models m bounds input_max: is in standard deviations; put a StandardScaler into it"),
    (["TFIDF", "LogisticRegression"], {}, "cannot learn rows of numbers for the task classify"),
    (["BayesianLinearRegression"], {"task": "regress"}, "BayesianLinearRegression changes when it predicts"),
    (["LogisticRegression"], {"drift": {"detector": "CUSUM", "parameters": {"hh": 3}}}, 'unknown parameter of CUSUM at models m drift parameters "hh"'),
    (["LogisticRegression"], {"drift": {"detector": "ADWIN", "parameters": {"clock": 1.5}}}, 'models m drift parameters clock: "1.5" is not a whole number'),
    (["LogisticRegression"], {"drift": {"detector": "CUSUM", "parameters": {"h": -1}}}, 'models m drift parameters h: "-1" is not a number from'),
    (["LogisticRegression"], {"drift": {"detector": "KSWIN", "parameters": {"stat_size": 50}}}, "window_size 60 is below twice stat_size 50"),
]


@pytest.mark.parametrize(("pipeline", "more", "says"), BAD)
def test_bad_input_is_named(pipeline: list[Any], more: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        check(config(pipeline, **more))
    assert says in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
