"""The iNNvestigate door: every name, its numbers, its options, its files."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxplain as jxp
import methods_page
import reference_models
from comparing import Together, together
from jaxplain import pattern_statistics
from jaxplain.analyzer import analyzer as door
from jaxplain.analyzer.names import NAMES
from jaxplain.rules import Epsilon, Flat, Gamma, Norm, Pass, Sign, StdEpsilon, Z, ZPlus
from parity import ALL, TOLERANCE, bound, error, fitted, model, options_of
from reference_models import MODELS, load

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "peer", "key"), ALL)
def test_innvestigate(name: str, peer: str, key: str) -> None:
    assert error(name, peer, key) <= bound(key)


@pytest.mark.parametrize(
    "key",
    ["gradient", "guided_backprop", "lrp.z", "deep_taylor", "integrated_gradients"]
    + [f"{m}@{kind}" for m in ("pattern.net", "pattern.attribution") for kind in ("linear",)],
)
def test_mode_max_activation(key: str) -> None:
    x = load("mlp", "model")["x"].astype(float)
    peer = "inn1" if key.startswith("pattern.") else "inn2"
    analyzer = jxp.create_analyzer(
        key.partition("@")[0], model("mlp"), compat="innvestigate", **options_of("mlp", key)
    )
    expected = load("mlp", peer)[f"{key}/max"]
    assert_allclose(analyzer.analyze(x), expected, rtol=0, atol=TOLERANCE * abs(expected).max())


def test_deep_taylor_of_a_negative_output_is_zero() -> None:
    x = load("mlp", "model")["x"].astype(float)
    f = model("mlp")
    explain = jxp.create_analyzer("deep_taylor", f, neuron_selection_mode="index")
    found = explain.analyze(x, np.asarray(f(x)).argmin(1))
    assert (np.asarray(f(x)).min(1) < 0).all()
    assert_allclose(found, 0)


def test_the_page_of_methods() -> None:
    """It lists every name; its figures are within the bounds that the tests above check."""
    page = methods_page.PAGE.read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip("|` ") for row in rows] == [name for name, _, _ in jxp.methods()]
    bounds: dict[str, float] = {}
    for _, _, key in ALL:
        name = key.partition("@")[0]
        bounds[name] = max(bound(key), bounds.get(name, 0))
    for name, _, figure, why in rows:
        name = name.strip("|` ")
        if name in bounds:
            assert float(figure) <= bounds[name]
        else:
            assert figure == ("captum" if name in methods_page.CAPTUM else "formula")
        assert why.strip(" |") == methods_page.DIFFERENCES.get(name, "")


# Names

INNVESTIGATE = (
    "input random gradient gradient.baseline input_t_gradient deconvnet guided_backprop "
    "integrated_gradients smoothgrad lrp lrp.z lrp.z_IB lrp.epsilon lrp.epsilon_IB lrp.w_square "
    "lrp.flat lrp.alpha_beta lrp.alpha_2_beta_1 lrp.alpha_2_beta_1_IB lrp.alpha_1_beta_0 "
    "lrp.alpha_1_beta_0_IB lrp.z_plus lrp.z_plus_fast lrp.sequential_preset_a "
    "lrp.sequential_preset_b lrp.sequential_preset_a_flat lrp.sequential_preset_b_flat "
    "lrp.sequential_preset_b_flat_until_idx deep_taylor deep_taylor.bounded deep_lift.wrapper "
    "pattern.net pattern.attribution"
).split()
READ = (
    "gradient_x_sign gradient_x_sign_mu gradient_x_sign_mu_0_5 gradient_x_sign_mu_neg_0_5 "
    "gradient_x_input smoothgrad_x_input smoothgrad_x_sign guided_backprop_x_sign_mu_0 "
    "deconvnet_x_sign lrp_z lrp_alpha_1_beta_0 lrp_epsilon_0_1 lrp_epsilon_100 "
    "lrp_epsilon_0_25_std_x lrpsign_z lrpsign_epsilon_0_5 lrpsign_epsilon_0_25_std_x "
    "lrpsign_epsilon_100_mu_0_5 lrpsign_epsilon_0_25_std_x_mu_neg_0_5 lrpz_epsilon_10 "
    "w2lrp_epsilon_0_01 flatlrp_sequential_composite_a lrpsign_sequential_composite_b "
    "zblrp_z_VGG16ILSVRC zblrp_epsilon_0_1_VGG16ILSVRC lrp_gamma"
).split()
NEEDED: dict[str, dict[str, Any]] = {
    "lrp": {"rule": "Z"},
    "lrp.alpha_beta": {"alpha": 2},
    "deep_taylor.bounded": {"low": -3.0, "high": 3.0},
    "lrp.sequential_preset_b_flat_until_idx": {"until_layer_idx": 2},
    "lrp.rule_until_index": {"until_layer_idx": 2, "until_layer_rule": "Flat"},
}


def test_all_names_of_innvestigate_are_there() -> None:
    assert len(INNVESTIGATE) == 33
    assert {*INNVESTIGATE, "deep_lift", "guided"} <= {*NAMES}
    listed = [name for name, _, _ in jxp.methods()]
    assert {*NAMES} <= {*listed}
    assert all(line for _, line, _ in jxp.methods())
    assert "Bach et al." in str(jxp.methods())
    assert "<table" in jxp.methods()._repr_html_()


COMPARED = {(network, key) for network, _, key in ALL}
EVERY = [(name, network) for name in (*NAMES, *READ) for network in MODELS]


CASES = [case for case in EVERY if case[1] in ("mlp", "cnn") or case[::-1] not in COMPARED]


@functools.cache
def maps(network: str) -> Together:
    """By every name asked of the network."""
    whole = load(network, "model")["x"].astype(float)
    f, params = reference_models.build(network), reference_models.params(network)
    patterns = pattern_statistics(model(network), whole).patterns()
    options = NEEDED | {
        "pattern.net": {"patterns": patterns},
        "pattern.attribution": {"patterns": patterns},
        "expected_gradients": {"reference_inputs": whole},
        "occlusion": {"window": (4,) if network == "mlp" else (4, 4, 3)},
    }

    def named(name: str) -> Callable[[Any, Any], Any]:
        def analyze(x: Any, params: Any) -> Any:
            net = jax.tree_util.Partial(lambda params, x: f(x, params), params)
            return jxp.create_analyzer(name, net, **options.get(name, {})).analyze(x)

        return analyze

    return together({n: named(n) for n, of in CASES if of == network}, whole[:2], params)


@pytest.mark.parametrize(
    ("name", "network"),
    [pytest.param(*c, marks=[pytest.mark.slow] * (c[1] != "mlp")) for c in CASES],
)
def test_every_name_gives_a_finite_map(name: str, network: str) -> None:
    x = load(network, "model")["x"].astype(float)[:2]
    if "grad_cam" in name and network == "mlp":
        with pytest.raises(ValueError, match="Grad-CAM found no convolution"):
            jxp.create_analyzer(name, model(network)).analyze(x)
        return
    found = maps(network)[name]
    assert found.shape == x.shape
    assert np.isfinite(found).all()
    assert abs(np.asarray(found)).max() > 0


@pytest.mark.parametrize(
    ("name", "close"),
    [("lrp.epsilonn", "lrp.epsilon"), ("guided_backpropp", "guided_backprop"), ("ig", "lists")],
)
def test_unknown_names(name: str, close: str) -> None:
    with pytest.raises(KeyError, match=close):
        jxp.create_analyzer(name, model("mlp"))


W1 = np.random.default_rng(0).normal(size=(4, 6))
B1 = np.random.default_rng(1).normal(size=6)
W2 = np.random.default_rng(2).normal(size=(6, 3))
X = np.random.default_rng(3).normal(size=(5, 4))


def net(x: Any) -> Any:
    return jax.nn.relu(x @ W1 + B1) @ W2


def analyze(name: str, *args: Any, x: Any = X, **options: Any) -> np.ndarray:
    return np.asarray(jxp.create_analyzer(name, net, **options).analyze(x, *args))


def steps(k: int, x: np.ndarray = X) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hidden inputs and outputs, and output k."""
    z = x @ W1 + B1
    h = np.maximum(z, 0)
    return z, h, h @ W2[:, k]


