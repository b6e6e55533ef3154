"""A training lowers the loss, can be stopped and resumed at any step, and gives a usable model."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgmon.models import windows
from ecgmon.models.training.settings import STUDENT, Settings
from ecgmon.models.weights import checkpoint
from ecgmon.monitor.cli import train as train_command
from ecgmon.pipelines.training import fitting as training
from ecgmon.pipelines.training import mitdb as protocol
from ecgmon.pipelines.training import steps
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import Dataset
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.mitdb import split
from ecgmon.pipelines.training.records import BEAT, STEP

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.networks.beatgan import Discriminator, Generator
    from ecgmon.models.networks.dense import DenseGenerator
    from ecgmon.models.score.score import Score
    from ecgmon.models.training.distillation import Training

TINY = Settings(
    width=4, latent=4, discriminator_width=2, epochs=8, batch=16, rate=1e-2, schedule="cosine", w_adv=0.1, augmented=0.5
)
TINY_STUDENT = replace(TINY, architecture="dense", width=2, w_adv=0.0, alpha=1.0, beta=1.5)

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of wfdb, when it is first imported


def synthetic(beats: int = 200) -> Dataset:
    """A data set of one record with equal beats, one per second, and some noise."""
    random = np.random.default_rng(0)
    ticks = np.arange(beats * 360)
    phase = (ticks % 360) - 180
    wave = np.exp(-((phase / 6) ** 2)) + 0.2 * np.exp(-(((phase - 90) / 25) ** 2))
    table = np.zeros(beats - 2, BEAT)
    table["symbol"] = b"N"
    table["sample"] = table["column"] = 180 + 360 * np.arange(1, beats - 1)
    table["fold"], table["tenth"] = np.divmod(np.arange(beats - 2) % 50, 10)
    table["rr"] = table["rr_ratio"] = 1
    table["aami"][5::20] = BeatClass.V
    wave = np.stack([wave] * 2) + 0.02 * random.standard_normal((2, len(ticks)))
    about = {"records": ["100"], "sha256": {"files": "0", "beats": "1", "signal": "2"}}
    return Dataset(table, (wave / STEP).astype(np.int16), ((0, len(ticks)),), about)


def fit(beats: Dataset, out: Path, settings: Settings, name: str, **rest: Any) -> Training:
    return training.fit(beats, out, settings, split(beats, name), **rest)


@pytest.fixture(scope="module")
def beats() -> Dataset:
    return synthetic()


@pytest.fixture(scope="module")
def finished(beats: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    out = tmp_path_factory.mktemp("finished")
    return fit(beats, out, TINY, "all"), out


def held_out(beats: Dataset) -> NDArray[np.void]:
    return beats.beats[split(beats, "all").held_out]


def same(a: Discriminator | Generator | DenseGenerator, b: Discriminator | Generator | DenseGenerator) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_lowers_the_error_of_held_out_normal_beats(
    beats: Dataset, finished: tuple[Training, Path], tmp_path: Path
) -> None:
    short = Settings(**{name: getattr(TINY, name) for name in TINY.__dataclass_fields__} | {"epochs": 2})
    early = fit(beats, tmp_path, short, "all")
    before = training.ax_of(early.generator, beats, held_out(beats)).mean()
    after = training.ax_of(finished[0].generator, beats, held_out(beats)).mean()
    assert after < 0.75 * before


def test_the_log_has_the_held_out_error_of_every_epoch(finished: tuple[Training, Path]) -> None:
    lines = [json.loads(line) for line in (finished[1] / "log.jsonl").read_text().splitlines()]
    held_out = [line["held_out_reconstruction"] for line in lines if "held_out_reconstruction" in line]
    assert len(held_out) == TINY.epochs
    assert held_out[-1] < held_out[0]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})


@pytest.mark.parametrize("stop", [1, 17, 30])
def test_a_resumed_training_gives_the_same_weights_bit_for_bit(
    beats: Dataset, finished: tuple[Training, Path], tmp_path: Path, stop: int
) -> None:
    stopped = fit(beats, tmp_path, TINY, "all", progress=lambda done, *_: done < stop)
    assert stopped.step == stop
    resumed = fit(beats, tmp_path, TINY, "all")
    assert resumed.step == resumed.steps
    assert same(resumed.generator, finished[0].generator)
    assert resumed.discriminator is not None
    assert finished[0].discriminator is not None
    assert same(resumed.discriminator, finished[0].discriminator)
    assert (tmp_path / "log.jsonl").read_text() == (finished[1] / "log.jsonl").read_text()


def test_another_seed_gives_other_weights(beats: Dataset, finished: tuple[Training, Path], tmp_path: Path) -> None:
    other = Settings(**{name: getattr(TINY, name) for name in TINY.__dataclass_fields__} | {"seed": 1})
    assert not same(fit(beats, tmp_path, other, "all").generator, finished[0].generator)


def test_resuming_with_other_settings_is_refused_and_names_them(
    beats: Dataset, finished: tuple[Training, Path]
) -> None:
    other = Settings(**{name: getattr(TINY, name) for name in TINY.__dataclass_fields__} | {"rate": 1e-4})
    with pytest.raises(TrainingError, match=r"rate was 0.01, is 0.0001"):
        fit(beats, finished[1], other, "all")


@pytest.mark.parametrize("given", [TINY, replace(TINY_STUDENT, self_teacher=True)], ids=["beatgan", "dense"])
def test_only_normal_beats_that_are_not_held_out_train(beats: Dataset, tmp_path: Path, given: Settings) -> None:
    damaged = synthetic()
    columns = damaged.beats["column"][~split(damaged, "all").train]
    for column in columns:  # does not change their neighbours, which are 360 samples away
        damaged.signal[:, column - 10 : column + 10] = 9_999
    settings = replace(given, augmented=0.0)
    there, here = (
        fit(beats, tmp_path / "a", settings, "all"),
        fit(damaged, tmp_path / "b", settings, "all"),
    )
    assert same(there.generator, here.generator)


def test_the_log_has_each_term_of_both_losses(finished: tuple[Training, Path]) -> None:
    lines = [json.loads(line) for line in (finished[1] / "log.jsonl").read_text().splitlines()]
    entries = [line for line in lines if "err_g" in line]
    assert entries
    for entry in entries:
        assert entry["err_d"] == pytest.approx(entry["err_d_real"] + entry["err_d_fake"])
        assert entry["err_g"] == pytest.approx(entry["err_rec"] + TINY.w_adv * entry["err_adv"])


def test_a_training_goes_on_after_its_discriminator_has_won(beats: Dataset, tmp_path: Path) -> None:
    """The generator stays put, so the beats are trivially separable from its almost flat reconstructions."""
    settings = replace(TINY, rate=1e-9, schedule="constant", discriminator_width=8, discriminator_rate=3e-2, epochs=200)
    lost = fit(beats, tmp_path, settings, "all", progress=lambda *at: at[2]["err_d"] >= 5e-6)
    assert lost.step < lost.steps
    assert lost.restarts == 1
    resumed = fit(beats, tmp_path, settings, "all", stop_after=lost.step + training.LOG_EVERY)
    assert resumed.restarts == 1
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["restarts"] for entry in entries if "restarts" in entry][-1] == 1


def test_too_few_beats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="do not fill one batch of 16"):
        fit(synthetic(beats=12), tmp_path, TINY, "all")


def test_the_command_of_a_stopped_training_has_its_step(beats: Dataset, tmp_path: Path) -> None:
    fit(beats, tmp_path, TINY, "all", stop_after=2)
    assert steps.command_line(training.trained(tmp_path)[1]).endswith(" --stop-after 2")


def test_a_missing_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no training"):
        training.trained(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 0),
        ("epochs", -1),
        ("rate", float("nan")),
        ("augmented", 1.5),
        ("warp", 0.9),
        ("seed", -1),
        ("schedule", "linear"),
        ("divergence", "both"),
        ("initial_weights", "zero"),
    ],
)
def test_an_invalid_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{setting} is {value!r}; expected"):
        Settings(**{setting: value})


def test_a_training_that_diverged_has_no_best_f1(beats: Dataset, finished: tuple[Training, Path]) -> None:
    generator = training.trained(finished[1])[0]
    for p in generator.parameters():
        p.data.fill_(float("nan"))
    found = training.tested(generator, beats, split(beats, "fold0"))
    assert all(np.isnan(found[name]) for name in ("best_f1", "best_threshold", "best_threshold_ax"))


def test_a_missing_device_is_named(beats: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the device 'nonsense' cannot be used"):
        fit(beats, tmp_path, TINY, "all", device="nonsense")
    with pytest.raises(TrainingError, match="the number of threads is 0"):
        fit(beats, tmp_path, TINY, "all", threads=0)


def test_a_damaged_state_is_refused(beats: Dataset, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="damaged"):
        fit(beats, tmp_path, TINY, "all")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"teacher": null, "settings": 1}'])
def test_a_training_without_a_description_is_refused(beats: Dataset, tmp_path: Path, text: str) -> None:
    fit(beats, tmp_path, TINY, "all", stop_after=1)
    (tmp_path / "about.json").write_text(text)
    with pytest.raises(TrainingError, match=r"about\.json is missing or damaged"):
        training.trained(tmp_path)
    with pytest.raises(TrainingError, match=r"about\.json is missing or damaged"):
        fit(beats, tmp_path, TINY, "all")


def as_of_an_earlier_version(run: Path) -> None:
    """Rewrite a run as versions without ``schedule``, ``divergence`` and ``initial_weights`` stored it."""
    new = ("schedule", "divergence", "initial_weights")

    def former(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in new} | {"beta": settings["beta"] / 15}

    about = json.loads((run / "about.json").read_text())
    for part in filter(None, (about, about["teacher"])):
        part["settings"] = former(part["settings"])
    (run / "about.json").write_text(json.dumps(about))
    state = torch.load(run / "state.pt", weights_only=True)
    torch.save(state | {"settings": former(state["settings"])}, run / "state.pt")


def test_a_training_of_an_earlier_version_is_resumed_where_its_loss_is_the_same(beats: Dataset, tmp_path: Path) -> None:
    teacher = fit(beats, tmp_path / "teacher", replace(TINY, w_adv=0.0, epochs=1), "all")
    assert teacher.step == teacher.steps
    settings = replace(TINY_STUDENT, beta=0.0)
    whole = fit(beats, tmp_path / "whole", settings, "all", teacher=tmp_path / "teacher")
    fit(beats, tmp_path / "part", settings, "all", teacher=tmp_path / "teacher", stop_after=5)
    for run in ("teacher", "part"):
        as_of_an_earlier_version(tmp_path / run)
    assert training.trained(tmp_path / "part")[1]["settings"] == asdict(settings)
    resumed = fit(beats, tmp_path / "part", settings, "all", teacher=tmp_path / "teacher")
    assert same(resumed.generator, whole.generator)


def test_an_unfinished_adversarial_training_of_an_earlier_version_is_refused(beats: Dataset, tmp_path: Path) -> None:
    fit(beats, tmp_path, TINY, "all", stop_after=2)
    as_of_an_earlier_version(tmp_path)
    with pytest.raises(TrainingError, match="is of an earlier version, which computed err_adv and L_F in another way"):
        fit(beats, tmp_path, TINY, "all")
    generator, about = training.trained(tmp_path)  # to use it is possible
    assert about["settings"] == asdict(TINY)
    assert about["step"] == 2
    assert np.isfinite(training.ax_of(generator, beats, held_out(beats))).all()


def test_a_training_of_a_later_version_is_refused(beats: Dataset, tmp_path: Path) -> None:
    fit(beats, tmp_path, TINY, "all", stop_after=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(state | {"settings": state["settings"] | {"novelty": 1}}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"is the state of another version of ecgmon \(.*novelty.*use that version"):
        training.trained(tmp_path)


def test_a_student_learns_from_its_teacher(beats: Dataset, finished: tuple[Training, Path], tmp_path: Path) -> None:
    student = fit(beats, tmp_path / "student", TINY_STUDENT, "all", teacher=finished[1])
    entries = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    first, last = [entry for entry in entries if "l_kd" in entry][:: len(entries)][0], entries[-1]
    assert {"err_rec", "l_kd", "l_f"} <= first.keys()
    assert last["held_out_reconstruction"] < entries[0].get("held_out_reconstruction", 1)
    about = training.trained(tmp_path / "student")[1]
    assert about["teacher"]["weights"] == training.fingerprint(training.trained(finished[1])[0])
    alone = fit(beats, tmp_path / "alone", replace(TINY_STUDENT, alpha=0.0, beta=0.0), "all")
    assert not same(student.generator, alone.generator)


def test_a_resumed_student_gives_the_same_weights_bit_for_bit(
    beats: Dataset, finished: tuple[Training, Path], tmp_path: Path
) -> None:
    for self_teacher in (False, True):
        settings = replace(TINY_STUDENT, self_teacher=self_teacher)
        teacher = None if self_teacher else finished[1]
        whole = fit(beats, tmp_path / f"whole-{self_teacher}", settings, "all", teacher=teacher)
        part = tmp_path / f"part-{self_teacher}"
        fit(beats, part, settings, "all", teacher=teacher, stop_after=5)
        assert same(whole.generator, fit(beats, part, settings, "all", teacher=teacher).generator)


def test_a_teacher_that_has_seen_the_test_beats_is_refused(
    beats: Dataset, finished: tuple[Training, Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="must not have seen the beats that its student is tested on"):
        fit(beats, tmp_path, TINY_STUDENT, "fold0", teacher=finished[1])


def test_a_missing_or_unnecessary_teacher_is_refused(
    beats: Dataset, finished: tuple[Training, Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="name the folder of its run"):
        fit(beats, tmp_path, TINY_STUDENT, "all")
    with pytest.raises(TrainingError, match="do not use a teacher"):
        fit(beats, tmp_path, TINY, "all", teacher=finished[1])


def test_a_folder_of_another_training_is_refused(beats: Dataset, finished: tuple[Training, Path]) -> None:
    with pytest.raises(TrainingError, match="another split"):
        fit(beats, finished[1], TINY, "fold0")


def test_the_batches_of_an_epoch_have_each_beat_once(beats: Dataset) -> None:
    train = beats.beats[split(beats, "all").train]
    plain = Settings(batch=16, augmented=0.0)
    steps = len(train) // 16
    drawn = np.concatenate([training.batch(beats, train, plain, step)[0] for step in range(steps)])
    assert drawn.shape == (steps * 16, 1, 320)
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    again = np.concatenate([training.batch(beats, train, plain, step)[0] for step in range(steps, 2 * steps)])
    assert not np.array_equal(drawn, again)


def test_a_checkpoint_has_the_command_of_its_training(
    beats: Dataset, finished: tuple[Training, Path], made_up_score: Score, tmp_path: Path
) -> None:
    generator, about = training.trained(finished[1])
    info = checkpoint.save(
        tmp_path / "m.safetensors",
        generator,
        name="tiny",
        score=made_up_score,
        usual=np.ones(windows.LENGTH, np.float32),
        command=steps.command_line(about),
        data=beats.about["sha256"],
    )
    assert "--width 4" in info.command
    assert "--seed 0" in info.command
    assert "--stop-after" not in info.command


def test_ctrl_c_stores_the_training_and_the_same_command_resumes_it(mitdb: Path, tmp_path: Path) -> None:
    tiny = ["--width", "1", "--latent", "2", "--epochs", "9999", "--batch", "256"]
    protocol.prepare(mitdb, tmp_path / "data", records=["100"])
    command = [sys.executable, "-m", "ecgmon", "train", "fit", "--data", str(tmp_path / "data")]
    command += ["--run", str(tmp_path / "run"), *tiny]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the training ended early with status {process.wait(timeout=0.1)}")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command continues from there" in out
    done = training._load_state(tmp_path / "run")["step"]
    subprocess.run([*command, "--stop-after", str(done + 3)], capture_output=True, check=True, timeout=120)
    assert training._load_state(tmp_path / "run")["step"] == done + 3


def test_every_setting_can_be_given_on_the_command_line(finished: tuple[Training, Path]) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    about = training.trained(finished[1])[1]
    args = parser.parse_args(steps.command_line(about).split()[2:])
    assert {name: getattr(args, name) for name in TINY.__dataclass_fields__} == asdict(TINY)
    assert args.split == "all"
    assert args.stop_after is None
    with pytest.raises(SystemExit):
        parser.parse_args(["fit", "--data", "a", "--run", "b", "--self-teacher", "perhaps"])


def test_the_training_command_of_the_shipped_weights_still_means_the_same() -> None:
    """The command of a checkpoint has no settings that are newer than it; those of the preset take their place."""
    import argparse

    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    for weights, split_name in (("default", "all"), ("fold0", "fold0"), ("ds1", "ds1")):
        info = checkpoint.read_info(checkpoint.shipped(weights))
        args = parser.parse_args(info.command.split()[2:])
        given = {name: getattr(args, name) for name in Settings.__dataclass_fields__}
        assert steps.settings_from(args.preset, given) == STUDENT
        assert args.split == split_name


def test_loading_the_command_does_not_load_torch() -> None:
    code = (
        "import sys, ecgmon.monitor.cli.train; print({'torch', 'scipy', 'wfdb', 'numba'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_the_windows_of_a_batch_are_scaled(beats: Dataset) -> None:
    train = beats.beats[split(beats, "all").train]
    drawn, plain = training.batch(beats, train, TINY, 0)
    assert len(plain) == 8
    assert np.allclose(drawn.max(axis=-1), 1, atol=1e-6)
    assert np.allclose(drawn.min(axis=-1), -1, atol=1e-6)
    assert drawn.shape[-1] == windows.LENGTH
