"""What the template promises to whoever runs it, read as CloudFormation gets it."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from samcli.cli.types import CfnParameterOverridesType

from ops import doctor
from relay import metrics
from relay.messages.envelope import Message
from relay.messages.lists import INDEXES
from relay.messages.queues import ROOM_TO_WAIT
from relay.outcomes.publisher import Published, log_line
from relay.schedules.firings import read
from relay.validation import validate
from tests.support.firing import FILLED_IN, fired, scheduled_input
from tests.support.roles import MANAGED, ROLES
from tools.translated import ROOT, template, translated

TEXT = (ROOT / "template.yaml").read_text("utf-8")


@cache
def resources() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = translated()["Resources"]
    return found


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in resources().items() if r["Type"] == kind}


def mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from mappings(value)


def test_no_mapping_has_a_key_twice() -> None:
    """YAML's readers keep the last one and say nothing; of a merge (<<) too."""
    for mapping in mappings(yaml.compose(TEXT, Loader=yaml.SafeLoader)):
        counted = Counter(key.value for key, _ in mapping.value)
        twice = [key for key, count in counted.items() if count > 1]
        assert twice == [], f"line {mapping.start_mark.line + 1}"


def test_no_line_is_too_long_to_read() -> None:
    long = [n for n, line in enumerate(TEXT.splitlines(), start=1) if len(line) >= 120]
    assert long == []


def test_every_alarm_tells_a_person() -> None:
    for name, alarm in of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}], name
        assert "OKActions" not in alarm, f"{name}: mails at a first deployment, for nothing"
        assert alarm["AlarmDescription"], name


def test_the_canary_runs_by_default_and_its_alarm_lasts_until_a_run_succeeds() -> None:
    """It is the only early warning of a password that no longer works."""
    assert template()["Parameters"]["CanarySchedule"]["Default"] == "rate(15 minutes)"
    alarms = of_type("AWS::CloudWatch::Alarm")
    # Runs are further apart than the alarm's period, so most periods have no data.
    assert alarms["CanaryAlarm"]["Period"] < 15 * 60
    lasting = [name for name, alarm in alarms.items() if alarm["TreatMissingData"] == "ignore"]
    assert lasting == ["CanaryAlarm"]


def test_the_alarm_on_lost_firings_counts_none_that_is_a_dead_letter() -> None:
    alarm = of_type("AWS::CloudWatch::Alarm")["SchedulesDroppedAlarm"]

    assert alarm["Namespace"] == "AWS/Scheduler"
    assert alarm["MetricName"] == "InvocationsFailedToBeSentToDeadLetterCount"


def test_the_alarm_on_dead_letters_sees_those_that_a_redrive_left_behind() -> None:
    alarm = of_type("AWS::CloudWatch::Alarm")["DeadLettersAlarm"]

    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"


def test_each_queue_of_messages_has_an_alarm_on_its_oldest() -> None:
    ages = {
        alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0]: alarm["Threshold"]
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
        if alarm["MetricName"] == "ApproximateAgeOfOldestMessage"
    }
    assert ages == {"MessagesQueue": 900, "OrderedQueue": 900}


def test_the_ordered_queue_s_backlog_is_told_of_before_sqs_stops_looking_further() -> None:
    """SQS looks for free lines among "the first 120,000 messages" (SQS Developer Guide)."""
    alarm = of_type("AWS::CloudWatch::Alarm")["OrderedBacklogAlarm"]
    assert alarm["Dimensions"][0]["Value"] == {"Fn::GetAtt": ["OrderedQueue", "QueueName"]}
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert alarm["Threshold"] == doctor.BACKLOG < 120_000


def test_too_many_that_wait_are_told_of_when_the_doors_begin_to_refuse() -> None:
    """SQS hands out no more of a queue with "approximately 120,000 in flight messages"."""
    alarm = of_type("AWS::CloudWatch::Alarm")["WaitingMessagesAlarm"]
    assert alarm["Dimensions"][0]["Value"] == {"Fn::GetAtt": ["MessagesQueue", "QueueName"]}
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesNotVisible"
    assert alarm["Threshold"] == ROOM_TO_WAIT < 120_000


