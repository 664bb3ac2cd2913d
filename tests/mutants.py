"""Break the code in ways that must not stay unseen, and see that a test finds each.

`make mutants` or `python -m tests.mutants [word …]`: each mutant is made in a copy of the tree, and
the test named with it runs there. One that survives, or that no longer fits the code, fails the
command. A word picks the mutants whose names contain it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "docs",
    "events",
    "functions",
    "layers",
    "local",
    "ops",
    "tests",
    "tools",
    "template.yaml",
    "pyproject.toml",
)
PROPERTIES = "tests/unit/test_delivery_properties.py"
SCENES = "tests/unit/test_sending.py"
DECISIONS = "tests/unit/test_states.py"
TABLE = "tests/integration/test_table_store.py"
CALLS = "tests/unit/test_model_intake.py"
MODEL = "tests/unit/test_model.py"
BROADCAST_MODEL = "tests/unit/test_model_broadcasts.py"
CLIENT = "tests/integration/test_smsgold_client.py"
ECHOES = "tests/unit/test_smsgold_echoes.py"
RESPONSES = "tests/unit/test_smsgold_responses.py"
FIRST_BYTE = "tests/integration/test_first_byte.py"
PACE = "tests/unit/test_pacing.py"
GATE = "tests/unit/test_local_gate.py"
WAITS = "tests/unit/test_spacing.py"
WHEN = "tests/unit/test_when.py"
RECEIVER = "tests/unit/test_receiver.py"
HOOK_MESSAGES = "tests/unit/test_hooks.py"
AUDIENCE_TESTS = "tests/integration/test_audience.py"
REACH_TESTS = "tests/integration/test_reach.py"
ENDS = "tests/unit/test_outcome_events.py"
PUBLISHED = "tests/unit/test_publisher.py"
PUT = "tests/integration/test_bus.py"
BROADCAST_VERSIONS = "tests/integration/test_broadcast_versions.py"
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk")
TEST_TIMEOUT = 300  # seconds

LISTS = "tests/integration/test_lists.py"
API = "tests/integration/test_api.py"
ADDED = "tests/integration/test_indexes.py"

CURSORS = "layers/relay/relay/http/cursors.py"
LISTED = "layers/relay/relay/messages/lists.py"
SERVICE = "layers/relay/relay/messages/service.py"
INDEXES = "ops/indexes.py"
DEAD_LETTERS = "layers/relay/relay/messages/dead_letters.py"
DISPATCH = "layers/relay/relay/messages/dispatch.py"
HOURS = "layers/relay/relay/messages/hours.py"
IN_FLIGHT = "layers/relay/relay/messages/in_flight.py"
LINES = "layers/relay/relay/messages/lines.py"
PACING = "layers/relay/relay/messages/pacing.py"
ECHOED = "layers/relay/smsgold/echoes.py"
CREDENTIALS = "layers/relay/smsgold/credentials.py"
TRANSPORT = "layers/relay/smsgold/transport.py"
INTAKE = "layers/relay/relay/messages/intake.py"
SEALS = "layers/relay/relay/messages/seals.py"
SENDER = "layers/relay/relay/messages/sender.py"
STATES = "layers/relay/relay/messages/states.py"
STORE = "layers/relay/relay/messages/store.py"
SIGNATURES = "layers/relay/relay/webhooks/signatures.py"
HOOKS = "layers/relay/relay/webhooks/hooks.py"
AUDIENCE = "layers/relay/relay/broadcasts/audience.py"
BROADCASTS = "layers/relay/relay/broadcasts/model.py"
FAN_OUT = "layers/relay/relay/broadcasts/fanout.py"
RECOUNTS = "layers/relay/relay/broadcasts/recounts.py"
REACH = "layers/relay/relay/broadcasts/reach.py"
REFUSALS = "layers/relay/relay/messages/refusals.py"
OUTCOMES = "layers/relay/relay/outcomes/events.py"
PUBLISHER = "layers/relay/relay/outcomes/publisher.py"
BUS = "layers/relay/relay/outcomes/bus.py"
BROADCAST_TABLE = "layers/relay/relay/broadcasts/table.py"
RECEIVES = "layers/relay/relay/webhooks/receiver.py"


@dataclass(frozen=True)
class Mutant:
    """A way to break the code, and the test that must find it."""

    name: str
    path: str
    code: str
    broken: str
    test: str = PROPERTIES


MUTANTS = [
    Mutant(
        "no claim before the POST",
        SENDER,
        "        answers = self._apply(run, list(zip(indices, changes, strict=True)))\n",
        "        answers = [Applied(c.after) for c in changes]\n",
    ),
    Mutant(
        "a step ignores the version",
        STORE,
        'GUARD = ("version", "state", "attempt")',
        'GUARD = ("state", "attempt")',
        TABLE,
    ),
    Mutant(
        "a step is not guarded at all",
        "tests/support/world.py",
        "if there is None or any(there.get(name) != was.get(name) for name in GUARD):",
        "if there is None:",
    ),
    Mutant(
        "a step ignores the attempt",
        STORE,
        'GUARD = ("version", "state", "attempt")',
        'GUARD = ("version", "state")',
        TABLE,
    ),
    Mutant(
        "the table guards no step",
        STORE,
        'for name in ("pk", *GUARD)}',
        'for name in ("pk",)}',
        TABLE,
    ),
    Mutant(
        "a firing that the scheduler gave up stays wrapped",
        "layers/relay/relay/schedules/firings.py",
        '        case {"FunctionName": str(), "Payload": str(payload)}:',
        '        case {"FunctionName": str(), "payload": str(payload)}:',
        "tests/unit/test_notifier.py",
    ),
    Mutant(
        "what the breaker hands back is not counted",
        "layers/relay/relay/metrics.py",
        '        elif result.reason == "provider_failing":',
        '        elif result.reason == "":',
        "tests/unit/test_metrics.py",
    ),
    Mutant(
        "what waits for its slot counts as not sent",
        "layers/relay/relay/metrics.py",
        '        elif result.reason == "provider_failing":',
        '        elif result.reason in ("provider_failing", "pace"):',
        "tests/unit/test_metrics.py",
    ),
    Mutant(
        "a step leaves what it clears",
        STORE,
        "    return changed | cleared",
        "    return changed",
        "tests/unit/test_store.py",
    ),
    Mutant(
        "a write whose answer was lost counts as another's",
        STORE,
        "        return Applied(current)",
        "        return Conflict(current)",
        TABLE,
    ),
    Mutant(
        "a read timeout is tried again under hold",
        STATES,
        "case Outcome.UNKNOWN if (on_unknown or rules.on_unknown) is OnUnknown.HOLD:",
        "case Outcome.UNKNOWN if verdict.reason != 'read_timeout':",
    ),
    Mutant(
        "a dead letter has no reason",
        DEAD_LETTERS,
        "                    e.record.reason,\n",
        '                    "",\n',
    ),
    Mutant(
        "waiting counts as an attempt",
        STATES,
        "replace(record, state=State.QUEUED, lease=lease, updated_at=now)",
        "replace(record, state=State.QUEUED, lease=lease, updated_at=now, tries=record.tries + 1,"
        ' attempts=(*record.attempts, Attempt(now, "waited")))',
    ),
    Mutant(
        "a redrive is ignored",
        STATES,
        "if record.state in REDRIVABLE and message.generation > record.generation:",
        "if record.state in REDRIVABLE and message.generation > record.generation + 1:",
    ),
    Mutant(
        "a redrive is repeated",
        STATES,
        "if record.state in REDRIVABLE and message.generation > record.generation:",
        "if record.state in REDRIVABLE and message.generation >= record.generation:",
    ),
    Mutant(
        "a redrive is not written into the history",
        STATES,
        'history=(*record.history, Event(now, "redriven"))[-KEPT_ATTEMPTS:],',
        "history=record.history,",
    ),
    Mutant(
        "a dead letter counts on from the copy that was received",
        DEAD_LETTERS,
        "dead_letter_body(e.message, e.record.generation)",
        "dead_letter_body(e.message, e.message.generation)",
        SCENES,
    ),
    Mutant(
        "a message whose outcome is unknown can be cancelled",
        STATES,
        "if record.state is not State.QUEUED or record.ambiguous:",
        "if record.state is not State.QUEUED:",
        DECISIONS,
    ),
    Mutant(
        "a claim is cancelled under its owner",
        STATES,
        "State.SENDING: TERMINAL - {State.CANCELED} | {State.QUEUED, State.SENDING},",
        "State.SENDING: TERMINAL | {State.QUEUED, State.SENDING},",
        DECISIONS,
    ),
    Mutant(
        "a lease is ignored",
        STATES,
        "    if record.lease > now:\n",
        "    if record.lease > now + 1e9:\n",
        MODEL,
    ),
    Mutant(
        "a retry is made before its time",
        STATES,
        "if record.lease - EARLY > now and",
        "if record.lease - 1e9 > now and",
        MODEL,
    ),
    Mutant(
        "an abandoned claim counts as failed",
        STATES,
        "return Finish(step(record, _dead(tried, State.UNKNOWN)))",
        "return Finish(step(record, _dead(tried, State.FAILED)))",
        MODEL,
    ),
    Mutant(
        "an abandoned claim that is sent again leaves no doubt",
        STATES,
        "doubtful = replace(tried, ambiguous=tried.ambiguous + 1)",
        "doubtful = tried",
        MODEL,
    ),
    Mutant(
        "every copy of a dead message counts as a redrive",
        STATES,
        "if record.state in REDRIVABLE and message.generation > record.generation:",
        "if record.state in REDRIVABLE:",
        MODEL,
    ),
    Mutant(
        "a redrive of an unknown message after its time fails it",
        STATES,
        "    if unknown and now >= min(again.deadline, ends_by):\n",
        "    if unknown and now < 0:\n",
        MODEL,
    ),
    Mutant(
        "a redriven message leaves no doubt",
        STATES,
        "ambiguous=record.ambiguous + unknown",
        "ambiguous=record.ambiguous",
        MODEL,
    ),
    Mutant(
        "a broadcast's stop calls off a redrive",
        STATES,
        "return self.base.generation > 0",
        "return False",
        MODEL,
    ),
    Mutant(
        "a broadcast's stop cancels what may have been sent",
        STATES,
        "state = State.FAILED if ended.ambiguous else State.CANCELED",
        "state = State.CANCELED",
        MODEL,
    ),
    Mutant(
        "a release forgets the doubt",
        STATES,
        "return step(record, replace(record, state=State.QUEUED, lease=lease, updated_at=now))",
        "return step(record, replace("
        "record, state=State.QUEUED, lease=lease, updated_at=now, ambiguous=0))",
        MODEL,
    ),
    Mutant(
        "a claim whose answer was lost is left as it is",
        STATES,
        "    if current and (current.state, current.attempt)"
        " == (State.SENDING, claimed.attempt):\n        return release(current, now)\n",
        "",
        MODEL,
    ),
    Mutant(
        "a claim under way finds the record that it was decided on",
        STATES,
        "        return step(current, current)\n",
        "        return None\n",
        MODEL,
    ),
    Mutant(
        "a claim under way makes the message's first record",
        STATES,
        "return None if before else step(None, release(claimed, now).after)",
        "return None",
        MODEL,
    ),
    Mutant(
        "a message that is being sent can be canceled",
        STATES,
        "if record.state is not State.QUEUED or record.ambiguous:",
        "if record.state not in (State.QUEUED, State.SENDING) or record.ambiguous:",
        MODEL,
    ),
    Mutant(
        "a message whose outcome is known can be resolved",
        STATES,
        "    if record.state is not State.UNKNOWN:\n",
        "    if record.state not in REDRIVABLE:\n",
        MODEL,
    ),
    Mutant(
        "a message that was tried expires",
        STATES,
        "if expired and not base.tries:",
        "if expired:",
        MODEL,
    ),
    Mutant(
        "a letter counts as written before it is",
        STATES,
        "return replace(record, state=state, lease=0.0, dead_letter=DeadLetter.DUE)",
        "return replace(record, state=state, lease=0.0, dead_letter=DeadLetter.WRITTEN)",
        MODEL,
    ),
    Mutant(
        "a redriven message stays counted as it had ended",
        STATES,
        "        counts.subtract([was] if was in TERMINAL and was else [])\n",
        "",
        MODEL,
    ),
    Mutant(
        "an abandoned claim counts as never sent",
        STATES,
        "    return _abandoned(record, message, now, rules, ends_by)",
        "    return _send_unless_too_late(record, record, now, ends_by)",
    ),
    Mutant(
        "a deadline is ignored",
        STATES,
        "    ends = min(base.deadline, ends_by)\n    if now < ends:\n",
        "    ends = min(base.deadline + 1e9, ends_by)\n    if now < ends:\n",
    ),
    Mutant(
        "refused credentials count as a refused message",
        STATES,
        "        case Outcome.REFUSED:\n",
        "        case Outcome.REFUSED | Outcome.CREDENTIALS:\n",
    ),
    Mutant(
        "a second POST after refused credentials takes no slot",
        DISPATCH,
        "if (again := self._another_slot(claimed, latest)) is None:",
        "if (again := claimed) is None:",
        SCENES,
    ),
    Mutant(
        "a missed slot is used anyway",
        DISPATCH,
        "if now > claimed.slot_ends:",
        "if now > claimed.slot_ends + 1e9:",
        SCENES,
    ),
    Mutant(
        "a run goes on sending after a 429",
        DISPATCH,
        "if now < self._held_until:",
        "if now < self._held_until - 1e9:",
        "tests/unit/test_sending.py::test_429s_in_three_chats_stop_the_rest_of_the_batch",
    ),
    Mutant(
        "a known outcome is dropped when the table refuses it",
        IN_FLIGHT,
        "if unwritten and self._clock() + TABLE_SECONDS > self._ends_at:",
        "if unwritten:",
        SCENES,
    ),
    Mutant(
        "the first byte leaves unasked",
        TRANSPORT,
        "if withhold and (reason := withhold()):",
        "if withhold and (reason := None):",
        CLIENT,
    ),
    Mutant(
        "a message is not judged at its first byte",
        DISPATCH,
        "return unsent.reason if unsent else None",
        "return None",
    ),
    Mutant(
        "a connection that came too late is thrown away",
        TRANSPORT,
        "return WithheldError(reason)",
        "raise WithheldError(reason)",
        CLIENT,
    ),
    Mutant(
        "a second POST keeps to no time",
        DISPATCH,
        "verdict = self._post(renewed, outgoing, again, latest)",
        "verdict = self._provider.send(renewed, outgoing, withhold=lambda: None)",
        SCENES,
    ),
    Mutant(
        "a thread that has its slot fetches the secret",
        DISPATCH,
        "credentials = self._credentials.last()",
        "credentials = self._credentials.get()",
        FIRST_BYTE,
    ),
    Mutant(
        "one slow fetch holds every thread",
        CREDENTIALS,
        "elif not self._lock.acquire(blocking=False):",
        "elif not self._lock.acquire():",
        "tests/unit/test_smsgold_credentials.py",
    ),
    Mutant(
        "waiting does not back off",
        SENDER,
        "seconds = spaced(result.seconds, count, now - received.sent_at)",
        "seconds = result.seconds",
        WAITS,
    ),
    Mutant(
        "a spaced-out look comes after the deadline",
        SENDER,
        "seconds = min(seconds, max(result.seconds, ends - now - 1.0))",
        "pass",
        WAITS,
    ),
    Mutant(
        "a clock that is an hour ahead is believed",
        PACING,
        "if line.next > believable:",
        "if line.next > believable + 1e9:",
        PACE,
    ),
    Mutant(
        "the pace is put right without a guard",
        PACING,
        '"#next > :believable",',
        '"#next > :believable OR #next <= :believable",',
        PACE,
    ),
    Mutant(
        "a message is accepted that was never put on the queue",
        INTAKE,
        "        refused = self._queues.enqueue([*new, *again], delays)\n",
        "        refused = [None] * len([*new, *again])\n",
        CALLS,
    ),
    Mutant(
        "a message that the queue did not take is recorded",
        INTAKE,
        "        new = [message for message in new if str(message.id) not in answers]\n",
        "",
        CALLS,
    ),
    Mutant(
        "a known key is not looked up before the queue",
        INTAKE,
        "return self._store.load(ids) if ids else {}",
        "return {}",
        CALLS,
    ),
    Mutant(
        "a table that cannot be read knows no key",
        INTAKE,
        "        except StoreUnavailableError:\n            return None\n",
        "        except StoreUnavailableError:\n            return {}\n",
        "tests/unit/test_intake.py",
    ),
    Mutant(
        "a record that nobody says is written counts as written",
        INTAKE,
        "                answers[record.id] = answer or TABLE_SILENT\n",
        "                answers[record.id] = answer or Accepted(record)\n",
        CALLS,
    ),
    Mutant(
        "a message without a key needs a record to be accepted",
        INTAKE,
        "                answers[record.id] = Accepted(found)\n",
        "                answers[record.id] = answer or TABLE_SILENT\n",
        CALLS,
    ),
    Mutant(
        "a firing too late is sent where the table is silent",
        INTAKE,
        "        return self._concluded([message], [record], [written])[0] or TABLE_SILENT\n",
        "        [answer] = self._concluded([message], [record], [written])\n"
        "        return answer or self.accept([message], door=door)[0]\n",
        CALLS,
    ),
    Mutant(
        "a key whose record is another's counts as a repeat",
        INTAKE,
        "    if differ(record.fingerprint, message.fingerprint):\n"
        "        return KeyReused(record)\n",
        "",
        CALLS,
    ),
    Mutant(
        "a repeated key is not queued again",
        INTAKE,
        "return never_tried or self._clock() > record.deadline + OVERDUE",
        "return False",
        "tests/unit/test_intake.py",
    ),
    Mutant(
        "a message outlives its copy on the queue",
        STATES,
        "return Send(before, replace(base, deadline=ends))",
        "return Send(before, base)",
        SCENES,
    ),
    Mutant(
        "SQS gives a message up",
        "layers/relay/relay/messages/results.py",
        "if receive_count < last else sent_at",
        "",
        SCENES,
    ),
    Mutant(
        "an old copy ends a redriven message",
        STATES,
        "    if message.generation < record.generation:\n",
        "    if message.generation < 0:\n",
        SCENES,
    ),
    Mutant(
        "a redrive moves what fails again meanwhile",
        "ops/dead_letters.py",
        "        chosen = list(islice(matching, min(most or MOST, in_time)))\n"
        "        receiving.show(receiving.hidden - {dead_letter.message_id"
        " for dead_letter in chosen})\n",
        "        chosen = islice(matching, most)\n",
        "tests/integration/test_ops.py",
    ),
    Mutant(
        "a letter is deleted before it is put back",
        "ops/dead_letters.py",
        "                back(dead_letter)\n                receiving.delete(dead_letter)\n",
        "                receiving.delete(dead_letter)\n                back(dead_letter)\n",
        "tests/integration/test_ops.py",
    ),
    Mutant(
        "a redrive loses its seal",
        "ops/dead_letters.py",
        "{ATTRIBUTE: seal} if dead_letter.seal else {}",
        "{}",
        "tests/integration/test_ops.py",
    ),
    Mutant(
        "a chat's messages are sent beside each other",
        LINES,
        "        heads = [line.pop(0) for line in lines.values()]\n"
        "        results |= zip(heads, deliver([batch[i] for i in heads]), strict=True)\n",
        "        results |= zip(range(len(batch)), deliver(batch), strict=True)\n"
        "        return [results[i] for i in range(len(batch))]\n",
        "tests/unit/test_model_lines.py",
    ),
    Mutant(
        "the rest of a chat leaves the queue when one stays",
        LINES,
        'results |= {i: Later(seconds, "behind_another") for i in rest}',
        "results |= {i: Done(None) for i in rest}",
        "tests/unit/test_model_lines.py",
    ),
    Mutant(
        "a Retry-After is cut to the longest wait",
        STATES,
        "wait = max(wait, verdict.retry_after or 0.0)",
        "wait = max(wait, min(verdict.retry_after or 0.0, rules.backoff_max))",
        DECISIONS,
    ),
    Mutant(
        "one chat's 429 holds the account",
        PACING,
        "CHATS_TO_HOLD_ALL = 3",
        "CHATS_TO_HOLD_ALL = 1",
        SCENES,
    ),
    Mutant(
        "a line is named by the number itself",
        "layers/relay/relay/messages/envelope.py",
        'return hashlib.sha256("\\0".join(filter(None, address)).encode()).hexdigest()[:32]',
        'return "-".join(filter(None, address))',
        "tests/unit/test_queues.py",
    ),
    Mutant(
        "another environment sends into a chat's hold",
        SENDER,
        "            self._chats.hold(slots.holds)\n",
        "",
        SCENES,
    ),
    Mutant(
        "a chat gets several messages in a second",
        SENDER,
        "            if at > now:\n                run.results",
        "            if at > now + 1e9:\n                run.results",
    ),
    Mutant(
        "a producer's redrive is believed",
        SENDER,
        "return received.sealed is None or self._seals.proves(received.message, received.sealed)",
        "return True",
    ),
    Mutant(
        "a producer's message of a broadcast is believed",
        SEALS,
        '    if message.broadcast:\n        return "broadcast"\n',
        "",
    ),
    Mutant(
        "an id of the relay's own making can be taken",
        SEALS,
        '    if (message.id or "").startswith(OWN_IDS):\n        return "id"\n',
        "",
    ),
    Mutant(
        "a dead letter is not sealed",
        DEAD_LETTERS,
        "                    own=True,\n",
        "",
    ),
    Mutant(
        "each function has a key of its own for the seals",
        STORE,
        "        if key := self._read_seal_key():\n            return key\n",
        "        return bytes.fromhex(made[1]['S'])\n",
        TABLE,
    ),
    Mutant(
        "a key can be reused for another body",
        STATES,
        "    if record and differ(record.fingerprint, message.fingerprint):\n",
        "    if record and not record.fingerprint:\n",
        DECISIONS,
    ),
    Mutant(
        "a page reaches this machine under a name of its own",
        "local/gate.py",
        "    if host not in hosts:\n",
        "    if not host:\n",
        GATE,
    ),
    Mutant(
        "a page on another port of this machine is not another site's",
        "local/gate.py",
        'not in ("none", "same-origin")',
        'not in ("none", "same-origin", "same-site")',
        GATE,
    ),
    Mutant(
        "the local AWS takes any signature of its own key",
        "local/aws.py",
        "    if not hmac.compare_digest(signer.signature(text, unsigned), signature.signature):\n",
        "    if not signature.signature:\n",
        GATE,
    ),
    Mutant(
        "a signature is good for any body",
        "local/aws.py",
        " and declared != body_hash:",
        " and not body_hash:",
        GATE,
    ),
    Mutant(
        "a function may reset the local AWS",
        "local/aws.py",
        "    if request.path.startswith(INTERNAL) and signature.key != own_key:\n",
        "    if not own_key:\n",
        GATE,
    ),
    Mutant(
        "a call to AWS hides behind an API's address",
        "local/aws.py",
        'r"/_aws/execute-api/[^/]+/[^/]+"',
        'r"/_aws/execute-api/"',
        GATE,
    ),
    Mutant(
        "credentials in an address are not seen",
        "local/aws.py",
        "    if names & QUERY_CREDENTIALS:\n",
        "    if names == QUERY_CREDENTIALS:\n",
        GATE,
    ),
    Mutant(
        "the sandbox serves every page",
        "local/sandbox/app.py",
        "MIDDLEWARES = (_logged, _gate, control.json_errors)",
        "MIDDLEWARES = (_logged, control.json_errors)",
        "tests/integration/test_sandbox_gate.py",
    ),
    Mutant(
        "a dead letter that was not written is forgotten",
        STATES,
        "return WriteDeadLetter(record) if record.dead_letter is DeadLetter.DUE else Drop(record)",
        "return Drop(record)",
    ),
    Mutant(
        "an echo is looked for in an answer of any length",
        ECHOED,
        "        line = one_line(text[:LONGEST_WORDS])\n        forms, _ = _undone(line)\n",
        "        line = one_line(text)\n        forms, _ = _undone(line)\n",
        ECHOES,
    ),
    Mutant(
        "an echo in HTML is not seen",
        ECHOED,
        '    return html.unescape(_NO_CHARACTER.sub("&#", text))\n',
        "    return text\n",
        ECHOES,
    ),
    Mutant(
        "a cut echo is not seen",
        ECHOED,
        "found = any(part in our for part in parts)",
        "found = our in their",
        ECHOES,
    ),
    Mutant(
        "a cut echo is not seen in a long text",
        ECHOED,
        "found = not parts.isdisjoint(_cut(our, length))",
        "found = our in their",
        ECHOES,
    ),
    Mutant(
        "an echo in escapes of JSON is not seen",
        ECHOED,
        "    text = _PERCENT_U.sub(_meant, _BACKSLASH.sub(_meant, text))\n",
        "    text = _PERCENT_U.sub(_meant, text)\n",
        ECHOES,
    ),
    Mutant(
        "a phone number in the provider's words is kept",
        ECHOED,
        "        masked = _LONG_NUMBER.sub(MASK, line)\n",
        "        masked = line\n",
        ECHOES,
    ),
    Mutant(
        "a list that failed keeps its body",
        "layers/relay/smsgold/responses.py",
        'raise provider_error(replace(verdict, detail=""))',
        "raise provider_error(verdict)",
        RESPONSES,
    ),
    Mutant(
        "urllib3 logs what is no header",
        "layers/relay/smsgold/transport.py",
        "        return type(arg).__name__\n    return arg.partition",
        "        return arg\n    return arg.partition",
        "tests/integration/test_smsgold_secrets.py",
    ),
    Mutant(
        "a webhook is read as a form if it can be",
        HOOKS,
        "    with suppress(ValueError, RecursionError):\n        return json.loads(body)\n",
        '    if b"payload=" not in body:\n        return json.loads(body)\n',
        HOOK_MESSAGES,
    ),
    Mutant(
        "any scheme takes forms",
        HOOKS,
        "_parse(request.body, hook.verify.form_field)",
        '_parse(request.body, "payload")',
        HOOK_MESSAGES,
    ),
    Mutant(
        "a bad entry of HookSecrets costs every hook",
        "layers/relay/relay/webhooks/secrets.py",
        "if len(strings) == len(values) else ()",
        "if len(strings) == len(values) else SecretSource.parse(secret='')",
        RECEIVER,
    ),
    Mutant(
        "a hook without a usable secret is open",
        SIGNATURES,
        "return bool(secrets) and all(",
        "return any([True]) or all(",
        RECEIVER,
    ),
    Mutant(
        "a secret's length is measured in base64",
        SIGNATURES,
        "len(scheme.key(secret)) >= MIN_KEY",
        "len(secret) >= MIN_KEY",
        RECEIVER,
    ),
    Mutant(
        "a name that no hook has is logged",
        "layers/relay/relay/wiring.py",
        'extra={"count": unknown}',
        'extra={"count": unknown, "names": found.keys() - hooks}',
        "tests/unit/test_wiring.py",
    ),
    Mutant(
        "what only looks like a boolean passes",
        "layers/relay/relay/messages/envelope.py",
        "in_order: StrictBool = Field(",
        "in_order: bool = Field(",
        "tests/unit/test_envelope.py",
    ),
    Mutant(
        "what left a bad end stays on its list",
        STORE,
        "LEFT.get(name) or EMPTY[next(iter(was[name]))] for name in gone",
        "EMPTY[next(iter(was[name]))] for name in gone if name not in LEFT",
        LISTS,
    ),
    Mutant(
        "an index's key becomes an empty text",
        STORE,
        "LEFT.get(name) or EMPTY[next(iter(was[name]))] for name in gone",
        "EMPTY[next(iter(was[name]))] for name in gone",
        LISTS,
    ),
    Mutant(
        "an index that is behind its table shows what has left",
        SERVICE,
        "and listing.holds(keys_of(record), at)",
        "",
        LISTS,
    ),
    Mutant(
        "an index that is behind its table shows a message at its old place",
        LISTED,
        "== (self.partition, at)",
        "== (self.partition, keys.get(self.index.place))",
        LISTS,
    ),
    Mutant(
        "a sent message is listed",
        LISTED,
        "BAD_ENDS = (State.REJECTED,",
        "BAD_ENDS = (State.SENT, State.REJECTED,",
        LISTS,
    ),
    Mutant(
        "a sent message is in the index of references without one",
        LISTED,
        "    if record.reference:\n",
        "    if True:\n",
        "tests/integration/test_counts.py",
    ),
    Mutant(
        "a reference is in the index as it is",
        LISTED,
        "return hashlib.sha256(reference.encode()).hexdigest()[:40]",
        "return reference",
        LISTS,
    ),
    Mutant(
        "places of one moment are the same",
        LISTED,
        'return f"{at:016.3f}#{id_}"',
        'return f"{at:016.3f}#" + id_[:0]',
        LISTS,
    ),
    Mutant(
        "a message moves in its list when its letter is written",
        LISTED,
        "place(record.updated_at, record.id)",
        "place(record.updated_at + record.version, record.id)",
        LISTS,
    ),
    Mutant(
        "the oldest come first",
        STORE,
        "ScanIndexForward=False",
        "ScanIndexForward=True",
        LISTS,
    ),
    Mutant(
        "a page begins with the first one each time",
        STORE,
        "            **begin,\n",
        "",
        LISTS,
    ),
    Mutant(
        "a list has no beginning",
        STORE,
        '":since": {"S": place(listing.since)},',
        '":since": {"S": place(0.0)},',
        LISTS,
    ),
    Mutant(
        "a broadcast's messages are read without end",
        "layers/relay/relay/broadcasts/service.py",
        "end = min(broadcast.enqueued, done + LOOKED_THROUGH)",
        "end = broadcast.enqueued",
        LISTS,
    ),
    Mutant(
        "a page of a broadcast's messages leaves one out",
        "layers/relay/relay/broadcasts/service.py",
        "                    return Found(found, str(done))\n",
        "                    return Found(found, str(done + 1))\n",
        LISTS,
    ),
    Mutant(
        "a broadcast is on no list",
        "layers/relay/relay/broadcasts/table.py",
        "                | _listed(broadcast)\n",
        "",
        LISTS,
    ),
    Mutant(
        "a cursor works in any list",
        CURSORS,
        "    parts = (query.path, *(part for pair in query.parameters for part in pair), place)\n",
        "    parts = (place,)\n",
        API,
    ),
    Mutant(
        "a cursor that was cut off works",
        CURSORS,
        "    if not found or text[:_LENGTH] != _checksum(query, found):\n",
        "    if not found:\n",
        API,
    ),
    Mutant(
        "an unknown parameter is passed over",
        CURSORS,
        "    if not many.keys() <= set(allowed):\n",
        "    if False:\n",
        API,
    ),
    Mutant(
        "a record forgets who handed it in",
        STORE,
        '        "caller": record.caller,\n',
        "",
        API,
    ),
    Mutant(
        "a batch is nobody's",
        "layers/relay/relay/http/messages.py",
        "service.accept(distinct, caller=caller, fresh=fresh)",
        "service.accept(distinct, fresh=fresh)",
        API,
    ),
    Mutant(
        "a firing is no schedule's",
        "layers/relay/relay/schedules/firings.py",
        "[found.content], door=DOOR, caller=found.caller",
        "[found.content], door=DOOR",
        "tests/unit/test_notifier.py",
    ),
    Mutant(
        "a webhook's message is no hook's",
        RECEIVES,
        'caller=f"hook:{name}"',
        'caller=""',
        RECEIVER,
    ),
    Mutant(
        "two indexes are added at once",
        INDEXES,
        "for n, index in enumerate(missing, start=1):",
        "table.setdefault('GlobalSecondaryIndexes', []).extend(missing[1:])\n"
        "    for n, index in enumerate(missing[:1], start=1):",
        ADDED,
    ),
    Mutant(
        "an index is added while the last one is being filled",
        INDEXES,
        'if what != "ACTIVE"}',
        'if what == "not there yet"}',
        ADDED,
    ),
    Mutant(
        "an index that never comes is waited for for ever",
        INDEXES,
        "if name not in there and waited >= GRACE_SECONDS:",
        "if waited >= 1e4:",
        ADDED,
    ),
    Mutant(
        "an index that a failed update left is met by the next one",
        INDEXES,
        "    _refuse_strangers(stack, table)\n",
        "",
        ADDED,
    ),
    Mutant(
        "a deployment adds no indexes first",
        "ops/deploy.py",
        "        indexes.add_missing(stack, command, run=run, say=say)\n",
        "",
        ADDED,
    ),
    Mutant(
        "the verifier looks into no index",
        "tests/support/verifier.py",
        "        *_lists(seen),\n",
        "",
        "tests/unit/test_verifier.py",
    ),
    Mutant(
        "a noted dead letter is an end",
        OUTCOMES,
        "    return now[0] in TERMINAL and now != was",
        "    return now[0] in TERMINAL",
        ENDS,
    ),
    Mutant(
        "a redrive that ends the same is no end",
        OUTCOMES,
        '    was = (_text(old, "state"), _number(old, "generation"))',
        '    was = (_text(old, "state"), _number(new, "generation"))',
        ENDS,
    ),
    Mutant(
        "an event has the provider's words",
        OUTCOMES,
        '        "reason": _text(item, "reason"),\n        "reference": _text(item, "reference"),\n'
        '        "door"',
        '        "reason": _text(item, "detail"),\n        "reference": _text(item, "reference"),\n'
        '        "door"',
        ENDS,
    ),
    Mutant(
        "progress of a broadcast is an event",
        OUTCOMES,
        'if kind == "broadcast" and "order" in new and _version(old) != _version(new):',
        'if kind == "broadcast" and "order" in new:',
        ENDS,
    ),
    Mutant(
        "whoever heard of a problem never hears of its solution",
        "template.yaml",
        """{"S": ["sent"]}, "generation": {"N": [{"exists": true}]}}""",
        """{"S": ["none"]}, "generation": {"N": [{"exists": true}]}}""",
        ENDS,
    ),
    Mutant(
        "a resolution passes the filter unseen",
        "template.yaml",
        """"NewImage": {"state": {"S": ["sent", "failed"]}}}}""",
        """"NewImage": {"state": {"S": ["sent"]}}}}""",
        ENDS,
    ),
    Mutant(
        "the stream is read from its end",
        "template.yaml",
        "StartingPosition: TRIM_HORIZON",
        "StartingPosition: LATEST",
        ENDS,
    ),
    Mutant(
        "a progress invokes the publisher",
        BROADCAST_TABLE,
        '_step("status" if changes_status else "progress")',
        '_step("status")',
        BROADCAST_VERSIONS,
    ),
    Mutant(
        "a broadcast's changes cannot be told apart",
        BROADCAST_TABLE,
        '{"N": "1"}} if changes_status',
        '{"N": "0"}} if changes_status',
        BROADCAST_VERSIONS,
    ),
    Mutant(
        "what the bus refused is not put there again",
        PUBLISHER,
        "zip(left, codes, strict=True) if code]",
        "zip(left, codes, strict=True) if not codes]",
        PUBLISHED,
    ),
    Mutant(
        "a batch goes back from its end",
        PUBLISHER,
        "            return Published(done, left[0][0], why, tuple(unreadable))",
        "            return Published(done, left[-1][0], why, tuple(unreadable))",
        PUBLISHED,
    ),
    Mutant(
        "an unreadable record holds up the stream",
        PUBLISHER,
        "        except (KeyError, TypeError, ValueError):",
        "        except ZeroDivisionError:",
        PUBLISHED,
    ),
    Mutant(
        "a refused call counts as done",
        BUS,
        "        if response.status_code != 200:",
        "        if response.status_code == 599:",
        PUT,
    ),
    Mutant(
        "events go to whoever answers",
        BUS,
        "URLLib3Session(timeout=TIMEOUT)",
        "URLLib3Session(verify=False, timeout=TIMEOUT)",
        PUT,
    ),
    # When a message may go.
    Mutant(
        "the clocks do not change between a closing and the next opening",
        HOURS,
        "            at = self._change(at, opening) or opening\n",
        "            at = opening\n",
        "tests/unit/test_hours.py",
    ),
    Mutant(
        "hours do not go over midnight",
        HOURS,
        "< (_seconds(self.to) - _seconds(self.from_)) % DAY",
        "< _seconds(self.to) - _seconds(self.from_)",
        "tests/unit/test_hours.py",
    ),
    Mutant(
        "a message that comes before its time is sent",
        STATES,
        "        if (goes := message.may_go_at(now)) > now:\n            return _postponed",
        "        if (goes := message.may_go_at(now)) > now + 1e9:\n            return _postponed",
        WHEN,
    ),
    Mutant(
        "hours that end before the first byte do not withhold it",
        DISPATCH,
        "        if (goes := claimed.message.may_go_at(now)) > now:\n",
        "        if (goes := claimed.message.may_go_at(now)) > now + 1e9:\n",
        WHEN,
    ),
    Mutant(
        "a message that is released does not say when it may go",
        IN_FLIGHT,
        ", not_before=claimed.message.may_go_at(now))",
        ")",
        WHEN,
    ),
    Mutant(
        "a retry is announced for a time outside its hours",
        STATES,
        "    again_at = between.opens_at(now + wait) if between else now + wait\n",
        "    again_at = now + wait\n",
        WHEN,
    ),
    Mutant(
        "the night uses up retry time",
        STATES,
        "    if message.between:\n        return message.between.after",
        "    if message.between and not window:\n        return message.between.after",
        WHEN,
    ),
    Mutant(
        "the retry window starts before sendAt",
        STATES,
        "    starts, window = message.may_go_at(accepted_at), ",
        "    starts, window = accepted_at, ",
        WHEN,
    ),
    Mutant(
        "a message for the last day has no life left to be retried in",
        STATES,
        "LONGEST_LIFE = 13 * 86400.0\n",
        "LONGEST_LIFE = 12 * 86400.0\n",
        WHEN,
    ),
    Mutant(
        "a message that expires before its hours is looked at after them",
        STATES,
        "            return Wait(min(record.lease, ends), record)\n",
        "            return Wait(record.lease, record)\n",
        WHEN,
    ),
    Mutant(
        "a redrive at night starts a message that has ended again",
        STATES,
        "    if before and (before.state in REDRIVABLE or before.lease == goes):\n",
        "    if before and before.lease == goes:\n",
        WHEN,
    ),
    Mutant(
        "a producer's message whose time is too far is taken",
        STATES,
        "    if record is None and is_too_far(message, sent_at + CLOCKS):\n",
        "    if record is None and is_too_far(message, sent_at + 1e9):\n",
        WHEN,
    ),
    Mutant(
        "a door takes a message whose time is too far",
        INTAKE,
        "            if full or is_too_far(message, now)\n",
        "            if full\n",
        WHEN,
    ),
    Mutant(
        "a door takes a message for later although too many wait",
        INTAKE,
        "        full = bool(waiting) and not self._queues.has_room_to_wait()\n",
        "        full = False\n",
        WHEN,
    ),
    Mutant(
        "a door puts a message for later into its chat's line",
        INTAKE,
        "[max(delay, delay_for(m.may_go_at(now) - now)) for m in",
        "[delay for m in",
        WHEN,
    ),
    Mutant(
        "a message for later stays in its chat's line",
        SENDER,
        "        self._leave_the_line(run)\n",
        "",
        WHEN,
    ),
    Mutant(
        "what nobody sealed gets the relay's seal by leaving its line",
        SENDER,
        "isinstance(result, Later) and result.record):\n",
        "isinstance(result, Later)):\n",
        WHEN,
    ),
    Mutant(
        "a message leaves its line although no queue took it",
        SENDER,
        "            if problem is None:\n                run.results[i] = Done(",
        "            if True:\n                run.results[i] = Done(",
        WHEN,
    ),
    Mutant(
        "a message for later comes when its caller's patience is over",
        "layers/relay/relay/messages/service.py",
        "        if message.may_go_at(now) > now:\n",
        "        if message.may_go_at(now) > now + 1e9:\n",
        WHEN,
    ),
    Mutant(
        "messages that SQS holds back do not count as waiting",
        "layers/relay/relay/messages/queues.py",
        '                        "ApproximateNumberOfMessagesDelayed",\n',
        "",
        "tests/unit/test_queues.py",
    ),
    Mutant(
        "a schedule's message has a time of its own",
        "layers/relay/relay/schedules/model.py",
        "        if content and content.send_at:\n",
        "        if content and not content:\n",
        "tests/unit/test_schedules.py",
    ),
    Mutant(
        "a hook's hours are forgotten",
        "layers/relay/relay/webhooks/hooks.py",
        '        "between": hook.between.model_dump() if hook.between else None,\n',
        "",
        HOOK_MESSAGES,
    ),
    Mutant(
        "a broadcast lists its subscribers before its time",
        FAN_OUT,
        "                if (goes := queued.may_go_at(now)) > now:\n",
        "                if (goes := queued.may_go_at(now)) > now + 1e9:\n",
        "tests/integration/test_fanout.py",
    ),
    Mutant(
        "a broadcast goes on after its hours",
        FAN_OUT,
        "        if (goes := queued.may_go_at(now)) > now:\n            return goes - now\n"
        "        if",
        "        if (goes := queued.may_go_at(now)) > now + 1e9:\n            return goes - now\n"
        "        if",
        "tests/integration/test_fanout.py",
    ),
    Mutant(
        "a broadcast queues more than can be sent before its hours end",
        FAN_OUT,
        "        return max(CHUNK, min(WINDOW, rate",
        "        return max(WINDOW, min(WINDOW, rate",
        "tests/integration/test_fanout.py",
    ),
    Mutant(
        "a broadcast's time is taken however far it is",
        "layers/relay/relay/broadcasts/service.py",
        "            if is_too_far(broadcast, now):\n",
        "            if is_too_far(broadcast, now + 1e9):\n",
        "tests/integration/test_fanout.py",
    ),
    Mutant(
        "a recipient's own zone is not checked",
        "layers/relay/relay/broadcasts/audience.py",
        "    between: Hours | None\n",
        "    between: Any\n",
        "tests/integration/test_audience.py",
    ),
    Mutant(
        "the hours of one zone are taken for each recipient's own",
        "layers/relay/relay/broadcasts/model.py",
        "        return self.hours.opens_at(at) if self.hours else at\n",
        "        return at\n",
        "tests/integration/test_audience.py",
    ),
    Mutant(
        "a broadcast's order is forgotten by SQS while it waits",
        "functions/notifier/app.py",
        "    if time.time() - sent_at > RENEWED_AFTER or",
        "    if time.time() - sent_at > 3 * RENEWED_AFTER or",
        "tests/unit/test_notifier.py",
    ),
    Mutant(
        "raw braces are sent without a question",
        BROADCASTS,
        "    if broadcast.template is not None:\n",
        "    if broadcast is not None:\n",
        test=f"{AUDIENCE_TESTS}::test_braces_are_never_sent_by_surprise",
    ),
    Mutant(
        "a personal text that breaks a rule is sent",
        AUDIENCE,
        'rendered = validate(_Rendered, {"text": filled[0], "buttons": buttons, "between": hours})',
        "rendered = _Rendered.model_construct(text=filled[0], buttons=(), between=None)",
        test=f"{AUDIENCE_TESTS}::test_a_nasty_name_is_sent_as_it_reads_on_one_line_or_not_at_all",
    ),
    Mutant(
        "the whole entry is kept with the snapshot",
        AUDIENCE,
        "return Listed(address, personal.values(entry))",
        "return Listed(address, (*personal.values(entry), str(entry)))",
        test=f"{AUDIENCE_TESTS}::test_the_bucket_keeps_what_the_template_names_and_the_table_nothing",
    ),
    Mutant(
        "who is in the list twice gets it twice",
        AUDIENCE,
        "elif not seen.add(chat):",
        "elif not seen.add(chat) and not chat:",
        test=f"{AUDIENCE_TESTS}::test_each_entry_that_gets_nothing_is_counted_by_its_cause",
    ),
    Mutant(
        "who got the excluded broadcast gets this one",
        AUDIENCE,
        "elif chat in excluded:",
        "elif not chat:",
        test=f"{AUDIENCE_TESTS}::test_whoever_got_the_excluded_broadcast_or_may_yet_is_left_out",
    ),
    Mutant(
        "who may have got the excluded broadcast gets this one",
        AUDIENCE,
        "State.REJECTED, State.FAILED, State.EXPIRED, State.CANCELED",
        "State.REJECTED, State.FAILED, State.EXPIRED, State.CANCELED, State.UNKNOWN",
        test=f"{AUDIENCE_TESTS}::test_whoever_got_the_excluded_broadcast_or_may_yet_is_left_out",
    ),
    Mutant(
        "a list is sent up to its broken line",
        AUDIENCE,
        "        if broken:\n            raise",
        "        if broken and not n:\n            raise",
        test=f"{AUDIENCE_TESTS}::test_a_broken_line_is_named_before_anything_is_sent",
    ),
    Mutant(
        "numbers are kept in the table",
        FAN_OUT,
        '(APART if queued.is_kept_apart else "")',
        '(APART if queued.template is False else "")',
        test=f"{AUDIENCE_TESTS}::test_recipients_are_addressed_by_id_or_number_and_the_table_has_no_number",
    ),
    Mutant(
        "a late run makes up for lost time",
        FAN_OUT,
        "first = max(now, broadcast.next_chunk_at)",
        "first = broadcast.next_chunk_at or now",
        test=f"{AUDIENCE_TESTS}::test_at_most_so_many_a_second_go_also_if_runs_come_late",
    ),
    Mutant(
        "a message that is sent leaves the mark",
        REFUSALS,
        "                    if mark:\n",
        "                    if mark and not mark.chat:\n",
        test=f"{REACH_TESTS}::test_the_third_broadcast_skips_who_refused_two_and_a_sent_message_brings_them_back",
    ),
    Mutant(
        "who cannot be reached is written to",
        AUDIENCE,
        "elif chat in refused:",
        "elif not chat:",
        test=f"{REACH_TESTS}::test_the_third_broadcast_skips_who_refused_two_and_a_sent_message_brings_them_back",
    ),
    Mutant(
        "a provider that refuses everybody marks everybody",
        REACH,
        "trusted = [id_ for id_ in own if not refuses_everybody(known[id_], self._percent)]",
        "trusted = own",
        test=f"{REACH_TESTS}::test_a_provider_that_refuses_everybody_marks_nobody",
    ),
    Mutant(
        "a single refusal counts whatever else is refused",
        REFUSALS,
        "return bool(message.broadcast) or 2 * sum(self._recent) > len(self._recent)",
        "return True",
        test=f"{REACH_TESTS}::test_a_provider_that_refuses_everybody_marks_nobody",
    ),
    Mutant(
        "one broadcast counts as often as it is refused",
        REFUSALS,
        "return BROADCAST + message.broadcast if message.broadcast else",
        "return BROADCAST + message.broadcast if not message.id else",
        test=f"{REACH_TESTS}::test_one_broadcast_counts_once_however_often_it_is_refused",
    ),
    Mutant(
        "one recipient that cannot be rendered costs the others",
        HOOKS,
        'results.append(_unrenderable(name, request, f"{where}{error}"))\n            continue',
        'return _unrenderable(name, request, f"{where}{error}")',
        RECEIVER,
    ),
    Mutant(
        "a repeated delivery is dead-lettered again",
        RECEIVES,
        "if unrenderable and not (delivery and self._knows_one(accepted)):",
        "if unrenderable:",
        RECEIVER,
    ),
    Mutant(
        "a recipient's dead letter is written after the other messages",
        RECEIVES,
        "            self._bury(name, unrenderable)\n        states = self._accept(",
        "            self._accept(name, accepted, fresh=())\n"
        "            self._bury(name, unrenderable)\n        states = self._accept(",
        RECEIVER,
    ),
    Mutant(
        "a delivery's recipients share an id",
        RECEIVES,
        "of_many = [addressed.recipient] if addressed.recipient else []",
        "of_many: list[str] = []",
        RECEIVER,
    ),
    Mutant(
        "an only recipient's message has another id than in 0.1.0",
        HOOKS,
        'recipient.source if len(hook.to) > 1 else ""',
        "recipient.source",
        RECEIVER,
    ),
    Mutant(
        "whoever is named twice gets two messages",
        HOOKS,
        "if message not in addressed:",
        "if True:",
        HOOK_MESSAGES,
    ),
    Mutant(
        "the payload's value decides which field it is for",
        HOOKS,
        "return _addressed({n: t.render(payload) for n, t in self._templates()}, content)",
        "fields = {n: t.render(payload) for n, t in self._templates()}\n"
        "        return _addressed({**fields, **{k: str(v) for k, v in dict(payload.data).items()\n"
        '            if k == "subscriberId"}}, content)',
        HOOK_MESSAGES,
    ),
    Mutant(
        "a request reaches a hook for events",
        RECEIVES,
        "{n: h for n, h in hooks.items() if not isinstance(h.verify, EventBridge)}",
        "dict(hooks)",
        RECEIVER,
    ),
    Mutant(
        "an event reaches every hook",
        RECEIVES,
        "{n: h for n, h in hooks.items() if isinstance(h.verify, EventBridge)}",
        "dict(hooks)",
        RECEIVER,
    ),
    Mutant(
        "an event is a new message each time it comes",
        SIGNATURES,
        'the event\'s own, which EventBridge makes."""\n        return "id"',
        'the event\'s own, which EventBridge makes."""\n        return "nowhere"',
        RECEIVER,
    ),
    Mutant(
        "the notifier takes the events of rules",
        "layers/relay/relay/schedules/firings.py",
        'event.get("schedule"), str)',
        'event.get("schedule", ""), str)',
        "tests/unit/test_notifier.py",
    ),
    Mutant(
        "an event that the hooks fail on is kept nowhere",
        "template.yaml",
        "      DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt HooksDeadLetterQueue.Arn}\n",
        "",
        "tests/unit/test_template.py",
    ),
    Mutant(
        "a new alarm that is OK is told of",
        "functions/hooks/hooks.toml",
        "'Unchecked:'",
        "'Checked:'",
        HOOK_MESSAGES,
    ),
    Mutant(
        "each alert of a group has the group's status",
        "functions/hooks/hooks.toml",
        "text(status == 'firing' && '🔥 ' || '✅ ', annotations.summary",
        "text('🔥 ', annotations.summary",
        HOOK_MESSAGES,
    ),
    Mutant(
        "what only looks like a boolean makes a dry run the real one",
        "layers/relay/relay/http/broadcasts.py",
        "dry_run: StrictBool = Field(",
        "dry_run: bool = Field(",
        test="tests/integration/test_broadcast_routes.py",
    ),
    Mutant(
        "a dry run is not told when the broadcast begins",
        "layers/relay/relay/http/broadcasts.py",
        "begins_at = broadcast.may_go_at(time.time())",
        "begins_at = time.time()",
        test="tests/integration/test_broadcast_routes.py",
    ),
    Mutant(
        "a message that was received before is not looked for",
        "functions/sender/app.py",
        "    fresh = made_here and count == 1",
        "    fresh = made_here",
        "tests/unit/test_sender.py",
    ),
    Mutant(
        "a broadcast's message is looked for before anybody can have sent it",
        "functions/sender/app.py",
        'made_here = message.id is None or queues.is_broadcast(record["eventSourceARN"])',
        "made_here = message.id is None",
        "tests/integration/test_counts.py",
    ),
    Mutant(
        "a message with an id of its own is not looked for",
        "functions/sender/app.py",
        "    fresh = made_here and count == 1",
        "    fresh = count == 1",
        "tests/unit/test_sender.py",
    ),
    Mutant(
        "a fresh message takes over the record that it meets",
        SENDER,
        "        if send.before is not None:",
        "        if send.before is None:\n            return replace(send, before=record)\n"
        "        if send.before is not None:",
        PROPERTIES,
    ),
    Mutant(
        "a fresh message is read all the same",
        SENDER,
        "if r.message.id and not r.fresh)",
        "if r.message.id)",
        SCENES,
    ),
    Mutant(
        "a finished line keeps its secrets",
        "layers/relay/relay/logs.py",
        "        return redact(json.dumps(",
        "        return str(json.dumps(",
        "tests/unit/test_logs.py",
    ),
    Mutant(
        "a library's debug lines are logged",
        "layers/relay/relay/logs.py",
        "_route(name, handler, max(level, logging.WARNING))",
        "_route(name, handler, level)",
        "tests/unit/test_logs.py",
    ),
    Mutant(
        "the root logger writes what is not redacted",
        "layers/relay/relay/logs.py",
        "    log.propagate = False",
        "    log.propagate = True",
        "tests/unit/test_logs.py",
    ),
    Mutant(
        "trouble does not name its request",
        "layers/relay/relay/logs.py",
        "        if record.levelno >= logging.WARNING:",
        "        if record.levelno > logging.CRITICAL:",
        "tests/unit/test_logs.py",
    ),
    Mutant(
        "a request's line keeps what was noted of the one before",
        "layers/relay/relay/http/notes.py",
        "    _noted.clear()\n",
        "",
        API,
    ),
    Mutant(
        "the values of a large run are lost",
        "layers/relay/relay/metrics.py",
        "    _values.update(left)\n",
        "",
        "tests/unit/test_metrics.py",
    ),
    Mutant(
        "what was counted is counted again in the next line",
        "layers/relay/relay/metrics.py",
        "    _counts.clear()\n",
        "",
        "tests/unit/test_metrics.py",
    ),
    Mutant(
        "Lambda's own lines are logged by default",
        "template.yaml",
        "SystemLogLevel: !If [Debugging, INFO, WARN]",
        "SystemLogLevel: INFO",
        "tests/unit/test_template.py",
    ),
    Mutant(
        "traces are paid for by default",
        "template.yaml",
        "Tracing: !If [HasTraces, Active, PassThrough]",
        "Tracing: Active",
        "tests/unit/test_template.py",
    ),
    # The upgrade from 0.1.0.
    Mutant(
        "what 0.1.0 held and this version resolved can never be redriven",
        "layers/relay/relay/messages/states.py",
        " or (record.version == 1 and resolved)",
        "",
        "tests/unit/test_states.py",
    ),
    Mutant(
        "what 0.1.0 accepted is never found",
        "layers/relay/relay/messages/store.py",
        "if not change.before.version:",
        "if False:",
        "tests/unit/test_store.py",
    ),
    Mutant(
        "a parameter of another version is passed over without a word",
        "ops/deploy.py",
        "    _refuse_unknown(stage, samconfig)\n",
        "",
        "tests/integration/test_deploy.py",
    ),
    # What a start pays for.
    Mutant(
        "a service loses a member",
        "layers/relay/pack.py",
        'name == "documentation" and isinstance(one, str)',
        'name == "documentation"',
        "tests/unit/test_startup.py",
    ),
    Mutant(
        "a message that cannot leave its line waits there for its time",
        SENDER,
        "seconds=min(soon, result.seconds)",
        "seconds=max(soon, result.seconds)",
        test=f"{WHEN}::test_a_queue_that_fails_once_holds_up_no_line_for_hours",
    ),
    Mutant(
        "what leaves its line counts as accepted again",
        "layers/relay/relay/metrics.py",
        'counts["Accepted"] += received.sent_at <= record.accepted_at',
        'counts["Accepted"] += 1',
        test="tests/unit/test_metrics.py::test_what_leaves_its_line_or_is_sent_again_was_accepted_once",
    ),
    Mutant(
        "marks are looked for until the run ends",
        STORE,
        "left: Any = keys[start : start + KEYS_PER_CALL]\n        for tried in range(TRIES):",
        "left: Any = keys[start : start + KEYS_PER_CALL]\n        for tried in range(TRIES**9):",
        test=f"{REACH_TESTS}::test_a_table_that_is_throttled_costs_no_run",
    ),
    Mutant(
        "marks are written although the run ends",
        REFUSALS,
        "if self._clock() + NOTING_SECONDS > ends_at:",
        "if self._clock() > ends_at:",
        test=f"{REACH_TESTS}::test_a_run_that_ends_leaves_its_marks_rather_than_its_answer",
    ),
    Mutant(
        "what its caller waits for is not counted",
        "layers/relay/relay/messages/service.py",
        "            self._count([received], [result])\n",
        "",
        test="tests/unit/test_metrics.py::test_a_message_that_its_caller_waits_for_counts_like_any_other",
    ),
    Mutant(
        "a message that its caller waits for counts as accepted twice",
        "layers/relay/relay/metrics.py",
        'record.door == received.door == "sqs"',
        "record.door == received.door",
        test="tests/unit/test_metrics.py::test_a_message_that_its_caller_waits_for_counts_like_any_other",
    ),
    Mutant(
        "repeats fill a queue that is full",
        INTAKE,
        "        too_many = self._refused(again, now)\n",
        "        too_many = self._refused([], now)\n",
        test=f"{WHEN}::test_a_repeat_is_answered_however_many_wait",
    ),
    Mutant(
        "hours are looked for after the end of the calendar",
        "layers/relay/relay/messages/envelope.py",
        "    return min(at, _LATEST_BEGIN)\n",
        "    return at\n",
        test=f"{WHEN}::test_a_time_at_the_end_of_all_calendars_is_too_far_like_any_other",
    ),
    # Where the parts of broadcasts, webhooks and the notifier meet.
    Mutant(
        "a slow broadcast's order is given up by its queue",
        "functions/notifier/app.py",
        " or count >= RENEWED_AFTER_RECEIVES:",
        ":",
        "tests/unit/test_notifier.py",
    ),
    Mutant(
        "a list whose chunks fill at the wrong moment is repeated for ever",
        "layers/relay/relay/broadcasts/fanout.py",
        "                put()\n                keep()\n",
        "                put()\n",
        f"{AUDIENCE_TESTS}::test_a_list_too_long_for_a_run_fails_and_is_not_repeated_for_ever",
    ),
    Mutant(
        "whom to exclude is read for ever",
        "layers/relay/relay/broadcasts/audience.py",
        "            keep()\n            try:\n                found =",
        "            try:\n                found =",
        f"{AUDIENCE_TESTS}::test_whom_to_exclude_may_take_too_long_as_well",
    ),
    Mutant(
        "a broadcast excludes nobody while the other lists its recipients",
        "layers/relay/relay/broadcasts/audience.py",
        "        if other.awaits_snapshot:\n",
        "        if False:\n",
        f"{AUDIENCE_TESTS}::test_a_broadcast_waits_for_the_excluded_one_to_list_its_recipients",
    ),
    Mutant(
        "what is wrong with a line tells a number",
        "layers/relay/relay/broadcasts/audience.py",
        "{_PERSONAL.sub('…', str(error))}",
        "{error}",
        f"{AUDIENCE_TESTS}::test_what_is_wrong_with_a_line_tells_the_table_no_number_and_no_name",
    ),
    Mutant(
        "a stopped broadcast asks for a delay that SQS refuses",
        "layers/relay/relay/broadcasts/fanout.py",
        "[delay_for(math.ceil(first - now) + n // broadcast.per_second) for",
        "[math.ceil(first - now) + n // broadcast.per_second for",
        f"{AUDIENCE_TESTS}::test_a_slow_broadcast_that_is_stopped_asks_for_no_delay_that_sqs_refuses",
    ),
    Mutant(
        "a recount without a snapshot fails for ever",
        RECOUNTS,
        "        except SnapshotGoneError:\n",
        "        except ZeroDivisionError:\n",
        "tests/integration/test_broadcast_counts.py",
    ),
    Mutant(
        "one hook keeps an event from the next",
        "layers/relay/relay/webhooks/receiver.py",
        "                failure = error\n",
        "                raise\n",
        RECEIVER,
    ),
    Mutant(
        "a name before the host chooses where a button leads",
        "layers/relay/relay/broadcasts/model.py",
        r"[a-z]+://[^/?#]+[/?#]",
        r"[a-z]+://",
        f"{AUDIENCE_TESTS}::test_nobodys_name_chooses_where_a_button_leads",
    ),
    Mutant(
        "an event without an id is sent again whenever Lambda repeats it",
        "layers/relay/relay/webhooks/receiver.py",
        "self._hand_in(name, results, delivery or own_id)",
        "self._hand_in(name, results, delivery)",
        RECEIVER,
    ),
    # What waits for its moment, found by the exhaustive search.
    Mutant(
        "a message is postponed again with every copy of it",
        STATES,
        "    if before and (before.state in REDRIVABLE or before.lease == goes):\n",
        "    if before and before.state in REDRIVABLE:\n",
        MODEL,
    ),
    Mutant(
        "only a message without a record is postponed",
        STATES,
        "    if before and (before.state in REDRIVABLE or before.lease == goes):\n",
        "    if before:\n",
        MODEL,
    ),
    Mutant(
        "a message is postponed, and its record does not say until when",
        STATES,
        "waits = replace(base, state=State.QUEUED, lease=goes,",
        "waits = replace(base, state=State.QUEUED, lease=0.0,",
        MODEL,
    ),
    Mutant(
        "a message that is postponed leaves no doubt",
        STATES,
        "waits = replace(base, state=State.QUEUED, lease=goes,",
        "waits = replace(before or base, state=State.QUEUED, lease=goes,",
        MODEL,
    ),
    Mutant(
        "a door's record does not say when the message may go",
        STATES,
        "        lease=goes if goes > now else 0.0,\n",
        "",
        MODEL,
    ),
    Mutant(
        "a message whose time is up waits for its moment",
        STATES,
        "        if record.lease - EARLY > now and now < ends:\n",
        "        if record.lease - EARLY > now:\n",
        MODEL,
    ),
    Mutant(
        "a canceled message waits for its moment all the same",
        STATES,
        'state=State.CANCELED, lease=0.0, reason="canceled"',
        'state=State.CANCELED, reason="canceled"',
        MODEL,
    ),
    # The exchange with the provider.
    Mutant(
        "an answer in the middle of the request is not read",
        TRANSPORT,
        "with suppress(BrokenPipeError, ConnectionResetError):",
        "with suppress():",
        CLIENT,
    ),
    Mutant(
        "a connection with half an answer goes back to the pool",
        TRANSPORT,
        "            if cut:\n                connection.close()\n",
        "",
        CLIENT,
    ),
    Mutant(
        "what failed before the first byte may have been sent",
        TRANSPORT,
        "        self.sock.settimeout(_left(self.ends))\n            self.began = True\n",
        "        self.began = True\n            self.sock.settimeout(_left(self.ends))\n",
        CLIENT,
    ),
    # The recounts of broadcasts, found by the exhaustive search.
    Mutant(
        "a broadcast that has not ended is recounted",
        RECOUNTS,
        "if broadcast.final or not broadcast.finished_at:",
        "if broadcast.final:",
        BROADCAST_MODEL,
    ),
    Mutant(
        "a recount that could not begin counts on",
        RECOUNTS,
        "                if not self._table.begin_recount(broadcast, asked_at):\n"
        "                    return SOONEST\n",
        "                self._table.begin_recount(broadcast, asked_at)\n",
        BROADCAST_MODEL,
    ),
    Mutant(
        "a recount ends while another has begun anew",
        BROADCAST_TABLE,
        "            **_command(broadcast),\n            **_recount_guard(broadcast),\n",
        "            **_command(broadcast),\n",
        BROADCAST_MODEL,
    ),
    Mutant(
        "a redrive shortly before its broadcast ends asks for no recount",
        "layers/relay/relay/broadcasts/gate.py",
        "        if self._table.uncount(id_, counts, self._clock(), writer=self._new_name()):\n",
        "        broadcast = self._table.uncount(\n"
        "            id_, counts, self._clock(), writer=self._new_name()\n"
        "        )\n"
        "        if broadcast and broadcast.finished_at:\n",
        BROADCAST_MODEL,
    ),
]


