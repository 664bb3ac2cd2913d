"""The parts put together as the stack's settings say; each is made once for an environment."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.session import Session

from relay import metrics
from relay.broadcasts.fanout import FanOut
from relay.broadcasts.gate import BroadcastGate
from relay.broadcasts.service import Broadcasts
from relay.broadcasts.table import BroadcastTable
from relay.directory import Directory
from relay.logs import redact
from relay.messages.breaker import Breaker
from relay.messages.dead_letters import DeadLetters
from relay.messages.dispatch import Dispatcher
from relay.messages.intake import Intake
from relay.messages.pacing import TablePacer
from relay.messages.queues import SqsQueues
from relay.messages.sender import Sender
from relay.messages.service import Messages
from relay.messages.store import TableStore
from relay.settings import settings
from relay.webhooks.secrets import HookSecrets, Secrets
from smsgold.client import Client
from smsgold.credentials import Credentials, CredentialsSource, from_secrets_manager
from smsgold.errors import CredentialsError, CredentialsRefusedError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient

IN_FLIGHT = 34
"""POSTs at the same time: a batch of a hundred in three rounds, at its physical bound; more threads
only wait for the CPU of a 512 MB function (docs/performance.md)."""

_CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "max_attempts": 3},
    # The requests are our own; to check each field of each statement is a sixth of a message's CPU.
    parameter_validation=False,
)

_TABLE_CONFIG = _CONFIG.merge(Config(connect_timeout=1, read_timeout=2))
"""The table answers within milliseconds; a claim or an outcome cannot wait for a lost packet."""


log = logging.getLogger(__name__)


@cache
def _session() -> Session:
    return Session()


def _aws(service: str, config: Config = _CONFIG) -> Any:
    """Make a client as `boto3.client` does, without the import of boto3."""
    return _session().create_client(service, config=config)


@cache
def _dynamodb() -> "DynamoDBClient":
    client: DynamoDBClient = _aws("dynamodb", _TABLE_CONFIG)
    return client


@cache
def store() -> TableStore:
    """Return the Relay table."""
    return TableStore(_dynamodb(), settings.table)


@cache
def broadcast_table() -> BroadcastTable:
    """Return the broadcasts in it."""
    return BroadcastTable(_dynamodb(), settings.table)


@cache
def gate() -> BroadcastGate:
    """Return what lets broadcasts' messages go, holds them back, and counts them."""
    return BroadcastGate(broadcast_table(), refusals_percent=settings.broadcast_refusals_percent)


@cache
def queues() -> SqsQueues:
    """Return the queues."""
    return SqsQueues(
        _aws("sqs"),
        messages_url=settings.messages_queue_url,
        broadcast_url=settings.broadcast_queue_url,
        notifier_url=settings.notifier_queue_url,
        dead_letter_url=settings.dead_letter_queue_url,
    )


@cache
def intake() -> Intake:
    """Return the way in."""
    return Intake(store(), queues(), settings.rules, count=metrics.accepted)


@cache
def provider() -> Client:
    """Return the provider's client."""
    return Client(
        settings.provider_base_url, deadline=settings.provider_timeout, connections=IN_FLIGHT
    )


@cache
def credentials() -> CredentialsSource:
    """Return the source of the provider's credentials, which redacts what it hands out."""

    def redact_them(found: Credentials) -> None:
        redact.register(found.password)

    fetch = from_secrets_manager(_aws("secretsmanager"), settings.provider_credentials)
    return CredentialsSource(fetch, on_change=redact_them, on_stale=_stale)


@cache
def broadcasts() -> Broadcasts:
    """Return the broadcasts as callers deal with them."""
    return Broadcasts(broadcast_table(), queues(), rate=settings.messages_per_second)


@cache
def fan_out() -> FanOut:
    """Return what makes messages of broadcasts."""

    def subscribers(bot_id: str) -> list[dict[str, object]]:
        # Made only now: most runs of the notifier ask the provider for nothing.
        found = credentials().get()
        try:
            return provider().subscribers(found, bot_id)
        except CredentialsRefusedError:
            if renewed := credentials().renew(found):
                return provider().subscribers(renewed, bot_id)
            raise

    return FanOut(
        table=broadcast_table(),
        store=store(),
        queues=queues(),
        subscribers=subscribers,
        rules=settings.rules,
        longest_run=settings.sender_timeout,
        rate=settings.messages_per_second,
    )


@cache
def hook_secrets() -> HookSecrets:
    """Return the source of the webhooks' secrets, which redacts what it hands out."""

    def redact_them(found: Secrets) -> None:
        for secret in (secret for secrets in found.values() for secret in secrets):
            redact.register(secret)

    fetch = from_secrets_manager(_aws("secretsmanager"), settings.hook_secrets)
    return HookSecrets(fetch, on_change=redact_them, on_stale=_stale)


def _stale(error: CredentialsError) -> None:
    log.warning("secret not read anew, the last one is kept", extra={"reason": str(error)})


@cache
def sender() -> Sender:
    """Return what delivers messages."""
    rules = settings.rules
    pacer = TablePacer(_dynamodb(), settings.table, settings.messages_per_second)
    dispatcher = Dispatcher(
        provider=provider(),
        credentials=credentials(),
        breaker=Breaker(pause=rules.backoff_min, longest=min(60.0, rules.backoff_max)),
        pacer=pacer,
        executor=ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="send"),
        provider_timeout=settings.provider_timeout,
        longest_hold=rules.backoff_max,
    )
    return Sender(
        store=store(),
        gate=gate(),
        pacer=pacer,
        dispatcher=dispatcher,
        dead_letters=DeadLetters(store(), queues()),
        rules=rules,
    )


@cache
def scheduler() -> "EventBridgeSchedulerClient":
    """Return the client of EventBridge Scheduler, which few requests need."""
    client: EventBridgeSchedulerClient = _aws("scheduler")
    return client


@cache
def messages() -> Messages:
    """Return single messages as the API's callers deal with them."""
    return Messages(store=store(), queues=queues(), intake=intake(), sender=sender(), gate=gate())


@cache
def directory() -> Directory:
    """Return the provider's lists."""
    return Directory(provider(), credentials())