# Names that have no reference array, by their formulas


def index(name: str, k: int = 1, **options: Any) -> np.ndarray:
    return analyze(name, k, neuron_selection_mode="index", **options)


def below(relevance: np.ndarray, epsilon: Any) -> np.ndarray:
    z = X @ W1 + B1
    return (relevance / (z + epsilon * np.where(z < 0, -1, 1))) @ W1.T


def test_std_epsilon() -> None:
    for compat in (None, "innvestigate"):
        _, h, y = steps(1)
        axis = None if compat else 1
        first, last = 0.25 * X.std(axis), 0.25 * h.std(axis)
        if not compat:
            first = first[:, None]
        at_hidden = h * W2[:, 1] * (y / (y + last * np.where(y < 0, -1, 1)))[:, None]
        wanted = X * below(at_hidden, first)
        assert_allclose(index("lrp.stdxepsilon", compat=compat), wanted, rtol=1e-9)
        assert_allclose(index("lrp_epsilon_0_25_std_x", compat=compat), wanted, rtol=1e-9)


@pytest.mark.parametrize(("ending", "mu"), [("", 0.0), ("_mu_0_5", 0.5), ("_mu_neg_0_5", -0.5)])
def test_sign(ending: str, mu: float) -> None:
    _, h, y = steps(1)
    signs = np.where(mu > X, -1, 1)
    at_hidden = h * W2[:, 1] * (y / (y + 0.1 * np.sign(y)))[:, None]
    found = index(f"lrpsign_epsilon_0_1{ending}")
    assert_allclose(found, signs * below(at_hidden, 0.0), rtol=1e-9)
    plain = index("gradient")
    assert_allclose(index(f"gradient_x_sign{ending}"), plain * signs, rtol=1e-9)
    assert_allclose(index("gradient_x_input"), plain * X, rtol=1e-9)


