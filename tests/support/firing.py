"""What EventBridge Scheduler hands the notifier for the template's own schedule."""

import re
from typing import Any

from tools.translated import template

FILLED_IN = {
    "<aws.scheduler.schedule-arn>": "arn:aws:scheduler:eu-central-1:1:schedule/group/mine",
    "<aws.scheduler.scheduled-time>": "2027-01-15T08:00:00Z",
}


def resolved(value: Any, parameters: dict[str, str]) -> Any:
    """Return what CloudFormation makes of a value, by the functions that the schedule needs."""
    match value:
        case {"Ref": name}:
            return parameters[name]
        case {"Fn::Split": [delimiter, text]}:
            return resolved(text, parameters).split(delimiter)
        case {"Fn::Join": [delimiter, parts]}:
            return delimiter.join(resolved(parts, parameters))
        case {"Fn::Sub": [text, names]}:
            filled = {name: resolved(each, parameters) for name, each in names.items()}
            return re.sub(r"\$\{(\w+)\}", lambda found: filled[found[1]], text)
        case _:
            raise NotImplementedError(value)


def scheduled_input(message: str) -> str:
    """Return the input of the template's schedule, by its parameter ScheduleMessage."""
    target = template()["Resources"]["NotificationSchedule"]["Properties"]["Target"]
    return str(resolved(target["Input"], {"ScheduleMessage": message}))


def fired(input_: str) -> str:
    """Return what arrives: the scheduler fills in its keywords wherever they stand."""
    for keyword, value in FILLED_IN.items():
        input_ = input_.replace(keyword, value)
    return input_
