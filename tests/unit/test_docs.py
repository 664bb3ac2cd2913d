"""The pages hold together: links, names of files, versions, the two READMEs."""

import json
import math
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ops.doctor import TELEGRAM_RATE
from relay import problems
from relay.messages.pacing import MOST_HOLDS
from relay.metrics import ENDED
from smsgold import __version__
from tests.support.stub import size_of
from tools.translated import template, translated

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "benchmarks/*.md", "docs/**/*.md", ".github/**/*.md")
PAGES = sorted({page for place in PLACES for page in ROOT.glob(place)})
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
# A path in backticks that starts with one of the project's own folders.
FOLDERS = (
    "benchmarks|docs|events|functions|layers|local|ops|requirements|scenarios|tests|tools|\\.github"
)
FILE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")
PROBLEM = re.compile(r"urn:smsgold-relay:problem:([a-z-]+)")
# A row of docs/api.md's table of errors: status and type.
PROBLEM_ROW = re.compile(r"^\| (\d{3}|any other 4xx) \| `([a-z-]+)` \|", re.MULTILINE)
MERMAID = re.compile(r"(?:flowchart (?:LR|TD|TB)|sequenceDiagram|stateDiagram-v2)\n")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(text: str) -> list[str]:
    """Return the levels and words of a page's headings."""
    return re.findall(r"^#+ .+$", FENCE.sub("", text), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings."""
    words = (h.lstrip("#").strip().lower() for h in headings(page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words}


@pages
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(prose(page)):
        target = page.parent / path if path else page
        assert target.exists(), f"{path} is linked and not there"
        assert not anchor or anchor in anchors(target), f"{path}#{anchor} is no heading"


@pages
def test_the_files_it_names_are_there(page: Path) -> None:
    missing = [name for name in FILE.findall(prose(page)) if not (ROOT / name).exists()]

    assert missing == []


@pages
def test_its_fences_are_closed_and_its_diagrams_are_of_a_known_kind(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
    for language, block in FENCE.findall(text):
        if language == "mermaid":
            assert MERMAID.match(block), block
            for opening, closing in ("()", "[]", "{}"):
                assert block.count(opening) == block.count(closing), block


@pages
def test_its_commands_are_where_they_are_run(page: Path) -> None:
    """A command in any other kind of block would be one that no test runs."""
    text = page.read_text(encoding="utf-8")
    others = {language for language, _ in FENCE.findall(text)} & {"bash", "console", "shell"}

    assert others == set()
    assert not re.search(r"^    (?:aws|curl|make|python3?|sam) ", FENCE.sub("", text), re.MULTILINE)
    for language, block in FENCE.findall(text):
        assert language == "sh" or not re.match(r"(?:aws|curl|make|sam) ", block), block


@pages
def test_what_it_says_of_make_is_what_make_knows(page: Path) -> None:
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    [given_] = re.findall(r"^GIVEN := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    named = {*re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE), *re.findall("[A-Z_]+", given_)}
    for command in re.findall(r"`make ([^`]+)`", page.read_text(encoding="utf-8")):
        for word in shlex.split(command):
            name, given, _ = word.partition("=")
            assert word.startswith("-") or name in (named if given else targets), command


def test_every_page_of_docs_is_in_their_index() -> None:
    linked = {path for path, _ in LINK.findall(read("docs/README.md"))}
    there = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}

    assert there - linked == {"README.md"}


def test_the_tree_in_contributing_names_what_is_there_and_every_module_of_the_layer() -> None:
    """Paths are put together from the tree's indentation, two spaces a level."""
    [tree] = [b for _, b in FENCE.findall(read("CONTRIBUTING.md")) if "template.yaml" in b]
    parents: dict[int, Path] = {0: ROOT}
    named: set[Path] = set()
    for line in tree.splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        for name in re.findall(r"(?:[\w./<>-]+(?:/|\.\w+)(?= |$))", line.strip().split("   ")[0]):
            path = parents[level] / name
            assert list(path.parent.parent.glob("*/app.py")) if "<" in name else path.exists(), path
            parents[level + 1] = path
            named.add(path)
    layer = ROOT / "layers" / "relay"
    modules = {
        path for package in ("relay", "smsgold") for path in layer.glob(f"{package}/**/*.py")
    }
    assert [m for m in sorted(modules - named) if m.name != "__init__.py"] == []


def test_readme_says_the_same_in_both_languages() -> None:
    english, russian = read("README.md"), read("README.ru.md")

    assert FENCE.findall(russian) == FENCE.findall(english)
    levels = [[len(h.split()[0]) for h in headings(text)] for text in (english, russian)]
    assert levels[0] == levels[1]
    # The same is linked and set in code type, in whatever order a sentence puts it.
    for found in (LINK, re.compile(r"`([^`\n]+)`")):
        texts = (
            FENCE.sub("", text).replace("README.ru.md", "README.md") for text in (english, russian)
        )
        one, other = (sorted(found.findall(text)) for text in texts)
        assert one == other


def test_the_api_page_lists_every_problem_with_its_status() -> None:
    by_code = {
        (str(int(kind.status)), kind.name)
        for kind in vars(problems).values()
        if isinstance(kind, problems.Kind)
    }
    definition = template()["Resources"]["RelayApi"]["Properties"]["DefinitionBody"]
    # API Gateway gives the rest of its refusals and failures their own status.
    rest = {"DEFAULT_4XX": "any other 4xx", "DEFAULT_5XX": "500"}
    by_gateway = set()
    for name, answer in definition["x-amazon-apigateway-gateway-responses"].items():
        [kind] = PROBLEM.findall(json.dumps(answer))
        by_gateway.add((str(answer.get("statusCode") or rest[name]), kind))

    rows = PROBLEM_ROW.findall(read("docs/api.md"))
    assert set(rows) == by_code | by_gateway
    assert len(rows) == len(set(rows))


def section(page: str, heading: str) -> str:
    return read(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def resources(kind: str) -> list[dict[str, Any]]:
    found = translated()["Resources"].values()
    return [r["Properties"] for r in found if r["Type"] == kind]


def test_the_idle_stack_has_what_its_costs_are_made_of() -> None:
    text = section("docs/operations.md", "What an idle stack costs")
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    *parts, total = [[cell.strip("*") for cell in row] for row in rows[2:]]
    # Lambda's looks at a table's stream cost nothing.
    sources = sum("ScalingConfig" in s for s in resources("AWS::Lambda::EventSourceMapping"))
    [ordered] = [q for q in resources("AWS::SQS::Queue") if "FifoQueue" in q]
    assert ordered["FifoQueue"] is True
    looks = 5 * 3 * 60 * 24 * 30
    assert [int(row[1].replace(",", "")) for row in parts] == [
        (sources - 1) * looks,
        looks,
        len(resources("AWS::SecretsManager::Secret")),
        len(resources("AWS::CloudWatch::Alarm")),
    ]
    assert f"{sources - 1} event sources" in parts[0][0]
    metrics = {*ENDED.values(), "Accepted", "Attempts", "ProviderLatency", "NotSent", "Throttled"}
    metrics |= {"CredentialsRefused", "Redirects", "Events", "EventsUnreadable"}
    assert f"{len(metrics)} metrics" in text
    for row, unit in zip(parts, (1e6, 1e6, 1, 1), strict=True):
        dollars = int(row[1].replace(",", "")) / unit * float(row[2].split()[0])
        assert float(row[-1]) == pytest.approx(dollars, abs=0.005)
    assert float(total[-1]) == pytest.approx(sum(float(row[-1]) for row in parts))


def test_a_small_account_is_told_what_the_event_sources_take() -> None:
    text = section("docs/configuration.md", "A new AWS account")
    most = [
        s["ScalingConfig"]["MaximumConcurrency"] if "ScalingConfig" in s else 1
        for s in resources("AWS::Lambda::EventSourceMapping")
    ]
    assert f"up to {sum(most)} of the 10" in text
    assert f"up to {sum(most) - max(most) + 2}, and two senders" in text
    functions = resources("AWS::Lambda::Function")
    assert not [f for f in functions if "ReservedConcurrentExecutions" in f]


def test_how_far_it_goes_follows_from_the_constants() -> None:
    text = section("docs/performance.md", "How far it goes")
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    rates = [int(cell.replace(",", "")) for cell in rows[0][1:4]]
    assert rates == [100, 1_000, 10_000]
    found = {r[0]: [int(cell.replace(",", "")) for cell in r[1:4]] for r in rows[2:]}
    limits = {r[0]: r[4] for r in rows[2:]}
    source = template()["Resources"]["OrderedSource"]["Properties"]
    most, size = source["ScalingConfig"]["MaximumConcurrency"], source["BatchSize"]
    run = 0.25  # seconds; the table of memory sizes has the measured one
    [measured] = re.findall(
        r"^\| 512 MB \| \d+ ms \| (\d+) ms", read("docs/performance.md"), re.MULTILINE
    )
    assert int(measured) / 1000 == pytest.approx(run, rel=0.3)

    # A held chat's entry as pacing writes it: microseconds, and a chat's 32 characters.
    entry = {"L": [{"N": "1800000000.123456"}, {"N": "1800010072.123456"}]}
    line = {"pk": {"S": "pacing"}, "next": {"N": "1800000000.123456"}}
    holds = {f"hold#{i:032}": entry for i in range(MOST_HOLDS)}
    units = math.ceil(size_of(line | holds) / 1024)
    assert size_of({f"hold#{0:032}": entry}) <= 64

    expected = {
        "Telegram bots": [math.ceil(rate / TELEGRAM_RATE) for rate in rates],
        "runs of": [math.ceil(rate * run / size) for rate in rates],
        "requests to the API": rates,
        "seconds of an outage": [120_000 // rate for rate in rates],
        "write units of the item": [rate // size for rate in rates],
        "the same with 100 chats": [units * rate // size for rate in rates],
        "the same, each": rates,
        "write units of the table": [3 * rate for rate in rates],
        "requests that send": rates,
    }
    for (row, figures), (start, computed) in zip(found.items(), expected.items(), strict=True):
        assert row.replace("**", "").startswith(start)
        assert figures == computed, row
    [runs] = [limit for row, limit in limits.items() if "`OrderedSource`" in row]
    assert runs.startswith(f"`MaximumConcurrency`: {most}, so {most * size / run:g} messages")
    plan = template()["Resources"]["RelayApi"]["Properties"]["Auth"]["UsagePlan"]["Throttle"]
    assert f"the usage plan's {plan['RateLimit']} a second" in limits.values()
    assert f"with {MOST_HOLDS} chats held" in text


def test_the_own_keys_page_grants_what_the_stack_uses_it_for() -> None:
    """Whether it is enough only AWS can show: the local AWS asks for no key."""
    text = section("docs/configuration.md", "Your own key")
    services, deployer, sender = [json.loads(block) for _, block in FENCE.findall(text)]
    names = [s["Principal"]["Service"].split(".")[0] for s in services]
    assert names == ["cloudwatch", "events", "logs"]
    own = next(p for p in resources("AWS::IAM::Policy") if p["PolicyName"] == "own-key")
    [statement] = own["PolicyDocument"]["Statement"]
    # The roles send and receive, so they need what a sender needs, and no star.
    assert set(statement["Action"]) == set(sender["Action"])
    assert statement["Resource"] == {"Ref": "KmsKeyArn"}
    assert {"kms:CreateGrant", "kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey*"} <= set(
        deployer["Action"]
    )


def test_there_is_one_version_number() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", read("CHANGELOG.md"), re.MULTILINE)

    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == __version__
    assert json.loads(read("docs/openapi.json"))["info"]["version"] == __version__
    assert released[0] == __version__