def test_named_lrp_is_lrp() -> None:
    for name, rule in {"lrp.gamma": Gamma(0.5), "lrp_epsilon_0_5": Epsilon(0.5)}.items():
        assert_allclose(index(name), jxp.lrp(net, rule)(X, target=1), rtol=1e-9)
    boxed = index("zblrp_z", low=-4.0, high=4.0)
    composite = jxp.Composite(
        [(jxp.composites.first, jxp.rules.ZBox(-4.0, 4.0)), (jxp.composites.kernel, Z())]
    )
    assert_allclose(boxed, jxp.lrp(net, composite)(X, target=1), rtol=1e-9)


@pytest.mark.parametrize("first", ["lrpz", "w2lrp", "flatlrp", "zblrp"])
def test_rules_of_the_first_layer(first: str) -> None:
    _, h, y = steps(1)
    at_hidden = h * W2[:, 1] * (y / (y + 0.1 * np.sign(y)))[:, None]
    low, high = -4.0, 4.0
    box = X[:, :, None] * W1 - low * np.maximum(W1, 0) - high * np.minimum(W1, 0)
    shares = {
        "lrpz": X[:, :, None] * W1 / (X @ W1 + B1)[:, None],
        "w2lrp": (W1**2 / (W1**2).sum(0))[None],
        "flatlrp": np.full((1, *W1.shape), 1 / len(W1)),
        "zblrp": box / box.sum(1, keepdims=True),
    }
    bounds = {"low": low, "high": high} if first == "zblrp" else {}
    found = index(f"{first}_epsilon_0_1", **bounds)
    wanted = (shares[first] * at_hidden[:, None]).sum(2)
    assert_allclose(found, wanted, rtol=1e-4)  # a stabiliser of 1e-6


def test_names_that_are_others_by_another_name() -> None:
    assert_allclose(index("guided"), index("guided_backprop"))
    for kind in "ab":
        same = index(f"lrp.sequential_preset_{kind}")
        assert_allclose(index(f"lrp.sequential_composite_{kind}"), same)
    until = index("lrp.rule_until_index", rule="Z", until_layer_idx=0, until_layer_rule="Flat")
    assert_allclose(until, index("lrp", rule=["Flat", "Z"]))
    for base in ("guided_backprop", "deconvnet", "smoothgrad"):
        plain = index(base)
        assert_allclose(index(f"{base}_x_input"), plain * X)
        assert_allclose(index(f"{base}_x_sign_mu_0_5"), plain * np.where(X < 0.5, -1, 1))


def test_std_epsilon_knows_the_examples() -> None:
    """A sequence: single, batched, and with its axes merged, which is refused."""
    x = np.random.default_rng(9).normal(size=(3, 5, 4)) * np.arange(1, 6)[:, None]
    tokens = lambda x: net(x).mean(-2)  # noqa: E731
    name, mode = "lrp.stdxepsilon", "index"
    batched = jxp.create_analyzer(name, tokens, neuron_selection_mode=mode).analyze(x, 1)
    single = jxp.create_analyzer(name, tokens, neuron_selection_mode=mode).analyze(x[2], 1)
    assert_allclose(single, batched[2], rtol=1e-9)
    first = lambda x: tokens(jnp.moveaxis(x, 0, 2).reshape(5, 4, -1).transpose(2, 0, 1))  # noqa: E731
    found = jxp.create_analyzer(name, first, neuron_selection_mode=mode).analyze(x, 1)
    assert_allclose(found, batched, rtol=1e-9)
    merged = lambda x: net(x.reshape(-1, 4)).reshape(3, 5, 3).mean(1)  # noqa: E731
    with pytest.raises(ValueError, match="the axis that counts examples is lost"):
        jxp.create_analyzer(name, merged).analyze(x)


def test_deep_taylor_differentiates_what_is_no_kernel_under_compat() -> None:
    """Means divide relevance and sums copy it, instead of sharing it out."""
    w1, w2 = np.abs(W1), np.abs(W2)
    f = lambda x: (jax.nn.relu(x @ w1).mean(1)) @ w2  # noqa: E731
    x = np.abs(np.random.default_rng(1).normal(size=(2, 6, 4)))
    h = x @ w1
    pooled = h.mean(1)
    y = pooled @ w2[:, 1]
    at_mean = pooled * w2[:, 1] / (pooled @ w2[:, [1]]) * y[:, None]
    at_hidden = np.broadcast_to(at_mean[:, None] / 6, h.shape)
    wanted = x * ((at_hidden / h) @ w1.T)
    options: dict[str, Any] = {"neuron_selection_mode": "index"}
    compat = jxp.create_analyzer("deep_taylor", f, compat="innvestigate", **options)
    assert_allclose(compat.analyze(x, 1), wanted, rtol=1e-9)
    own = jxp.create_analyzer("deep_taylor", f, **options).analyze(x, 1)
    assert_allclose(own.sum((1, 2)), y, rtol=1e-5)


