"""The registry of models: names, digests, promotions and rollbacks in a folder."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgmon.models.weights.checkpoint import CheckpointError, default_weights, read_info, shipped
from ecgmon.models.weights.registry import SHIPPED, Change, Registry, RegistryError

if TYPE_CHECKING:
    from pathlib import Path

WHEN = "2026-01-02T03:04:05+00:00"
NAMES = ("fold0", "fold1", "ds1")
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "fingerprint", "action", "when", "by", "before", "after"]), inner)
    ),
    max_leaves=8,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with three models."""
    found = Registry(tmp_path / "models")
    for name in NAMES:
        found.add(shipped(name), name, when=WHEN, by="anna")
    return found


def promote(registry: Registry, name: str) -> Change:
    return registry.promote(registry.find(name), when=WHEN, by="anna")


def test_a_registry_that_does_not_exist_has_the_shipped_model_and_makes_no_folder(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    assert [model.name for model in registry.models()] == [SHIPPED]
    assert registry.deployed().name == SHIPPED
    assert registry.path(registry.deployed()) == default_weights()
    assert not list(tmp_path.iterdir())


def test_an_added_model_is_a_copy_named_by_its_fingerprint(registry: Registry) -> None:
    model = registry.find("fold0")
    assert model.fingerprint == read_info(shipped("fold0")).fingerprint
    assert (model.added, model.by, model.origin) == (WHEN, "anna", str(shipped("fold0")))
    path = registry.path(model)
    assert path.name == f"{model.fingerprint}.safetensors"
    assert path.read_bytes() == shipped("fold0").read_bytes()
    assert {file.suffix for file in registry.folder.iterdir()} == {".safetensors", ".json", ""}  # no .part


def test_models_are_found_by_name_and_by_the_first_digits_of_the_fingerprint(registry: Registry) -> None:
    model = registry.find("ds1")
    assert registry.find(model.fingerprint) == registry.find(model.fingerprint[:6]) == model
    assert registry.checkpoint("ds1") == registry.path(model)
    assert registry.checkpoint(str(shipped("fold2"))) == shipped("fold2")
    assert registry.find(read_info(default_weights()).fingerprint[:6]).name == SHIPPED
    for text in ("nothing", model.fingerprint[:3], "ffff"):
        with pytest.raises(
            RegistryError, match=f"there is no model '{text}' in .*; expected shipped, fold0, fold1, ds1"
        ):
            registry.find(text)


def test_digits_that_several_models_have_are_refused_with_their_names(registry: Registry) -> None:
    state = json.loads((registry.folder / "registry.json").read_text())
    state["models"][1]["fingerprint"] = state["models"][0]["fingerprint"][:6] + 58 * "0"
    (registry.folder / "registry.json").write_text(json.dumps(state))
    prefix = state["models"][0]["fingerprint"][:5]
    with pytest.raises(RegistryError, match=rf"begins with {prefix}: fold0 \(.*\), fold1 \(.*\); give a name"):
        registry.find(prefix)
    assert registry.find("fold1").name == "fold1"


def test_promotions_and_rollbacks_deploy_models_and_are_remembered(registry: Registry) -> None:
    fold0, fold1 = (registry.find(name).fingerprint for name in ("fold0", "fold1"))
    assert promote(registry, "fold0") == Change("promote", WHEN, "anna", SHIPPED, fold0)
    promote(registry, "fold1")
    assert registry.deployed().name == "fold1"
    assert registry.rollback(when=WHEN, by="ben") == Change("rollback", WHEN, "ben", fold1, fold0)
    promote(registry, SHIPPED)
    again = Registry(registry.folder)
    assert again.deployed().name == SHIPPED
    for expected in ("fold0", SHIPPED):  # each goes back over one promotion
        again.rollback(when=WHEN, by="ben")
        assert again.deployed().name == expected
    with pytest.raises(RegistryError, match="nothing to go back to"):
        again.rollback(when=WHEN, by="ben")
    assert [(each.action, each.by) for each in again.history()] == [
        ("promote", "anna"), ("promote", "anna"), ("rollback", "ben"), ("promote", "anna"), ("rollback", "ben"),
        ("rollback", "ben"),
    ]  # fmt: skip
    with pytest.raises(RegistryError, match="shipped is deployed already"):
        promote(again, SHIPPED)


@pytest.mark.parametrize("contents", [b"", b"something", None])
def test_a_damaged_or_missing_checkpoint_is_refused_and_restored_by_adding_it_again(
    registry: Registry, contents: bytes | None
) -> None:
    promote(registry, "fold0")
    path = registry.path(registry.find("fold0"))
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    for act in (lambda: registry.path(registry.deployed()), lambda: promote(registry, "fold0")):
        with pytest.raises(RegistryError, match="add it again with 'ecgmon models add FILE --name fold0'"):
            act()
    registry.add(shipped("fold0"), "fold0", when="later", by="ben")
    assert registry.path(registry.deployed()).read_bytes() == shipped("fold0").read_bytes()
    assert registry.find("fold0").by == "anna"


def test_a_checkpoint_of_another_model_in_its_place_is_refused(registry: Registry) -> None:
    registry.path(registry.find("fold0")).write_bytes(shipped("fold2").read_bytes())
    with pytest.raises(RegistryError, match="damaged or was replaced: its SHA-256 is "):
        promote(registry, "fold0")


def test_a_rollback_to_a_damaged_model_changes_nothing(registry: Registry) -> None:
    promote(registry, "fold0")
    promote(registry, "fold1")
    registry.path(registry.find("fold0")).write_bytes(b"")
    with pytest.raises(RegistryError, match="damaged"):
        registry.rollback(when=WHEN, by="anna")
    assert registry.deployed().name == "fold1"


@pytest.mark.parametrize("name", ["", "shipped", "a/b", "..", "-a", "a b", "x" * 65])
def test_a_name_that_is_not_valid_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot be named"):
        registry.add(shipped("fold2"), name, when=WHEN, by="anna")


def test_names_and_models_are_unique(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="the name fold0 belongs to"):
        registry.add(shipped("fold2"), "fold0", when=WHEN, by="anna")
    with pytest.raises(RegistryError, match="in the registry already, as fold0"):
        registry.add(shipped("fold0"), "other", when=WHEN, by="anna")
    (tmp_path / "no-checkpoint").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        registry.add(tmp_path / "no-checkpoint", "no", when=WHEN, by="anna")
    assert len(registry.models()) == 4


@pytest.mark.parametrize(
    "contents",
    [
        "", "[]", "{", '{"format": 2, "models": [], "history": []}', '{"format": 1, "models": [{}], "history": []}',
        '{"format": 1, "models": [{"name": "a", "fingerprint": "../a"}], "history": []}',
        '{"format": 1, "models": [], "history": [{"action": "promote", "when": "", "by": "", "before": "shipped", "after": "x"}]}',
        '{"format": 1, "models": [], "history": [{"action": "rollback", "when": "", "by": "", "before": "shipped", "after": "shipped"}]}',
        '{"format": 1, "models": [], "history": [{"action": 1, "when": "", "by": "", "before": "", "after": ""}]}',
    ],
)  # fmt: skip
def test_a_damaged_registry_is_named_in_one_line(tmp_path: Path, contents: str) -> None:
    (tmp_path / "registry.json").write_text(contents)
    with pytest.raises(RegistryError, match=r"registry\.json is damaged") as refused:
        Registry(tmp_path).deployed()
    assert "\n" not in str(refused.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.binary(max_size=40)
    | st.fixed_dictionaries({"format": st.just(1), "models": VALUES, "history": VALUES}).map(json.dumps).map(str.encode)
)
def test_a_registry_with_any_contents_is_read_or_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "registry.json").write_bytes(contents)
    with suppress(RegistryError):
        assert Registry(tmp_path).deployed().name == SHIPPED


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="cannot write in the registry"):
        Registry(tmp_path / "file").add(shipped("fold0"), "fold0", when=WHEN, by="anna")


def test_changes_at_the_same_time_are_all_kept(registry: Registry) -> None:
    def act() -> None:
        for name in (*NAMES, SHIPPED):
            try:
                promote(Registry(registry.folder), name)
            except RegistryError as error:
                assert "already" in str(error)  # noqa: PT017 - the other thread was faster

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = registry.history()
    assert len(history) >= len(NAMES) + 1
    assert all(one.after == other.before for one, other in pairwise(history))
