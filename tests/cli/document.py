# SPDX-License-Identifier: Apache-2.0
"""What the tests of commands that print a document share: what a command says, and whether its document is as its schema says."""
import json
import os
import subprocess
import sys

from books import COMMAND, HERE, check

ROOT = os.path.dirname(os.path.dirname(HERE))


def said(command, *arguments, fails=None, before=(), **options):
    """The output of `softslice COMMAND`; with `fails`, its error output instead, which has to be one line."""
    done = subprocess.run([*before, COMMAND, command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60, **options)
    output, errors = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    check(done.returncode == (fails or 0), arguments, "ended with", done.returncode, errors)
    check(all(c >= " " or c == "\n" for c in output + errors), arguments, "control characters", repr(output), repr(errors))
    if fails:
        check(errors.count("\n") == 1 and errors.startswith("softslice: ") and not output, arguments, repr(errors), output)
    return errors if fails else output


def schema_validator(name):
    """A function that raises where a document is not as docs/NAME says; None where jsonschema cannot be had."""
    packages = subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), "jsonschema", "jsonschema<4.18"], stdout=subprocess.PIPE, text=True,
                              check=False).stdout.strip()
    if not packages:
        return None
    sys.path.insert(0, packages)
    import jsonschema  # pylint: disable=import-outside-toplevel,import-error
    with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as text:
        schema = json.load(text)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema).validate
