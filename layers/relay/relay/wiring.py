"""Builds each part from the stack's settings, once per execution environment.

A part that some functions do without is imported where it is made: no start pays for it in vain.
"""

from __future__ import annotations

import logging
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.session import Session

from relay import metrics
from relay.broadcasts.table import BroadcastTable
from relay.logs import redact
from relay.messages.intake import Intake
from relay.messages.queues import SqsQueues
from relay.messages.seals import Seals
from relay.messages.store import TableStore
from relay.settings import settings
from relay.webhooks.secrets import HookSecrets, Secrets
from smsgold.credentials import Credentials, CredentialsSource, from_secrets_manager
from smsgold.errors import CredentialsError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient

    from relay.broadcasts.audience import Audience
    from relay.broadcasts.bucket import Bucket
    from relay.broadcasts.fanout import FanOut
    from relay.broadcasts.gate import BroadcastGate
    from relay.broadcasts.reach import Reach
    from relay.broadcasts.recounts import Recounts
    from relay.broadcasts.service import Broadcasts
    from relay.directory import Directory
    from relay.messages.refusals import Refusals
    from relay.messages.sender import Sender
    from relay.messages.service import Messages
    from smsgold.account import Account
    from smsgold.client import Client

IN_FLIGHT = 34
"""Concurrent POSTs: they send a batch of 100 in three rounds, at its physical bound. More threads
would only wait for the CPU of a 512 MB function (docs/performance.md)."""

_CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 4},
    # The requests are our own, and checking their fields takes a sixth of a message's CPU.
    parameter_validation=False,
)

TABLE_CONFIG = _CONFIG.merge(
    Config(
        connect_timeout=0.5, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 2}
    )
)
"""The table answers in milliseconds; a claim must not wait long for a lost packet, nor an outcome
for longer than a run keeps for it: store.TABLE_SECONDS."""

SECRET_CONFIG = _CONFIG.merge(
    Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})
)
"""A run begins with a secret's refresh, and renews a refused one: dispatch.RENEW_SECONDS."""


log = logging.getLogger(__name__)


@cache
def _session() -> Session:
    return Session()


def _aws(service: str, config: Config = _CONFIG) -> Any:
    """Make a client as `boto3.client` does, without importing boto3."""
    return _session().create_client(service, config=config)


@cache
def _dynamodb() -> DynamoDBClient:
    client: DynamoDBClient = _aws("dynamodb", TABLE_CONFIG)
    return client


@cache
def store() -> TableStore:
    """Return the Relay table."""
    return TableStore(_dynamodb(), settings.table)


@cache
def seals() -> Seals:
    """Return the seals of what the relay itself puts on its queues."""
    return Seals(store().seal_key)


@cache
def broadcast_table() -> BroadcastTable:
    """Return the broadcasts' items in the Relay table."""
    return BroadcastTable(_dynamodb(), settings.table, bucket())


@cache
def bucket() -> Bucket:
    """Return the stack's bucket; few runs need its client."""
    from relay.broadcasts.bucket import Bucket

    return Bucket(_s3, settings.bucket)


@cache
def _s3() -> S3Client:
    client: S3Client = _aws("s3")
    return client


@cache
def gate() -> BroadcastGate:
    """Return the gate that the sender asks about broadcasts."""
    from relay.broadcasts.gate import BroadcastGate

    return BroadcastGate(
        broadcast_table(), queues(), refusals_percent=settings.broadcast_refusals_percent
    )


@cache
def queues() -> SqsQueues:
    """Return the queues."""
    return SqsQueues(
        _aws("sqs"),
        messages_url=settings.messages_queue_url,
        ordered_url=settings.ordered_queue_url,
        broadcast_url=settings.broadcast_queue_url,
        notifier_url=settings.notifier_queue_url,
        dead_letter_url=settings.dead_letter_queue_url,
        seals=seals(),
    )


@cache
def intake() -> Intake:
    """Return the intake."""
    return Intake(store(), queues(), settings.rules, count=metrics.accepted)


@cache
def _tls() -> Future[ssl.SSLContext]:
    """Load the system's certificate authorities in a thread, beside what comes next.

    It takes as long as two of botocore's clients, and OpenSSL does it without Python.
    """
    executor = ThreadPoolExecutor(1)
    loading = executor.submit(ssl.create_default_context)
    executor.shutdown(wait=False)
    return loading


@cache
def provider() -> Client:
    """Return the provider's client."""
    from smsgold.client import Client
    from smsgold.transport import pool_manager

    return Client(
        settings.provider_base_url,
        http=pool_manager(IN_FLIGHT, _tls().result()),
        deadline=settings.provider_timeout,
    )


