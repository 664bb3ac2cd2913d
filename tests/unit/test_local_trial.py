"""What a first look at the stack offers."""

from local import trial


def test_the_guide_has_a_line_to_paste_even_without_the_sandbox() -> None:
    guide = trial.guide({"apiUrl": "http://127.0.0.1:1/v1", "apiKey": "key", "sandboxUrl": ""})

    assert "curl -sS http://127.0.0.1:1/v1/messages -H 'x-api-key: key'" in guide
    assert "inbox" not in guide