def test_noise() -> None:
    """Under compat absolute, else relative to the range of each example; both honour the scale."""
    f = lambda x: x**2  # noqa: E731
    for compat, scale in ((None, 4.0), ("innvestigate", 1.0)):
        analyzer = jxp.create_analyzer(
            "vargrad", f, augment_by_n=4000, noise_scale=0.5, batch_size=500, compat=compat
        )
        x = jnp.array([[0.0, 4.0], [4.0, 0.0]])
        largest = analyzer.analyze(x).max(1)
        assert_allclose(largest, (2 * 0.5 * scale) ** 2, rtol=0.1)
    noise = jxp.create_analyzer("random", f, stddev=2.0).analyze(np.zeros((100, 50)))
    assert 1.9 < noise.std() < 2.1
    shifted = jxp.create_analyzer("random", f, compat="innvestigate").analyze(np.ones((100, 50)))
    assert 0.95 < shifted.mean() < 1.05
    again = jxp.create_analyzer("random", net).analyze(X, key=jax.random.key(3))
    assert not np.allclose(again, analyze("random"))


# Rules by name and in lists


def test_rules_by_name_class_and_instance() -> None:
    wanted = analyze("lrp.z")
    for rule in ("Z", Z, Z()):
        assert_allclose(analyze("lrp", rule=rule), wanted)
    assert_allclose(
        analyze("lrp", rule="Flat", input_layer_rule=(-4.0, 4.0)),
        analyze("lrp", rule=[jxp.rules.ZBox(-4.0, 4.0), "Flat"]),
        rtol=1e-9,
    )


def test_a_list_of_rules_goes_from_the_input_on() -> None:
    listed = jxp.create_analyzer("lrp", net, rule=[Flat(), Z()])
    kernels = [row.rule for row in listed.plan(X) if row.layer.is_kernel]
    assert kernels == [Flat(), Z()]
    reversed_ = jxp.create_analyzer("lrp", net, rule=[Z(), Flat()], compat="innvestigate")
    assert [row.rule for row in reversed_.plan(X) if row.layer.is_kernel] == [Flat(), Z()]
    assert_allclose(listed.analyze(X), listed.analyze(X))  # the list is not used up
    with pytest.raises(ValueError, match="lists 3 rules; the model has 2 kernel layers"):
        analyze("lrp", rule=["Z", "Z", "Z"])


def test_conditions() -> None:
    first, kernel = jxp.composites.first, jxp.composites.kernel
    found = analyze("lrp", rule=[(first, "Flat"), (kernel, "Epsilon")])
    wanted = analyze("lrp", rule="Epsilon", input_layer_rule="Flat")
    assert_allclose(found, wanted, rtol=1e-9)
    # conditions are asked for kernel layers alone
    everywhere = [(lambda layer: layer.first, "Flat"), (lambda layer: True, "Epsilon")]
    assert_allclose(analyze("lrp", rule=everywhere), wanted, rtol=1e-9)
    with pytest.raises(ValueError, match=r"no condition of rule= holds for layer 2 \(dense@2\)"):
        analyze("lrp", rule=[(first, "Flat")])
    with pytest.raises(ValueError, match="lists 0 rules; the model has 2 kernel layers"):
        analyze("lrp", rule=[])


def test_a_composite_stays_as_it_is() -> None:
    own = jxp.Composite([(jxp.composites.kernel, Z())], base=[(lambda layer: True, Pass())])
    assert_allclose(analyze("lrp", rule=own), jxp.lrp(net, own)(X))
    found = jxp.create_analyzer("lrp", net, rule=own, input_layer_rule="Flat").plan(X)
    assert [row.rule for row in found] == [Flat(), Pass(), Z()]
    nowhere = jxp.Composite([(jxp.composites.name("nowhere"), Z())])
    with pytest.raises(ValueError, match="is for no layer"):
        analyze("lrp", rule=nowhere)


def test_until_index_and_batch_norm_rules() -> None:
    deep = lambda x: jax.nn.relu(jax.nn.relu(x @ W1 + B1) @ W2) @ W2.T  # noqa: E731
    analyzer = jxp.create_analyzer(
        "lrp", deep, rule="Z", until_layer_idx=2, until_layer_rule="Flat"
    )
    assert [r.rule for r in analyzer.plan(X) if r.layer.is_kernel] == [Flat(), Flat(), Z()]
    lone = lambda x: jax.nn.relu(jax.nn.relu(x @ W1) * B1) @ W2  # noqa: E731
    analyzer = jxp.create_analyzer("lrp.z", lone, bn_layer_rule="Z")
    assert [r.rule for r in analyzer.plan(X) if r.layer.op == "scale"] == [Z()]
    assert Norm(1e-6) not in [r.rule for r in analyzer.plan(X)]


