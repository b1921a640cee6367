"""Person re-identification without labels, as plug-in projects on fast-reid.

One epoch of training, with any method:

    bank = extract(model, images)                # eval mode, no augmentation: FeatureBank (N, D)
    pseudo = labeler(bank, epoch)                # clusters or pairs, refined: PseudoLabels (N,)
    model.on_new_labels(pseudo, bank, epoch)     # reset memory or head to the centroids
    loader.swap(build_loader(pseudo.labels))     # batches of P clusters x K images
    for batch in loader:                         # {images, targets, camids, indices}
        losses, update = model(batch)            # named scalars, and a memory update
        sum(losses.values()).backward()          # then the optimiser's step
        model.update_memory(update)
    checkpoint(model, optimiser, labels, memory, RNG)

Importing this package applies the workarounds without which ``import fastreid`` fails on current
versions of torch and Python (see :mod:`unreid.compat`).
"""

from __future__ import annotations

from unreid import compat

__version__ = "0.1.0"

compat.apply()
