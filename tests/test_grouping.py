"""A jaxpr is read as layers by what it means, in whatever spelling it was written."""

import jax
import pytest

import zoo
from jaxplain.graph import trace


def layers_of(f, *args):
    return trace(f, *args).layers


def kinds(f, *args):
    return [layer.kind for layer in layers_of(f, *args)]


@pytest.mark.parametrize("name", zoo.ACTIVATIONS)
def test_activation(name):
    model = zoo.between_dense(zoo.ACTIVATIONS[name])
    assert kinds(model.f, *model.args) == ["Affine", "Activation", "Affine"]


@pytest.mark.parametrize("name", zoo.GATES)
def test_gate(name):
    g, between = zoo.GATES[name]
    model = zoo.between_dense(g)
    assert kinds(model.f, *model.args) == ["Affine", *between, "Affine"]


@pytest.mark.parametrize("name", zoo.NORMALIZATIONS)
def test_normalization(name):
    model = zoo.between_dense(zoo.NORMALIZATIONS[name]())
    found = layers_of(model.f, *model.args)
    assert [layer.kind for layer in found] == ["Affine", "Normalization", "Affine"]
    assert found[0].op == found[2].op == "dense"


@pytest.mark.parametrize("name", zoo.SOFTMAXES)
def test_softmax(name):
    g, op = zoo.SOFTMAXES[name]
    model = zoo.between_dense(g)
    found = layers_of(model.f, *model.args)
    assert [layer.kind for layer in found] == ["Affine", "Softmax", "Affine"]
    assert found[1].op == op


@pytest.mark.parametrize("name", zoo.SOFTMAXES)
def test_softmax_at_the_end(name):
    g, op = zoo.SOFTMAXES[name]
    w, b = zoo.normal(4, 6), zoo.normal(6)
    found = layers_of(lambda x: g(x @ w + b), zoo.normal(2, 4))
    assert [layer.kind for layer in found] == ["Affine", "Softmax"]
    assert found[-1].op == op


@pytest.mark.parametrize("name", zoo.ATTENTIONS)
def test_attention(name):
    model = zoo.ATTENTIONS[name]()
    assert tuple(kinds(model.f, *model.args)) == model.kinds


@pytest.mark.parametrize("name", ["plain", *zoo.CNNS])
def test_cnn(name):
    f, x, _ = zoo.CNNS[name]() if name in zoo.CNNS else zoo.cnn_plain()
    found = layers_of(f, x)
    assert tuple(layer.kind for layer in found) == zoo.CNN_KINDS
    assert {i: found[i].op for i in zoo.CNN_OPS} == zoo.CNN_OPS
    assert found[2].op in ("reduce_window_max", "max")


@pytest.mark.parametrize("name", zoo.BLOCKS)
def test_block(name):
    model = zoo.BLOCKS[name]()
    assert tuple(kinds(model.f, *model.args)) == model.kinds


def test_lone_batch_norms_are_scales():
    model = zoo.dense_net_block()
    found = layers_of(model.f, *model.args)
    assert {i: found[i].op for i in zoo.DENSE_NET_OPS} == zoo.DENSE_NET_OPS


def test_lstm_of_linen():
    """linen interleaves its gates: the layers are what is asked, not their order."""
    model = zoo.lstm_cell_linen()
    assert sorted(kinds(model.f, *model.args)) == sorted(model.kinds)


@pytest.mark.parametrize("name", ["transformer", "squeeze_excite", "dense_net", "lstm"])
def test_jit_inside_changes_nothing(name):
    model = zoo.BLOCKS[name]()
    assert tuple(kinds(jax.jit(model.f), *model.args)) == model.kinds


def test_layers_are_numbered_in_order_and_know_their_line():
    found = layers_of(*zoo.cnn_plain()[:2])
    assert [layer.index for layer in found] == list(range(len(found)))
    assert all(layer.source.startswith("zoo.py:") for layer in found)


def test_linen_layers_carry_the_names_of_their_modules():
    found = layers_of(*zoo.cnn_linen()[:2])
    for i, name in {0: "conv1", 3: "conv2", 6: "conv3", 9: "dense"}.items():
        assert name in found[i].name
