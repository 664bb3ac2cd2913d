"""Show what a webhook's payload would become, sending nothing: `python -m local.hook`."""

import argparse
import json
import sys
from pathlib import Path

from local import ROOT

sys.path.insert(0, str(ROOT / "layers" / "relay"))

from relay.webhooks import hooks
from relay.webhooks.hooks import (
    HooksFileError,
    Ignored,
    Rendered,
    RenderResult,
    Request,
    Unrenderable,
)

HOOKS_FILE = ROOT / "functions" / "hooks" / "hooks.toml"


def main(arguments: list[str] | None = None) -> int:
    """Show what a payload becomes, or only check hooks.toml; return 1 if either is wrong."""
    parser = argparse.ArgumentParser(prog="python -m local.hook", description=__doc__)
    parser.add_argument(
        "name", nargs="?", help="the hook's name; without it, only check hooks.toml"
    )
    parser.add_argument("payload", nargs="?", type=Path, help="a file that holds a request's body")
    parser.add_argument("--headers", default="", help="'Name: value', separated by semicolons")
    parser.add_argument("--file", type=Path, default=HOOKS_FILE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        configured = hooks.load(options.file.read_text("utf-8"))
    except HooksFileError as error:
        print(f"{options.file.name}:\n{error}", file=sys.stderr)
        return 1
    if not options.name:
        print(f"{options.file.name} is valid: {', '.join(configured)}")
        return 0
    if options.name not in configured:
        names = ", ".join(configured)
        print(f"There is no hook {options.name!r}. The hooks are {names}.", file=sys.stderr)
        return 1
    if not options.payload:
        print("Give a file with the payload: make hook NAME=… PAYLOAD=file.json", file=sys.stderr)
        return 1
    if not options.payload.is_file():
        print(f"There is no file {options.payload}.", file=sys.stderr)
        return 1
    request = Request(_headers(options.headers), options.payload.read_bytes())
    hook = configured[options.name]
    if not hook.to:
        print("Ignored: the hook's `to` is empty, so nobody gets a message.")
        return 0
    return _show(hooks.render(options.name, hook, request), headers=bool(options.headers))


def _show(rendered: RenderResult, *, headers: bool) -> int:
    """Show what each recipient gets; return 1 if something would be a dead letter."""
    match rendered:
        case Ignored():
            print("Ignored: none of the hook's messages matches this payload.")
            if not headers:
                print("If the sender names its event in a header, as GitHub does, give HEADERS.")
            return 0
        case Unrenderable():
            return _show_failure(rendered)
        case Rendered(results, delivery):
            code = 0
            for result in results:
                if isinstance(result, Unrenderable):
                    code = _show_failure(result)
                    continue
                content = result.message.model_dump(mode="json", exclude_defaults=True)
                print(json.dumps(content, ensure_ascii=False, indent=2))
            print(f"\nThe delivery's id: {delivery or 'none, so every request is a new message'}")
            return code


def _show_failure(failure: Unrenderable) -> int:
    print(f"This would be a dead letter ({failure.reason}): {failure.detail}", file=sys.stderr)
    return 1


def _headers(text: str) -> dict[str, str]:
    pairs = (item.partition(":") for item in text.split(";") if item.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
