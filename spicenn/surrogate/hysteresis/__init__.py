"""A device's hysteresis as a tag: fitted, compared, and as context of a surrogate.

``preisach`` is the operator, ``fitting`` one device's relays, ``population`` the few
directions in which devices differ and a device's place in them, ``identity`` which device a
tag is of, ``response`` what it answers to a history it has not seen.
"""

from spicenn.surrogate.hysteresis.fitting import Record, fit_weights, record_of_current
from spicenn.surrogate.hysteresis.identity import Identification, identify
from spicenn.surrogate.hysteresis.population import Population, Tag, fit_population, tag
from spicenn.surrogate.hysteresis.preisach import Plane, everett, relays, respond
from spicenn.surrogate.hysteresis.response import HysteresisSurrogate, Response

__all__ = [
    "HysteresisSurrogate",
    "Identification",
    "Plane",
    "Population",
    "Record",
    "Response",
    "Tag",
    "everett",
    "fit_population",
    "fit_weights",
    "identify",
    "record_of_current",
    "relays",
    "respond",
    "tag",
]
