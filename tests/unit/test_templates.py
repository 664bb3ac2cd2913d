"""The template language: what expressions find, and what becomes of what is missing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.templates import Expression, Payload, Template, TemplateError, cut

DATA = {
    "name": "shop",
    "count": 3,
    "ratio": 0.5,
    "on": True,
    "nothing": None,
    "empty": "",
    "words": ["one", None, "two"],
    "people": [{"name": "Анна", "age": 30}, {"name": "Olivia"}],
    "nested": {"a": {"b": 1}},
    "message": "first\nsecond\n",
    "amount": 2499,
}


def render(source: str, data: object = None, **headers: str) -> str:
    return Template(source).render(Payload(DATA if data is None else data, headers))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{name}}", "shop"),
        ("{{ name }} and {{ count }}", "shop and 3"),
        ("{{ ratio }} {{ on }}", "0.5 true"),
        ("{{ nowhere || 'a default' }}", "a default"),
        ("{{ empty || nothing || name }}", "shop"),
        ("[{{ nowhere }}]", "[]"),
        ("{{ words }}", "one\ntwo"),
        ("{{ join(', ', people[].name) }}", "Анна, Olivia"),
        ("{{ people[].text('• ', name, ' ', age) }}", "• Анна 30\n• Olivia"),
        ("{{ nested }}", '{"a":{"b":1}}'),
        ("{{ nested.a | {c: b} }}", '{"c":1}'),
        ("{{ on && 'yes' || 'no' }} {{ count == `4` && 'yes' || 'no' }}", "yes no"),
        ("{{ message }}|", "first second|"),
        ("{{ lines(message) }}|", "first\nsecond\n|"),
        ("{{ lines(nowhere || message) }}", "first\nsecond"),
        ("{{ text('• ', message) }} {{ count }}", "• first second 3"),
        ("{{ people[].text(name, message || '\n') }}", "Анна\nOlivia"),
        ("{{ [message, lines(message), name] }}", "first second\nfirst\nsecond\n\nshop"),
        ("{{ first_line(message) }}", "first"),
        ("{{ first_line(nothing) }}|", "|"),
        ("{{ cut(message, `4`) }}", "fir…"),
        ("{{ decimal(amount, `2`) }}", "24.99"),
        ("{{ decimal(amount, `0`) }} {{ decimal(name, `2`) }}|", "2499 |"),
        ("https://x/?q={{ urlencode(message) }}", "https://x/?q=first%0Asecond%0A"),
        ("{{ header('X-Kind') }} {{ header('x-none') }}|", "push |"),
        ("a\n{{ nowhere }}\nb", "a\nb"),
        ("a\n  {{ nowhere }} {{ empty }}\nb", "a\nb"),
        ("a\n\n{{ name }}\n", "a\n\nshop"),
        ("{{ nowhere }}", ""),
        ("{single} braces stay", "{single} braces stay"),
    ],
)
def test_templates_render(source: str, text: str) -> None:
    assert render(source, **{"x-kind": "push"}) == text


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_a_value_adds_no_line(line_break: str) -> None:
    assert render("{{ a }}|", {"a": f" x {line_break}{line_break} y{line_break}"}) == "x y|"
    assert render("{{ a }}|", {"a": line_break}) == "|"
    assert render("{{ a }}|", {"a": "  x  y "}) == "  x  y |".lstrip()


@pytest.mark.parametrize("data", [[], 3, "text", False, [{"name": "x"}], {"name": {"deep": []}}])
def test_a_payload_of_another_shape_renders_the_default(data: object) -> None:
    assert render("{{ a.b[0].c || 'none' }}", data) == "none"


@pytest.mark.parametrize(
    "source",
    [
        "{{ }}",
        "{{ a. }}",
        "{{ a",
        "a }}",
        "{{ {{ a }} }}",
        "{{ unknown(a) }}",
        "{{ people[].text(unknown(name)) }}",
        "{{ a 'b' }}",
        "{{ a[?b=='c' }}",
    ],
)
def test_an_invalid_template_is_refused_when_compiled(source: str) -> None:
    with pytest.raises(TemplateError):
        Template(source)


@pytest.mark.parametrize(
    "source",
    ["{{ join(', ', nowhere) }}", "{{ length(count) }}", "{{ cut(name) }}", "{{ words[::0] }}"],
)
def test_a_failing_expression_names_itself(source: str) -> None:
    with pytest.raises(TemplateError, match=source[3:6]):
        render(source)


def test_truth_is_jmespaths() -> None:
    holds = {
        expression: Expression(expression).holds(Payload(DATA, {}))
        for expression in (
            "on",
            "count == `3`",
            "`0`",
            "name",
            "empty",
            "nothing",
            "`[]`",
            "`{}`",
            "!on",
        )
    }
    assert [name for name, true in holds.items() if true] == ["on", "count == `3`", "`0`", "name"]


def test_rendered_text_holds_only_what_a_queue_can_carry() -> None:
    text = render("{{ a }}", {"a": "x\0y\ud800z\U0001f600"})
    assert text == "xy\ufffdz\U0001f600"
    text.encode()
    assert Expression("a").text(Payload({"a": "x\0y"}, {})) == "xy"


@given(st.text(max_size=40), st.integers(1, 20))
def test_a_cut_text_fits_and_keeps_its_beginning(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= limit
    if short != text:
        assert len(text) > limit
        assert short.endswith("…")
        assert text.startswith(short[:-1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from("abc")
TERMS: st.SearchStrategy[str] = st.recursive(
    NAMES | st.sampled_from(["`1`", "'x'", "@"]),
    lambda inner: st.one_of(
        st.tuples(inner, NAMES).map(".".join),
        inner.map("{}[0]".format),
        inner.map("{}[]".format),
        inner.map("length({})".format),
        inner.map("text({0}, {0})".format),
        inner.map("first_line({})".format),
        inner.map("decimal({}, `2`)".format),
        inner.map("sum({})".format),
        inner.map("header({})".format),
        inner.map("keys({})".format),
        st.tuples(inner, inner).map(" || ".join).map("({})".format),
        st.tuples(inner, inner).map(" < ".join).map("({})".format),
    ),
    max_leaves=5,
)


@given(data=JSON, source=TERMS)
def test_any_payload_renders_or_raises_a_template_error(data: Any, source: str) -> None:
    try:
        text = Template("{{ " + source + " }}").render(Payload(data, {}))
    except TemplateError:
        return
    text.encode()
