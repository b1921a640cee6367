"""The label step: transforms of features, neighbours, a clusterer, pseudo labels.

Training, ``label`` and the projects call the same objects, in this order::

    bank = apply_transforms(bank, transforms_from_config(cfg, search))    # transforms
    neighbours = search(bank.features)                                    # neighbours
    labels = clusterer(neighbours)                                        # clusterers
    pseudo = labeler.refine(labels, bank, neighbours, epoch, seconds)     # labeler, or a method
"""