def test_every_chat_s_line_is_counted_by_itself_and_none_is_given_up_by_sqs() -> None:
    """Both settings together are "high throughput for FIFO queues" (SQS Developer Guide)."""
    queue = of_type("AWS::SQS::Queue")["OrderedQueue"]
    assert queue["DeduplicationScope"] == "messageGroup"
    assert queue["FifoThroughputLimit"] == "perMessageGroupId"
    assert "RedrivePolicy" not in queue
    assert "ContentBasedDeduplication" not in queue, "two texts alike may be two messages"


def test_the_dashboard_shows_every_alarm_and_the_lines() -> None:
    [dashboard] = of_type("AWS::CloudWatch::Dashboard").values()
    body = dashboard["DashboardBody"]["Fn::Sub"]
    shown = set(re.findall(r"\$\{(\w+Alarm)\.Arn\}", body))
    # The canary's is there only if there is a canary, which a text cannot say.
    assert shown == set(of_type("AWS::CloudWatch::Alarm")) - {"CanaryAlarm"}
    widgets = json.loads(re.sub(r"\$\{[^}]+\}", "x", body))["widgets"]
    assert [widget["properties"]["title"] for widget in widgets][2] == "Queues"
    assert "${OrderedQueue.QueueName}" in body


def test_alarms_on_the_relays_own_metrics_name_what_the_code_counts() -> None:
    own = {
        alarm["MetricName"]
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
        if alarm["Namespace"] == "smsgold-relay"
    }
    counted = {*metrics.ENDED.values(), "NotSent", "CredentialsRefused", "Redirects"}
    line = json.loads(log_line(Published(), "smsgold-relay", "stack", 0.0))
    counted |= {each["Name"] for each in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}

    assert own == {"Unknown", "NotSent", "CredentialsRefused", "Redirects", "EventsUnreadable"}
    assert own <= counted


def test_data_outlives_the_stack() -> None:
    kept = [
        r for r in resources().values() if r["Type"] in ("AWS::SQS::Queue", "AWS::DynamoDB::Table")
    ]

    assert len(kept) >= 3
    for resource in kept:
        assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resource["UpdateReplacePolicy"] == "Retain"


def test_a_first_deployment_that_fails_can_delete_its_table_again() -> None:
    """Protection comes afterwards: "the table cannot be deleted by any user or process"."""
    [table] = of_type("AWS::DynamoDB::Table").values()

    assert "DeletionProtectionEnabled" not in table


def test_every_queue_refuses_plain_http() -> None:
    policies = of_type("AWS::SQS::QueuePolicy").values()

    queues = [queue["Ref"] for policy in policies for queue in policy["Queues"]]
    assert sorted(queues) == sorted(of_type("AWS::SQS::Queue")), "a queue has one policy"
    for policy in policies:
        last = policy["PolicyDocument"]["Statement"][-1]
        statement = last["Fn::If"][2] if "Fn::If" in last else last
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_bucket_is_closed_speaks_tls_and_forgets() -> None:
    [(name, bucket)] = of_type("AWS::S3::Bucket").items()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert {"Id": "forget", "Status": "Enabled", "ExpirationInDays": 35} in bucket[
        "LifecycleConfiguration"
    ]["Rules"]
    [policy] = of_type("AWS::S3::BucketPolicy").values()
    [statement] = policy["PolicyDocument"]["Statement"]
    assert policy["Bucket"] == {"Ref": name}
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_own_key_encrypts_all_that_is_kept() -> None:
    key = {"Fn::If": ["HasKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]}

    for queue in of_type("AWS::SQS::Queue").values():
        assert queue["KmsMasterKeyId"] == key
        assert queue["SqsManagedSseEnabled"]["Fn::If"][2] is True
    for table in of_type("AWS::DynamoDB::Table").values():
        assert table["SSESpecification"]["KMSMasterKeyId"] == key
    for bucket in of_type("AWS::S3::Bucket").values():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": key,
        }
    for kind in ("AWS::SecretsManager::Secret", "AWS::Logs::LogGroup"):
        for other in of_type(kind).values():
            assert other["KmsKeyId"] == key


def test_every_role_may_use_the_own_key() -> None:
    policy = of_type("AWS::IAM::Policy")["KeyPolicy"]
    named = {role["Ref"] if "Ref" in role else role["Fn::If"][1]["Ref"] for role in policy["Roles"]}

    assert named == set(of_type("AWS::IAM::Role"))


def test_the_own_key_is_used_only_through_what_it_encrypts() -> None:
    """Only a real account could show that the services' calls carry these names."""
    document = of_type("AWS::IAM::Policy")["KeyPolicy"]["PolicyDocument"]
    [statement] = document["Statement"]
    services = statement["Condition"]["StringEquals"]["kms:ViaService"]
    assert [service["Fn::Sub"].partition(".")[0] for service in services] == [
        *("dynamodb", "s3", "secretsmanager", "sqs")
    ]


def test_only_schedules_of_the_stacks_group_use_their_role() -> None:
    """Only a real account could show that another's are refused."""
    policy = of_type("AWS::IAM::Role")["SchedulerRole"]["AssumeRolePolicyDocument"]
    [statement] = policy["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {
            "aws:SourceAccount": {"Ref": "AWS::AccountId"},
            "aws:SourceArn": {"Fn::GetAtt": ["ScheduleGroup", "Arn"]},
        }
    }


