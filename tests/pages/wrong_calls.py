"""Wrong calls and the error that each must raise: a table for tests and the source of a page.

`python tests/pages/wrong_calls.py` rewrites the page.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import equinox.internal
import flax.errors
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import jaxplain as jxp  # noqa: E402
import zoo  # noqa: E402
from jaxplain.composites import Composite, any_layer, first, index, kind, name, op  # noqa: E402
from jaxplain.errors import CutOffError  # noqa: E402
from jaxplain.rules import (  # noqa: E402
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Pass,
    Rule,
    Uniform,
    ZBox,
    ZPlus,
)

keras = zoo._keras()

PAGE = ROOT / "docs" / "errors.md"


@dataclass(frozen=True)
class Case:
    """One wrong call.

    Attributes:
        section: the heading that it stands under.
        call: makes the call.
        error: the exact type of the error.
        message: a pattern in the error's message or notes.
        by: the library whose message it is, which may change between versions.
    """

    section: str
    call: Callable[[], Any]
    error: type[Exception]
    message: str
    by: str

    def text(self) -> str:
        """The call as it stands in this file."""
        source = textwrap.dedent(inspect.getsource(self.call))
        (function,) = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        start = function.body[0]
        line = min([start.lineno, *(d.lineno for d in getattr(start, "decorator_list", ()))])
        return textwrap.dedent("\n".join(source.splitlines()[line - 1 :])).strip()

    def caught(self) -> Exception:
        """The error."""
        try:
            self.call()
        except self.error as error:
            return error
        raise AssertionError(f"{self.call.__name__} raised nothing")


CASES: dict[str, Case] = {}


def section(title: str) -> Callable[..., Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """A decorator that enters a call under a heading."""

    def wrong(
        error: type[Exception], message: str, by: str = ""
    ) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        def enter(call: Callable[[], Any]) -> Callable[[], Any]:
            assert call.__name__ not in CASES
            CASES[call.__name__] = Case(title, call, error, message, by)
            return call

        return enter

    return wrong


# What the calls are about

random = np.random.default_rng(0)
w = jnp.asarray(random.normal(size=(4, 6)), jnp.float32)
v = jnp.asarray(random.normal(size=(6, 3)), jnp.float32)
x = jnp.asarray(random.normal(size=(5, 4)), jnp.float32)
labels = np.asarray([0, 1, 2, 0, 1])


def f(x: Any) -> Any:
    return jax.nn.relu(x @ w) @ v


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.Dense(6, name="hidden")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(3, name="head")(x)


variables = Net().init(jax.random.key(0), x)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Stateful(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.dropout(self.norm(self.hidden(x)))


class Fickle(nnx.Module):
    def __init__(self) -> None:
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

    def __call__(self, x: Any, train: bool = True) -> Any:
        return self.norm(x, use_running_average=not train)


linear = eqx.nn.Linear(4, 3, key=jax.random.key(0))
norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, axis_name="batch", mode="batch")
dropping = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)], name="dropping"
)
both = [keras.Input((4,)), keras.Input((4,))]
added = keras.Model(both, keras.layers.Add()(both), name="added")


@dataclass(frozen=True)
class Returns(Rule):
    """A rule that returns anything."""

    value: Any

    def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        return self.value(x) if callable(self.value) else self.value


@dataclass(frozen=True)
class Unfinished(Rule):
    def relevence(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        return x


@dataclass(frozen=True)
class Books(Rule):
    def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        layer.record("lost", lambda: r)
        return x


wrong = section("The function")


@wrong(TypeError, "must be a function")
def not_a_function() -> None:
    jxp.lrp(3)


@wrong(TypeError, "must be a rule or a composite, got <function f")
def rule_and_function_swapped() -> None:
    jxp.lrp(Epsilon(), f)


@wrong(TypeError, "lrp has no option 'batch_size'; it has: rule, unknown, argnums, with_output")
def unknown_option() -> None:
    jxp.lrp(f, batch_size=8)


@wrong(TypeError, "has no option 'capturing'; did you mean 'capture'")
def misspelled_option() -> None:
    jxp.lrp(f, capturing="dense")


@wrong(TypeError, "integrated_gradients has no option 'n_steps'; it is 'steps' here")
def option_of_captum() -> None:
    jxp.integrated_gradients(jxp.gradient(f), jnp.zeros_like(x), n_steps=50)


@wrong(TypeError, "smoothgrad has no option 'nsamples'; it is 'samples' here")
def option_of_shap() -> None:
    jxp.smoothgrad(jxp.gradient(f), nsamples=50)


@wrong(TypeError, "lrp has no option 'canonizers'; BatchNorm is part of its kernel without one")
def option_of_zennit() -> None:
    jxp.lrp(f, canonizers=[])


@wrong(TypeError, "lrp has no option 'target'; a target is given in the call: explain")
def target_as_an_option() -> None:
    jxp.lrp(f, target=1)


@wrong(TypeError, "got 'epsilon'; for names: jaxplain.create_analyzer")
def rule_by_name() -> None:
    jxp.lrp(f, "epsilon")


@wrong(TypeError, r"for layers by their name: \(name\('Conv_0'\), ...\)")
def layer_by_name_in_a_composite() -> None:
    Composite([("Conv_0", Epsilon())])


@wrong(TypeError, "if 1 is the target, give it by its name", by="Python")
def target_by_position() -> None:
    jxp.lrp(f)(x, 1)


@wrong(AttributeError, "argument 0 is a list of numbers, a tree of scalars to JAX", by="Python")
def nested_list() -> None:
    jxp.lrp(lambda x: f(x.reshape(-1, 4)))([[0.0, 1.0, 2.0, 3.0]])


@wrong(TypeError, "needs an instance of flax.nnx.Module, got a Net, which is for from_linen")
def adapter_of_another_framework() -> None:
    jxp.from_nnx(Net())


@wrong(ValueError, "unknown must be one of")
def unknown_word() -> None:
    jxp.lrp(f, unknown="ignore")


@wrong(TypeError, "returns no array")
def nothing_returned() -> None:
    jxp.lrp(lambda x: None)(x)


@wrong(TypeError, "returns a str, not an array")
def text_returned() -> None:
    jxp.lrp(lambda x: "cat")(x)


@wrong(TypeError, "returns a SimpleNamespace, not an array")
def object_returned() -> None:
    jxp.lrp(lambda x: SimpleNamespace(logits=f(x)))(x)


@wrong(TypeError, "returns dtype int32: .* return the scores")
def decision_returned() -> None:
    jxp.lrp(lambda x: f(x).argmax(-1))(x)


@wrong(TypeError, "returns dtype complex64")
def complex_returned() -> None:
    jxp.gradient(lambda x: jnp.fft.fft(f(x)))(x)


@wrong(TypeError, "returns 2 arrays")
def two_outputs() -> None:
    jxp.lrp(lambda x: (f(x), x))(x)


@wrong(ValueError, r"output of shape \(5, 0\) has no classes")
def no_classes() -> None:
    jxp.lrp(lambda x: f(x)[:, :0])(x)


@wrong(CutOffError, "does not depend on it")
def constant_output() -> None:
    jxp.lrp(lambda x: v)(x)


@wrong(CutOffError, r"cut off from it by round at wrong_calls.py:\d+$")
def rounded_input() -> None:
    jxp.lrp(lambda x: f(jnp.round(x)))(x)


@wrong(CutOffError, "no relevance can reach parameter b")
def parameter_cut_off() -> None:
    jxp.parameter_relevance(lambda x, p: x @ p["w"])(x, {"w": w, "b": v})


@wrong(TypeError, "parameter order has dtype int32")
def integer_parameter() -> None:
    parameters = {"w": w, "order": jnp.arange(3)}
    jxp.parameter_relevance(lambda x, p: (x @ p["w"])[:, p["order"]])(x, parameters)


@wrong(jxp.NotAnalyzableError, r"ZBox.* treats inputs otherwise than weights")
def parameters_in_a_box() -> None:
    jxp.parameter_relevance(lambda x, w: x @ w, ZBox(-9.0, 9.0))(x, w)


@wrong(jxp.NotAnalyzableError, r"`cumprod` at wrong_calls.py:\d+")
def unknown_operation() -> None:
    jxp.lrp(lambda x: jnp.cumprod(x @ w, axis=-1))(x)


@wrong(jxp.NotAnalyzableError, r":\n  `real` at .*\n  complex arithmetic at .*: write the real and")
def complex_state() -> None:
    def recurrence(x: Any) -> Any:
        decay = 0.9 * jnp.exp(1j * jnp.arange(6.0))
        start = jnp.zeros(6, jnp.complex64)
        return jax.lax.scan(lambda h, u: (decay * h + u, None), start, x @ w)[0].real

    jxp.lrp(recurrence)(x)


@wrong(jxp.NotAnalyzableError, r"`pure_callback` at wrong_calls.py:\d+")
def callback() -> None:
    jxp.lrp(lambda x: jax.pure_callback(np.sort, x, x) @ w)(x)


@wrong(jax.errors.TracerBoolConversionError, "not known yet: .* instead of `if`", by="JAX")
def python_if() -> None:
    jxp.lrp(lambda x: f(x) if x.sum() > 0 else -f(x))(x)


@wrong(jax.errors.ConcretizationTypeError, "not known yet: .* neither float", by="JAX")
def python_float() -> None:
    jxp.lrp(lambda x: f(x) * float(x.max()))(x)


@wrong(jax.errors.TracerArrayConversionError, "use jax.numpy instead of numpy", by="JAX")
def numpy_inside() -> None:
    jxp.lrp(lambda x: np.maximum(x @ w, 0) @ v)(x)


@wrong(jax.errors.NonConcreteBooleanIndexError, "jnp.where", by="JAX")
def boolean_index() -> None:
    jxp.lrp(lambda x: f(x)[x[:, 0] > 0])(x)


@wrong(TypeError, "JAX arrays are immutable", by="JAX")
def assignment_in_place() -> None:
    def normalised(x: Any) -> Any:
        x[:, 0] = 0
        return f(x)

    jxp.lrp(normalised)(x)


@wrong(jax.errors.UnexpectedTracerError, "kept from inside a jax transformation", by="JAX")
def leaked_tracer() -> None:
    kept = []
    jax.jit(lambda w: kept.append(2 * w))(w)
    jxp.lrp(lambda x: x @ kept[0])(x)


@wrong(RuntimeError, "an argument or a weight was deleted")
def deleted_weights() -> None:
    old = jnp.array(w)
    old.delete()
    jxp.lrp(lambda x: x @ old)(x)


@wrong(ValueError, "image too small")
def error_of_the_model_itself() -> None:
    def strict(x: Any) -> Any:
        raise ValueError("image too small")

    jxp.lrp(strict)(x)


wrong = section("Models")


@wrong(TypeError, "needs an instance of flax.linen.Module, got f")
def no_module() -> None:
    jxp.from_linen(f, {})


@wrong(TypeError, "needs an instance of flax.linen.Module, got Net")
def module_class() -> None:
    jxp.from_linen(Net, variables)


@wrong(TypeError, "mapping of collections")
def no_variables() -> None:
    jxp.from_linen(Net(), 3)


@wrong(flax.errors.CallCompactUnboundModuleError, "jxp.from_linen", by="Flax")
def unbound_module() -> None:
    jxp.lrp(Net())(x)


@wrong(flax.errors.ScopeCollectionNotFound, "all collections", by="Flax")
def parameters_without_their_collection() -> None:
    jxp.lrp(jxp.from_linen(Net(), variables["params"]))(x)


@wrong(flax.errors.ScopeParamShapeError, "inputs of another shape", by="Flax")
def linen_input_shape() -> None:
    jxp.lrp(jxp.from_linen(Net(), variables))(x[:, :3])


@wrong(TypeError, "unexpected keyword argument 'training'")
def linen_option() -> None:
    jxp.lrp(jxp.from_linen(Net(), variables, training=False))(x)


@wrong(flax.errors.InvalidRngError, "evaluation mode: .*train=False", by="Flax")
def linen_dropout_in_training() -> None:
    module = Dropping()
    jxp.lrp(jxp.from_linen(module, module.init(jax.random.key(0), x), train=True))(x)


@wrong(flax.errors.ModifyScopeVariableError, "evaluation mode: .*train=False", by="Flax")
def linen_batchnorm_in_training() -> None:
    jxp.lrp(jxp.from_linen(Net(), variables, train=True))(x)


@wrong(TypeError, r"predicts: leave mutable=\['batch_stats'\] out, and pass train=False")
def linen_mutable_collections() -> None:
    rngs = {"dropout": jax.random.key(0)}
    jxp.from_linen(Net(), variables, train=True, rngs=rngs, mutable=["batch_stats"])


@wrong(TypeError, r"changes its own arrays .*dropout/rngs/count.*model.eval\(\)")
def nnx_in_training() -> None:
    jxp.lrp(Stateful())(x)


@wrong(flax.errors.TraceContextError, r"model.eval\(\) for nnx", by="Flax")
def nnx_in_training_closed_over() -> None:
    model = Stateful()
    jxp.lrp(lambda x: model(x))(x)


@wrong(TypeError, "needs an instance of flax.nnx.Module, got a Net")
def linen_module_as_nnx() -> None:
    jxp.from_nnx(Net())


@wrong(TypeError, "from_nnx.Fickle. changes its own arrays .*norm/mean.*train=False")
def nnx_batchnorm_in_training() -> None:
    jxp.lrp(jxp.from_nnx(Fickle()))(x)


@wrong(TypeError, "needs an instance of equinox.Module, got Linear")
def equinox_class() -> None:
    jxp.from_equinox(eqx.nn.Linear)


@wrong(TypeError, "needs the module's state .*make_with_state")
def equinox_without_its_state() -> None:
    jxp.from_equinox(norm)


@wrong(TypeError, "state must be an equinox.nn.State, got a dict")
def equinox_with_another_state() -> None:
    jxp.from_equinox(norm, {"mean": 0.0})


@wrong(TypeError, r"was given a state: it must return \(output, state\)")
def equinox_that_returns_no_state() -> None:
    jxp.lrp(jxp.from_equinox(norm, state, method=lambda norm, x, state: norm(x, state)[0]))(x)


@wrong(TypeError, r"two arguments: from_equinox\(module, state\)")
def equinox_module_and_state_in_one() -> None:
    jxp.from_equinox((norm, state))


@wrong(TypeError, r"from_equinox\(Linear\) takes no state: leave it out")
def equinox_state_that_is_not_taken() -> None:
    jxp.lrp(jxp.from_equinox(linear, state))(x)


@wrong(TypeError, r"missing .* 'key'(?s:.*)from_equinox\(module, key=None\)")
def equinox_key_that_is_missing() -> None:
    def keyed(module: Any, x: Any, *, key: Any) -> Any:
        return module(x)

    jxp.lrp(jxp.from_equinox(linear, method=keyed))(x)


@wrong(ValueError, r"give a batch, x\[None\]", by="JAX")
def equinox_one_example() -> None:
    jxp.lrp(jxp.from_equinox(linear))(x[0])


@wrong(TypeError, "needs a keras.Model or layer, got a Linear")
def equinox_module_as_keras() -> None:
    jxp.from_keras(linear)


@wrong(TypeError, "has no weights yet: build the model")
def keras_model_that_is_not_built() -> None:
    jxp.from_keras(keras.Sequential([keras.layers.Dense(3)], name="net"))


@wrong(TypeError, "explains what the model predicts: leave training=True out")
def keras_in_training() -> None:
    jxp.from_keras(dropping, training=True)


@wrong(TypeError, r"as one argument, got 2: .*one list or dict, explain\(\[x1, x2\]\)")
def keras_inputs_apart() -> None:
    jxp.lrp(jxp.from_keras(added))(x, x)


@wrong(ValueError, "incompatible", by="Keras")
def keras_input_shape() -> None:
    jxp.lrp(jxp.from_keras(dropping))(x[:, :3])


@wrong(RuntimeError, "eqx.nn.inference_mode", by="Equinox")
def equinox_dropout_in_training() -> None:
    dropout = eqx.nn.Dropout(0.5)
    jxp.lrp(lambda x: f(dropout(x)))(x)


@wrong(NameError, "eqx.nn.inference_mode", by="JAX")
def equinox_batchnorm_in_training() -> None:
    jxp.lrp(lambda x: norm(x, state)[0])(x[0])


wrong = section("Arguments")


@wrong(ValueError, "argnums=0 is out of range: the function got 0 arguments")
def no_arguments() -> None:
    jxp.lrp(f)()


@wrong(TypeError, "takes 1 positional argument but 2 were given")
def too_many_arguments() -> None:
    jxp.lrp(f)(x, x)


@wrong(TypeError, r"not train=; .*functools.partial\(f, train=False\)")
def option_of_the_function() -> None:
    jxp.lrp(f)(x, train=False)


@wrong(TypeError, "takes target= and masks=, not key=")
def key_as_an_option() -> None:
    jxp.lrp(f)(x, key=jax.random.key(0))


@wrong(TypeError, "argument 1 is of type str")
def text_argument() -> None:
    jxp.lrp(lambda x, mode: f(x))(x, "eval")


@wrong(TypeError, r"argument 0\['image'\] is of type str")
def file_name() -> None:
    jxp.lrp(lambda inputs: f(inputs["image"]))({"image": "cat.png"})


@wrong(TypeError, "argument 0 is of type ndarray of dtype object")
def object_array() -> None:
    jxp.lrp(f)(np.asarray([x, None], dtype=object))


@wrong(TypeError, "argument 0 is of type MaskedArray of dtype float32")
def masked_array() -> None:
    jxp.lrp(f)(np.ma.masked_less(np.asarray(x), 0))


@wrong(TypeError, "for @: 'list'")
def list_of_lists() -> None:
    jxp.lrp(f)([[1.0, 2.0, 3.0, 4.0]])


@wrong(TypeError, "holds no arrays")
def none_argument() -> None:
    jxp.lrp(lambda x: v)(None)


@wrong(TypeError, "holds no values: only plan")
def shapes_without_values() -> None:
    jxp.lrp(f)(jax.ShapeDtypeStruct((5, 4), jnp.float32))


@wrong(TypeError, "contracting dimensions", by="JAX")
def input_shape() -> None:
    jxp.lrp(f)(x[:, :3])


@wrong(TypeError, "dot_general at .* makes numbers of several explained .* cast integers")
def image_of_bytes() -> None:
    jxp.lrp(f)(np.zeros((5, 4), np.uint8))


@wrong(TypeError, "has dtype complex64: only floating inputs, and integers that pick")
def complex_input() -> None:
    jxp.gradient(lambda x: jnp.abs(x @ w))(x.astype(jnp.complex64))


@wrong(TypeError, "only floating inputs")
def explained_key() -> None:
    jxp.lrp(lambda key, x: f(x) + jax.random.normal(key, (5, 3)))(jax.random.key(0), x)


@wrong(TypeError, "integers have none between them: explain the vectors")
def integrated_token_ids() -> None:
    jxp.integrated_gradients(lambda ids: f(w.T[ids]))(jnp.array([0, 2]))


@wrong(TypeError, "looked up inside of a scan, at .*: look them up .* before it")
def token_ids_in_a_loop() -> None:
    def read(h: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(h + w.T[i]), None

    jxp.lrp(lambda ids: f(jax.lax.scan(read, jnp.zeros(4), ids)[0]))(jnp.array([0, 2]))


@wrong(jxp.NotAnalyzableError, "`while` at .*(?s:.*)use jax.lax.scan")
def dynamic_loop() -> None:
    jxp.lrp(lambda x, n: f(jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x), x)))(x, 3)


@wrong(jxp.NotAnalyzableError, 'write the loop as a scan.*or Equinox\'s kind="bounded"')
def dynamic_loop_of_equinox() -> None:
    loop = partial(equinox.internal.while_loop, max_steps=8, kind="checkpointed")
    jxp.lrp(lambda x, n: f(loop(lambda s: s[1] < n, lambda s: (s[0], s[1] + 1), (x, 0))[0]))(x, 3)


@wrong(ValueError, "inside of 'scan': start at a layer outside")
def start_in_a_loop() -> None:
    def net(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w @ w.T), None), x, None, 2)[0]

    jxp.lrp(net, start="tanh")(x)


@wrong(RuntimeError, "donated to a jitted function")
def donated_input() -> None:
    given = jnp.array(x)
    jax.jit(jnp.negative, donate_argnums=0)(given)
    jxp.lrp(f)(given)


@wrong(ValueError, "argnums=1 is out of range: the function got 1 arguments")
def argnums_out_of_range() -> None:
    jxp.lrp(f, argnums=1)(x)


@wrong(ValueError, "names an argument twice")
def argnums_twice() -> None:
    jxp.lrp(f, argnums=(0, -1))(x)


@wrong(TypeError, "argnums must be an int or a sequence of ints, got 0.0")
def argnums_float() -> None:
    jxp.lrp(f, argnums=0.0)


@wrong(TypeError, "argnums must be an int or a sequence of ints, got True")
def argnums_boolean() -> None:
    jxp.lrp(f, argnums=True)


@wrong(TypeError, "argnums must be an int or a sequence of ints, got 'x'")
def argnums_name() -> None:
    jxp.lrp(f, argnums="x")


@wrong(TypeError, r"argnums must be an int or a sequence of ints, got \(\)")
def argnums_empty() -> None:
    jxp.lrp(f, argnums=())


wrong = section("Targets")


@wrong(IndexError, "target 3 is out of range for 3 classes")
def target_too_large() -> None:
    jxp.lrp(f)(x, target=3)


@wrong(IndexError, "target -4 is out of range for 3 classes")
def target_too_small() -> None:
    jxp.lrp(f)(x, target=-4)


@wrong(IndexError, "target 1099511627776 is out of range")
def target_huge() -> None:
    jxp.lrp(f)(x, target=2**40)


@wrong(IndexError, "target 9 is out of range")
def one_bad_label() -> None:
    jxp.lrp(f)(x, target=np.asarray([0, 1, 2, 9, 0]))


@wrong(TypeError, "target must be None, an int")
def float_target() -> None:
    jxp.lrp(f)(x, target=1.0)


@wrong(TypeError, "must hold integers, got dtype float16")
def float_labels() -> None:
    jxp.lrp(f)(x, target=labels.astype(np.float16))


@wrong(TypeError, "target must be None, an int")
def boolean_target() -> None:
    jxp.lrp(f)(x, target=True)


@wrong(TypeError, "must hold integers, got dtype bool")
def boolean_mask_as_target() -> None:
    jxp.lrp(f)(x, target=labels > 0)


@wrong(TypeError, "give an array of ints instead")
def list_target() -> None:
    jxp.lrp(f)(x, target=[0, 1, 2, 0, 1])


@wrong(TypeError, "target must be None, an int")
def names_as_labels() -> None:
    jxp.lrp(f)(x, target=np.asarray(["cat", "dog", "dog", "cat", "cat"]))


@wrong(ValueError, "\"all\" or a callable, got 'cat'")
def named_target() -> None:
    jxp.lrp(f)(x, target="cat")


@wrong(ValueError, r"target of shape \(4,\) does not fit the output of shape \(5, 3\)")
def too_few_labels() -> None:
    jxp.lrp(f)(x, target=labels[:4])


@wrong(ValueError, r"target of shape \(1,\) does not fit")
def one_label_for_a_batch() -> None:
    jxp.lrp(f)(x, target=labels[:1])


@wrong(ValueError, r"target of shape \(5, 3\) does not fit")
def one_hot_labels() -> None:
    jxp.lrp(f)(x, target=np.eye(3, dtype=int)[labels])


@wrong(ValueError, "the output is a scalar: leave target out")
def target_of_a_scalar() -> None:
    jxp.lrp(lambda x: f(x)[0])(x[0], target=1)


@wrong(ValueError, "needs an output with a class axis, got a scalar")
def all_classes_of_a_scalar() -> None:
    jxp.lrp(lambda x: f(x)[0])(x[0], target="all")


@wrong(ValueError, r"seed in the shape of the output, \(5, 3\), got float32\[3\]")
def seed_of_another_shape() -> None:
    jxp.lrp(f)(x, target=lambda output: output[0])


@wrong(ValueError, "must return a tree like the output")
def seed_of_another_tree() -> None:
    jxp.lrp(lambda x: {"a": f(x), "b": f(x)})(x, target=lambda y: (y["b"], y["a"]))


@wrong(ValueError, "must return a real seed")
def complex_seed() -> None:
    jxp.lrp(f)(x, target=lambda output: output.astype(complex))


@wrong(jax.errors.TracerBoolConversionError, "not known yet", by="JAX")
def python_if_in_a_target() -> None:
    jxp.lrp(f)(x, target=lambda output: output if output.sum() > 0 else -output)


@wrong(ValueError, r"output of shape \(5,\) is one number per example, or one example with 5")
def one_number_per_example() -> None:
    jxp.lrp(lambda x: f(x)[:, 0])(x)


wrong = section("Rules")


@wrong(TypeError, r"give what it makes: Epsilon\(\)")
def rule_class() -> None:
    jxp.lrp(f, Epsilon)


@wrong(TypeError, "must be a rule or a composite, got 'epsilon'")
def rule_name() -> None:
    jxp.lrp(f, "epsilon")


@wrong(TypeError, "rule is the function EpsilonPlus; give what it makes")
def preset_not_called() -> None:
    jxp.lrp(f, jxp.composites.EpsilonPlus)


@wrong(ValueError, "epsilon must be a finite number >= 0 or a function of z, got -1e-06")
def negative_epsilon() -> None:
    Epsilon(-1e-6)


@wrong(ValueError, "epsilon must be a finite number >= 0 or a function of z, got inf")
def infinite_epsilon() -> None:
    Epsilon(float("inf"))


@wrong(ValueError, "epsilon must be a finite number >= 0 or a function of z, got 'small'")
def epsilon_text() -> None:
    ZPlus("small")


@wrong(ValueError, r"real array that broadcasts to z, of shape \(5, 3\), got float32\[7\]")
def epsilon_function_of_another_shape() -> None:
    jxp.lrp(f, Epsilon(lambda z: jnp.ones(7)))(x)


@wrong(ValueError, "gamma must be a finite number >= 0, got nan")
def gamma_nan() -> None:
    Gamma(float("nan"))


@wrong(ValueError, "alpha - beta must be 1, got 2 - 2")
def alpha_and_beta() -> None:
    AlphaBeta(2, 2)


@wrong(ValueError, "beta must be a finite number >= 0, got -1")
def negative_beta() -> None:
    AlphaBeta(0, -1)


@wrong(ValueError, "numbers low <= high")
def box_upside_down() -> None:
    ZBox(1.0, 0.0)


@wrong(ValueError, "numbers low <= high")
def box_of_text() -> None:
    ZBox("black", "white")


@wrong(ValueError, r"low of ZBox has shape \(3,\), .* input of shape \(5, 4\)")
def box_of_another_shape() -> None:
    jxp.lrp(f, ZBox(np.zeros(3), 1.0))(x)


@wrong(NotImplementedError, "Unfinished has no method relevance")
def rule_without_relevance() -> None:
    jxp.lrp(f, Unfinished())(x)


@wrong(TypeError, r"must return a tuple of arrays of shapes \[\(5, 6\)\] .* got ndarray")
def rule_without_tuple() -> None:
    jxp.lrp(f, Returns(np.ones((5, 6))))(x)


@wrong(TypeError, r"must return a tuple of arrays of shapes \[\(5, 6\)\] .* got \[\(5, 3\)\]")
def rule_of_another_shape() -> None:
    jxp.lrp(f, Returns((np.ones((5, 3)),)))(x)


@wrong(TypeError, r"must return real floating arrays for layer 2 \(dense@2\), got complex64")
def rule_of_another_dtype() -> None:
    jxp.lrp(f, Returns((np.ones((5, 6), np.complex64),)))(x)


@wrong(ValueError, "the ledger has the terms bias, stabilizer")
def unknown_term() -> None:
    jxp.lrp(f, Books())(x)


wrong = section("Composites")


@wrong(TypeError, r"a list of pairs \(match, rule\), got Flat")
def composite_of_a_rule() -> None:
    Composite(Flat())


@wrong(TypeError, r"entries are pairs \(match, rule\)")
def entry_by_name() -> None:
    Composite([("head", Flat())])


@wrong(TypeError, r"entries are pairs \(match, rule\)")
def entry_of_the_base() -> None:
    Composite([], base=[(Flat(), any_layer)])


@wrong(TypeError, r"did you mean Flat\(\)")
def entry_with_a_class() -> None:
    Composite([(any_layer, Flat)])


@wrong(ValueError, "no kind is called 'dense'; there are: 'Activation'")
def unknown_kind() -> None:
    kind("dense")


@wrong(ValueError, "is no regular expression")
def no_regular_expression() -> None:
    name("block[")


@wrong(TypeError, "unsupported operand")
def match_and_text() -> None:
    first & "dense"


@wrong(ValueError, r"op\('convolution'\) -> Flat\(\) is for no layer .*dense \(Affine dense\)")
def entry_for_no_layer() -> None:
    jxp.lrp(f, Composite([(op("convolution"), Flat()), (op("dense"), Epsilon())]))(x)


@wrong(ValueError, r"index\(-1\) -> Flat\(\) is for no layer")
def negative_index() -> None:
    jxp.lrp(f, Composite([(index(-1), Flat())]))(x)


@wrong(ValueError, r"layer 1 \(rectifier\) at wrong_calls.py:\d+: Epsilon.* not Activation")
def rule_for_another_kind() -> None:
    jxp.lrp(f, Composite([(any_layer, Epsilon())]))(x)


@wrong(ValueError, "is for Matmul, Product layers")
def product_rule() -> None:
    jxp.lrp(f, Composite([(op("dense"), Uniform())]))(x)


@wrong(ValueError, "one output per input")
def pass_through_a_dense_layer() -> None:
    jxp.lrp(f, Composite([(op("dense"), Pass())]))(x)


wrong = section("Layers: capture, start, stop, masks, activations")


@wrong(ValueError, r"no layer matches 'conv'; there are: dense \(Affine dense\)")
def capture_no_layer() -> None:
    jxp.lrp(f, capture="conv")(x)


@wrong(TypeError, r"by name, regular expression or predicate, got \['dense'\]")
def capture_list() -> None:
    jxp.lrp(f, capture=["dense"])(x)


@wrong(ValueError, "no layer matches 'conv'")
def start_at_no_layer() -> None:
    jxp.lrp(f, start="conv")(x)


@wrong(ValueError, "'den' matches several layers, give one of: dense, dense@2")
def start_at_several_layers() -> None:
    jxp.lrp(f, start="den")(x)


@wrong(ValueError, "'den' matches several layers")
def stop_at_several_layers() -> None:
    jxp.lrp(f, stop="den")(x)


@wrong(ValueError, "layer 'dense@2' is not below the start 'rectifier'")
def stop_above_start() -> None:
    jxp.lrp(f, start="rectifier", stop="dense@2")(x)


@wrong(IndexError, "target 6 is out of range for 6 classes")
def target_of_the_start() -> None:
    jxp.lrp(f, start="rectifier")(x, target=6)


@wrong(TypeError, "masks are a dictionary from layer to array")
def masks_without_layers() -> None:
    jxp.lrp(f)(x, masks=jnp.ones(6))


@wrong(ValueError, "no layer matches 'conv'")
def mask_of_no_layer() -> None:
    jxp.lrp(f)(x, masks={"conv": jnp.ones(6)})


@wrong(ValueError, r"broadcasts to the layer's output of shape \(5, 6\), got float32\[5\]")
def mask_of_another_shape() -> None:
    jxp.lrp(f)(x, masks={"rectifier": jnp.ones(5)})


@wrong(ValueError, r"must be a real array .* got complex64\[\]")
def complex_mask() -> None:
    jxp.lrp(f)(x, masks={"rectifier": 1j})


@wrong(ValueError, "masks give layer 'rectifier' twice")
def two_masks_of_a_layer() -> None:
    jxp.lrp(f)(x, masks={"rectifier": jnp.ones(6), "rect": jnp.zeros(6)})


@wrong(ValueError, "layer 'dense@2' is not below the start 'rectifier'")
def mask_above_start() -> None:
    jxp.lrp(f, start="rectifier")(x, masks={"dense@2": jnp.ones(3)})


@wrong(ValueError, "no layer matches 'conv'")
def activations_of_no_layer() -> None:
    jxp.lrp(f).activations(x, layers="conv")


@wrong(ValueError, "layer 'dense@2' is not below the start 'dense'")
def capture_above_the_start() -> None:
    jxp.lrp(f, start="dense", capture="dense@2")(x)


@wrong(ValueError, "layer 'dense' is not above the stop 'dense@2'")
def mask_below_the_stop() -> None:
    jxp.lrp(f, stop="dense@2")(x, masks={"dense": jnp.ones(6)})


@wrong(ValueError, r"the output of layer 'dense' has shape \(5, 6\), got axis=2")
def concepts_along_no_axis() -> None:
    jxp.concept_relevance(jxp.lrp(f), x, layer="dense", axis=2)


@wrong(ValueError, r"has 6 channels, got channels=\[1.0\]")
def concepts_of_no_channel() -> None:
    jxp.concept_relevance(jxp.lrp(f), x, layer="dense", channels=[1.0])


@wrong(TypeError, r"data is an iterable of batches: give \[data\]")
def samples_without_batches() -> None:
    jxp.reference_samples(jxp.lrp(f), x, layer="dense")


@wrong(ValueError, "top must be at least 1, got 0")
def samples_of_no_number() -> None:
    jxp.reference_samples(jxp.lrp(f), [x], layer="dense", top=0)


@wrong(ValueError, "the relevance of the batch from sample 5 on is not finite")
def samples_that_are_not_finite() -> None:
    jxp.reference_samples(jxp.lrp(f), [x, x.at[0].set(jnp.nan)], layer="dense")


wrong = section("Ledger")


@wrong(TypeError, "only what is conserved adds up")
def ledger_of_a_gradient() -> None:
    jxp.gradient(f).ledger(x)


@wrong(ValueError, "of one target per example, got target='all'")
def ledger_of_all_classes() -> None:
    jxp.lrp(f).ledger(x, target="all")


@wrong(ValueError, r"common leading axis, got shapes \[\(5, 4\), \(3,\)\]")
def ledger_without_common_axis() -> None:
    explain = jxp.lrp(lambda x, offset: f(x) + offset, argnums=(0, 1))
    explain.ledger(x, jnp.ones(3), per_example=True)


@wrong(TypeError, "unexpected keyword argument 'masks'")
def ledger_with_masks() -> None:
    jxp.lrp(f).ledger(x, masks={"rectifier": jnp.ones(6)})


@wrong(ValueError, "a ledger is of the whole pass")
def ledger_with_a_stop() -> None:
    jxp.lrp(f, stop="dense").ledger(x)


@wrong(ValueError, r"leading axis counts the 5 examples, .* \(5, 3\) for all of them and \(5, 3\)")
def per_example_beside_a_batch() -> None:
    jxp.lrp(lambda x, y: f(x + y)).ledger(x, x, per_example=True)


wrong = section("check_finite=True")


@wrong(FloatingPointError, r"array of shape \(4, 6\) that the function closes over is not finite")
def weight_not_finite() -> None:
    broken = w.at[0, 0].set(jnp.nan)
    jxp.lrp(lambda x: x @ broken, check_finite=True)(x)


@wrong(FloatingPointError, "the input .* is not finite")
def input_not_finite() -> None:
    jxp.lrp(f, check_finite=True)(x.at[0, 0].set(jnp.inf))


@wrong(FloatingPointError, r"output of layer 1 \(exp\) at wrong_calls.py:\d+ is not finite")
def overflow() -> None:
    jxp.lrp(lambda x: jnp.exp(1e3 * x @ w) @ v, check_finite=True)(x)


# The page

INTRODUCTION = """\
# Wrong calls

