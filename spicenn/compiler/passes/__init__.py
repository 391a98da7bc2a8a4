"""From a torch model to a program and its layers, one pass per file, in this order."""

from __future__ import annotations

from collections.abc import Callable

from spicenn.compiler.passes.batchnorm import fold_batchnorm
from spicenn.compiler.passes.canonical import canonicalize
from spicenn.compiler.passes.clean import clean
from spicenn.compiler.passes.constants import fold_constants
from spicenn.compiler.passes.copying import eval_copy
from spicenn.compiler.passes.export import export
from spicenn.compiler.passes.extract import extract_layers
from spicenn.compiler.passes.graph import Draft, Graph
from spicenn.compiler.passes.operators import check_operators
from spicenn.compiler.passes.prune import prune
from spicenn.compiler.passes.samples import put_samples_first

__all__ = ["PASSES", "Draft", "Graph", "eval_copy", "export", "put_samples_first", "run_passes"]

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    clean,  # drop what changes no value; one name per operator
    fold_constants,  # weights that are computed become plain arrays
    prune,  # dead calls would count as users
    canonicalize,  # every linear map in one of two forms; refuse what has neither
    fold_batchnorm,  # into the one layer before it, or to a scale and a shift
    extract_layers,  # linear maps become layers, one set of cells per weight
    prune,
    check_operators,  # what is left must be on the list of digital operators
)


def run_passes(graph: Graph) -> Graph:
    """Run every structural pass. Raises CompileError naming module and line."""
    for step in PASSES:
        graph = step(graph)
    return graph