def test_nothing_has_a_name_of_its_own() -> None:
    """Two stacks live in one account and region: only CloudFormation names things."""
    names = (
        "QueueName",
        "TableName",
        "FunctionName",
        "RoleName",
        "LogGroupName",
        "TopicName",
        "BucketName",
    )
    for name, resource in resources().items():
        if resource["Type"] != "AWS::Lambda::Permission" and "EventSource" not in resource["Type"]:
            properties = resource.get("Properties", {})
            fixed = {n for n in (*names, "AlarmName", "DashboardName") if n in properties}
            assert not fixed or resource["Type"] == "AWS::Lambda::EventInvokeConfig", name


def test_the_environment_holds_no_secret() -> None:
    for name, function in of_type("AWS::Lambda::Function").items():
        for variable, value in function["Environment"]["Variables"].items():
            assert "resolve:" not in str(value), (name, variable)
    no_echo = [n for n, p in template()["Parameters"].items() if p.get("NoEcho")]
    assert not no_echo, "a secret is no parameter: it would be in every changeset's history"


def test_webhooks_need_no_key_and_everything_else_does() -> None:
    paths = resources()["RelayApi"]["Properties"]["Body"]["paths"]

    open_ = [
        (path, method)
        for path, item in paths.items()
        for method, operation in item.items()
        if not operation.get("security")
    ]
    assert open_ == [("/hooks/{name}", "post")]


def test_the_open_route_is_throttled_at_the_stage() -> None:
    [stage] = of_type("AWS::ApiGateway::Stage").values()
    [setting] = stage["MethodSettings"]

    # CloudFormation wants a path's slashes as ~1, as JSON pointers have them.
    assert (setting["ResourcePath"], setting["HttpMethod"]) == ("/~1hooks~1{name}", "POST")
    assert 100 <= setting["ThrottlingRateLimit"] <= setting["ThrottlingBurstLimit"] <= 200


def test_a_firewall_limits_each_address_if_it_is_asked_for() -> None:
    """Only a real account could show that it blocks."""
    firewall, association = resources()["HookFirewall"], resources()["HookFirewallAssociation"]
    for resource in (firewall, association):
        assert resource["Condition"] == "HasHookLimit"
    asked = {"Fn::Not": [{"Fn::Equals": [{"Ref": "HookRequestsPerMinute"}, ""]}]}
    assert template()["Conditions"]["HasHookLimit"] == asked
    assert template()["Parameters"]["HookRequestsPerMinute"]["Default"] == ""

    # "For an Amazon API Gateway REST API:
    # arn:partition:apigateway:region::/restapis/api-id/stages/stage-name" (AWS::WAFv2)
    assert association["Properties"]["ResourceArn"] == {
        "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}::"
        "/restapis/${RelayApi}/stages/${RelayApiv1Stage}"
    }
    properties = firewall["Properties"]
    assert properties["DefaultAction"] == {"Allow": {}}
    [rule] = properties["Rules"]
    assert rule["Action"] == {"Block": {}}
    limit = rule["Statement"]["RateBasedStatement"]
    assert (limit["AggregateKeyType"], limit["EvaluationWindowSec"]) == ("IP", 60)
    assert limit["Limit"] == {"Ref": "HookRequestsPerMinute"}
    assert limit["ScopeDownStatement"]["ByteMatchStatement"]["SearchString"] == "/hooks/"
    for visibility in (properties["VisibilityConfig"], rule["VisibilityConfig"]):
        assert visibility["SampledRequestsEnabled"] is False