What each wrong call raises, before any attribution is computed. The page is generated from
`tests/pages/wrong_calls.py`, which is also what checks it; `f` is a small network with a hidden
layer, `x` a batch of five inputs.

An error of the model itself stays what it is, in type and message. Where it comes from inside JAX
or another library, its traceback ends at the line of the model that caused it, and a note says what
to do; the page then leaves their own message out.
"""


def message(error: Exception) -> str:
    """An error's message without what changes from run to run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))
    return re.sub(r"\bwrong_calls\.py:\d+", "model.py:…", text.replace("__main__.", "wrong_calls."))


def notes(error: Exception) -> list[str]:
    """What jaxplain says beside the message (JAX has notes of its own)."""
    return [note for note in getattr(error, "__notes__", ()) if not note.startswith("-----")]


def markdown() -> str:
    """The page."""
    parts = [INTRODUCTION]
    title = ""
    for case in CASES.values():
        if case.section != title:
            title = case.section
            parts.append(f"## {title}\n")
        error = case.caught()
        said = "\n".join(["…" if case.by else message(error), *notes(error)])
        module = f"{type(error).__module__}.".removeprefix("builtins.")
        parts.append(f"```python\n{case.text()}\n```\n")
        parts.append(f"```text\n{module}{type(error).__name__}: {said}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(markdown())
