"""Pictures: colours checked by hand, grids by what is on them."""

import subprocess
import sys
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from jaxplain import plot

SIGNED = [name for name, palette in plot.PALETTES.items() if palette.signed]
UNSIGNED = [name for name, palette in plot.PALETTES.items() if not palette.signed]
CENTRES = {"seismic": (255,) * 3, "bwr": (255,) * 3, "coldnhot": (0,) * 3}


@pytest.fixture
def relevance():
    return np.random.default_rng(0).normal(size=(2, 5, 6, 3))


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(size=(2, 5, 6, 3))


# normalize


def test_normalize_by_hand():
    signed = [[1.0, -2.0], [0.0, 4.0]]
    np.testing.assert_array_equal(plot.normalize(signed), [[0.25, -0.5], [0, 1]])
    np.testing.assert_array_equal(plot.normalize(signed, symmetric=False), [[0.25, -1], [0, 1]])
    np.testing.assert_array_equal(plot.normalize([[-9.0, 4.0]], gamma=0.5), [[-1, 2 / 3]])


@pytest.mark.parametrize(
    ("reduce", "expected"), [("sum", [[1, -1]]), ("mean", [[1, -1]]), ("max_abs", [[0.6, -1]])]
)
def test_channels_are_reduced(reduce, expected):
    channels = np.array([[[3.0, -1.0, 1.0], [1.0, 1.0, -5.0]]])
    np.testing.assert_array_equal(plot.normalize(channels, reduce=reduce), expected)
    first = np.moveaxis(channels, -1, 0)
    np.testing.assert_array_equal(plot.normalize(first, reduce=reduce, channel_axis=0), expected)


def test_percentile_clips():
    ramp = np.arange(1.0, 102.0)[None]  # the 50th percentile is 51
    scaled = plot.normalize(-ramp, percentile=50)
    np.testing.assert_allclose(scaled[0, :51], -np.arange(1, 52) / 51)
    np.testing.assert_array_equal(scaled[0, 51:], -1)


def test_percentile_of_a_sparse_map_falls_back_to_its_maximum():
    sparse = np.zeros((10, 10))
    sparse[3, 4] = -2
    scaled = plot.normalize(sparse, percentile=90)
    assert scaled[3, 4] == -1
    assert np.count_nonzero(scaled) == 1


def test_scale_of_the_relevance_does_not_matter(relevance):
    np.testing.assert_allclose(plot.normalize(1e-30 * relevance), plot.normalize(relevance))


@pytest.mark.parametrize("options", [{}, {"percentile": 90.0, "gamma": 0.5}, {"symmetric": False}])
def test_batch_equals_single(relevance, images, options):
    relevance[1] *= 100
    np.testing.assert_array_equal(
        plot.heatmap(relevance, **options), [plot.heatmap(one, **options) for one in relevance]
    )
    np.testing.assert_array_equal(
        plot.overlay(relevance, images, **options),
        [plot.overlay(*pair, **options) for pair in zip(relevance, images, strict=True)],
    )


def test_batch_without_channels(relevance):
    flat = relevance[..., 0]
    assert plot.heatmap(flat, reduce=None).shape == (2, 5, 6, 3)
    np.testing.assert_array_equal(plot.heatmap(flat, reduce=None)[0], plot.heatmap(flat[0]))


# colours


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_zero_has_the_centre_colour(name, scale):
    picture = plot.heatmap([[0.0, scale], [-3 * scale, 0.0]], palette=name)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == tuple(picture[1, 1]) == CENTRES[name]


def test_all_zero_batch_member_leaves_the_others_alone(relevance):
    relevance[0] = 0
    picture = plot.heatmap(relevance)
    assert (picture[0] == 255).all()
    np.testing.assert_array_equal(picture[1], plot.heatmap(relevance[1]))


def test_bwr_by_hand():
    picture = plot.heatmap([[-2.0, -1.0, 0.0, 1.0, 2.0]], palette="bwr")
    assert picture.tolist() == [
        [[0, 0, 255], [128, 128, 255], [255, 255, 255], [255, 128, 128], [255, 0, 0]]
    ]


def test_signs_have_their_colours():
    for name in ("seismic", "bwr"):
        negative, _, positive = plot.heatmap([[-1.0, 0.0, 1.0]], palette=name)[0].astype(int)
        assert negative.argmax() == 2
        assert positive.argmax() == 0
    faint = plot.heatmap([[-1.0, -0.5, 0.5, 1.0]], palette="coldnhot")[0].astype(int)
    assert faint[1].argmax() == 2  # blue, then cyan
    assert faint[0].argmin() == 0
    assert faint[2].argmax() == 0  # red, then yellow
    assert faint[3].argmin() == 2


