"""Boosted trees at work: an artefact's bytes become a model that says the same number of the same row in whatever batch.

Bytes are believed only after their structure was gone through tree by tree: who predicts follows child indices blindly, so that a
damaged file could end the process. Whatever is wrong is a PenstockError, and then nothing was loaded. Categorical splits, linear
leaves and zeros that count as missing are refused: training here makes none. LightGBM's trees are walked by `forest`, XGBoost's by
the library.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.learners.forest import FEATURES_MAX, Forest, Tree
from operators.learners.protocol import Batch, Vector
from schemas.artefact import Artefact
from schemas.errors import PenstockError, UserError

Rows = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_NO_NODES = np.empty(0, np.int64)
_END = "\n\n\nend of trees\n"
_HEAD = ("tree", "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
         "feature_infos", "tree_sizes")
TREES_MAX = 100_000
LEAVES_MAX = 1 << 20


class XGBoost:
    """An XGBoost booster that predicts on one thread. It computes in 32 bits; missing and infinite values go to its default branches."""

    def __init__(self, payload: bytes) -> None:
        self._predict = xgboost_module().Booster({"nthread": 1, "verbosity": 0}, model_file=bytearray(payload)).inplace_predict

    def predict(self, rows: Rows) -> Vector:
        said: Vector = self._predict(rows).astype(np.float64)
        return said


def xgboost_module() -> Any:
    """The library; UserError that names the extra where it is not installed."""
    try:
        import xgboost
    except ImportError:
        raise UserError("XGBoost is not installed; install it with: pip install 'penstock[xgboost]'") from None
    return xgboost


def load_lightgbm(artefact: Artefact) -> Batch:
    """A LightGBM model from its text."""
    where = _place(artefact)
    return read_lightgbm(_text(artefact.payload, where), len(artefact.card.features), where)


def load_xgboost(artefact: Artefact) -> Batch:
    """An XGBoost model from its JSON."""
    where = _place(artefact)
    check_xgboost(_text(artefact.payload, where), len(artefact.card.features), where)
    library = xgboost_module()
    try:
        return XGBoost(artefact.payload)
    except (library.core.XGBoostError, ValueError) as error:
        raise _damaged(where, str(error).split("\n")[0]) from None


LOADERS: dict[str, Callable[[Artefact], Batch]] = {"lightgbm": load_lightgbm, "xgboost": load_xgboost}
"""From the kind that a card names to the function that makes a model of its artefact."""


def _place(artefact: Artefact) -> str:
    return f"model {artefact.card.name} version {artefact.card.version}"


def _damaged(where: str, why: str) -> PenstockError:
    return PenstockError(f"{where}: not the trees of a trained model ({why}); the file was damaged: train again or roll back")


def _text(payload: bytes, where: str) -> str:
    try:
        text = payload.decode("ascii")
    except UnicodeDecodeError as error:
        raise _damaged(where, f"byte {error.start} is not text") from None
    if "\0" in text:
        raise _damaged(where, f"byte {text.index(chr(0))} is zero")
    return text


def read_lightgbm(text: str, features: int, where: str) -> Forest:
    """The trees of a text; PenstockError where it is not a complete LightGBM model of so many features."""
    head, *blocks = text.split("\n\nTree=")
    fields = _fields(head)
    if not head.startswith("tree\nversion=v4\n") or not blocks or tuple(fields) != _HEAD or fields["label_index"] != "0":
        raise _damaged(where, "it does not begin as a LightGBM model of format v4")
    body, end, tail = blocks[-1].partition(_END)
    if not end or "\nend of parameters\n" not in tail:
        raise _damaged(where, "its end is missing")
    blocks[-1] = body
    if fields.get("max_feature_idx") != str(features - 1):
        raise _damaged(where, f"it is of {fields.get('max_feature_idx', '?')} + 1 features, its card names {features}")
    if (fields.get("num_class"), fields.get("num_tree_per_iteration")) != ("1", "1"):
        raise _damaged(where, "it has more than one class")
    if fields.get("objective") not in ("binary sigmoid:1", "regression"):
        raise _damaged(where, f"its objective is {fields.get('objective')}")
    if len(fields.get("feature_names", "").split()) != features or len(fields.get("feature_infos", "").split()) != features:
        raise _damaged(where, "its columns and their ranges are not as many as its features")
    # every block ends with an empty line, and its size counts that and the "Tree=" that the split took away
    sizes = [len("Tree=") + len(block) + len("\n\n") + (at == len(blocks) - 1) for at, block in enumerate(blocks)]
    if fields.get("tree_sizes", "").split() != [str(size) for size in sizes] or len(blocks) > TREES_MAX:
        raise _damaged(where, "the sizes of its trees are not those that it states")
    if features > FEATURES_MAX:
        raise _damaged(where, f"it is of more than {FEATURES_MAX} features")
    trees = [_lightgbm_tree(block, number, features, f"{where}: tree {number}") for number, block in enumerate(blocks)]
    return Forest(trees, fields["objective"] != "regression")


def _fields(block: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in block.split("\n"))


def _lightgbm_tree(block: str, number: int, features: int, where: str) -> Tree:
    first, _, rest = block.partition("\n")
    fields = _fields(rest)
    if first != str(number):
        raise _damaged(where, f"it is numbered {first[:20]}")
    leaves = _integer(fields.get("num_leaves"), where)
    if not 1 <= leaves <= LEAVES_MAX or fields.get("num_cat") != "0" or fields.get("is_linear", "0") != "0":
        raise _damaged(where, "its leaves or its kind of split")
    values = _numbers(fields, "leaf_value", leaves, where)
    _numbers({"shrinkage": fields.get("shrinkage", "")}, "shrinkage", 1, where)
    if leaves == 1:
        return Tree(_NO_NODES, np.empty(0), _NO_NODES, _NO_NODES, values)
    inner = leaves - 1
    column = _integers(fields, "split_feature", inner, where)
    left, right = _integers(fields, "left_child", inner, where), _integers(fields, "right_child", inner, where)
    decision = _integers(fields, "decision_type", inner, where)
    if not ((column >= 0) & (column < features)).all():
        raise _damaged(where, "a split is on no column")
    # bit 0: categorical, bit 1: where a missing value goes, bits 2 and 3: what counts as missing, of which zero (1) is never made here
    if not ((decision >= 0) & (decision < 16) & (decision % 2 == 0) & (decision >> 2 != 1)).all():
        raise _damaged(where, "a kind of split is none")
    threshold = _numbers(fields, "threshold", inner, where, infinite=True)  # where only missing values go the other way
    for name in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        _numbers(fields, name, inner, where)
    for name in ("leaf_weight", "leaf_count"):
        _numbers(fields, name, leaves, where)
    # a child is a later inner node, or a leaf written as its complement; each of them has exactly one parent
    children, parents = np.concatenate([left, right]), np.tile(np.arange(inner), 2)
    if (np.sort(children) != np.concatenate([np.arange(-leaves, 0), np.arange(1, inner)])).any() or (
            (children >= 0) & (children <= parents)).any():
        raise _damaged(where, "its nodes do not hang together")
    return Tree(column, threshold, left, right, values)


def _integer(text: str | None, where: str) -> int:
    if text is None or not text.isdigit() or len(text) > 9:
        raise _damaged(where, "a count is none")
    return int(text)


def _integers(fields: Mapping[str, str], name: str, n: int, where: str) -> Ints:
    numbers = _numbers(fields, name, n, where)
    if (numbers != np.floor(numbers)).any() or (np.abs(numbers) > 2**53).any():
        raise _damaged(where, f"{name} is not of whole numbers")
    return numbers.astype(np.int64)


def _numbers(fields: Mapping[str, str], name: str, n: int, where: str, infinite: bool = False) -> Rows:
    parts = fields.get(name, "").split(" ")
    if len(parts) != n:
        raise _damaged(where, f"{name} has {len(parts)} values instead of {n}")
    try:
        numbers = np.array([float(part) for part in parts], np.float64)
    except ValueError:
        raise _damaged(where, f"{name} has a value that is no number") from None
    if np.isnan(numbers).any() or not (infinite or np.isfinite(numbers).all()):
        raise _damaged(where, f"{name} has a value that is not finite")
    return numbers


def check_xgboost(text: str, features: int, where: str) -> None:
    """PenstockError where the text is not a complete XGBoost model of so many features."""
    try:
        learner = json.loads(text)["learner"]
        shape, booster = learner["learner_model_param"], learner["gradient_booster"]
        trees, counts = booster["model"]["trees"], booster["model"]["gbtree_model_param"]
        found = (booster["name"], learner["objective"]["name"], shape["num_class"], shape["num_target"])
        if booster["name"] != "gbtree" or found[1] not in ("binary:logistic", "reg:squarederror") or found[2:] != ("0", "1"):
            raise _damaged(where, f"it is {found}")
        if shape["num_feature"] != str(features):
            raise _damaged(where, f"it is of {shape['num_feature']} features, its card names {features}")
        n = len(trees)
        if not 1 <= n <= TREES_MAX or counts["num_trees"] != str(n) or counts["num_parallel_tree"] != "1":
            raise _damaged(where, "the number of its trees is not the one that it states")
        if booster["model"]["tree_info"] != [0] * n or booster["model"]["iteration_indptr"] != list(range(n + 1)):
            raise _damaged(where, "its trees are not in one row")
        for number, tree in enumerate(trees):
            _check_xgboost_tree(tree, number, features, f"{where}: tree {number}")
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise _damaged(where, f"{type(error).__name__} {str(error)[:60]}") from None
    except ValueError as error:
        raise _damaged(where, str(error)[:60]) from None


_PER_NODE = ("base_weights", "default_left", "left_children", "loss_changes", "parents", "right_children", "split_conditions",
             "split_indices", "split_type", "sum_hessian")


def _check_xgboost_tree(tree: Mapping[str, Any], number: int, features: int, where: str) -> None:
    shape = tree["tree_param"]
    n = _integer(shape["num_nodes"], where)
    if tree["id"] != number or not 1 <= n <= LEAVES_MAX or shape["num_feature"] != str(features) or shape["size_leaf_vector"] != "1":
        raise _damaged(where, "its shape")
    if shape["num_deleted"] != "0" or any(tree[name] for name in tree if name.startswith("categories")):
        raise _damaged(where, "its kind of split")
    columns = {name: np.asarray(tree[name]) for name in _PER_NODE}
    for name, column in columns.items():
        if column.shape != (n,) or column.dtype.kind not in "if" or not np.isfinite(column).all():
            raise _damaged(where, f"{name} is not {n} finite numbers")
    left, right, parents = columns["left_children"], columns["right_children"], columns["parents"]
    if any(columns[name].dtype.kind != "i" for name in ("left_children", "right_children", "parents", "split_indices")) or (
            columns["split_type"] != 0).any():
        raise _damaged(where, "its kind of split")
    inner = left != -1
    children = np.concatenate([left[inner], right[inner]])
    above = np.tile(np.flatnonzero(inner), 2)
    # every node but the root is the child of exactly one node that comes before it
    if (inner != (right != -1)).any() or (np.sort(children) != np.arange(1, n)).any() or (children <= above).any() or (
            parents[children] != above).any():
        raise _damaged(where, "its nodes do not hang together")
    if not ((columns["split_indices"] >= 0) & (columns["split_indices"] < features)).all():
        raise _damaged(where, "a split is on no column")
