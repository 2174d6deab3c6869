"""Analyzers: methods by name, with the verbs of iNNvestigate."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from os import PathLike
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.analyzer import archive, names, reversal
from jaxplain.analyzer.settings import COMMON, Settings
from jaxplain.arguments import check_choice, function_name
from jaxplain.composites import any_layer
from jaxplain.errors import readable
from jaxplain.patterns import KINDS, Moments, PatternStatistics, kernel_weights
from jaxplain.plan import Plan
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.method import selected_value
from jaxplain.transforms.occlusion import Occlusion
from jaxplain.transforms.pattern_statistics import pattern_statistics
from jaxplain.transforms.patterns import selected_sign
from jaxplain.transforms.wrapper import Base, Wrapper, call, innermost

#: Whose numbers, where they differ from the mathematically right ones.
Compat = Literal["innvestigate"] | None
Mode = Literal["max_activation", "index", "all"]

#: Options that mean nothing for a jaxpr: why, and the values that nobody needs to be told about.
_MEANINGLESS: dict[str, str] = {
    "disable_model_checks": "a model is checked by tracing it",
    "allow_lambda_layers": "every function can be explained",
    "reverse_reapply_on_copied_layers": "layers are never copied",
    "bn_layer_fuse_mode": "a BatchNorm beside a kernel is one layer with it",
}
_said: set[str] = set()


def create_analyzer(
    name: str, model: Callable[..., Any], *, compat: Compat = None, **options: Any
) -> "Analyzer":
    """A method by the name it has in iNNvestigate or SIGN-XAI, applied to a JAX model.

    Args:
        name: "lrp.epsilon", "deep_taylor", "pattern.attribution", ...; `methods` lists all.
        model: a function of the input (or of several), batched or not: `model(x) -> scores`. A
            trailing softmax is left out.
        compat: "innvestigate" for its numbers where they differ from the mathematically right ones:
            guided backpropagation and deconvnet start from the output's value, alpha-beta has the
            whole bias in both denominators, rules have no stabiliser but exact zeros, integrated
            gradients are a left sum, SmoothGrad's noise is absolute, "random" adds the input, tied
            largest outputs share, and lists of rules start at the output.
        **options: the options of the name, as iNNvestigate calls them.

    Returns:
        An analyzer.

    Raises:
        KeyError: there is no such name; close matches are listed.
        TypeError: the name has no such option, or the model is no function.
        ValueError: an option has no such value, or one that is needed is missing.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> model = lambda x: x @ jnp.array([[1.0, 2.0], [3.0, -1.0]])
        >>> analyzer = jxp.create_analyzer("lrp.z", model, neuron_selection_mode="index")
        >>> print(analyzer.analyze(jnp.array([[1.0, 1.0]]), 0))
        [[1. 3.]]
    """
    return Analyzer(name, model, compat=compat, **options)


class Analyzer:
    """A method with its settings, its model and its fitted state. See `create_analyzer`.

    Attributes:
        name: the method's name.
        model: the explained function.
        compat: whose numbers.
        options: all options.
        statistics: the statistics of the data that patterns were fitted to, or None.
        reversed_tensors: with `reverse_keep_tensors`, what arrived at each layer's output in the
            last analysis, by name.
    """

    def __init__(
        self, name: str, model: Callable[..., Any], *, compat: Compat = None, **options: Any
    ):
        if compat not in (None, "innvestigate"):
            raise ValueError(f'compat must be None or "innvestigate", got {compat!r}')
        if not callable(model):
            raise TypeError(f"the model must be a function of arrays, got {model!r}")
        entry = names.find(name)
        options = {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()}
        defaults = COMMON | dict(entry.options)
        if compat:
            defaults |= entry.compat_options
        if unknown := [option for option in options if option not in defaults]:
            raise TypeError(
                f"{name!r} has no option {unknown[0]!r}; it has: {', '.join(sorted(defaults))}"
            )
        self.name, self.model, self.compat = name, model, compat
        self.options = defaults | options
        self.statistics: PatternStatistics | None = None
        self.reversed_tensors: dict[str, jax.Array] = {}
        self._given = dict(options)
        self._build = entry.build
        self._explainers: dict[Any, Base] = {}
        self._loaded = False  # the model may have changed
        check_choice(self.mode, "neuron_selection_mode", get_args(Mode))
        kind = self.options.get("pattern_type", "relu")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"pattern_type must be one of {tuple(KINDS)}, got {kind!r}")
        for option, why in (_MEANINGLESS | dict(entry.ignored)).items():
            if options.get(option, defaults.get(option)) != defaults.get(option):
                _say_once(option, why)
        if not (self._fits and self.options["patterns"] is None):
            self._explainer(0)  # errors of the options show now

    def __repr__(self) -> str:
        options = [f"compat={self.compat!r}"] * (self.compat is not None)
        options += [f"{name}={value!r}" for name, value in self._given.items()]
        return f"Analyzer({', '.join([repr(self.name), function_name(self.model), *options])})"

    @property
    def mode(self) -> Mode:
        """Which outputs are explained."""
        return self.options["neuron_selection_mode"]

    @property
    def _fits(self) -> bool:
        return "patterns" in self.options

    @readable
    def analyze(self, x: Any, neuron_selection: Any = None, *, key: jax.Array | None = None) -> Any:
        """The attribution of an input.

        Args:
            x: the model's input; a list or tuple for a model of several inputs.
            neuron_selection: with `neuron_selection_mode="index"`, which output: an int (a negative
                one counts from the end), or an int array with one per example.
            key: for methods that draw random numbers; `jax.random.key(0)` by default.

        Returns:
            An array in the shape of x (of a list of inputs, a list). In mode "max_activation" it
            explains the largest output at every leading position, in mode "all" the sum of all.

        Raises:
            ValueError: `neuron_selection` is missing in mode "index", or given in another; or
                patterns are missing.
            IndexError: it is out of range.
        """
        if (neuron_selection is not None) != (self.mode == "index"):
            raise ValueError(
                f'neuron_selection goes with neuron_selection_mode="index": got '
                f"{neuron_selection!r} in mode {self.mode!r}"
            )
        inputs, explain = self._explaining(x)
        self._check_fitted(explain, inputs)
        if self.options.get("bn_layer_rule") is not None and not any(
            layer.op == "scale" for layer in explain.plan(*inputs).layers
        ):
            _say_once("bn_layer_rule", "every BatchNorm is one layer with the kernel beside it")
        target = _target(explain, inputs, self.mode, self.compat, neuron_selection)
        summed = self.mode == "all" and isinstance(explain, Occlusion)
        if summed:
            target = "all"  # occlusion compares outputs, one by one
        if key is None:
            key = jax.random.key(0)
        elif not (isinstance(explain, Wrapper) and explain.needs_key):
            raise ValueError(f"{self.name!r} draws no random numbers: leave key out")
        if self.options.get("reverse_verbose"):
            print(explain.plan(*inputs))
        attribution = call(explain, inputs, target, key)
        if summed:
            attribution = attribution.sum(0)
        if isinstance(explain, Explainer) and explain.capture is not None:
            attribution, captured = attribution
            self._show(captured)
        if len(inputs) > 1:
            return list(attribution)
        return [attribution] if isinstance(x, list | tuple) else attribution

    def _show(self, captured: Mapping[str, jax.Array]) -> None:
        if self.options["reverse_check_min_max_values"]:
            for layer, values in captured.items():
                said = f"{layer}: ".replace("{", "{{").replace("}", "}}")
                jax.debug.print(said + "min {:.3e}, max {:.3e}", values.min(), values.max())
        if self.options["reverse_keep_tensors"]:
            self.reversed_tensors = dict(captured)

    def plan(self, x: Any) -> Plan:
        """The rule of each layer, for an input: see `Explainer.plan`."""
        inputs, explain = self._explaining(x)
        return explain.plan(*inputs)

    def fit(self, x: Any, batch_size: int | None = None, *, progress: bool = False) -> "Analyzer":
        """Fits the patterns of "pattern.net" and "pattern.attribution" anew; else does nothing.

        Args:
            x: the data: an array whose leading axis counts examples, or batches of them. Batches
                for a model of several inputs are tuples.
            batch_size: how many examples of one array are taken at a time.
            progress: show a progress bar.

        Returns:
            The analyzer itself.
        """
        return self._fit(None, x, batch_size, progress)

    def fit_generator(
        self, generator: Iterable[Any], steps: int | None = None, *, progress: bool = False
    ) -> "Analyzer":
        """Fits to batches, at most `steps` of them; else as `fit`."""
        batches = generator if steps is None else islice(generator, steps)
        return self.fit(batches, progress=progress)

    def partial_fit(
        self, x: Any, *, batch_size: int | None = None, progress: bool = False
    ) -> "Analyzer":
        """Adds data to what the patterns were fitted to; else as `fit`."""
        return self._fit(self.statistics, x, batch_size, progress)

    def _fit(
        self, before: PatternStatistics | None, x: Any, batch_size: int | None, progress: bool
    ) -> "Analyzer":
        if not self._fits:
            return self
        x, argnums = _inputs_of(x)
        statistics = pattern_statistics(
            self.model, x, argnums=argnums, batch_size=batch_size, progress=progress
        )
        self.statistics = statistics if before is None else before + statistics
        self.options["patterns"] = None  # the last fit counts
        self._given.pop("patterns", None)
        self._explainers.clear()
        return self

    def _check_fitted(self, explain: Base, inputs: Sequence[Any]) -> None:
        """Raises ValueError where loaded patterns were fitted to other weights."""
        if self._loaded and self.statistics is not None and isinstance(explain, Explainer):
            weights = explain.read(kernel_weights, *inputs)
            if not self.statistics.fit_weights(weights):
                raise ValueError(
                    "the patterns were fitted to a model with other weights: fit this one anew"
                )
            self._loaded = False

    def save(self) -> tuple[str, dict[str, Any]]:
        """The name, and a dictionary of all settings and fitted state, but not the model."""
        statistics = None if self.statistics is None else asdict(self.statistics)
        state = {"compat": self.compat, "options": self._given, "statistics": statistics}
        return self.name, state

    @classmethod
    def load(cls, name: str, state: Mapping[str, Any], model: Callable[..., Any]) -> "Analyzer":
        """The analyzer that `save` described, for a model."""
        analyzer = cls(name, model, compat=state["compat"], **state["options"])
        if state["statistics"] is not None:
            analyzer.statistics = _statistics(state["statistics"])
            analyzer._loaded = True
        return analyzer

    def save_npz(self, path: str | PathLike[str]) -> None:
        """Writes what `save` returns to a file, without pickle.

        Raises:
            TypeError: an option cannot be written: a function, or a rule of your own.
        """
        name, state = self.save()
        archive.write(path, {"name": name, **state})

    @classmethod
    def load_npz(cls, path: str | PathLike[str], model: Callable[..., Any]) -> "Analyzer":
        """The analyzer of a file that `save_npz` wrote, for a model.

        Raises:
            ValueError: the file is damaged, foreign, or of a newer version.
        """
        state = archive.read(path)
        try:
            return cls.load(state.pop("name"), state, model)
        except (KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged, or of a newer version: {error}") from error

    def _explaining(self, x: Any) -> tuple[tuple[Any, ...], Base]:
        """The inputs of the model, and the explainer of all of them."""
        inputs = tuple(x) if isinstance(x, list | tuple) else (x,)
        return inputs, self._explainer(tuple(range(len(inputs))) if len(inputs) > 1 else 0)

    def _explainer(self, argnums: int | tuple[int, ...]) -> Base:
        if argnums not in self._explainers:
            options = self.options
            if self._fits and options["patterns"] is None and self.statistics is not None:
                options = options | {"patterns": self.statistics.patterns(options["pattern_type"])}
            settings = Settings(options, argnums, self.compat is not None)
            explainer = _reversing(self._build(self.model, settings), options)
            self._explainers[argnums] = _with_sigmoids(explainer) if self.compat else explainer
        return self._explainers[argnums]


def _with_sigmoids(explain: Base) -> Base:
    """The explainer, a trailing sigmoid among its layers, as iNNvestigate has it."""
    if not isinstance(explain, Explainer):
        return replace(explain, base=_with_sigmoids(explain.base))
    return replace(explain, logits="softmax") if explain.logits else explain


def _reversing(explain: Base, options: Mapping[str, Any]) -> Base:
    """The explainer under the `reverse_*` options."""
    if not isinstance(explain, Explainer) or "reverse_keep_tensors" not in options:
        return explain
    change = explain.method.transform_relevance
    if (projected := options["reverse_project_bottleneck_layers"]) and "patterns" not in options:
        change = reversal.project(projected)
    if clipped := options["reverse_clip_values"]:
        change = reversal.then_clip(change, clipped)
    watched = options["reverse_keep_tensors"] or options["reverse_check_min_max_values"]
    return replace(
        explain.with_method(transform_relevance=change),
        capture=any_layer if watched else None,
        check_finite=bool(options["reverse_check_finite"]),
    )


def _target(
    explain: Base, inputs: Sequence[Any], mode: Mode, compat: str | None, selection: Any
) -> Any:
    if mode == "index":
        return jnp.asarray(selection) if isinstance(selection, list) else selection
    traced = explain.traced(*inputs)
    outputs = len(jax.tree.leaves(traced.output))
    if outputs != 1:
        raise TypeError(f"the model returns {outputs} arrays: give a model that returns one")
    seed = innermost(explain).method.seed
    if mode == "all":
        # the vector of all outputs is not projected
        return _AllOutputs(selected_value if seed is selected_sign else seed)
    traced.check_target(None)
    if compat and isinstance(explain, Explainer):
        return _TiedOutputs(seed)
    return None


@dataclass(frozen=True)
class _AllOutputs:
    """Every output at once: a seed that is compared by its function, being a static argument."""

    kind: Callable[[jax.Array], jax.Array]

    def __call__(self, output: Any) -> Any:
        return jax.tree.map(self.kind, output)


class _TiedOutputs(_AllOutputs):
    """The largest outputs at every leading position, which share where they are equal."""

    def __call__(self, output: Any) -> Any:
        return jax.tree.map(self._shared, output)

    def _shared(self, output: jax.Array) -> jax.Array:
        if output.ndim == 0:
            return self.kind(output)
        largest = (output == output.max(-1, keepdims=True)).astype(output.dtype)
        return self.kind(output) * largest / largest.sum(-1, keepdims=True)


def _inputs_of(x: Any) -> tuple[Any, int | tuple[int, ...]]:
    """Data to fit to, and the places of the inputs in their batches."""
    if hasattr(x, "shape") or not isinstance(x, Iterable):
        return x, 0
    batches: Iterable[Any] = x
    if isinstance(x, Sequence):
        head = list(x[:1])
    else:
        rest = iter(x)
        head = list(islice(rest, 1))
        batches = chain(head, rest)
    several = head and isinstance(head[0], list | tuple)
    return batches, tuple(range(len(head[0]))) if several else 0


def _statistics(state: Mapping[str, Any]) -> PatternStatistics:
    moments = {
        sign: {layer: Moments(**values) for layer, values in state[sign].items()}
        for sign in ("positive", "negative")
    }
    return PatternStatistics(weights=dict(state["weights"]), **moments, whole=state["whole"])


def _say_once(option: str, why: str) -> None:
    if option not in _said:
        _said.add(option)
        warnings.warn(f"{option} has no meaning here: {why}", stacklevel=4)
