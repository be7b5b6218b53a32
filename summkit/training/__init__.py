"""Fine-tune a model: the loss, the training loop, checkpoints, several processes.

`trainer` has `fit`, and `loop` what it plugs into transformers' Trainer; `losses` has the completion-only loss;
`checkpoints` what a training leaves on the disk; `sharding` DeepSpeed and FSDP; `trackers` the experiment trackers.
"""

from summkit.training.checkpoints import load_adapter, read_settings, save_adapter
from summkit.training.losses import mean_loss, summary_loss
from summkit.training.trainer import FitResult, fit
