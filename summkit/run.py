"""One run of a chapter or a training: its profile, seed, folder, meter and record, from `start` to `finish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.config import Profile, choose_profile, detect_hardware
from summkit.models import TINY, footprint, parameter_report
from summkit.offline import ASSETS
from summkit.registry import load_plugins
from summkit.reporting import figures, fill_record, new_record, run_folder, write_card, write_record
from summkit.resources import Meter

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

    from summkit.data import Splits
    from summkit.training import FitResult


class Run:
    """A run in progress, with its meter started.

    Attributes:
        profile: Every setting of the run.
        seed: Seed of the split, the initial weights, the order of rows and the bootstrap.
        folder: The folder for figures, adapters and run.json.
        record: The content of run.json; see `summkit.reporting.records`.
        meter: Measures time, memory and energy from the start of the run.
        hardware: The hardware of this machine.
    """

    def __init__(self, stage: str, profile: Profile, seed: int, folder: str | Path) -> None:
        self.profile = profile
        self.seed = seed
        self.folder = Path(folder)
        self.hardware = detect_hardware()
        self.record = new_record(stage, profile.name, seed, device=self.hardware.name)
        self.meter = Meter()
        self.meter.__enter__()

    def lap(self, name: str) -> float:
        """Return the seconds since the start or the last lap, and record them under `name`."""
        return self.meter.lap(name)

    def save_figure(self, figure: Figure, name: str) -> Path:
        """Write a figure to figures/NAME.png in the run's folder, and name it in the record."""
        path = figures.save(figure, self.folder, name)
        entry = path.relative_to(self.folder).as_posix()
        if entry not in self.record["figures"]:
            self.record["figures"].append(entry)
        return path

    def show_figure(self, figure: Figure, name: str, alt: str) -> None:
        """Save a figure as `save_figure` does, and show it under the cell; `alt` says in words what is seen."""
        from IPython.display import display
        from matplotlib.pyplot import close

        self.save_figure(figure, name)
        display(figure, metadata={"image/png": {"alt": alt}})
        close(figure)  # otherwise it is shown a second time at the end of the cell

    def finish(
        self,
        *,
        model: PreTrainedModel | dict[str, Any] | None = None,
        data: Splits | dict[str, Any] | None = None,
        training: FitResult | dict[str, Any] | None = None,
        scores: dict[str, dict] | None = None,
        generation: dict[str, float] | None = None,
        **details: Any,
    ) -> Path:
        """Stop the meter and write run.json. A second call writes it again with what the first one measured.

        Args:
            model: The model that was used, or a dict of its `parameters`, `trainable`, `footprint_bytes` and
                `revision`, in which a value of None is ignored. None: no model was used.
            data: The splits that were used, or the record's section itself.
            training: What `fit` returned, or the record's section itself.
            scores: {system: entry}, as `score_summaries` or `score_labels` returns it.
            generation: `samples`, `seconds` and `new_tokens` of the answers.
            **details: Further values of this stage for the record, by name.

        Returns:
            The path of run.json.

        Raises:
            SummkitError: A value cannot be recorded, or the file cannot be written.
        """
        if self.meter.wall_seconds is None:
            self.meter.__exit__(None, None, None)
        sections: dict[str, dict] = {"run": {"wall_seconds": self.meter.wall_seconds}, "scores": scores or {}}
        sections["model"] = {} if model is None else self._about_model(model)
        sections["data"] = {} if data is None else self._about_data(data)
        sections["training"] = training if isinstance(training, dict) else training.record() if training else {}
        sections["generation"] = generation or {}
        sections["resources"] = self.meter.resources()
        measured = {"laps": self.meter.laps, "energy_kwh": self.meter.energy_parts}
        sections["details"] = details | {name: value for name, value in measured.items() if value}
        for section, values in sections.items():
            fill_record(self.record, section, **values)
        path = write_record(self.record, self.folder / "run.json")
        adapter = Path(getattr(training, "adapter", "") or self.folder / "none")
        if adapter.is_dir() and progress.first_process():
            write_card(adapter, self.record, self.profile)
        peak = self.record["resources"]["peak_rss_bytes"]
        memory = f", peak memory {peak / 1e9:.1f} GB" if peak else ""
        if progress.first_process():
            print(f"recorded in run.json: {self.record['wall_seconds'] / 60:.1f} min{memory}")
        return path

    def _about_model(self, model: PreTrainedModel | dict[str, Any]) -> dict[str, Any]:
        name = self.profile.model
        asset = ASSETS.get(name)
        about: dict[str, Any] = {"id": name, "source": "hub", "quantization": self.profile.precision}
        if asset:
            about |= {"source": "embedded", "revision": asset.version, "sha256": asset.sha256}
        elif name in TINY:
            about["source"] = "code"
        elif Path(name).is_dir():
            about |= {"id": Path(name).name, "source": "local"}
        if isinstance(model, dict):
            return about | {name: value for name, value in model.items() if value is not None}
        about.setdefault("revision", getattr(model.config, "_commit_hash", None))
        return about | parameter_report(model) | {"footprint_bytes": sum(footprint(model).values())}

    def _about_data(self, data: Splits | dict[str, Any]) -> dict[str, Any]:
        if isinstance(data, dict):
            return data
        name = "local" if data.source == "local" else self.profile.dataset
        return {"id": name, "source": data.source} | data.counts()


def start(
    stage: str,
    profile: str = "auto",
    seed: int = 0,
    *,
    task: str = "summary",
    options: dict[str, Any] | None = None,
    **parameters: Any,
) -> Run:
    """Start a run of a chapter: choose the profile and print it, make the folder and start the meter.

    Args:
        stage: The chapter's name, such as "task3" or "notebooks/03_long_documents".
        profile: "smoke", "cpu", "t4", "gpu" or "auto".
        seed: See `Run`.
        task: The preset; see `choose_profile`.
        options: Options of the profile by name. None is a value like any other: {"max_words": None} is no limit.
        **parameters: The same, for a notebook's parameters: None leaves the preset's value. `options` goes before them.

    Returns:
        The run. Call its `finish` at the end.

    Raises:
        SummkitError: As for `choose_profile`; or the folder cannot be made.

    Example:
        >>> run = start("task3", "smoke", train_rows=8)  # doctest: +SKIP
        profile smoke (asked for by name): tiny-llama, NF4 weights, float32 compute
    """
    progress.quiet_libraries()
    progress.remember_stops()
    load_plugins()
    figures.style()
    given = {name: value for name, value in parameters.items() if value is not None}
    chosen = choose_profile(profile, task, **given | (options or {}))
    run = Run(stage, chosen, seed, run_folder(stage))
    print(chosen.line())
    return run
