"""The affine map that a layer is, and the linear maps that rules make of its matrix."""