# Neuron selection


def test_modes() -> None:
    outputs = np.asarray(net(X))
    each = [index("lrp.z", k) for k in range(3)]
    assert_allclose(analyze("lrp.z", neuron_selection_mode="all"), sum(each), rtol=1e-9)
    slopes = [index("gradient", k) for k in range(3)]
    assert_allclose(analyze("gradient", neuron_selection_mode="all"), sum(slopes), rtol=1e-9)
    chosen = np.array([2, 0, 1, 1, 0])
    found = index("lrp.z", chosen)
    assert_allclose(found, np.stack(each)[chosen, np.arange(5)], rtol=1e-9)
    largest = np.stack(each)[outputs.argmax(1), np.arange(5)]
    assert_allclose(analyze("lrp.z"), largest, rtol=1e-9)


def test_single_examples_and_outputs_of_higher_rank() -> None:
    batched = index("lrp.z", 1)
    single = jxp.create_analyzer("lrp.z", net, neuron_selection_mode="index").analyze(X[0], 1)
    assert_allclose(single, batched[0], rtol=1e-9)
    sequence = jxp.create_analyzer("lrp.z", net, neuron_selection_mode="index")
    x = X[:4].reshape(2, 2, 4)
    assert_allclose(sequence.analyze(x, 1).reshape(4, 4), batched[:4], rtol=1e-9)
    choice = np.array([[0, 1], [2, 1]])
    assert_allclose(sequence.analyze(x, choice)[1, 0], index("lrp.z", 2)[2], rtol=1e-9)


def test_ties_are_shared_under_compat_and_go_to_the_first_else() -> None:
    tied = lambda x: x @ np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])  # noqa: E731
    x = np.array([[3.0, 0.0]])
    analyzer = jxp.create_analyzer("gradient", tied, compat="innvestigate")
    assert_allclose(analyzer.analyze(x), [[1.0, 1.0]])  # the mean of (1, 2) and (1, 0)
    assert_allclose(jxp.create_analyzer("gradient", tied).analyze(x), [[1.0, 2.0]])


@pytest.mark.parametrize("compat", [None, "innvestigate"])
@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad", "gradient"])
def test_an_index_for_all_examples(name: str, compat: Any) -> None:
    """In the reference, wrappers explained the first example only."""
    options: dict[str, Any] = {"neuron_selection_mode": "index", "compat": compat}
    found = analyze(name, 1, **options)
    assert_allclose(found, analyze(name, np.ones(5, int), **options), rtol=1e-9)
    assert (abs(found).max(1) > 0).all()


@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad", "lrp.epsilon"])
def test_several_inputs_with_an_index(name: str) -> None:
    f = lambda x, y: net(x) + 2 * net(y)  # noqa: E731
    analyzer = jxp.create_analyzer(name, f, neuron_selection_mode="index")
    a, b = analyzer.analyze([X, X[::-1].copy()], 1)
    assert a.shape == b.shape == X.shape
    assert not np.allclose(a, b)


def test_outputs_that_are_no_array_of_classes() -> None:
    """Else one example of a batch would be explained, and zeros be the maps of the others."""
    for compat in (None, "innvestigate"):
        for name in ("gradient", "lrp.z", "deep_taylor"):
            with pytest.raises(ValueError, match="is one number per example"):
                jxp.create_analyzer(name, lambda x: net(x).sum(-1), compat=compat).analyze(X)
            for mode in ("max_activation", "all"):
                pair = jxp.create_analyzer(
                    name, lambda x: (net(x), x), compat=compat, neuron_selection_mode=mode
                )
                with pytest.raises(TypeError, match="returns 2 arrays"):
                    pair.analyze(X)
            named = jxp.create_analyzer(name, lambda x: {"y": net(x)}, compat=compat)
            assert_allclose(named.analyze(X), analyze(name, compat=compat))


@pytest.mark.parametrize("name", ["pattern.net", "pattern.attribution"])
def test_all_outputs_are_not_projected(name: str) -> None:
    fitted_ = jxp.create_analyzer(name, net).fit(np.random.default_rng(4).normal(size=(200, 4)))
    assert fitted_.statistics is not None
    patterns = fitted_.statistics.patterns()
    both = analyze(name, patterns=patterns, neuron_selection_mode="all")
    alone = [
        index(name, k, patterns=patterns, reverse_project_bottleneck_layers=False) for k in range(3)
    ]
    assert_allclose(both, sum(alone), rtol=1e-9)


def test_occlusion_of_all_outputs() -> None:
    each = [index("occlusion", k, window=2) for k in range(3)]
    found = analyze("occlusion", window=2, neuron_selection_mode="all")
    assert_allclose(found, sum(each), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["grad_cam", "guided_grad_cam"])
