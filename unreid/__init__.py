"""Person re-identification without labels, as plug-in projects on fast-reid.

One epoch, whatever the method:

    bank = extract(model, images)                # eval mode, no augmentation: FeatureBank (N, D)
    pseudo = labeler(bank, epoch)                # cluster, merge or pair, refine: PseudoLabels (N,)
    model.on_new_labels(pseudo, bank, epoch)     # memory or head, set from the centroids
    loader.swap(build_loader(pseudo.labels))     # batches of P clusters x K images
    for batch in loader:                         # {images, targets, camids, indices}
        losses, update = model(batch)            # scalars by name, and a memory update
        sum(losses.values()).backward()          # then the optimiser's step
        model.update_memory(update)
    checkpoint(model, optimiser, labels, memory, RNG)

Importing this package makes ``import fastreid`` work (see :mod:`unreid.compat`).
"""

from __future__ import annotations

from unreid import compat

__version__ = "0.1.0"

compat.apply()