@pytest.mark.parametrize("name", SIGNED)
def test_opposite_relevance_is_equally_strong(name):
    """Both signs leave the centre at the same pace, so neither looks stronger than it is."""
    values = np.linspace(0, 1, 21)
    palette = plot.PALETTES[name]
    away = [np.abs(palette(sign * values) - palette(0)).max(-1) for sign in (1, -1)]
    np.testing.assert_allclose(*away, atol=0.15)
    for distance in away:
        assert (np.diff(distance) >= 0).all()
        assert distance[-1] > 0.9


@pytest.mark.parametrize("name", UNSIGNED)
def test_unsigned_palettes_show_magnitude(name, relevance):
    np.testing.assert_array_equal(
        plot.heatmap(relevance, palette=name), plot.heatmap(-relevance, palette=name)
    )
    ramp = plot.heatmap(np.linspace(0, 1, 9)[None], palette=name).astype(int)[0]
    assert ramp[0].tolist() == [0, 0, 0]
    assert ramp[-1].tolist() == [255, 255, 255]
    assert (np.diff(ramp.sum(-1)) > 0).all()


@pytest.mark.parametrize("name", list(plot.PALETTES))
def test_colormap_agrees_with_the_palette(name):
    colormap = plot.colormap(name)
    assert colormap == matplotlib.colormaps[f"jaxplain.{name}"]
    low = -1 if plot.PALETTES[name].signed else 0
    limits = matplotlib.colors.Normalize(low, 1)
    for value in (low, 0, 1):
        np.testing.assert_array_equal(
            colormap(limits(value))[:3], plot.PALETTES[name](value), err_msg=str(value)
        )


def test_own_palette(relevance):
    own = plot.Palette("own", {-1: "#00ff00", 0: "#808080", 1: "#ff00ff"})
    assert plot.heatmap([[-1.0, 0.0]], palette=own).tolist() == [[[0, 255, 0], [128, 128, 128]]]
    assert plot.colormap(own).name == "jaxplain.own"
    changed = plot.Palette("own", {0: "#000000", 1: "#ff00ff"})
    assert plot.colormap(changed)(0.0) == (0, 0, 0, 1)


@pytest.mark.parametrize("positions", [(), (-1, 1, 0), (0.5, 1), (-1, 0)])
def test_palette_must_span_its_range(positions):
    with pytest.raises(ValueError, match="palette 'odd' must rise"):
        plot.Palette("odd", dict.fromkeys(positions, "#000000"))


# overlay


def test_overlay_by_hand():
    picture = plot.overlay([[0.0, 1.0, -1.0]], np.full((1, 3), 0.2), strength=1, palette="bwr")
    assert picture.tolist() == [[[51, 51, 51], [255, 0, 0], [0, 0, 255]]]
    half = plot.overlay([[1.0]], [[0.2]], strength=0.5, palette="bwr")
    assert half.tolist() == [[[153, 26, 26]]]


def test_overlay_desaturates_the_picture():
    green = np.zeros((1, 1, 3), np.uint8)
    green[..., 1] = 255
    assert plot.overlay([[0.0]], green).tolist() == [[[182, 182, 182]]]  # 0.7152 * 255


@pytest.mark.parametrize("name", list(plot.PALETTES))
def test_overlay_grows_with_the_relevance(name):
    """From the gray of the picture on; the palette's centre colour never veils it."""
    picture = plot.overlay(np.linspace(0, 1, 50)[None], np.full((1, 50), 0.5), palette=name)
    away = np.abs(picture[0].astype(int) - picture[0, 0]).max(-1)
    assert away[1] <= 20
    assert (np.diff(away) >= 0).all()
    assert away[-1] > 90


def test_overlay_takes_any_spelling_of_a_picture(relevance):
    gray = np.random.default_rng(2).integers(0, 256, (5, 6), np.uint8)
    expected = plot.overlay(relevance[0], gray)
    for image in (gray[..., None], np.stack([gray] * 3, -1), gray / 255, Image.fromarray(gray)):
        np.testing.assert_array_equal(plot.overlay(relevance[0], image), expected)


