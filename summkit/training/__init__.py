"""Fine-tune a model: the loss, the training loop, checkpoints, several processes.

`trainer` has `fit`, which extends transformers' Trainer; `losses` has the completion-only loss; `checkpoints` writes
and reads files; `speed` has the options that make it fast on a GPU; `environment` supports DeepSpeed, FSDP and the
experiment trackers.
"""

from summkit.training.checkpoints import load_adapter, read_settings, save_adapter
from summkit.training.losses import mean_loss, summary_loss
from summkit.training.trainer import FitResult, fit
