"""Names of methods, and the options that each takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxplain.transforms.wrapper import Base


@dataclass(frozen=True)
class Settings:
    """The options of a name, complete, and how numbers are to be computed.

    Attributes:
        options: every option of the name.
        argnums: which arguments of the model are explained.
        compat: iNNvestigate's numbers.
    """

    options: Mapping[str, Any]
    argnums: int | tuple[int, ...]
    compat: bool

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @property
    def epsilon(self) -> float:
        """The stabiliser of rules that have none in the reference."""
        return 0.0 if self.compat else 1e-6


Build = Callable[[Callable[..., Any], Settings], Base]


@dataclass(frozen=True)
class Name:
    """A name.

    Attributes:
        name: as it is written.
        line: a description in one line.
        reference: who introduced it, where.
        build: makes the explainer of a model.
        options: the options it takes besides those of all names, with their defaults.
        compat_options: defaults that are others under compat.
        ignored: options that have no meaning here, and why.
    """

    name: str
    line: str
    reference: str
    build: Build
    options: Mapping[str, Any] = field(default_factory=dict)
    compat_options: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


#: Options of every name.
COMMON: dict[str, Any] = {"neuron_selection_mode": "max_activation", "disable_model_checks": False}
COMMON |= {"allow_lambda_layers": False}
#: Options of names that propagate backward through the layers.
REVERSE: dict[str, Any] = dict.fromkeys(
    (
        "reverse_verbose reverse_clip_values reverse_project_bottleneck_layers "
        "reverse_check_min_max_values reverse_check_finite reverse_keep_tensors "
        "reverse_reapply_on_copied_layers"
    ).split(),
    False,
)
#: Options of the LRP family.
LRP: dict[str, Any] = REVERSE | dict.fromkeys(
    ("input_layer_rule", "until_layer_idx", "until_layer_rule", "bn_layer_rule")
)
LRP |= {"bn_layer_fuse_mode": "one_linear"}