# errors


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(relevance, bad):
    relevance[0, 1, 2] = bad
    with pytest.raises(ValueError, match="3 values of 180 that are NaN or infinite"):
        plot.heatmap(relevance)


@pytest.mark.parametrize(
    ("shape", "reduce"), [((4,), "sum"), ((1, 2, 3, 4, 5), "sum"), ((1, 2, 3, 4), None)]
)
def test_wrong_rank(shape, reduce):
    with pytest.raises(ValueError, match=r"relevance must be \(H, W, C\)") as error:
        plot.heatmap(np.ones(shape), reduce=reduce)
    assert f"got shape {shape} and reduce={reduce!r}" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 0}, r"percentile must be in \(0, 100\]; got 0"),
        ({"percentile": 101}, "got 101"),
        ({"gamma": 0}, "gamma must be positive"),
        ({"reduce": "max"}, "reduce must be 'sum', 'mean', 'max_abs' or None; got 'max'"),
        ({"channel_axis": 4}, "channel_axis 4 is no axis"),
        ({"palette": "rainbow"}, "unknown palette 'rainbow'; choose one of seismic, bwr"),
    ],
)
def test_bad_options(relevance, options, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmap(relevance, **options)


def test_unknown_option(relevance):
    with pytest.raises(TypeError, match="quantile"):
        plot.heatmap(relevance, quantile=0.5)


def test_empty_and_complex():
    with pytest.raises(ValueError, match="empty"):
        plot.heatmap(np.ones((0, 3, 3)))
    with pytest.raises(ValueError, match="real"):
        plot.heatmap(np.ones((3, 3), complex))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((6, 5, 3)), r"that of the relevance, \(5, 6\).*got \(6, 5, 3\)"),
        (np.ones((5, 6, 4)), r"got \(5, 6, 4\)"),
        (np.ones((1, 5, 6, 3)), r"got \(1, 5, 6, 3\)"),
        (np.full((5, 6), 2.0), r"must be in \[0, 1\], got values from 2 to 2"),
        (np.full((5, 6), np.nan), "got values from nan"),
        (np.full((5, 6), 200), "got dtype int64"),
    ],
)
def test_picture_that_does_not_fit(relevance, image, message):
    with pytest.raises(ValueError, match=message):
        plot.overlay(relevance[0], image)


def test_strength_out_of_range():
    with pytest.raises(ValueError, match="strength"):
        plot.overlay([[1.0]], [[1.0]], strength=1.5)


# grids


def cells(figure, rows):
    """The axes by row, and the colour bar."""
    *axes, bar = figure.axes
    return np.reshape(axes, (rows, -1)), bar


def test_grid_shows_what_it_says(relevance, images):
    maps = {"gradient": relevance, "lrp": -relevance, "zero": 0 * relevance}
    figure = plot.grid(images, maps, row_labels=["cat", "dog"], percentile=90)
    axes, bar = cells(figure, 2)
    assert axes.shape == (2, 4)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["cat", "dog"]
    assert [[t.get_text() for t in axis.texts] for axis in axes[0, 1:]] == [[k] for k in maps]
    assert not any(axis.texts for axis in axes[1])
    assert [t.get_text() for t in bar.get_xticklabels()] == ["negative", "0", "positive"]
    for row in range(2):
        shown = [axis.images[0].get_array() for axis in axes[row]]
        np.testing.assert_allclose(shown[0], images[row])
        for column, batch in enumerate(maps.values(), start=1):
            np.testing.assert_array_equal(shown[column], plot.heatmap(batch[row], percentile=90))


def test_grid_of_overlays_with_titles(relevance, images):
    titles = [["tabby", "poodle"], ["tiger", "husky"]]
    figure = plot.grid(
        images,
        [relevance, -relevance],
        column_labels=["a", "b"],
        titles=titles,
        overlay=True,
        palette="hot",
    )
    axes, bar = cells(figure, 2)
    assert [[axis.get_title() for axis in column] for column in axes[:, 1:].T] == titles
    assert [t.get_text() for t in bar.get_xticklabels()] == ["0", "large"]
    np.testing.assert_array_equal(
        axes[1, 2].images[0].get_array(), plot.overlay(-relevance[1], images[1], palette="hot")
    )


