"""Configuration: its layers, problems with their places, and the documentation of every key."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgmon.monitor.cli.check_config import add_arguments, run
from ecgmon.monitor.config.documentation import reference_page
from ecgmon.monitor.config.errors import ConfigError, Problem
from ecgmon.monitor.config.keys import Key, keys, sections
from ecgmon.monitor.config.reading import Config, dump_toml, from_json, load, problems, to_json
from ecgmon.monitor.config.schema import PrioritySettings, SourceSettings
from ecgmon.monitor.config.toml import key_lines, toml_value
from ecgmon.monitor.core.alerts import AlertKind

CHECKOUT = Path(__file__).resolve().parents[3]
HOME = {"HOME": "/home/someone"}


def read(tmp_path: Path, text: str, environ: dict[str, str] = HOME, **overrides: str) -> Config:
    path = tmp_path / "ecgmon.toml"
    path.write_text(text)
    return load(path, environ=environ, overrides={key.replace("__", "."): value for key, value in overrides.items()})


def wrong(tmp_path: Path, text: str | bytes, environ: dict[str, str] = HOME, **overrides: str) -> list[Problem]:
    path = tmp_path / "ecgmon.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return problems(path, environ=environ, overrides=dotted)


def only(found: list[Problem]) -> Problem:
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


# Layers


def test_defaults_are_a_valid_configuration() -> None:
    config = load(None, environ=HOME, overrides={})
    assert config.exporter.port == 9464
    assert config.exporter.host == "127.0.0.1"  # by default, other machines cannot read the metrics
    assert config.source == ()


def test_later_layers_override_earlier_ones(tmp_path: Path) -> None:
    text = "[exporter]\nport = 1001\n[worker]\ncount = 2\n[delivery]\nbatch_beats = 8\n"
    environ = HOME | {"ECGMON_EXPORTER_PORT": "1002", "ECGMON_WORKER_COUNT": "3"}
    config = read(tmp_path, text, environ, exporter__port="1003")
    assert config.exporter.port == 1003
    assert config.worker.count == 3
    assert config.delivery.batch_beats == 8
    assert config.delivery.window_items == Config().delivery.window_items


def test_every_key_outside_sources_has_an_environment_variable() -> None:
    variables = [key.variable for key in keys().values() if key.section != "source"]
    assert all(variables)
    assert len(set(variables)) == len(variables)
    config = load(None, environ=HOME | {"ECGMON_ALERTS_PRIORITIES_NOISY": "off"}, overrides={})
    assert config.alerts.priorities.noisy == "off"


def test_other_variables_are_ignored(tmp_path: Path) -> None:
    environ = HOME | {"ECGMON_MITDB": "/data", "ECGMON_REQUIRE_ALL": "1", "PATH": "/bin"}
    assert read(tmp_path, "", environ) == load(None, environ=HOME, overrides={})


def test_sources_keep_their_order_and_settings(tmp_path: Path) -> None:
    text = '[[source]]\nrecord = "208"\nspeed = 20\nleads = ["MLII"]\n[[source]]\nrecord = "100"\nname = "bed/7"\nloop = 0\n'
    first, second = read(tmp_path, text).source
    assert first == SourceSettings(record="208", speed=20.0, leads=("MLII",))
    assert second == SourceSettings(record="100", name="bed/7", loop=0)


@pytest.mark.parametrize(
    ("environ", "runtime", "state"),
    [
        ({"RUNTIME_DIRECTORY": "/run/e", "STATE_DIRECTORY": "/var/lib/e:/var/lib/f"}, "/run/e", "/var/lib/e"),
        ({"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/s"}, "/run/user/7/ecgmon", "/s/ecgmon"),
    ],
)
def test_folders_come_from_systemd_then_from_the_session(environ: dict[str, str], runtime: str, state: str) -> None:
    config = load(None, environ=HOME | environ, overrides={})
    assert (config.runtime.dir, config.store.path) == (runtime, state)


def test_default_folders_without_systemd_or_session_are_the_users_own() -> None:
    config = load(None, environ=HOME, overrides={})
    assert config.runtime.dir.startswith("/tmp/ecgmon-")
    assert config.store.path == "/home/someone/.local/state/ecgmon"


def test_a_given_folder_overrides_systemd_and_its_tilde_is_expanded(tmp_path: Path) -> None:
    environ = HOME | {"STATE_DIRECTORY": "/var/lib/e"}
    config = read(
        tmp_path, '[store]\npath = "~/ecg"\n', environ, worker__weights="~/w.safetensors", worker__registry="~/models"
    )
    assert config.store.path == "/home/someone/ecg"
    assert config.worker.weights == "/home/someone/w.safetensors"
    assert config.worker.registry == "/home/someone/models"


def test_numbers_can_be_written_as_text() -> None:
    config = load(None, environ=HOME, overrides={"runtime.drain_seconds": "1e1", "alerts.score_threshold": "2"})
    assert config.runtime.drain_seconds == 10.0
    assert config.alerts.score_threshold == 2.0


# Problems


def test_a_wrong_key_is_reported_with_line_and_nearest_valid_key(tmp_path: Path) -> None:
    problem = only(wrong(tmp_path, "# metrics\n[exporter]\nprot = 9465\n"))
    assert (problem.line, problem.key, problem.value, problem.nearest) == (3, "exporter.prot", "9465", "exporter.port")
    assert str(problem).endswith(
        "ecgmon.toml:3: exporter.prot = 9465: there is no such key; did you mean exporter.port?"
    )


def test_a_key_in_the_wrong_section_is_reported_with_the_right_one(tmp_path: Path) -> None:
    assert only(wrong(tmp_path, "[log]\nport = 9465\n")).nearest == "exporter.port"
    assert only(wrong(tmp_path, "port = 9465\n")).nearest == "exporter.port"


def test_a_quoted_name_with_a_dot_is_not_a_key(tmp_path: Path) -> None:
    assert only(wrong(tmp_path, '"exporter.port" = 1\n')).line == 1


def test_a_wrong_section_is_reported(tmp_path: Path) -> None:
    problem = only(wrong(tmp_path, "\n[exportr]\nport = 1\n"))
    assert (problem.line, problem.key, problem.nearest) == (2, "exportr", "exporter")
    assert "no such section" in problem.message


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('[exporter]\nport = "9464"\n', "exporter.port", "a whole number from 0 to 65535"),
        ("[exporter]\nport = 65536\n", "exporter.port", "a whole number from 0 to 65535"),
        ("[exporter]\nport = 9464.5\n", "exporter.port", "a whole number"),
        ("[exporter]\nport = true\n", "exporter.port", "a whole number"),
        ("[exporter]\nhost = 1\n", "exporter.host", "text in quotes"),
        ('[exporter]\nhost = ""\n', "exporter.host", "not empty"),
        ('[worker]\ndevice = "gpu"\n', "worker.device", '"auto", "cpu" or "cuda"'),
        ("[delivery]\nlease_seconds = 0\n", "delivery.lease_seconds", "greater than 0"),
        ("[alerts]\nscore_threshold = nan\n", "alerts.score_threshold", "a number"),
        ("[alerts]\nscore_threshold = inf\n", "alerts.score_threshold", "a number"),
        ("[producer]\nchunk_seconds = -0.1\n", "producer.chunk_seconds", "in s"),
        ('[[source]]\nrecord = "1"\nleads = "II"\n', "source.leads", "a list of texts"),
        ('[[source]]\nrecord = "1"\nname = "../x"\n', "source.name", "letters"),
        ("[log]\nlevel = 2024-01-01\n", "log.level", '"info"'),
    ],
)
def test_a_wrong_value_is_reported_with_the_expected_one(tmp_path: Path, text: str, key: str, expected: str) -> None:
    problem = only(wrong(tmp_path, text))
    assert problem.key == key
    assert problem.line == text.count("\n")
    assert expected in problem.message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[alerts]\nepisode_beats_k = 11\n", "alerts.episode_beats_k"),
        ("[alerts]\nepisode_clear_beats = 3\n", "alerts.episode_clear_beats"),
        ("[alerts]\nbradycardia_per_minute = 45\n", "alerts.bradycardia_clear_per_minute"),
        ("[alerts]\ntachycardia_clear_per_minute = 140\n", "alerts.tachycardia_clear_per_minute"),
        ("[alerts]\nasystole_seconds = 11\n", "alerts.asystole_first_seconds"),
        ("[alerts]\ntechnical_window_seconds = 2\n", "alerts.technical_seconds"),
        ("[alerts]\nnoisy_seconds = 16\n", "alerts.noisy_seconds"),
        ("[delivery]\ndead_after_seconds = 1\n", "delivery.dead_after_seconds"),
        ("[delivery]\nqueue_items = 63\n", "delivery.batch_beats"),
        ('[[source]]\nrecord = "1"\nstart = 5\nstop = 5\n', "source.stop"),
    ],
)
def test_values_that_contradict_each_other_are_refused(tmp_path: Path, text: str, key: str) -> None:
    problem = only(wrong(tmp_path, text))
    assert problem.key == key
    assert problem.line is not None


def test_two_streams_cannot_have_the_same_id(tmp_path: Path) -> None:
    text = '[[source]]\nrecord = "1"\nname = "a"\n[[source]]\nrecord = "2"\nname = "a"\n'
    problem = only(wrong(tmp_path, text))
    assert (problem.line, problem.key) == (6, "source.name")
    assert "line 3" in problem.message


def test_a_source_without_a_record_is_reported_at_its_header(tmp_path: Path) -> None:
    problem = only(wrong(tmp_path, '[[source]]\nrecord = "1"\n[[source]]\nspeed = 1.0\n'))
    assert (problem.line, problem.key) == (3, "source.record")


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("exporter = 3\n", 1, "[exporter]"),
        ("[[exporter]]\nport = 1\n", 1, "[exporter]"),
        ('[source]\nrecord = "1"\n', 1, "[[source]]"),
        ('source = ["208"]\n', 1, "[[source]]"),
    ],
)
def test_a_section_in_the_wrong_form_is_reported_with_the_right_form(
    tmp_path: Path, text: str, line: int, hint: str
) -> None:
    problem = only(wrong(tmp_path, text))
    assert problem.line == line
    assert hint in problem.message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[exporter]\nport = 1\n\nport = 2\n", "exporter.port"),
        ("[log]\n[exporter]\nport = 1\n[exporter]\n", "exporter"),
        ('exporter.port = 1\n\n\n"exporter".port = 2', "exporter.port"),
    ],
)
def test_a_key_or_section_given_twice_is_reported_with_both_lines(tmp_path: Path, text: str, key: str) -> None:
    problem = only(wrong(tmp_path, text))
    assert (problem.line, problem.key) == (4, key)
    assert "first on line" in problem.message


@pytest.mark.parametrize(("text", "line"), [("[log]\nlevel = \n", 2), ("[log]\nlevel = [1,\n\n", 3), ("a\n", 1)])
def test_a_syntax_error_is_reported_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    problem = only(wrong(tmp_path, text))
    assert problem.line == line
    assert problem.message.startswith("not TOML")


def test_a_file_that_is_not_utf_8_is_reported_with_its_line(tmp_path: Path) -> None:
    problem = only(wrong(tmp_path, b"[log]\n# \xe9\n"))
    assert problem.line == 2
    assert "UTF-8" in problem.message


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert wrong(tmp_path, b"\xef\xbb\xbf[log]\r\nlevel = 'debug'\r\n") == []


def test_a_missing_file_and_a_folder_have_different_messages(tmp_path: Path) -> None:
    missing = only(problems(tmp_path / "no.toml", environ=HOME, overrides={}))
    folder = only(problems(tmp_path, environ=HOME, overrides={}))
    assert "no such file" in missing.message
    assert "folder" in folder.message


def test_an_unknown_variable_is_reported_with_the_nearest_one() -> None:
    problem = only(problems(None, environ=HOME | {"ECGMON_EXPORTER_PROT": "1"}, overrides={}))
    assert "ECGMON_EXPORTER_PROT" in problem.where
    assert problem.nearest == "ECGMON_EXPORTER_PORT"


def test_a_wrong_value_in_the_environment_is_reported_with_its_variable() -> None:
    problem = only(problems(None, environ=HOME | {"ECGMON_EXPORTER_PORT": "web"}, overrides={}))
    assert "ECGMON_EXPORTER_PORT" in problem.where
    assert problem.value == '"web"'


def test_a_flag_for_an_unknown_key_or_a_source_is_reported() -> None:
    unknown = only(problems(None, environ=HOME, overrides={"exporter.prot": "1"}))
    source = only(problems(None, environ=HOME, overrides={"source.record": "208"}))
    assert unknown.nearest == "exporter.port"
    assert "[[source]]" in source.message


def test_all_problems_of_all_layers_are_reported_at_once(tmp_path: Path) -> None:
    text = '[exporter]\nport = -1\nprot = 2\n[[source]]\nspeed = "fast"\n'
    found = wrong(tmp_path, text, HOME | {"ECGMON_LOG_LEVEL": "loud"}, worker__count="0")
    assert {problem.key for problem in found} == {
        "exporter.port",
        "exporter.prot",
        "source.speed",
        "source.record",
        "log.level",
        "worker.count",
    }
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert len(error.value.problems) == 4
    assert len(str(error.value).splitlines()) == 4


def test_lines_are_right_with_comments_long_texts_and_inline_tables(tmp_path: Path) -> None:
    text = '# port = 1\n[log]\nlevel = """\nport = 2"""\n[exporter] # port = 3\n"port" = -1\n'
    assert {problem.key: problem.line for problem in wrong(tmp_path, text)} == {"log.level": 3, "exporter.port": 6}
    assert only(wrong(tmp_path, "\nexporter = { port = -1 }\n")).line == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=80), st.text(alphabet="[]{}=\"'.\n#, aelrst01-_", max_size=80).map(str.encode))
)
def test_any_file_gives_a_configuration_or_a_list_of_problems(tmp_path: Path, data: bytes) -> None:
    for problem in wrong(tmp_path, data):
        assert str(problem)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "[exporter]\nport = " + "9" * 400])
def test_extreme_values_are_problems_and_not_crashes(tmp_path: Path, text: str) -> None:
    assert len(str(only(wrong(tmp_path, text)))) < 500


# Writing


def values_of(key: Key) -> Any:
    """Return a strategy for the values of a key."""
    info: Any = msgspec.inspect.type_info(key.annotation)
    info = info.type  # without the metadata around it
    default: Any = key.default
    if isinstance(info, msgspec.inspect.LiteralType):
        return st.sampled_from(info.values)
    if isinstance(info, (msgspec.inspect.IntType, msgspec.inspect.FloatType)):
        return st.just(default) | st.just(default + 1) if not info.le else st.just(default)
    if isinstance(info, msgspec.inspect.VarTupleType):
        return st.lists(st.text(), max_size=3)
    if isinstance(info, msgspec.inspect.BoolType):
        return st.booleans()
    if info.pattern:
        candidates = ("a/b", "tcp://[::1]:5570", "k" * 40)
        return st.sampled_from([text for text in candidates if re.search(info.pattern, text)])
    return st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1)


@given(st.data())
def test_a_written_configuration_reads_back_unchanged(data: st.DataObject) -> None:
    tree: dict[str, Any] = {}
    for key in keys().values():
        if key.section not in ("source", "alerts", "alerts.priorities"):
            tree.setdefault(key.section, {})[key.name] = data.draw(values_of(key))
    record = st.fixed_dictionaries(
        {key.name: values_of(key) for key in keys().values() if key.section == "source" and key.name != "record"}
    )
    tree["source"] = [{"record": "r", **data.draw(record)}]
    config = msgspec.convert(tree, Config)
    for documented in (True, False):
        text = dump_toml(config, documented=documented)
        assert msgspec.convert(tomllib.loads(text), Config) == config
    assert from_json(to_json(config)) == config


def test_the_printed_configuration_can_be_loaded_as_a_file(tmp_path: Path) -> None:
    config = load(None, environ=HOME, overrides={"exporter.port": "1"})
    assert read(tmp_path, dump_toml(config)) == config
    assert read(tmp_path, dump_toml(config, documented=False)) == config


def test_the_printed_configuration_explains_every_key() -> None:
    text = dump_toml(msgspec.structs.replace(Config(), source=(SourceSettings(record="208"),)))
    for key in keys().values():
        assert f"\n{key.name} = " in text
    words = " ".join(text.replace("#", " ").split())
    assert [key.dotted for key in keys().values() if key.description.removesuffix(".") not in words] == []


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_any_text_can_be_written(text: str) -> None:
    assert tomllib.loads(f"a = {toml_value(text)}")["a"] == text


def test_a_child_refuses_a_configuration_of_another_version() -> None:
    tree = json.loads(to_json(Config()))
    tree["exporter"]["colour"] = "red"
    for data in (json.dumps(tree).encode(), b"", b"\xff", b'{"exporter": {"port": -1}}'):
        with pytest.raises(ConfigError, match="expected the configuration"):
            from_json(data)


# Documentation


def test_every_key_has_one_line_of_documentation_and_a_default() -> None:
    for key in keys().values():
        assert key.description.endswith("."), key.dotted
        assert "\n" not in key.description
        assert key.expected, key.dotted
        assert key.default is not msgspec.NODEFAULT or key.dotted == "source.record"


def test_every_duration_and_rate_has_its_unit() -> None:
    for key in keys().values():
        if key.name.endswith("_seconds"):
            assert key.unit == "s", key.dotted
        if key.name.endswith("_per_minute"):
            assert key.unit == "1/min", key.dotted
        if "_beats" in key.name:
            assert key.unit in ("beats", "items"), key.dotted


def test_the_reference_page_matches_the_schema() -> None:
    page = (CHECKOUT / "docs" / "configuration.md").read_text()
    assert page == reference_page(), "run `ecgmon check-config --reference > docs/configuration.md`"


def test_every_kind_of_alert_has_a_priority_key() -> None:
    assert set(PrioritySettings.__struct_fields__) == {kind.value for kind in AlertKind}


def test_all_sections_of_the_schema_are_sections_of_the_file() -> None:
    names = set(itertools.chain(Config.__struct_fields__, ["alerts.priorities"]))
    assert set(sections()) == names


def test_all_lines_of_duplicate_keys_are_found() -> None:
    assert key_lines("a = 1\n[b]\nc.d = 1\n[[e]]\nf = 1\n[[e]]\nf = 2\na = 1\n") == {
        "a": [1], "b": [2], "b.c.d": [3], "e.0": [4], "e.0.f": [5], "e.1": [6], "e.1.f": [7], "e.1.a": [8],
    }  # fmt: skip


def test_reading_the_configuration_imports_no_large_package() -> None:
    script = (
        "import sys, ecgmon.monitor.cli.check_config; "
        "print({'torch', 'numpy', 'rich', 'scipy', 'zmq', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# The command


def check_config(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(argv))


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in keys().values():
        monkeypatch.delenv(key.variable, raising=False)


@pytest.mark.usefixtures("clean")
def test_check_config_prints_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.toml"
    path.write_text("[exporter]\nport = 1\n")
    assert check_config("--config", str(path)) == 0
    assert capsys.readouterr().out.startswith("OK")


@pytest.mark.usefixtures("clean")
def test_check_config_prints_problems_to_standard_error_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.toml"
    path.write_text("[exporter]\nprot = 1\n")
    assert check_config("--config", str(path), "--set", "worker.count=0") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}:2: exporter.prot" in err
    assert "worker.count" in err


@pytest.mark.usefixtures("clean")
def test_check_config_prints_a_file_that_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_config("--print", "--set", "exporter.port=7") == 0
    path = tmp_path / "e.toml"
    path.write_text(capsys.readouterr().out)
    assert load(path, environ=HOME, overrides={}).exporter.port == 7


@pytest.mark.usefixtures("clean")
def test_check_config_prints_one_json_object_with_or_without_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_config("--json", "--set", "exporter.port=7") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    assert answer["config"]["exporter"]["port"] == 7
    assert check_config("--json", "--set", "exporter.port=x") == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert answer["problems"][0]["key"] == "exporter.port"


def test_a_flag_without_a_value_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        check_config("--set", "exporter.port")
    assert error.value.code == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('host = "0.0.0.0"', "exporter.host"),
        ('host = "::"\ntls_certificate = "c"\ntls_key = "k"', "exporter.host"),
        ('host = "monitor.example"\nuser = "u"\npassword_file = "p"', "exporter.host"),
        ('tls_certificate = "c"', "exporter.tls_certificate"),
        ('tls_key = "k"', "exporter.tls_certificate"),
        ('user = "u"', "exporter.user"),
        ('password_file = "p"', "exporter.user"),
        ('user = "a:b"\npassword_file = "p"', "exporter.user"),
    ],
)
def test_incomplete_access_settings_are_refused(tmp_path: Path, text: str, key: str) -> None:
    assert only(wrong(tmp_path, f"[exporter]\n{text}\n")).key == key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_metrics_on_this_machine_need_no_access_settings(tmp_path: Path, host: str) -> None:
    assert wrong(tmp_path, f'[exporter]\nhost = "{host}"\n') == []


def test_metrics_for_other_hosts_are_served_with_tls_and_a_password(tmp_path: Path) -> None:
    text = '[exporter]\nhost = "0.0.0.0"\ntls_certificate = "~/c"\ntls_key = "k"\nuser = "u"\npassword_file = "~/p"\n'
    assert wrong(tmp_path, text) == []
    assert read(tmp_path, text).exporter.password_file.endswith("/p")
    assert "~" not in read(tmp_path, text).exporter.tls_certificate
