"""What counts as growth in a soak."""

from collections.abc import Callable

import pytest

from scenarios.soak import Sample, growth


def samples(
    kind: str = "SenderFunction",
    memory: Callable[[int], float] = lambda _: 80.0,
    sockets: Callable[[int], int] = lambda _: 10,
    files: Callable[[int], int] = lambda _: 20,
    number: Callable[[int], int] = lambda _: 1,
) -> list[Sample]:
    return [
        Sample(kind, i * 10.0, number(i), memory(i) * number(i), sockets(i), files(i))
        for i in range(30)
    ]


def test_what_stays_flat_is_no_growth() -> None:
    assert growth(samples()) == []


def test_warming_up_is_no_growth() -> None:
    assert growth(samples(sockets=lambda i: min(10 + 5 * i, 50))) == []


def test_more_processes_are_no_growth() -> None:
    assert growth(samples(number=lambda i: 1 + i // 10)) == []


@pytest.mark.parametrize(
    ("grown", "says"),
    [
        (samples(memory=lambda i: 80.0 + i), "memory grew"),
        (samples(sockets=lambda i: 10 + i), "sockets grew"),
        (samples(files=lambda i: 20 + i), "files grew"),
        (samples(kind="ministack", files=lambda i: 20 + i), "files grew"),
    ],
)
def test_what_grows_is_found(grown: list[Sample], says: str) -> None:
    [found] = growth(grown)

    assert says in found


def test_the_memory_of_what_keeps_everything_is_not_judged() -> None:
    assert growth(samples(kind="ministack", memory=lambda i: 80.0 + i)) == []


def test_the_other_ends_of_the_functions_sockets_are_not_judged() -> None:
    assert growth(samples(kind="ministack", sockets=lambda i: 10 + i)) == []