@cache
def credentials() -> CredentialsSource:
    """Return the provider's credentials; what it hands out is redacted from the logs."""

    def redact_them(found: Credentials) -> None:
        redact.register(found.password)

    fetch = from_secrets_manager(
        _aws("secretsmanager", SECRET_CONFIG), settings.provider_credentials
    )
    return CredentialsSource(fetch, on_change=redact_them, on_stale=_stale)


@cache
def account() -> Account:
    """Return the account's lists at the provider."""
    _tls()
    from smsgold.account import Account

    source = credentials()
    return Account(provider(), source)


@cache
def broadcasts() -> Broadcasts:
    """Return the broadcasts service."""
    from relay.broadcasts.service import Broadcasts

    return Broadcasts(
        broadcast_table(),
        store(),
        queues(),
        audience(),
        reach(),
        rate=settings.messages_per_second,
    )


@cache
def recounts() -> Recounts:
    """Return the recounts of broadcasts."""
    from relay.broadcasts.recounts import Recounts

    return Recounts(broadcast_table(), store(), settings.rules, longest_run=settings.sender_timeout)


@cache
def audience() -> Audience:
    """Return who reads the audience of broadcasts."""
    from relay.broadcasts.audience import Audience

    return Audience(
        # Made on the first call: most runs of the notifier ask the provider for nothing.
        subscribers=lambda bot_id: account().subscribers(bot_id),
        table=broadcast_table(),
        store=store(),
        bucket=bucket(),
        unreachable=reach().unreachable,
    )


@cache
def refusals() -> Refusals:
    """Return the marks of refusals in the Relay table."""
    from relay.messages.refusals import Refusals

    return Refusals(_dynamodb(), settings.table)


@cache
def reach() -> Reach:
    """Return who cannot be reached."""
    from relay.broadcasts.reach import Reach

    return Reach(
        refusals(), broadcast_table(), refusals_percent=settings.broadcast_refusals_percent
    )


@cache
def fan_out() -> FanOut:
    """Return the fan-out of broadcasts."""
    from relay.broadcasts.fanout import FanOut

    return FanOut(
        table=broadcast_table(),
        queues=queues(),
        recounts=recounts(),
        audience=audience(),
        rules=settings.rules,
        rate=settings.messages_per_second,
    )


@cache
def hook_secrets(hooks: frozenset[str]) -> HookSecrets:
    """Return the secrets of these webhooks; what it hands out is redacted from the logs."""

    def look_through(found: Secrets) -> None:
        for secret in (secret for secrets in found.values() for secret in secrets):
            redact.register(secret)
        if unknown := len(found.keys() - hooks):
            # Counted, not named: a name that no hook has may be a secret in the wrong place.
            log.warning("secrets for unknown hooks", extra={"count": unknown})

    fetch = from_secrets_manager(_aws("secretsmanager", SECRET_CONFIG), settings.hook_secrets)
    return HookSecrets(fetch, on_change=look_through, on_stale=_stale)


def _stale(error: CredentialsError) -> None:
    log.warning("secret not refreshed, keeping the last one", extra={"reason": str(error)})


@cache
def sender() -> Sender:
    """Return the sender."""
    _tls()
    from relay.messages.breaker import Breaker
    from relay.messages.chats import Chats
    from relay.messages.dead_letters import DeadLetters
    from relay.messages.dispatch import Dispatcher
    from relay.messages.pacing import TablePacer
    from relay.messages.sender import Sender

    rules = settings.rules
    pacer = TablePacer(_dynamodb(), settings.table, settings.messages_per_second)
    chats = Chats()
    dispatcher = Dispatcher(
        provider=provider(),
        credentials=credentials(),
        breaker=Breaker(pause=rules.backoff_min, longest=min(60.0, rules.backoff_max)),
        pacer=pacer,
        chats=chats,
        executor=ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="send"),
        provider_timeout=settings.provider_timeout,
    )
    return Sender(
        store=store(),
        gate=gate(),
        pacer=pacer,
        chats=chats,
        dispatcher=dispatcher,
        dead_letters=DeadLetters(store(), queues()),
        queues=queues(),
        seals=seals(),
        rules=rules,
        reachability=refusals(),
    )


@cache
def scheduler() -> EventBridgeSchedulerClient:
    """Return the client of EventBridge Scheduler; few requests need it."""
    client: EventBridgeSchedulerClient = _aws("scheduler")
    return client


@cache
def messages() -> Messages:
    """Return the messages service."""
    from relay.messages.service import Messages

    return Messages(
        store=store(),
        lists=store(),
        queues=queues(),
        intake=intake(),
        sender=sender,
        gate=gate,
        count=metrics.delivered,
    )


@cache
def directory() -> Directory:
    """Return the directory of bots and subscribers."""
    from relay.directory import Directory

    return Directory(account)
