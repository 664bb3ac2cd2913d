"""Every mutant fits the code, so that `make mutants` breaks what it says."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_code_stands_once_in_its_file_and_its_test_exists(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.code) == 1
    assert mutant.broken != mutant.code
    assert (ROOT / mutant.test.partition("::")[0]).is_file()
