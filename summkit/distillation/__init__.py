"""Distillation: use a large model's answers as labels for a small model.

`teachers` answer locally or through a server; `labelling` runs the job, which can be resumed; `topics` reads,
checks and scores lists of topics; `ledger` is the file of answers.
"""

from summkit.distillation.labelling import Labels, answer_checker, label_file, label_rows, labelled_rows
from summkit.distillation.teachers import TEACHERS, EndpointTeacher, LocalTeacher
from summkit.distillation.topics import (
    canonical_topics,
    compare_topics,
    parse_topics,
    score_topics,
    topic_examples,
    topic_f1_rows,
)
