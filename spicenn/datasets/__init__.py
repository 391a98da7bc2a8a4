"""Labelled images for classifiers: digits at hand, MNIST, CIFAR-10, Tiny ImageNet, folders.

Files of the original distributions are read as they are, never unpickled and never
extracted; scikit-learn's OpenML client fetches the rest. Every loader gives ``Images``.
"""

from spicenn.datasets.cifar import load_cifar10
from spicenn.datasets.digits import load_digits
from spicenn.datasets.folders import load_images
from spicenn.datasets.idx import read_idx
from spicenn.datasets.images import Images, Progress
from spicenn.datasets.mnist import load_mnist
from spicenn.datasets.tiny_imagenet import load_tiny_imagenet

__all__ = [
    "Images",
    "Progress",
    "load_cifar10",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_tiny_imagenet",
    "read_idx",
]
