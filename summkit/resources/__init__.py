"""Time, memory, energy, carbon and money: measured, and predicted.

`metering` measures a block of work; `memory` predicts the memory of training, from a forward pass without
weights (`activations`); `forecast` predicts a training from a few measured steps, and `plan_lines` prints it.
"""

from summkit.resources.forecast import Trial, accumulate_gradients, measure_steps, plan_lines
from summkit.resources.memory import (
    COMPUTE_BYTES,
    KNOWN_CONFIGS,
    OPTIMIZERS,
    WEIGHT_BYTES,
    Plan,
    largest_batch,
    on_meta,
    plan_settings,
    plan_training,
)
from summkit.resources.metering import Meter, release_memory
