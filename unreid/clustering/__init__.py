"""Labels from distances, from a kNN graph, or from features by merging: pure functions.

Where a function has the name of its module, the package's attribute is the function: write
``from unreid.clustering.map_equation import codelength`` for other functions of a module.
"""

from unreid.clustering.agglomerative import agglomerative
from unreid.clustering.bottom_up import bottom_up
from unreid.clustering.dbscan import dbscan
from unreid.clustering.infomap import infomap
from unreid.clustering.map_equation import map_equation
from unreid.clustering.partition import centroids, compact

__all__ = [
    "agglomerative",
    "bottom_up",
    "centroids",
    "compact",
    "dbscan",
    "infomap",
    "map_equation",
]