def test_grad_cam_of_one_image(name: str) -> None:
    images, f = load("cnn", "model")["x"].astype(float), model("cnn")
    batched = jxp.create_analyzer(name, f).analyze(images)
    single = jxp.create_analyzer(name, lambda x: f(x[None])[0]).analyze(images[1])
    assert_allclose(single, batched[1], rtol=1e-9)
    (listed,) = jxp.create_analyzer(name, f).analyze([images])
    assert_allclose(listed, batched)
    small = jxp.create_analyzer("grad_cam", f, resize=None).analyze(images)
    assert small.shape[1] < images.shape[1]


def test_wrong_selections() -> None:
    with pytest.raises(ValueError, match="neuron_selection goes with"):
        analyze("gradient", 1)
    with pytest.raises(ValueError, match="neuron_selection goes with"):
        analyze("gradient", neuron_selection_mode="index")
    for name in ("gradient", "smoothgrad", "lrp.z"):
        with pytest.raises(IndexError, match="out of range"):
            index(name, 3)
    with pytest.raises(ValueError, match="does not fit"):
        index("gradient", np.array([0, 1]))
    assert_allclose(index("gradient", [0] * 5), index("gradient", 0))  # type: ignore[arg-type]
    assert_allclose(index("gradient", -1), index("gradient", 2))
    with pytest.raises(ValueError, match="neuron_selection_mode must be one of"):
        analyze("gradient", neuron_selection_mode="max")


