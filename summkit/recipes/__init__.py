"""Unattended runs: chapters by papermill, a training from a configuration, a sweep of many trainings.

`notebooks` runs chapters by name; `finetune` trains from one file; `sweep` trains every combination of a plan;
`text_files` reads the texts that `summkit summarize` answers.
"""

from summkit.recipes.finetune import plan, train
from summkit.recipes.notebooks import copy_chapters, repository_root, run_notebooks, stages
from summkit.recipes.sweep import run_sweep