def outcome(mutant: Mutant, workspace: Path) -> str:
    """Return "found", or what is wrong."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            leave = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(source, workspace / name, ignore=leave)
        else:
            shutil.copy(source, workspace / name)
    path = workspace / mutant.path
    code = path.read_text(encoding="utf-8")
    if code.count(mutant.code) != 1:
        return f"no longer fits: its code stands {code.count(mutant.code)} times in {mutant.path}"
    path.write_text(code.replace(mutant.code, mutant.broken), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", mutant.test, *OPTIONS],
            cwd=workspace,
            env={**os.environ, "PYTHONPYCACHEPREFIX": str(workspace / "pycache")},
            capture_output=True,
            check=False,
            text=True,
            timeout=TEST_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"its test does not end within {TEST_TIMEOUT} s"
    match done.returncode:
        case 1:
            return "found"
        case 0:
            return "SURVIVES"
        case code_:
            return f"pytest ended with {code_}: {done.stdout[-500:]}{done.stderr[-500:]}"


def main(words: Sequence[str]) -> int:
    """Try the mutants; 1 unless each is found."""
    mutants = [m for m in MUTANTS if not words or any(word in m.name for word in words)]

    def judge(mutant: Mutant) -> bool:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mutant-") as workspace:
            found = outcome(mutant, Path(workspace))
        print(f"{time.monotonic() - began:6.1f} s  {mutant.name}: {found}", flush=True)
        return found == "found"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        judged = list(pool.map(judge, mutants))
    print(f"{sum(judged)} of {len(judged)} mutants found")
    return 0 if judged and all(judged) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