# Options


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("gradient", {"epsilon": 1}, TypeError, "has no option 'epsilon'"),
        ("lrp", {}, ValueError, "needs rule="),
        ("lrp", {"rule": "Zet"}, ValueError, "did you mean 'Z"),
        ("lrp", {"rule": 3}, TypeError, "a rule is given by"),
        ("lrp.alpha_beta", {}, ValueError, "alpha or beta"),
        ("lrp.alpha_beta", {"alpha": 3, "beta": 3}, ValueError, "alpha - beta must be 1"),
        ("lrp.alpha_beta", {"alpha": 0.5}, ValueError, "beta must be"),
        ("lrp.epsilon", {"epsilon": -1}, ValueError, "epsilon"),
        ("lrp.z", {"until_layer_idx": 2}, ValueError, "go together"),
        ("lrp.z", {"until_layer_idx": -1, "until_layer_rule": "Z"}, ValueError, "position"),
        ("deep_taylor.bounded", {"low": 0.0}, ValueError, "needs low= and high="),
        ("gradient", {"postprocess": "root"}, ValueError, "postprocess"),
        ("integrated_gradients", {"steps": 0}, ValueError, "steps"),
        ("deep_lift", {"nonlinear_mode": "magic"}, ValueError, "rule must be one of"),
        ("pattern.net", {"pattern_type": "cubic"}, ValueError, "pattern_type must be"),
        ("expected_gradients", {}, ValueError, "needs reference_inputs"),
        ("occlusion", {}, ValueError, "needs window="),
        ("gradient", {"reverse_clip_values": True}, ValueError, "pair"),
        ("gradient", {"reverse_clip_values": ("a", "b")}, ValueError, "pair"),
        ("gradient", {"compat": "zennit"}, ValueError, "compat"),
        ("lrp", {"rule": ("Flat", "Z")}, TypeError, "a rule is given by its name"),
        ("lrp", {"rule": [()]}, TypeError, r"a rule is given by its name|lists pairs"),
        ("lrp.alpha_beta", {"alpha": "2"}, ValueError, "alpha and beta are numbers"),
        ("expected_gradients", {"noise_scale": 1.0}, TypeError, "has no option"),
        ("guided_grad_cam", {"resize": None}, ValueError, "needs a map in the input's space"),
    ],
)
def test_wrong_options(name: str, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        jxp.create_analyzer(name, net, **options)


def test_patterns_need_a_fit() -> None:
    with pytest.raises(ValueError, match=r"call fit\(X\) first"):
        analyze("pattern.net")
    with pytest.raises(TypeError, match="the model must be a function"):
        jxp.create_analyzer("gradient", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a method is given by its name"):
        jxp.create_analyzer(3, net)  # type: ignore[arg-type]


def test_what_means_nothing_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_said", set())
    with pytest.warns(UserWarning, match="disable_model_checks has no meaning here"):
        jxp.create_analyzer("gradient", net, disable_model_checks=True)
    jxp.create_analyzer("gradient", net, disable_model_checks=True)  # warnings are errors
    with pytest.warns(UserWarning, match="batch_size has no meaning here"):
        jxp.create_analyzer("deep_lift", net, batch_size=4)
    with pytest.warns(UserWarning, match="bn_layer_rule has no meaning here: every BatchNorm"):
        analyze("lrp.z", bn_layer_rule="Flat")


def test_reverse_options(capsys: pytest.CaptureFixture[str]) -> None:
    analyzer = jxp.create_analyzer("lrp.z", net, reverse_keep_tensors=True)
    analyzer.analyze(X)
    assert list(analyzer.reversed_tensors) == [row.layer.name for row in analyzer.plan(X)]
    assert_allclose(list(analyzer.reversed_tensors.values())[-1].sum(1), np.max(net(X), 1))
    analyze("lrp.z", reverse_check_min_max_values=True, reverse_verbose=True)
    printed = capsys.readouterr().out
    assert "min" in printed and "dense" in printed and "rule" in printed
    clipped = analyze("lrp.z", reverse_clip_values=(-0.1, 0.2))
    assert clipped.min() >= -0.1 and clipped.max() <= 0.2
    with pytest.raises(FloatingPointError):
        analyze("lrp.z", x=np.full_like(X, np.nan), reverse_check_finite=True)
    images = load("cnn", "model")["x"].astype(float)
    projected = jxp.create_analyzer(
        "gradient", model("cnn"), reverse_project_bottleneck_layers=(0.0, 255.0)
    ).analyze(images)
    assert_allclose(abs(projected / 127.5 - 1).max((1, 2, 3)), 1, rtol=1e-9)
    tokens, both = lambda x: net(x).mean(-2), {"reverse_project_bottleneck_layers": (0.0, 255.0)}
    sequences = X[:4].reshape(2, 2, 4)
    batched = jxp.create_analyzer("gradient", tokens, **both).analyze(sequences)
    single = jxp.create_analyzer("gradient", tokens, **both).analyze(sequences[1])
    assert_allclose(single, batched[1], rtol=1e-9)
    assert batched.max() > 100
    signal = jxp.create_analyzer(
        "pattern.net", model("cnn"), patterns=fitted("cnn", "relu.positive"), **both
    ).analyze(images)
    assert_allclose(abs(signal / 127.5 - 1).max((1, 2, 3)), 1, rtol=1e-9)


def test_postprocess_comes_before_the_product() -> None:
    slope = analyze("gradient")
    assert_allclose(analyze("gradient", postprocess="abs"), abs(slope))
    assert_allclose(analyze("input_t_gradient", postprocess="square"), X * slope**2)


# Fitting


def test_fit() -> None:
    data = np.random.default_rng(4).normal(size=(200, 4))
    whole = jxp.create_analyzer("pattern.attribution", net).fit(data)
    wanted = whole.analyze(X)
    batches = [data[:30], data[30:130], data[130:]]
    parts = jxp.create_analyzer("pattern.attribution", net)
    for batch in batches:
        parts.partial_fit(batch)
    assert_allclose(parts.analyze(X), wanted, rtol=1e-6)
    streamed = jxp.create_analyzer("pattern.attribution", net).fit_generator(iter(batches), steps=3)
    assert_allclose(streamed.analyze(X), wanted, rtol=1e-6)
    assert not np.allclose(streamed.fit_generator(batches, steps=1).analyze(X), wanted)
    given = jxp.create_analyzer("pattern.attribution", net, patterns=whole.statistics.patterns())
    assert_allclose(given.analyze(X), wanted, rtol=1e-9)
    assert jxp.create_analyzer("gradient", net).fit(data).statistics is None
    with pytest.raises(ValueError, match="there are no data"):
        whole.fit(iter([]))
    assert_allclose(whole.analyze(X), wanted, rtol=1e-9)  # a fit that failed changes nothing
    ones = {name: jnp.ones_like(v) for name, v in whole.statistics.patterns().items()}
    refitted = jxp.create_analyzer("pattern.attribution", net, patterns=ones).fit(data, 64)
    assert_allclose(refitted.analyze(X), wanted, rtol=1e-9)  # what came last counts


def test_fit_of_several_inputs() -> None:
    f = lambda a, b: jax.nn.relu(net(a)) + jax.nn.relu(net(b))  # noqa: E731
    data = np.random.default_rng(4).normal(size=(2, 100, 4))
    analyzer = jxp.create_analyzer("pattern.net", f).fit([(data[0], data[1])])
    assert analyzer.statistics is not None
    wanted = jxp.pattern_statistics(f, [(data[0], data[1])], argnums=(0, 1)).patterns()
    for name, pattern in analyzer.statistics.patterns().items():
        assert_allclose(pattern, wanted[name])
    a, _ = analyzer.analyze([X, X])
    assert a.shape == X.shape


# Files


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lrp.epsilon", {"epsilon": 0.3, "bias": False}),
        ("lrp.sequential_preset_a", {"epsilon": 0.7, "input_layer_rule": (-4.0, np.full(4, 4.0))}),
        ("lrp", {"rule": [Sign(0.1), Gamma(0.1)], "compat": "innvestigate"}),
        ("lrp", {"rule": [Flat(), ZPlus()], "input_layer_rule": StdEpsilon(0.1)}),
        ("lrp", {"rule": Flat, "input_layer_rule": ZPlus}),
        ("lrp.alpha_beta", {"alpha": np.float32(2), "beta": np.int64(1)}),
        ("lrp.epsilon", {"epsilon": np.float32(0.3)}),
        ("lrp", {"rule": "Z", "until_layer_idx": 0, "until_layer_rule": "Flat"}),
        ("integrated_gradients", {"steps": 5, "reference_inputs": X[::-1].copy()}),
        ("smoothgrad", {"noise_scale": 0.3, "augment_by_n": 3, "postprocess": "abs"}),
        ("deep_taylor.bounded", {"low": -4.0, "high": 4.0}),
        ("deep_lift", {"reference_inputs": 0.5, "nonlinear_mode": "reveal_cancel"}),
    ],
)
def test_a_file_keeps_every_setting(name: str, options: Any, tmp_path: Path) -> None:
    analyzer = jxp.create_analyzer(name, net, **options)
    analyzer.save_npz(tmp_path / "a.npz")
    again = jxp.Analyzer.load_npz(tmp_path / "a.npz", net)
    wanted = analyzer.analyze(X)
    assert_allclose(again.analyze(X), wanted, rtol=1e-12)
    saved = analyzer.save()
    for _ in range(2):  # it is not used up
        assert_allclose(jxp.Analyzer.load(*saved, net).analyze(X), wanted, rtol=1e-12)