@pytest.mark.parametrize(
    ("value", "fits"), [("", True), ("10", True), ("9", False), ("-10", False), ("10.5", False)]
)
def test_the_firewalls_limit_is_one_that_waf_takes(value: str, *, fits: bool) -> None:
    pattern = template()["Parameters"]["HookRequestsPerMinute"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, value)) is fits


def logical(resource: Any) -> str:
    """Return the logical id that an ARN in a policy belongs to; "*" for every resource."""
    match resource:
        case {"Fn::GetAtt": [name, *_]}:
            return str(name)
        case {"Fn::Sub": text} if "${ScheduleGroup}" in text:
            return "ScheduleGroup"
        case {"Fn::Sub": text} if "${RelayBucket.Arn}/" in text:
            return "RelayBucket"
        case {"Fn::Sub": "${RelayTable.Arn}/index/*"}:
            return "RelayTable's indexes"
        case _:
            return str(resource)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def permissions(role: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            for resource in as_list(statement["Resource"]):
                # What only the local AWS asks for is not there on AWS.
                if isinstance(resource, dict) and resource.get("Fn::If", [""])[0] == "IsLocal":
                    continue
                found.setdefault(logical(resource), set()).update(as_list(statement["Action"]))
    return found


def test_each_role_is_what_the_declared_list_says() -> None:
    roles = of_type("AWS::IAM::Role")

    assert set(roles) == set(ROLES), "declare it in tests/support/roles.py"
    for name, role in roles.items():
        assert permissions(role) == ROLES[name], f"{name}: tests/support/roles.py says otherwise"
        managed = {arn.rsplit("/", 1)[-1] for arn in role.get("ManagedPolicyArns", [])}
        assert managed == (set() if name == "SchedulerRole" else MANAGED), name


def test_the_table_s_indexes_are_those_that_the_code_reads_and_hold_keys_alone() -> None:
    table = of_type("AWS::DynamoDB::Table")["RelayTable"]
    indexes = {
        index["IndexName"]: [(key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]]
        for index in table["GlobalSecondaryIndexes"]
    }
    assert indexes == {
        index.name: [(index.partition, "HASH"), (index.place, "RANGE")] for index in INDEXES
    }
    for index in table["GlobalSecondaryIndexes"]:
        assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}


def test_other_policies_are_for_the_own_key_and_the_local_aws_alone() -> None:
    policies = {n: r for n, r in resources().items() if r["Type"].startswith("AWS::IAM::")}
    extra = {n: r["Condition"] for n, r in policies.items() if r["Type"] != "AWS::IAM::Role"}

    assert extra == {"KeyPolicy": "HasKey", "LocalCallsPolicy": "IsLocal"}


MESSAGE = '{"message": {"subscriberId": "s-1", "text": "Hi"}}'


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("", True),
        (MESSAGE, True),
        ('{"broadcast": {"botId": "b-1", "text": "Hi"}}', True),
        (' {\n "message" : {\n "subscriberId": "s-1",\n "text": "Hi" }\n}\n', True),
        ("Hi", False),
        ('{"subscriberId": "s-1", "text": "Hi"}', False),
        ("{'message': {'subscriberId': 's-1', 'text': 'Hi'}}", False),
        ('{"message": "Hi"}', False),
        ('{"message": {}}', False),
        ('"message": {"subscriberId": "s-1", "text": "Hi"}', False),
        (MESSAGE.removesuffix("}"), False),
    ],
)
def test_a_schedule_message_is_refused_where_cloudformation_can_see_that_it_is_none(
    value: str, taken: bool
) -> None:
    parameter = template()["Parameters"]["ScheduleMessage"]
    # CloudFormation's patterns are Java's and match the whole value; these mean the same in Python.
    assert bool(re.fullmatch(parameter["AllowedPattern"], value)) is taken
    assert parameter["ConstraintDescription"]


