"""A user's measured devices as a technology, and a measured map as a chip's conductances.

``table`` reads the files; ``current``, ``programming`` and ``drift`` hold one kind of fit
each; ``assemble`` puts what they found on top of a base technology.
"""

from spicenn.technology.fit.assemble import Fitted, fit_technology
from spicenn.technology.fit.maps import load_conductances
from spicenn.technology.fit.report import Row

__all__ = ["Fitted", "Row", "fit_technology", "load_conductances"]
