"""The model card shows the contents of the result files, and names missing files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.pipelines.evaluation.model_card import SECTIONS, CardError, failure_cases, worst, write
from ecgmon.pipelines.evaluation.model_card_pictures import FAILING
from ecgmon.pipelines.training.mitdb import prepare
from ecgmon.pipelines.training.records import BEAT

if TYPE_CHECKING:
    from pathlib import Path

HAND_WRITTEN = "Text written by hand."


def new_card(folder: Path) -> Path:
    """Write a card with markers for every section, and text between them."""
    path = folder / "card.md"
    places = (f"{HAND_WRITTEN}\n\n<!-- {name} -->\n<!-- /{name} -->\n" for name in SECTIONS)
    path.write_text("\n".join(places))
    return path


def new_results(folder: Path) -> Path:
    """Write synthetic result files of every kind."""
    folder /= "results"
    folder.mkdir()
    random = np.random.default_rng(0)
    aami = random.choice(5, 4000, p=[0.8, 0.07, 0.1, 0.025, 0.005]).astype(np.uint8)
    score = random.exponential(np.array([0.43, 2.0, 3.0, 1.2, 3.0])[aami]).clip(0, 6).astype(np.float32)
    record = random.choice([100, 105, 232], 4000).astype(np.uint16)
    fold = random.integers(0, 5, 4000).astype(np.uint8)
    for name in ("beatgan", "inter-patient"):
        np.savez(folder / f"{name}.npz", score=score, aami=aami, record=record, fold=fold)
        figures = {"auc": {"mean": 0.98761, "std": 0.00124}, "ap": {"mean": 0.9, "std": 0.0}}
        whole: dict[str, Any] = {
            "score": figures,
            "raw": figures,
            "teacher_raw": None,
            "per_class": {"S": 0.91, "V": 0.99, "F": 0.9, "Q": None},
            "folds": [],
            "model": {"parameters": 51_234, "multiply_adds": 412_345},
            "teacher": {"parameters": 1_908_800, "multiply_adds": 20_000_000},
        }
        (folder / f"{name}.json").write_text(json.dumps(whole))
    sizes = [
        {
            "name": f"w{2**k}",
            "parameters": 4**k * 1000,
            "multiply_adds": 4**k * 20_000,
            "auc": 0.955 - 0.02 / 2**k,
            "ap": 0.92 - 0.03 / 2**k,
            "beats_per_second": 90_000 / 2.5**k,
        }
        for k in range(5)
    ]
    teacher = {"parameters": 1_908_800, "multiply_adds": 20_000_000, "auc": 0.9561, "ap": 0.921}
    (folder / "frontier.json").write_text(json.dumps({"sizes": sizes, "teacher": teacher}))
    variants = [
        {"name": name, "what": what, "seeds": [0, 1, 2], "auc": [auc, auc + 0.002, auc + 0.001], "ap": [0.9, 0.9, 0.9]}
        for name, what, auc in (("none", "no distillation", 0.94), ("L_KD", "logits", 0.945), ("both", "all", 0.95))
    ]
    variants.append({"name": "self", "what": "not trained yet", "seeds": [], "auc": [], "ap": []})
    (folder / "ablation.json").write_text(json.dumps({"variants": variants}))
    of_groups = {what: {"auc": 0.98765, "ap": 0.95} for what in ("nothing", "A(x)")}
    ways = dict.fromkeys(("folds", "apart", "streamed"), of_groups)
    (folder / "score-ablation.json").write_text(json.dumps({"splits": ["fold0", "fold1"], **ways}))
    found = {"inside": 0.93, "half": 0.96, "all": 0.8}
    rankings = {"error": found, "smoothed": found, "relative": found}
    row = {"beats": 2000, "span": 0.2, "rises": 0.99, **rankings}
    (folder / "explanation.json").write_text(json.dumps({"distortions": {"spike": row}, "mean": rankings}))
    kinds = np.repeat(FAILING, 3).astype(np.uint8)[:-1]  # one F fewer
    window = np.cos(np.linspace(0, 9, 320)) * np.ones((len(kinds), 1))
    np.savez(
        folder / "failures.npz",
        score=np.linspace(6, 0, len(kinds), dtype=np.float32),
        aami=kinds,
        record=np.full(len(kinds), 208, np.uint16),
        sample=np.arange(len(kinds)) * 3600,
        window=window.astype(np.float32),
        reconstruction=(0.8 * window).astype(np.float32),
    )
    return folder


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return new_card(tmp_path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return new_results(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A complete card, only to be read, and the results that it was made from."""
    folder = tmp_path_factory.mktemp("written")
    results, card = new_results(folder), new_card(folder)
    assert write(results, card) == []
    return results, card