def test_an_expression_without_a_message_is_refused() -> None:
    [rule] = template()["Rules"].values()
    given = {"Fn::Not": [{"Fn::Equals": [{"Ref": "ScheduleExpression"}, ""]}]}
    assert rule["RuleCondition"] == given == template()["Conditions"]["HasSchedule"]
    [assertion] = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "ScheduleMessage"}, ""]}]}


@pytest.mark.parametrize(
    "text",
    [
        "Good morning",
        *FILLED_IN,
        "<aws.scheduler.execution-id> <<aws.aws.",
        "${AWS::Region} ${Content} ${ScheduleMessage}",
        'Say "hi"\\ \n Ваш заказ 👋',
    ],
)
@pytest.mark.parametrize("ascii_", [True, False])
def test_the_templates_schedule_says_what_was_written(text: str, ascii_: bool) -> None:
    message = {"subscriberId": "s-1", "text": text}
    input_ = scheduled_input(json.dumps({"message": message}, ensure_ascii=ascii_))
    assert [input_.count(keyword) for keyword in FILLED_IN] == [1, 1]

    event = json.loads(fired(input_))

    assert (event["schedule"], event["time"]) == tuple(FILLED_IN.values())
    found = read(event, invocation="r-1", now=0.0)
    assert not found.late
    assert found.content.fingerprint == validate(Message, message).fingerprint


def test_a_firing_that_fails_is_kept_whoever_gives_it_up() -> None:
    """EventBridge Scheduler if it cannot invoke the notifier, Lambda if the notifier fails."""
    queue = {"Fn::GetAtt": ["NotifierDeadLetterQueue", "Arn"]}
    [schedule] = of_type("AWS::Scheduler::Schedule").values()
    notifier = of_type("AWS::Lambda::Function")["NotifierFunction"]
    assert schedule["Target"]["DeadLetterConfig"] == {"Arn": queue}
    assert notifier["DeadLetterConfig"] == {"TargetArn": queue}


def test_a_rules_event_that_fails_is_kept_whoever_gives_it_up() -> None:
    """EventBridge if it cannot invoke the function, Lambda if the function fails."""
    queue = {"Fn::GetAtt": ["HooksDeadLetterQueue", "Arn"]}
    [target] = of_type("AWS::Events::Rule")["AlarmRule"]["Targets"]
    function = of_type("AWS::Lambda::Function")["HooksFunction"]
    assert target["DeadLetterConfig"] == {"Arn": queue}
    assert function["DeadLetterConfig"] == {"TargetArn": queue}
    policies = of_type("AWS::SQS::QueuePolicy")
    allowed, _ = policies["HooksDeadLetterPolicy"]["PolicyDocument"]["Statement"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}


def test_a_rule_passes_the_whole_event_on() -> None:
    """What an input transformer makes of texts can choose the recipient, or be no JSON."""
    [target] = of_type("AWS::Events::Rule")["AlarmRule"]["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["HooksFunction", "Arn"]}
    assert not target.keys() & {"Input", "InputPath", "InputTransformer"}


def test_the_example_of_a_schedule_message_is_taken_as_it_stands() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    overrides = tomllib.loads(example)["prod"]["deploy"]["parameters"]["parameter_overrides"]
    given = CfnParameterOverridesType().convert(tuple(overrides), None, None)
    known = template()["Parameters"]
    assert {"ScheduleExpression", "ScheduleMessage"} < set(given) <= set(known)
    assert re.fullmatch(known["ScheduleMessage"]["AllowedPattern"], given["ScheduleMessage"])
    event = json.loads(fired(scheduled_input(given["ScheduleMessage"])))
    found = read(event, invocation="r-1", now=0.0)
    assert '"' in found.content.text


def test_by_default_lambda_logs_only_trouble_and_nothing_is_traced() -> None:
    """Both are paid for: docs/performance.md."""
    parameters = template()["Parameters"]
    assert (parameters["LogLevel"]["Default"], parameters["Traces"]["Default"]) == ("INFO", "false")
    for name, function in of_type("AWS::Lambda::Function").items():
        logging = function["LoggingConfig"]
        assert logging["LogFormat"] == "JSON", name
        assert logging["SystemLogLevel"] == {"Fn::If": ["Debugging", "INFO", "WARN"]}, name
        assert function["TracingConfig"] == {
            "Mode": {"Fn::If": ["HasTraces", "Active", "PassThrough"]}
        }, name
