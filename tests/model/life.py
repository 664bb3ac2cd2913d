"""The life of one message: every step that runs, callers, persons, queues and time may take next.

A run follows the sender: load and decide, claim, POST, settle, put the letter on its queue, mark
the record, take the copy off its queue; it may stop for ever between any two of them. A write may
be answered, lost, made without an answer, or made late. Copies lie ready at any time: how long a
queue hides one decides nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum, auto
from operator import eq
from typing import NamedTuple

from relay.messages.states import REDRIVABLE, TERMINAL, DeadLetter, State
from tests.model.promises import counted, decided, judged, timely
from tests.model.records import (
    ANSWERS,
    NONE,
    NOTHING,
    TO_COME,
    Book,
    Copy,
    Decision,
    Hour,
    Todo,
)
from tests.model.world import (
    NO_WRITE,
    At,
    Run,
    Scope,
    World,
    Write,
    excuse,
    held,
    new_version,
    rank,
    with_copy,
    with_run,
    with_run_at,
)

MOST_LETTERS = 2
"""Letters of one generation: whether there are more decides nothing."""


class Move(NamedTuple):
    """A step of the story; `run` is the place of the run that takes it, or -1."""

    words: str
    run: int
    world: World


class Applied(IntEnum):
    """What a run hears of its write."""

    YES = auto()
    CONFLICT = auto()
    UNHEARD = auto()


class Written(NamedTuple):
    """How a write may go."""

    how: str
    answer: Applied
    world: World
    made: bool


class Life:
    """The steps that may come next in a world."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.book = Book(
            scope.policy,
            expires=scope.expires,
            broadcast=bool(scope.start.status),
            moment=scope.moment,
            hours=scope.hours,
        )
        self._handlers: dict[At, Callable[[World, int, Run], Iterator[Move]]] = {
            At.LOAD: self._load,
            At.DECIDE: self._decide,
            At.SEND: self._send,
            At.SETTLE: self._settle,
            At.SETTLE_AGAIN: self._settle_again,
            At.TAKE_BACK: self._take_back,
            At.BURY: self._bury,
            At.MARK: self._mark,
        }

    def moves(self, world: World) -> tuple[list[Move], bool]:
        """Return what may happen next; and whether the first of it does if nothing goes wrong."""
        moves = [*self._late(world), *self._calls(world), *self._runs(world)]
        moves += [*self._queue(world)]
        goes_on = bool(moves)
        moves += [*self._new_call(world), *self._time(world), *self._people(world)]
        return moves, goes_on

    def same(self, world: World) -> World:
        """Return the world that stands for all those that differ from it in nothing that counts.

        That is: in which run is which, in what versions are called, in writes that the table will
        never take, in what is known of claims that nobody will ask for.
        """
        order, copies = self.order(world)
        late = tuple([write for write in world.late if not self._in_vain(world, write)])
        runs = tuple([self._same_run(world, world.runs[i]) for i in order])
        names: dict[int, int] = {0: 0}
        for version in held(world, runs, late):
            if version not in names:
                names[version] = len(names)
        excused = world.excused
        if excused:
            asked_for = {write.after for write in late}
            if world.record and self.book.record(world.record).state is State.SENDING:
                asked_for.add(world.version)
            excused = tuple(sorted(names[a] for a in excused if a in asked_for))
        if not all(map(eq, names, names.values())):
            return world._replace(
                copies=copies,
                version=names[world.version],
                runs=tuple([_renamed(run, names) for run in runs]),
                late=tuple(sorted(Write(w.step, names[w.before], names[w.after]) for w in late)),
                excused=excused,
            )
        if (runs, late, excused) == (world.runs, world.late, world.excused):
            return world
        return world._replace(copies=copies, runs=runs, late=late, excused=excused)

    def order(self, world: World) -> tuple[list[int], tuple[Copy, ...]]:
        """Return the runs in order, and the copies there are then.

        A run whose write cannot be taken any more does nothing but hand its copy back: it has.
        """
        runs = [i for i, run in enumerate(world.runs) if not self._for_nothing(world, run)]
        copies = world.copies
        if len(runs) < len(world.runs):
            back = [r.copy for i, r in enumerate(world.runs) if i not in runs and r.from_queue]
            copies = tuple(sorted((*copies, *back)))
        if len(runs) > 1:
            runs.sort(key=lambda i: rank(world.runs[i]))
        return runs, copies

    def _for_nothing(self, world: World, run: Run) -> bool:
        match run.at:
            case At.SEND if self.book.record(run.known).lease:
                return False
            case At.SETTLE_AGAIN if self._may_be(world, run.write.after):
                return False
            case At.TAKE_BACK:
                return self._in_vain(world, run.lost) and not self._may_be(world, run.lost.after)
            case At.DECIDE | At.SEND | At.SETTLE | At.SETTLE_AGAIN:
                return self._gone(world, run.known, run.version)
        return False

    def _in_vain(self, world: World, write: Write) -> bool:
        return self._gone(world, self.book.steps[write.step].before, write.before)

    def _gone(self, world: World, known: int, version: int) -> bool:
        """Return whether a record that somebody knows is there no more, and never will be."""
        if known == NONE:
            return world.record != NONE
        return not self._may_be(world, version)

    def _may_be(self, world: World, version: int) -> bool:
        """Return whether the record has this version, or may come to have it."""
        return version == world.version or any(w.after == version for w in world.late)

    def _same_run(self, world: World, run: Run) -> Run:
        """Return the run without the versions that nobody will meet again."""
        if run.write is NO_WRITE and run.lost is NO_WRITE:
            return run
        return run._replace(write=self._met(world, run.write), lost=self._met(world, run.lost))

    def _met(self, world: World, write: Write) -> Write:
        before = write.before if self._may_be(world, write.before) else 0
        after = write.after if self._may_be(world, write.after) else 0
        return write._replace(before=before, after=after)

    # -------------------------------------------------------------------------------- the table

    def _holds(self, world: World, write: Write) -> bool:
        """Return whether the table takes a step: its guard."""
        before = self.book.steps[write.step].before
        if NONE in (before, world.record):
            return before == world.record
        return write.before == world.version

    def _land(self, world: World, write: Write) -> World:
        """Return the world once the table has taken a step."""
        step = self.book.steps[write.step]
        assert step.before == world.record
        changed = world._replace(record=step.after, version=write.after)
        return judged(self.book, world, changed, write)

    def _write(self, world: World, write: Write) -> Iterator[Written]:
        holds = self._holds(world, write)
        landed = self._land(world, write) if holds else world
        yield Written("", Applied.YES if holds else Applied.CONFLICT, landed, holds)
        if not self.scope.losses:
            return
        yield Written(", but the write is lost", Applied.UNHEARD, world, made=False)
        if holds:
            unsure = landed._replace(counts=None)
            yield Written(", but the answer is lost", Applied.UNHEARD, unsure, made=True)
            if len(world.late) < self.scope.late:
                late = world._replace(late=tuple(sorted((*world.late, write))), counts=None)
                yield Written(", but the write is late", Applied.UNHEARD, late, made=False)

    def _late(self, world: World) -> Iterator[Move]:
        for i, write in enumerate(world.late):
            rest = world._replace(late=world.late[:i] + world.late[i + 1 :])
            kind = self.book.steps[write.step].kind.name.lower()
            yield Move(f"the late {kind} never comes", -1, rest)
            if self._holds(rest, write):
                landed = counted(self._land(rest, write), self.book.steps[write.step])
                yield Move(f"the late {kind} is made", -1, landed)

    # ---------------------------------------------------------------------------------- the doors

    def _new_call(self, world: World) -> Iterator[Move]:
        if world.calls_left and self._room(world):
            less = world._replace(calls_left=world.calls_left - 1, accepted=True)
            there = with_copy(less, Copy())
            yield Move(
                "a call puts the message on the queue", -1, there._replace(calls=world.calls + 1)
            )
            if self.scope.crashes:
                yield Move("a call puts the message on the queue, and dies", -1, there)

    def _calls(self, world: World) -> Iterator[Move]:
        if not world.calls:
            return
        less = world._replace(calls=world.calls - 1)
        step = self.book.accept(overdue=world.overdue, hour=world.hour)
        write = Write(step, 0, new_version(world))
        for how, answer, there, _ in self._write(timely(self.book, less, step), write):
            yield Move(f"the call writes the record{how}", -1, there)
            if self.scope.waits and answer is Applied.YES:
                run = Run(At.LOAD, Copy(), from_queue=False)
                words = "the call writes the record; {new}, its own, is to send the message"
                yield Move(words, -1, with_run(there, run))
        if self.scope.crashes:
            yield Move("the call dies", -1, less)

    # ------------------------------------------------------------------------------------- runs

    def _queue(self, world: World) -> Iterator[Move]:
        if not world.copies:
            return
        yield from self._waiting(world)
        if world.status == "paused":
            yield Move("the broadcast goes on", -1, world._replace(status="running"))
        if sum(run.from_queue for run in world.runs) < self.scope.runs:
            for copy in dict.fromkeys(world.copies):
                rest = list(world.copies)
                rest.remove(copy)
                run = Run(At.LOAD, copy)
                there = with_run(world._replace(copies=tuple(rest)), run)
                for words, after in self._read(there, len(world.runs), run):
                    yield Move(f"{{new}} receives {_copy(copy)}{words}", -1, after)
                if world.record and not copy.generation:
                    unread = run._replace(at=At.DECIDE, known=NONE, version=0)
                    words = f"{{new}} receives {_copy(copy)} and takes it for new"
                    yield Move(words, -1, with_run(there._replace(runs=world.runs), unread))

    def _read(self, world: World, i: int, run: Run) -> Iterator[tuple[str, World]]:
        """Read the record; what is decided without a write is done at once."""
        known = run._replace(at=At.DECIDE, known=world.record, version=world.version)
        decision = self._decision(world, known)
        if wrong := decided(self.book, world, world.record, decision):
            yield " and decides on it", world._replace(wrong=wrong)
            return
        match decision.todo:
            case Todo.WAIT:
                if not run.from_queue:
                    yield " and leaves it to another", self._done(world, i)
                elif run.copy.line:
                    yield from self._leave_the_line(world, i)
            case Todo.DROP:
                gone = self._done(world, i)
                ignored = "a redrive is ignored" if self._is_an_order(known) else ""
                yield " and drops it: all is done", gone._replace(wrong=ignored)
            case Todo.BURY:
                due = known._replace(at=At.BURY)
                yield " and finds a letter due", with_run_at(world, i, due)
            case _:
                yield " and reads the record", with_run_at(world, i, known)

    def _decision(self, world: World, run: Run) -> Decision:
        return self.book.decide(run.known, run.copy, overdue=world.overdue, hour=world.hour)

    def _leave_the_line(self, world: World, i: int) -> Iterator[tuple[str, World]]:
        """Put a copy of what may not go yet on the other queue, then take this one off its own.

        The sender does it at the end of each run that leaves such a message queued. Here it is left
        to the next look, which finds that it waits: nothing needs to come in between. If the other
        queue takes no copy, nothing happens.
        """
        waits = self.book.record(world.record).state is State.QUEUED
        if not waits or world.hour is Hour.OPEN:
            return
        copy = Copy(world.runs[i].copy.generation)
        yield " and moves it out of its line", with_copy(self._done(world, i), copy)
        if self.scope.crashes and self._room(world):
            both = with_copy(self._back(world, i), copy)
            yield ", puts another beside its line, and dies", both

    def _done(self, world: World, i: int) -> World:
        """Return the world once a run has taken its copy off the queue, and ended."""
        return world._replace(runs=world.runs[:i] + world.runs[i + 1 :])

    def _end(self, words: str, world: World, i: int) -> Iterator[Move]:
        """End a run that has done all; or it dies just before it takes its copy off the queue."""
        yield Move(words, i, self._done(world, i))
        if self.scope.crashes and world.runs[i].from_queue:
            yield Move(f"{words}, and dies", i, self._back(world, i)._replace(counts=None))

    def _runs(self, world: World) -> Iterator[Move]:
        for i, run in enumerate(world.runs):
            yield from self._handlers[run.at](world, i, run)
            if self.scope.crashes:
                gone = self._dead(world, run)
                there = self._back(gone, i) if run.from_queue else self._done(gone, i)
                yield Move("{run} dies", i, there)

    def _dead(self, world: World, run: Run) -> World:
        """Return the world in which nobody can know what a run did last."""
        return self._excused(world, run)._replace(counts=None)

    def _excused(self, world: World, run: Run) -> World:
        """Note that nobody can know any more how a run's claim went."""
        match run.at:
            case At.SEND | At.SETTLE | At.SETTLE_AGAIN:
                return excuse(world, run.version)
            case At.TAKE_BACK:
                return excuse(world, run.lost.after)
        return world

    def _back(self, world: World, i: int) -> World:
        """Return the world once a run has handed its copy back; a door's run may try again."""
        run = world.runs[i]
        if not run.from_queue:
            return with_run_at(world, i, Run(At.LOAD, run.copy, from_queue=False))
        return with_copy(self._done(world, i), run.copy)

    def _load(self, world: World, i: int, run: Run) -> Iterator[Move]:
        for words, after in self._read(world, i, run):
            yield Move(f"{{run}} goes on{words}", i, after)
        left = self._done(world, i)
        yield Move("{run} leaves it to the queue", i, left)
        if self._room(world):
            yield Move("{run} puts another copy on the queue", i, with_copy(left, run.copy))

    def _decide(self, world: World, i: int, run: Run) -> Iterator[Move]:
        decision = self._decision(world, run)
        if wrong := decided(self.book, world, run.known, decision):
            yield Move("{run} decides on it", i, world._replace(wrong=wrong))
            return
        match decision.todo:
            case Todo.WAIT:
                yield Move("{run} finds that it may not go any more", i, self._back(world, i))
            case Todo.POSTPONE:
                yield from self._postpone(world, i, run, decision.step)
            case Todo.FINISH:
                yield from self._finish(world, i, run, decision.step)
            case Todo.SEND if world.status == "paused" and decision.stop != NOTHING:
                yield Move("{run} waits for the broadcast", i, self._back(world, i))
            case Todo.SEND if world.status == "stopped" and decision.stop != NOTHING:
                yield from self._finish(world, i, run, decision.stop)
            case Todo.SEND:
                yield from self._claim(world, i, run, decision.step)
            case _:
                raise AssertionError(decision)

    def _is_an_order(self, run: Run) -> bool:
        known = self.book.record(run.known)
        return known.state in REDRIVABLE and run.copy.generation > known.generation

    def _postpone(self, world: World, i: int, run: Run, step: int) -> Iterator[Move]:
        write = self._writing(world, run, step)
        for how, answer, there, _ in self._write(timely(self.book, world, step), write):
            words = _heard(f"{{run}} records when it may go{how}", answer)
            yield Move(words, i, self._back(there, i))

    def _finish(self, world: World, i: int, run: Run, step: int) -> Iterator[Move]:
        write = self._writing(world, run, step)
        after = self.book.steps[step].after
        state = self.book.record(after).state
        for how, answer, there, _ in self._write(world, write):
            words = f"{{run}} ends it as {state}{how}"
            if answer is Applied.YES:
                ended = run._replace(known=after, version=write.after)
                counts = counted(there, self.book.steps[step])
                yield from self._ended(words, counts, i, ended)
            else:
                yield Move(_heard(words, answer), i, self._back(there, i))

    def _ended(self, words: str, world: World, i: int, run: Run) -> Iterator[Move]:
        """Go on with a message that has ended."""
        if self.book.record(run.known).dead_letter is DeadLetter.DUE:
            due = run._replace(at=At.BURY, answer=0, write=NO_WRITE)
            yield Move(words, i, with_run_at(world, i, due))
        else:
            yield from self._end(words, world, i)

    def _claim(self, world: World, i: int, run: Run, step: int) -> Iterator[Move]:
        write = self._writing(world, run, step)
        for how, answer, there, _ in self._write(world, write):
            words = f"{{run}} claims it{how}"
            after = self.book.steps[step].after
            if answer is Applied.YES:
                claimed = run._replace(at=At.SEND, known=after, version=write.after)
                yield Move(words, i, with_run_at(counted(there, self.book.steps[step]), i, claimed))
            elif answer is Applied.CONFLICT:
                yield Move(_heard(words, answer), i, self._back(there, i))
            else:
                release = Write(self.book.release(after), write.after)
                doubting = Run(At.TAKE_BACK, run.copy, run.from_queue, write=release, lost=write)
                yield Move(words, i, with_run_at(there, i, doubting))

    def _take_back(self, world: World, i: int, run: Run) -> Iterator[Move]:
        write = _begun(world, run.write)
        words = "{run} takes its claim back"
        for how, answer, there, _ in self._write(world, write):
            if answer is Applied.YES or world.version == write.after:
                yield Move(words + how, i, self._back(there, i))
            elif answer is Applied.UNHEARD:
                again = run._replace(write=write)
                yield Move(words + how, i, with_run_at(there, i, again))
            else:
                step = self.book.take_back(
                    run.lost.step,
                    world.record,
                    same=world.version == run.lost.before,
                    claimed=bool(world.record) and world.version == run.lost.after,
                )
                if step is None:
                    yield Move(f"{words}, which is not there", i, self._back(there, i))
                else:
                    again = run._replace(write=Write(step, world.version))
                    yield Move(f"{words}, which is not as it was", i, with_run_at(there, i, again))
        given_up = self._excused(world, run)
        yield Move("{run} ends, and could not take its claim back", i, self._back(given_up, i))

    def _writing(self, world: World, run: Run, step: int) -> Write:
        return Write(step, run.version, new_version(world))

    def _send(self, world: World, i: int, run: Run) -> Iterator[Move]:
        record = self.book.record(run.known)
        may_go = self.book.may_go(overdue=world.overdue, hour=world.hour)
        if record.lease and record.deadline and may_go:
            for n, answer in enumerate(ANSWERS):
                early = "" if world.hour is Hour.OPEN else "it is sent before it may go"
                there = excuse(world, run.version)._replace(tried=True, wrong=early)
                if answer.kept:
                    twice = "it is sent twice" if world.unnoted else early
                    there = there._replace(kept=True, unnoted=True, wrong=twice)
                settling = run._replace(at=At.SETTLE, answer=n)
                yield Move(
                    f"{{run}} POSTs it; the provider {answer.words}",
                    i,
                    with_run_at(there, i, settling),
                )
        step = self.book.release(run.known, hour=world.hour)
        world, release = timely(self.book, world, step), self._writing(world, run, step)
        yield from self._settling(world, i, run, release, "{run} gives it back unsent")

    def _settle(self, world: World, i: int, run: Run) -> Iterator[Move]:
        step = self.book.settle(run.known, run.answer, overdue=world.overdue, hour=world.hour)
        state = self.book.record(self.book.steps[step].after).state
        world, write = timely(self.book, world, step), self._writing(world, run, step)
        yield from self._settling(world, i, run, write, f"{{run}} records that it is {state}")

    def _settle_again(self, world: World, i: int, run: Run) -> Iterator[Move]:
        write = _begun(world, run.write)
        yield from self._settling(world, i, run, write, "{run} records it again")
        given_up = self._excused(world, run)
        yield Move("{run} ends, and could not record it", i, self._back(given_up, i))

    def _settling(self, world: World, i: int, run: Run, write: Write, words: str) -> Iterator[Move]:
        after = self.book.steps[write.step].after
        for how, answer, there, _ in self._write(world, write):
            met_itself = answer is Applied.CONFLICT and world.version == write.after
            if answer is Applied.YES or met_itself:
                noted = counted(there, self.book.steps[write.step])
                if self.book.record(after).state in TERMINAL:
                    ended = run._replace(known=after, version=write.after)
                    yield from self._ended(words + how, noted, i, ended)
                else:
                    yield Move(words + how, i, self._back(noted, i))
            elif answer is Applied.CONFLICT:
                yield Move(words + ", but has lost its claim", i, self._back(there, i))
            else:
                again = run._replace(at=At.SETTLE_AGAIN, answer=0, write=write)
                yield Move(words + how, i, with_run_at(there, i, again))

    def _bury(self, world: World, i: int, run: Run) -> Iterator[Move]:
        generation = self.book.record(run.known).generation + 1
        letters = world.letters
        if letters.count(generation) < MOST_LETTERS:
            letters = tuple(sorted((*letters, generation)))
        put = world._replace(letters=letters, buried=max(world.buried, generation))
        words = "{run} puts the letter on its queue"
        yield Move(words, i, with_run_at(put, i, run._replace(at=At.MARK)))
        if self.scope.refusals:
            yield Move(f"{words}, which refuses it", i, self._back(world, i))
            yield Move(f"{words}, but the answer is lost", i, self._back(put, i))

    def _mark(self, world: World, i: int, run: Run) -> Iterator[Move]:
        write = self._writing(world, run, self.book.mark(run.known))
        for how, _, there, _ in self._write(world, write):
            yield from self._end(f"{{run}} marks the letter as written{how}", there, i)

    # ------------------------------------------------------------------------- time and people

    def _time(self, world: World) -> Iterator[Move]:
        if not world.copies:
            yield from self._waiting(world)
        if world.closings and world.hour is Hour.OPEN:
            shut = world._replace(hour=Hour.SHUT, closings=world.closings - 1)
            yield Move("time passes: the hours close", -1, shut)
        before_its_moment = self.scope.moment and world.hour is not Hour.OPEN
        if self.scope.deadline and world.status != "paused" and not before_its_moment:
            late = self._passing(world, self.book.deadline_over)._replace(overdue=True)
            if late != world:
                yield Move("time passes: the deadline is over", -1, late)

    def _waiting(self, world: World) -> Iterator[Move]:
        """Let the time come for which something waits."""
        if world.record and self.book.record(world.record).lease == TO_COME:
            yield Move("time passes: the lease ends, the next try is due", -1, self._later(world))
        if world.hour is Hour.SHUT:
            nearly = world._replace(hour=Hour.NEARLY)
            yield Move("time passes: it may go in a moment", -1, nearly)
        elif world.hour is Hour.NEARLY:
            may_go = self._passing(world, self.book.moment_over)._replace(hour=Hour.OPEN)
            yield Move("time passes: it may go now", -1, may_go)

    def _later(self, world: World) -> World:
        # A run that is still at work by then wakes up too late.
        for run in world.runs:
            world = self._excused(world, run)
        return self._passing(world, self.book.lease_over)

    def _passing(self, world: World, over: Callable[[int], int]) -> World:
        """Return the world once a time has passed, for whoever knows of it."""

        def later(write: Write) -> Write:
            if write.step == NOTHING:
                return write
            return write._replace(step=self.book.step_later(write.step, over))

        return world._replace(
            record=over(world.record),
            runs=tuple(
                run._replace(known=over(run.known), write=later(run.write), lost=later(run.lost))
                for run in world.runs
            ),
            late=tuple(later(write) for write in world.late),
        )

    def _people(self, world: World) -> Iterator[Move]:
        room = self._room(world)
        if self.scope.duplicates and room:
            held = [run.copy for run in world.runs if run.from_queue]
            for copy in dict.fromkeys([*world.copies, *held]):
                yield Move(f"the queue doubles {_copy(copy)}", -1, with_copy(world, copy))
        if self.scope.wears:
            for copy in dict.fromkeys(c for c in world.copies if not c.worn):
                copies = list(world.copies)
                copies.remove(copy)
                worn = copy._replace(worn=True)
                words = f"the queue is about to give up {_copy(copy)}"
                yield Move(words, -1, with_copy(world._replace(copies=tuple(copies)), worn))
        if room:
            yield from self._redrives(world)
        if world.status == "running":
            yield Move("the broadcast is stopped", -1, world._replace(status="stopped"))
            yield Move("the broadcast is paused", -1, world._replace(status="paused"))
        if world.record and len(world.late) < max(self.scope.late, 1):
            yield from self._commands(world)

    def _room(self, world: World) -> bool:
        """Return whether there may be one more copy."""
        held = sum(run.from_queue for run in world.runs)
        return len(world.copies) + held < self.scope.copies

    def _redrives(self, world: World) -> Iterator[Move]:
        for generation in dict.fromkeys(world.letters):
            if generation > self.scope.generations:
                continue
            rest = list(world.letters)
            rest.remove(generation)
            back = with_copy(world, Copy(generation))
            letter = f"the letter of generation {generation}"
            yield Move(f"a person redrives {letter}", -1, back._replace(letters=tuple(rest)))
            if self.scope.twice:
                yield Move(f"a person redrives {letter}, which stays there too", -1, back)

    def _commands(self, world: World) -> Iterator[Move]:
        steps: dict[str, int | None] = {}
        if self.scope.cancels:
            steps["cancels it"] = self.book.cancel(world.record)
        if self.scope.resolves:
            steps["says that it arrived"] = self.book.resolve(world.record, State.SENT)
            steps["says that it did not arrive"] = self.book.resolve(world.record, State.FAILED)
        for words, step in steps.items():
            if step is not None:
                write = Write(step, world.version, new_version(world))
                late = tuple(sorted((*world.late, write)))
                yield Move(f"a person {words}", -1, world._replace(late=late))


def _renamed(run: Run, names: Mapping[int, int]) -> Run:
    write, lost = run.write, run.lost
    return run._replace(
        version=names[run.version],
        write=Write(write.step, names[write.before], names[write.after]),
        lost=Write(lost.step, names[lost.before], names[lost.after]),
    )


def _begun(world: World, write: Write) -> Write:
    """Return a write that is made now, and may have been made before."""
    return write if write.after else write._replace(after=new_version(world))


def _heard(words: str, answer: Applied) -> str:
    return f"{words}, but another was quicker" if answer is Applied.CONFLICT else words


def _copy(copy: Copy) -> str:
    words = "a worn copy" if copy.worn else "a copy"
    words += " in line" if copy.line else ""
    return f"{words} of generation {copy.generation}" if copy.generation else words