def test_grid_cells_do_not_overlap_and_keep_their_shape():
    pictures = [np.zeros((20, 40)), np.zeros((30, 10, 3), np.uint8)]
    maps = [[np.ones((20, 40)), np.ones((30, 10))]] * 3
    figure = plot.grid(pictures, maps, row_labels=["wide", "tall"], column_labels=list("abc"))
    boxes = [axis.get_position().transformed(figure.transFigure) for axis in figure.axes]
    for i, one in enumerate(boxes):
        assert figure.bbox.fully_containsx(one.x0)
        assert figure.bbox.fully_containsy(one.y1)
        assert not any(one.overlaps(other) for other in boxes[:i])
    assert boxes[0].height / boxes[0].width == pytest.approx(1 / 2)
    assert boxes[4].height / boxes[4].width == pytest.approx(3)


def test_long_labels_stay_in_their_column(relevance, images):
    labels = ["EpsilonAlpha2Beta1Flat, then SmoothGrad", "SequentialPresetBFlat"]
    figure = plot.grid(images, [relevance] * 2, column_labels=labels)
    axes, _ = cells(figure, 2)
    left, right = (axis.texts[0].get_window_extent() for axis in axes[0, 1:])
    assert not left.overlaps(right)


def test_saved_png_opens(tmp_path, relevance, images):
    path = tmp_path / "maps.png"
    plot.save(plot.grid(images, {"lrp": relevance}, row_labels=["cat", "dog"]), path, dpi=100)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert 200 < pixels.shape[0] < 500
    assert 250 < pixels.shape[1] < 500
    assert (pixels[[0, -1]] == 255).all()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_grid_leaves_pyplot_alone(relevance, images):
    plot.grid(images, {"lrp": relevance})
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_labels": ["cat"]}, "row_labels: expected one for each of the 2 images; got 1"),
        ({"column_labels": ["a", "b"]}, "column_labels: expected one for each of the 1 methods"),
        ({"maps": [np.ones((3, 5, 6))]}, "maps of method 0: expected one for each of the 2 images"),
        ({"titles": [["one"]]}, "titles of method 0"),
        ({"maps": {}}, "nothing to show"),
        ({"images": np.ones((2, 7))}, r"must be \(H, W\), \(H, W, 1\) or \(H, W, 3\); got \(7,\)"),
    ],
)
def test_grid_that_does_not_add_up(relevance, images, change, message):
    with pytest.raises(ValueError, match=message):
        plot.grid(**{"images": images, "maps": [relevance]} | change)


# the optional dependency


def test_colours_work_without_matplotlib():
    """In a fresh interpreter, where matplotlib cannot be imported."""
    program = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from jaxplain import plot
assert plot.overlay(np.ones((2, 2)), np.ones((2, 2))).shape == (2, 2, 3)
picture = np.ones((1, 2, 2))
for call in (lambda: plot.colormap("hot"), lambda: plot.grid(picture, [picture])):
    try:
        call()
    except ImportError as error:
        assert 'pip install "jaxplain[plot]"' in str(error), error
    else:
        raise AssertionError("no ImportError")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def _ledger(layers: int) -> Any:
    """A ledger of dense layers with heavy biases."""
    import jax.numpy as jnp

    import jaxplain as jxp

    def f(x: Any) -> Any:
        for i in range(layers):
            x = jnp.tanh(x @ np.eye(3, dtype=x.dtype) + jnp.arange(3.0) * (i == 2))
        return x

    return jxp.lrp(f).ledger(jnp.ones((2, 3)))


@pytest.mark.parametrize("layers", [3, 20])
def test_the_ledger_is_drawn_from_the_output_to_the_input(layers: int) -> None:
    ledger = _ledger(layers)
    (axes,) = plot.ledger(ledger).axes
    (line, _) = axes.lines
    remains = line.get_ydata()
    assert len(remains) == 2 * layers
    share = 100 * float(ledger.inputs) / float(ledger.output)
    assert remains[-1] == pytest.approx(share, rel=1e-4)
    # the bar of the bias stands where the remainder drops
    heights = {b.get_x() + b.get_width() / 2: b.get_height() for b in axes.patches}
    where = max(heights, key=heights.get)
    drops = -np.diff(remains, prepend=100)
    assert where == np.argmax(drops) and heights[where] == pytest.approx(drops.max(), rel=1e-3)
    named = [t.get_text() for t in axes.texts] or [t.get_text() for t in axes.get_xticklabels()]
    assert "dense@3" in named


def test_a_ledger_of_nothing_has_no_shares() -> None:
    import jax.numpy as jnp

    import jaxplain as jxp

    ledger = jxp.lrp(lambda x: x @ jnp.eye(3)).ledger(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="adds up to zero"):
        plot.ledger(ledger)