def test_a_file_keeps_what_was_fitted_and_fitting_goes_on(tmp_path: Path) -> None:
    data = np.random.default_rng(4).normal(size=(200, 4))
    analyzer = jxp.create_analyzer("pattern.net", net, pattern_type="linear").fit(data[:90])
    analyzer.save_npz(tmp_path / "a.npz")
    again = jxp.Analyzer.load_npz(tmp_path / "a.npz", net)
    assert_allclose(again.analyze(X), analyzer.analyze(X), rtol=1e-12)
    wanted = jxp.create_analyzer("pattern.net", net, pattern_type="linear").fit(data).analyze(X)
    assert_allclose(again.partial_fit(data[90:]).analyze(X), wanted, rtol=1e-6)
    other = jxp.Analyzer.load_npz(tmp_path / "a.npz", lambda x: jax.nn.relu(x @ W1) @ -W2)
    with pytest.raises(ValueError, match="fitted to a model with other weights"):
        other.analyze(X)


def test_names_of_arrays_do_not_collide(tmp_path: Path) -> None:
    f = lambda x: net(x["a"]["b"]) + net(x["a/b"])  # noqa: E731
    baselines = {"a": {"b": np.ones(4)}, "a/b": np.zeros(4)}
    analyzer = jxp.create_analyzer("integrated_gradients", f, reference_inputs=baselines)
    analyzer.save_npz(tmp_path / "a.npz")
    again = jxp.Analyzer.load_npz(tmp_path / "a.npz", f)
    x = {"a": {"b": X}, "a/b": X}
    for wanted, found in zip(
        *map(jax.tree.leaves, (analyzer.analyze(x), again.analyze(x))), strict=True
    ):
        assert_allclose(found, wanted)


def test_files_hold_no_pickle_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    jxp.create_analyzer("lrp.epsilon", net, epsilon=0.3).save_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        header = archive["jaxplain analyzer"]
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"not a file", data[:-30]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is damaged, or no file"):
            jxp.Analyzer.load_npz(path, net)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match="was not written by save_npz"):
        jxp.Analyzer.load_npz(path, net)
    np.savez(path, **{"jaxplain analyzer": np.array(["99", header[1]])})
    with pytest.raises(ValueError, match="written in format 99"):
        jxp.Analyzer.load_npz(path, net)
    np.savez(path, **{"jaxplain analyzer": np.array(["1", header[1][:9]])})
    with pytest.raises(ValueError, match="is damaged"):
        jxp.Analyzer.load_npz(path, net)
    bits = np.random.default_rng(0)
    for _ in range(100):
        flipped = bytearray(data)
        flipped[bits.integers(len(data))] ^= 1 << int(bits.integers(8))
        path.write_bytes(flipped)
        try:
            jxp.Analyzer.load_npz(path, net)
        except ValueError as error:
            assert "a.npz" in str(error)
    np.savez(path, **{"jaxplain analyzer": np.array(["1", '{"dict": []}'])})
    with pytest.raises(ValueError, match="is damaged: it lacks compat, name"):
        jxp.Analyzer.load_npz(path, net)
    np.savez(path, x=np.array([object()]))
    with pytest.raises(ValueError, match="is damaged, or no file"):
        jxp.Analyzer.load_npz(path, net)


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    own = jxp.create_analyzer("lrp", net, rule=Epsilon(lambda z: 0.1))
    with pytest.raises(TypeError, match="no file can hold"):
        own.save_npz(tmp_path / "a.npz")