def test_the_card_shows_the_results_and_keeps_text_written_by_hand(written: tuple[Path, Path]) -> None:
    card = written[1]
    text = card.read_text()
    assert text.count(HAND_WRITTEN) == len(SECTIONS)
    assert "| without | fold0, fold1 | patients apart | patients apart, as streamed |" in text
    assert "| A(x) | .9877 / .9500 | .9877 / .9500 | .9877 / .9500 |" in text
    for figure in (
        ".9876 ± .0012",
        "412,345",
        "| w16 |",
        "| L_KD | logits | 3 | .9460 ± .0010 |",
        "93.0",
        "without 232",
    ):
        assert figure in text
    assert "not trained yet" not in text
    shown = {line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert shown == {f"card/{path.name}" for path in (card.parent / "card").iterdir()}
    assert all((card.parent / picture).read_bytes().startswith(b"\x89PNG") for picture in shown)


def test_a_second_update_of_the_card_changes_nothing(written: tuple[Path, Path]) -> None:
    results, card = written
    first = card.read_text()
    write(results, card)
    assert card.read_text() == first


def test_a_section_without_results_names_the_command_that_makes_them(card: Path, tmp_path: Path) -> None:
    assert write(tmp_path, card) == list(SECTIONS)
    text = card.read_text()
    for _, files, command in SECTIONS.values():
        assert command in text
        assert all(file in text for file in files)


def test_a_missing_result_does_not_affect_other_sections(card: Path, results: Path) -> None:
    (results / "frontier.json").unlink()
    assert write(results, card) == ["frontier"]
    assert "![AUC of the variants]" in card.read_text()


@pytest.mark.parametrize(
    ("damaged", "content"),
    [("beatgan.npz", b""), ("beatgan.npz", b"{}"), ("beatgan.npz", b"PK\x03\x04"), ("frontier.json", b"{}")],
)
def test_a_damaged_result_is_named_and_the_card_is_not_changed(
    damaged: str, content: bytes, card: Path, results: Path
) -> None:
    before = card.read_text()
    (results / damaged).write_bytes(content)
    with pytest.raises(CardError, match=damaged):
        write(results, card)
    assert card.read_text() == before


def test_a_card_without_the_markers_of_a_section_is_refused(card: Path, results: Path) -> None:
    card.write_text(card.read_text().replace("<!-- /frontier -->", ""))
    with pytest.raises(CardError, match="frontier"):
        write(results, card)


def test_a_missing_card_is_refused(tmp_path: Path, results: Path) -> None:
    with pytest.raises(CardError, match=r"nowhere\.md"):
        write(results, tmp_path / "nowhere.md")


def test_the_worst_cases_are_normal_beats_with_high_scores_and_abnormal_beats_with_low_scores() -> None:
    aami = np.array([0, 0, 0, 2, 2, 1, 4], np.uint8)
    score = np.array([1, 4, 3, 2, 0, 5, 0], np.float32)
    assert worst(score, aami, cases=2).tolist() == [1, 2, 5, 4, 3]


def test_failure_cases_have_the_input_and_output_of_the_generator(mitdb: Path, tmp_path: Path) -> None:
    dataset = prepare(mitdb, tmp_path, records=("208",))
    score = np.arange(len(dataset.beats), dtype=np.float32)
    cases = failure_cases(Scorer(), dataset, dataset.beats, score)
    assert dataset.beats.dtype == BEAT
    assert cases["window"].shape == cases["reconstruction"].shape == (len(cases["score"]), 320)
    assert np.abs(cases["window"]).max() == pytest.approx(1)
    assert np.square(cases["window"] - cases["reconstruction"]).mean() < 0.1
