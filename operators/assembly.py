"""From a configuration to operators: the market shard's chain and the account's. Everything that runs them uses these two.

Without models and validator the strategies are in the market shard. Models share what they learn over symbols (pooled learners, the
accuracy and the usual score of each, an ensemble's calibration), so with them learning and strategies come after the alignment, in front
of the desk: results do not depend on the number of shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from operators.desk.desk import DeskOperator
from operators.learners.operator import Learners, check_models, columns_of
from operators.market.bars import Bars, BarsConfig
from operators.market.features import Features
from operators.market.features.registry import expand
from operators.market.quality import Quality, QualityConfig
from operators.protocol import Chain, Operator
from operators.strategies.orchestrator import Strategies, allocations
from operators.strategies.rules import StrategySpec, required_features, timeframe_text
from operators.strategies.validator import Validator
from schemas.artefact import Artefacts
from schemas.config import Config
from schemas.config_models import ModelConfig
from schemas.errors import UserError


@dataclass(frozen=True)
class Plan:
    """A configuration with its strategies read and its features resolved."""

    config: Config
    specs: tuple[StrategySpec, ...]
    intervals_ns: tuple[int, ...]
    features: dict[int, tuple[str, ...]]
    weights: tuple[float, ...]
    artefacts: Artefacts | None = None

    @property
    def strategy_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs)

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        return self.config.models

    @property
    def names(self) -> tuple[str, ...]:
        """What codes in columns of kind `strategy` mean: strategies, then models."""
        return (*self.strategy_names, *(m.name for m in self.models))

    @property
    def in_shards(self) -> bool:
        """Whether strategies are in the market shard."""
        return not self.models and self.config.validator is None


def plan(config: Config, specs: Sequence[StrategySpec], artefacts: Artefacts | None = None) -> Plan:
    """Resolve which bars and features are needed; UserError for what does not exist. artefacts: for registered models, which have been
    resolved: see `research.learning.resolving`."""
    check_models(config.models)
    needed = _features_of_rules(config, specs)
    for model in config.models:
        if model.name in (spec.name for spec in specs):
            raise UserError(f'"{model.name}" is the name of a model and of a strategy; rename one')
        if model.kind != "ensemble":
            needed.setdefault(model.interval_ns, []).extend(model.features)
        if model.kind == "river":
            from operators.learners.online import check  # River takes a second to import
            check(model)
    for interval_ns, names in config.features.items():
        needed.setdefault(interval_ns, []).extend(names)
    for spec in specs:
        needed.setdefault(spec.interval_ns, [])
    features = {ns: tuple(dict.fromkeys(r.text for r in expand(names))) for ns, names in sorted(needed.items())}
    intervals = tuple(sorted({*config.intervals_ns, *features}))
    weights = config.allocation or (allocations(specs) if specs else ())
    if len(weights) != len(specs):
        raise UserError(f"allocation has {len(weights)} shares for {len(specs)} strategies; give one for each")
    return Plan(config, tuple(specs), intervals, features, tuple(weights), artefacts)


def _features_of_rules(config: Config, specs: Sequence[StrategySpec]) -> dict[int, list[str]]:
    """What the rules name, by timeframe, without what models say."""
    said = columns_of(config.models)
    needed: dict[int, list[str]] = {}
    for interval_ns, names in (required_features(specs) if specs else {}).items():
        for name in names:
            if name in said and said[name] != interval_ns:
                own = timeframe_text(said[name])
                raise UserError(f'a rule on {timeframe_text(interval_ns)} names "{name}", and that model is on {own}; write {own}:{name}')
        needed[interval_ns] = [name for name in names if name not in said]
    return needed


def market_chain(plan: Plan) -> Chain:
    """quality → bars → features (→ strategies, where they are in the shard), for one shard."""
    config = plan.config
    try:
        quality = QualityConfig(**config.quality)
    except TypeError as error:
        raise UserError(f"quality: {str(error).split('() ')[-1]}") from None
    bars = BarsConfig(plan.intervals_ns, config.tick_bars, config.volume_bars, config.dollar_bars)
    steps: list[Operator] = [Quality(quality), Bars(bars), Features(plan.features)]
    return Chain(steps + (_deciding(plan) if plan.in_shards else []), "market")


def _deciding(plan: Plan) -> list[Operator]:
    """learners → strategies → validator, as far as there are any."""
    steps: list[Operator] = []
    if plan.models:
        steps.append(Learners(plan.models, len(plan.specs), plan.artefacts))
    if plan.specs:
        steps.append(Strategies(plan.specs, conflict=plan.config.conflict))
    if plan.specs and plan.config.validator is not None:
        steps.append(Validator(plan.config.validator, plan.strategy_names, tuple(m.name for m in plan.models),
                               score_is_return(plan)))
    return steps


def score_is_return(plan: Plan) -> bool:
    """Whether the score of the model that the validator looks at is a return, so that costs can be weighed against it."""
    watched = plan.config.validator.model if plan.config.validator is not None else ""
    return any(m.name == watched and m.task == "regress" and m.label.kind == "forward_return" and m.kind != "ensemble" for m in plan.models)


def account_chain(plan: Plan, external: bool = False) -> Chain:
    """What there is one of: (learners → strategies → validator, where they are not in the shards →) desk."""
    return Chain([*([] if plan.in_shards else _deciding(plan)), desk(plan, external)], "account")


def desk(plan: Plan, external: bool = False) -> DeskOperator:
    """The money side of the account. external: its orders are approvals for a venue whose reports are on the tape, instead of being
    filled by the paper venue."""
    return DeskOperator(plan.config.policy, plan.strategy_names, plan.weights, plan.config.account, external)
