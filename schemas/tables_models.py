"""The tables of learning: what was predicted, what came true, how the votes went, what drifted, which version was live when.

A model's name is written into columns of kind `strategy`, since a run's names are those of its strategies, then those of its
models. Every row carries the time and the tape position of the row that made it known: a prediction those of its bar, a label those
of the bar that released it.
"""

from schemas.tables import Field, TableSpec, _when

ROLES = ("active", "shadow")
"""active: it may be traded on. shadow: it predicts beside the active one and nothing acts on it."""
ACTIVE_ROLE, SHADOW_ROLE = range(2)

PREDICTION_STATES = ("ok", "warming", "missing", "unfit", "no_artefact", "stopped")
"""ok: a number to act on. warming: too few labels yet. missing: a feature is NaN. unfit: what the model gave is not finite. no_artefact:
no version is active yet. stopped: it was right too rarely of late; it is scored on, and not acted on. In all but the first the model
abstains: p_up and direction are NaN and 0, and score too is NaN but for stopped."""
P_OK, P_WARMING, P_MISSING, P_UNFIT, P_NO_ARTEFACT, P_STOPPED = range(6)

LABEL_KINDS = ("forward_return", "volatility_scaled", "triple_barrier")
FORWARD_RETURN, VOLATILITY_SCALED, TRIPLE_BARRIER = range(3)
TOUCHES = ("horizon", "upper", "lower")
"""What ended a label: time, or the barrier that was touched first."""
T_HORIZON, T_UPPER, T_LOWER = range(3)

VERDICTS = ("agreed", "no_consensus", "too_few", "volatile", "disabled")
"""agreed: enough members say the same. no_consensus: they do not. too_few: too many abstain. volatile: the market moves much and
confidence does not reach what is then asked for. disabled: the forecast's label keeps it out."""
V_AGREED, V_NO_CONSENSUS, V_TOO_FEW, V_VOLATILE, V_DISABLED = range(5)
MEMBERS_MAX = 8

DETECTORS = ("adwin", "page_hinkley", "kswin", "cusum", "psi", "kl", "performance")
DRIFT_ACTIONS = ("alert", "reset", "replace")

PROMOTION_ACTIONS = ("activate", "shadow", "retire", "rollback")
ACTIVATE, SHADOW, RETIRE, ROLLBACK = range(4)
OUTCOMES = ("done", "refused")
O_DONE, O_REFUSED = range(2)

LAYERS = ("statistics", "regime", "size", "correlation", "cost")
"""The layers of the signal validator, in the order in which they are asked."""

_MODEL = Field("model", "strategy", "whose")
_BAR = (
    Field("interval_ns", "int", "timeframe of the bar"),
    Field("ts_open_ns", "time", "open time of the bar"),
)

PREDICTIONS = TableSpec("predictions", "What each model said of each bar, made by exactly one version of it.",
                        ("model", "role", "symbol", "interval_ns", "ts_open_ns"), (
    *_when("the prediction"),
    _MODEL,
    *_BAR,
    Field("role", "enum", "whether it may be acted on", ROLES),
    Field("state", "enum", "whether there is a number, and why not", PREDICTION_STATES),
    Field("version", "int", "version of the artefact; of an online learner, how often it was replaced"),
    Field("learned", "int", "labels that an online learner had learned before; with the version it says which state this was"),
    Field("score", "float", "what the model gave: a return, a probability, an anomaly score"),
    Field("p_up", "float", "probability that the label is up, NaN where the model gives none"),
    Field("direction", "int", "1 up, -1 down, 0 neither"),
    Field("confidence", "float", "probability of the likelier side; without p_up |score| / (|score| + its usual size); 0: abstains"),
))

LABELS = TableSpec("labels", "What came true, released when it was known and not before.",
                   ("label_id", "symbol", "interval_ns", "ts_open_ns"), (
    *_when("the label"),
    Field("label_id", "id", "hash of the label's definition: kind, horizon, barriers"),
    *_BAR,
    Field("kind", "enum", "definition", LABEL_KINDS),
    Field("horizon_ns", "int", "how far it looked ahead, at most"),
    Field("ts_made_ns", "time", "when its bar had become known"),
    Field("made_seq", "int", "tape position at which its bar had become known"),
    Field("price", "float", "close of its bar"),
    Field("price_end", "float", "close of the bar that released it"),
    Field("touch", "enum", "what ended it", TOUCHES),
    Field("value", "float", "forward_return: log return; volatility_scaled: in units of volatility; triple_barrier: 1, 0, -1"),
    Field("up", "int", "1 where it counts as up, 0 as not"),
))

