"""The local stack's settings, what it tells SAM and MiniStack, and what it refuses."""

import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samcli.cli.types import CfnParameterOverridesType

from local import processes, stack
from local.stack import Settings, Stack, StackError, override, parse_parameters


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            "PORT": "1",
            "SANDBOX_PORT": "2",
            "PROVIDER_BASE_URL": "http://127.0.0.1:9999/v1/telegram/bot",
            "TEMPLATE_PARAMETERS": "MessagesPerSecond=100 ScheduleMessage='{\"message\": {}}'",
        }
    )

    assert settings == Settings(
        port=1,
        sandbox_port=2,
        provider_base_url="http://127.0.0.1:9999/v1/telegram/bot",
        parameters={"MessagesPerSecond": "100", "ScheduleMessage": '{"message": {}}'},
    )


def test_empty_settings_are_the_defaults() -> None:
    # make exports its variables whether or not they hold anything
    empty = dict.fromkeys(("PORT", "SANDBOX_PORT", "PROVIDER_BASE_URL", "TEMPLATE_PARAMETERS"), "")

    assert Settings.from_environment(empty) == Settings.from_environment({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "PORT must be a port number from 1 to 65535, not 'http'"),
        ("SANDBOX_PORT", "65536", "SANDBOX_PORT must be a port number"),
        ("PORT", "-1", "PORT must be a port number"),
        ("TEMPLATE_PARAMETERS", "RetryWindow", "'RetryWindow' is not of the form Name=value"),
        ("TEMPLATE_PARAMETERS", "=60", "not of the form Name=value"),
        ("TEMPLATE_PARAMETERS", "ScheduleMessage='{", "TEMPLATE_PARAMETERS: No closing quotation"),
    ],
)
def test_a_wrong_setting_names_itself(name: str, value: str, words: str) -> None:
    with pytest.raises(StackError) as error:
        Settings.from_environment({name: value})

    assert words in str(error.value)


def test_parameters_may_hold_spaces_and_equals_signs() -> None:
    assert parse_parameters("""A=1 B="rate(1 minute)" C=x=y D=''""") == {
        "A": "1",
        "B": "rate(1 minute)",
        "C": "x=y",
        "D": "",
    }


@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Cc"])))
@example("it\\'s")
@example('"\\"')
@example("\\ ")
@example("x\\")
@example('{"message": {"text": "Say \\u0022hi\\u0022\\n\\ud83d\\udc4b"}}')
def test_sam_reads_a_parameter_as_it_was_meant_or_never_sees_it(value: str) -> None:
    try:
        written = override("Name", value)
    except StackError:
        assert "\\" in value
        return

    assert CfnParameterOverridesType().convert((written,), None, None) == {"Name": value}


def test_a_parameter_that_sam_would_read_otherwise_is_refused_with_a_way_out() -> None:
    with pytest.raises(StackError, match=r"^ScheduleMessage: .* write a quote as .u0022"):
        override("ScheduleMessage", r'{"message": {"text": "Say \"hi\""}}')


def test_a_taken_port_is_named_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(home=tmp_path, port=processes.free_port(), sandbox_port=port)

        with pytest.raises(StackError) as error:
            Stack(settings, say=lambda _: None).up()

    assert f"Another program is using port {port}" in str(error.value)
    assert "such as SANDBOX_PORT=" in str(error.value)
    assert not processes.marked(f"{tmp_path}#")


def test_a_server_that_cannot_start_is_shown_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    monkeypatch.setattr(Stack, "_sam", lambda *_: None)  # what fails is what starts beside it
    settings = Settings(
        home=tmp_path, port=processes.free_port(), sandbox_port=processes.free_port()
    )

    with pytest.raises(StackError) as error:
        Stack(settings, say=lambda _: None).up()

    assert "ministack exited while starting" in str(error.value)
    assert str(tmp_path / "ministack.log") in str(error.value)
    assert not list(tmp_path.glob("tmp/*"))


@pytest.mark.parametrize("end", [KeyboardInterrupt, BrokenPipeError])
def test_a_run_stops_its_stack_even_if_nobody_reads_its_output_any_more(
    monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    stopped = []

    class Running(Stack):
        def up(self) -> dict[str, str]:
            return {"sandboxUrl": "", "apiUrl": "", "apiKey": ""}

        def stop(self) -> None:
            stopped.append(self)

    def follow(*_: object, **__: object) -> None:
        monkeypatch.setattr("builtins.print", broken)
        raise end

    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(stack, "Stack", Running)
    monkeypatch.setattr("local.live_logs.follow", follow)

    with pytest.raises(BrokenPipeError):
        stack._run(Settings(), raw=False)

    assert len(stopped) == 1


def test_stopping_leaves_the_stack_that_took_its_place(tmp_path: Path) -> None:
    replaced = Stack(Settings(home=tmp_path))
    (tmp_path / "stack.json").write_text("the other one's")

    replaced.stop()

    assert (tmp_path / "stack.json").read_text() == "the other one's"


def test_ministack_inherits_nothing_of_the_developers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "my-company")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")

    environment = Stack(Settings(home=tmp_path))._ministack_environment()

    assert not environment.keys() & {"AWS_PROFILE", "HTTPS_PROXY"}
    assert environment["BIND_HOST"] == "127.0.0.1"
    assert environment["AUTH"] == "true"


def test_sam_is_not_handed_the_outer_makes_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # make PYTHON=… up would otherwise build the layer for that Python
    monkeypatch.setenv("MAKEFLAGS", "-- PYTHON=/usr/bin/python3.99")
    monkeypatch.setenv("PYTHON", "/usr/bin/python3.99")

    environment = Stack(Settings(home=tmp_path))._sam_environment()

    assert "MAKEFLAGS" not in environment
    assert environment["PYTHON"] == sys.executable
    assert environment["LAYER_TARGET"] == "local"


def test_the_developers_aws_set_up_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"AWS_PROFILE": "my-company", "PATH": "/bin"})

    stack.forget_accounts()

    assert os.environ == {
        "PATH": "/bin",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
