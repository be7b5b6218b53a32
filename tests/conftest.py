"""Fixtures that several test files use, and which test files are slow."""

import signal
from pathlib import Path

import pytest

from tests.hub import LocalHub

# A plugin registers its entries when it is imported, so it is imported only by the processes of test_plugin.py.
collect_ignore = ["plugin"]

# Files, and tests in other files, that start processes, train, or wait. `make quick` leaves them out with
# pytest -m "not slow".
SLOW = {
    "test_batch.py",
    "test_cells.py",
    "test_benchmarks.py",
    "test_cli.py",
    "test_course.py",
    "test_deepspeed.py",
    "test_embedded_model.py",
    "test_encoder_decoders.py",
    "test_export.py",
    "test_forecast.py",
    "test_fsdp.py",
    "test_generation.py",
    "test_hub.py",
    "test_hub_dialogues.py",
    "test_hub_long.py",
    "test_hub_methods.py",
    "test_hub_stages.py",
    "test_jobs.py",
    "test_label_scores.py",
    "test_long_documents.py",
    "test_longt5.py",
    "test_memory.py",
    "test_memory_seq2seq.py",
    "test_metering.py",
    "test_methods.py",
    "test_model_matrix.py",
    "test_plugin.py",
    "test_prefill.py",
    "test_processes.py",
    "test_prompt_tuning.py",
    "test_sharding.py",
    "test_slurm.py",
    "test_speed.py",
    "test_streaming.py",
    "test_sweep.py",
    "test_trackers.py",
    "test_trainer.py",
    "test_watch.py",
    "test_config.py::test_optimizers_are_transformers_own",
    "test_loading.py::test_nothing_is_said_of_a_kernel_that_is_missing",
    "test_metrics.py::test_the_metrics_need_neither_hub_nor_a_home_that_can_be_written",
    "test_teachers.py::test_a_server_is_asked_as_the_template_asks_a_model",
    "test_teachers.py::test_a_teacher_reads_as_much_of_a_text_as_a_student_without_examples",
    "test_widgets.py::test_a_text_of_a_megabyte_is_shown_in_a_moment",
    "test_data_summarisation.py::test_memory_stays_flat_however_many_rows_there_are",
    "test_labelling.py::test_a_killed_job_goes_on_and_ends_as_an_undisturbed_one",
    "test_labelling.py::test_a_student_trains_on_the_folder_from_the_command_line",
    "test_labelling.py::test_ctrl_c_says_that_it_goes_on",
    "test_labelling.py::test_two_jobs_do_not_write_one_file",
}

# The files that take longest, the longest first. They are begun first, so that no worker is idle at the end.
LONGEST = (
    "test_cells.py",
    "test_exercises.py",
    "test_cli.py",
    "test_slurm.py",
    "test_hub.py",
    "test_failures.py",
    "test_trainer.py",
    "test_processes.py",
    "test_fsdp.py",
    "test_generation.py",
    "test_speed.py",
    "test_export.py",
    "test_encoder_decoders.py",
)


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(Path(item.fspath).name, len(order)))
    for item in items:
        name = Path(item.fspath).name
        if {name, f"{name}::{item.originalname if hasattr(item, 'originalname') else item.name}"} & SLOW:
            item.add_marker(pytest.mark.slow)


def hear_ctrl_c() -> None:
    """For `preexec_fn` of a child that will be interrupted: what a shell starts in the background ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def local_hub(tmp_path):
    """An empty local Hub on 127.0.0.1: see tests/hub.py for what it serves and how a child process is pointed at it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture(scope="module")
def one_thread():
    """A tiny model is faster on one thread, and bits depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
