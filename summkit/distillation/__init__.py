"""Distillation: use a large model's answers as labels for a small model.

`teachers` answer locally or through a server; `labelling` runs the job, which can be resumed, and keeps the file of
answers; `topics` reads and checks lists of topics.
"""

from summkit.distillation.labelling import NOT_ASKED, Labels, answer_checker, label_file, label_rows
from summkit.distillation.teachers import TEACHERS, Answer, EndpointTeacher, LocalTeacher
from summkit.distillation.topics import canonical_topics, parse_topics
