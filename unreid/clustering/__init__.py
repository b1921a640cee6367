"""Labels from distances, from a kNN graph, or from features by merging: pure functions.

Each function here has the name of its module: write ``from unreid.clustering.map_equation
import codelength`` for what else a module offers.
"""

from unreid.clustering.infomap import infomap
from unreid.clustering.map_equation import map_equation

__all__ = ["infomap", "map_equation"]
