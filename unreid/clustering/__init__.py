"""Clustering of distances, kNN graphs or features, as functions without state.

Some functions have the name of their module. ``unreid.clustering.map_equation`` is then the
function. Import other functions of that module by
``from unreid.clustering.map_equation import codelength``.
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