SCORES = TableSpec("scores", "A prediction beside what came true, when its label was due.",
                   ("model", "role", "symbol", "interval_ns", "ts_open_ns"), (
    *_when("the label"),
    _MODEL,
    *_BAR,
    Field("role", "enum", "role that it was made in", ROLES),
    Field("version", "int", "version that made it"),
    Field("regime", "int", "volatility regime of its bar: 0 calm, 1 usual, 2 volatile"),
    Field("score", "float", "what was predicted"),
    Field("p_up", "float", "probability that was predicted"),
    Field("value", "float", "the label"),
    Field("up", "int", "1 where the label is up, 0 where not"),
    Field("hit", "int", "1 where the direction was right, 0 where wrong, -1 where there was none"),
    Field("loss", "float", "log loss of p_up; squared error of the score where there is no p_up"),
    Field("return_", "float", "log return from the bar's close to the close of the bar that released the label"),
))

VOTES = TableSpec("votes", "What an ensemble made of its members.", ("model", "symbol", "interval_ns", "ts_open_ns"), (
    *_when("the vote"),
    _MODEL,
    *_BAR,
    Field("verdict", "enum", "how it ended", VERDICTS),
    Field("direction", "int", "1 up, -1 down, 0 hold"),
    Field("p_up", "float", "weighted, calibrated probability"),
    Field("confidence", "float", "0 to 1"),
    Field("present", "int", "members that did not abstain"),
    Field("agreeing", "int", "members that say what most say"),
    Field("volatility", "float", "daily volatility that it saw: 0.05 is 5 %, NaN while unknown"),
    Field("member_p", "floats", "calibrated probability per member, NaN: abstained", width=MEMBERS_MAX),
    Field("member_weight", "floats", "weight per member, 0 for those that are not there", width=MEMBERS_MAX),
))

DRIFT = TableSpec("drift", "What changed: of a model's losses, or of a feature against the window that a model was trained on.",
                  ("model", "detector", "symbol", "feature", "seq"), (
    *_when("the alarm"),
    _MODEL,
    Field("detector", "enum", "who says so", DETECTORS),
    Field("feature", "int", "index of the feature among the model's, -1: of its losses"),
    Field("statistic", "float", "what was measured"),
    Field("bound", "float", "what was allowed"),
    Field("action", "enum", "what followed", DRIFT_ACTIONS),
))

PROMOTIONS = TableSpec("promotions", "Which version of a registered model is live: an event with a place on the tape.",
                       ("model_id", "ts_event_ns", "version", "action"), (
    *_when("the change"),
    Field("model_id", "id", "hash of the model's name in the registry"),
    Field("version", "int", "version that it is about"),
    Field("action", "enum", "what to do with it", PROMOTION_ACTIONS),
    Field("digest", "id", "first eight bytes of the BLAKE3 of the version's files"),
))

SWITCHES = TableSpec("switches", "What a pipeline made of a promotion: from here on predictions carry this version.",
                     ("model", "role", "seq"), (
    *_when("the switch"),
    _MODEL,
    Field("role", "enum", "role that changed", ROLES),
    Field("version", "int", "version from here on, 0 for none"),
    Field("previous", "int", "version before, 0 for none"),
    Field("outcome", "enum", "refused: the artefact could not be used, and the previous version stays", OUTCOMES),
))

VALIDATIONS = TableSpec("validations", "The signal validator's verdicts, layer by layer.", ("strategy", "symbol", "seq", "slot"), (
    *_when("the signal"),
    Field("strategy", "strategy", "whose signal"),
    Field("slot", "int", "the signal's slot on its bar"),
    Field("passed", "bool", "whether every layer let it through"),
    Field("verdicts", "ints", "per layer: 0 not applicable, 1 passed, 2 refused", width=len(LAYERS)),
    Field("observed", "floats", "per layer: what was measured", width=len(LAYERS)),
    Field("bounds", "floats", "per layer: what was allowed", width=len(LAYERS)),
))

MODEL_TABLES = (PREDICTIONS, LABELS, SCORES, VOTES, DRIFT, SWITCHES, VALIDATIONS)
"""What learning makes of a run's input."""
