"""A run of a frozen network (``SOLVER.MAX_EPOCH 0``): labels, scores and files without training.

The network is that of ``MODEL.WEIGHTS``, or of the start weights. It is labelled as before epoch 0,
and leaves the files of a training: ``labels/epoch_000.npz``, one line in ``epochs.jsonl`` (with no
iteration), ``model_final.pth``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from fastreid.utils import comm
from fastreid.utils.events import EventStorage

from unreid.engine.checkpoint import rng_state, unwrap
from unreid.engine.checkpoint_hook import FINAL, check_finite

if TYPE_CHECKING:
    from unreid.engine.trainer import UnsupervisedTrainer


def run_frozen(trainer: UnsupervisedTrainer) -> OrderedDict[str, Any] | None:
    """Label and evaluate the network as it is, and write it down.

    Args:
        trainer: Of a config with ``SOLVER.MAX_EPOCH 0``; its hooks' training parts are not called.

    Returns:
        The scores, or None where nothing is evaluated.

    Raises:
        RuntimeError: fewer than two clusters.
        FloatingPointError: the weights are not finite.
    """
    check_finite(unwrap(trainer.model), 0)
    trainer.epoch = trainer.iter = trainer.start_iter = 0
    log = trainer.epoch_log
    with EventStorage(0) as trainer.storage:
        trainer.label_hook.label_frozen()
        if log.evaluation is not None:
            log.evaluation.evaluate()
        if comm.is_main_process():
            log.before_train()
            log.after_epoch()
    if comm.is_main_process():
        # Without an epoch: a training that resumes from here begins with epoch 0.
        content = trainer.checkpointer.content(rng=rng_state(), **trainer.extra_state())
        trainer.checkpointer.write(FINAL, content)
    return trainer._last_eval_results
