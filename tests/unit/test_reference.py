"""The pages of docs/ say what the template, the lock and the code say."""

import re

from local.sandbox.faults import KINDS, OPTIONS
from tools import reference
from tools.translated import template


def test_the_configuration_page_has_the_templates_parameters() -> None:
    page = reference.CONFIGURATION.read_text("utf-8")

    assert reference.configuration(page) == page, "run `make reference`"
    assert all(f"| `{name}` |" in page for name in template()["Parameters"])


def test_the_sandbox_page_has_the_codes_faults_and_options() -> None:
    page = reference.SANDBOX.read_text("utf-8")

    assert reference.sandbox(page) == page, "run `make reference`"
    assert all(f"| `{name}` |" in page for name in (*KINDS, *OPTIONS))


def test_every_shipped_package_has_a_licence_on_the_list() -> None:
    page = reference.LICENCES.read_text("utf-8")

    assert reference.licences() == page, "run `make reference`"
    assert "unknown" not in page


def test_the_runbook_has_a_section_for_each_alarm() -> None:
    runbook = (reference.ROOT / "docs" / "operations.md").read_text("utf-8")

    for name, resource in template()["Resources"].items():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            section = runbook.partition(f"\n### {name}\n")[2].partition("\n#")[0]
            for part in ("**Means:**", "**Look at:**", "**Do:**"):
                assert part in section, f"{name}: {part}"


def test_every_make_target_that_the_documents_name_exists() -> None:
    makefile = (reference.ROOT / "Makefile").read_text("utf-8")
    for page in (reference.ROOT / "docs").glob("*.md"):
        for target in re.findall(r"`make (?:-\S+ )*([a-z-]+)", page.read_text("utf-8")):
            assert f"\n{target}:" in makefile, f"{page.name}: make {target}"
