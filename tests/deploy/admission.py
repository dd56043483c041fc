# SPDX-License-Identifier: Apache-2.0
"""What an API server does with admission policies, as far as the tests in here need it: CEL by cel-python, whose functions of Kubernetes' own
libraries are here, and JSON patches. cel-python does not check types before it evaluates, as an API server does."""
import copy
import functools
import re

import celpy
from celpy import celtypes


def strings(values):
    return celtypes.ListType([celtypes.StringType(value) for value in values])


FUNCTIONS = {
    "split": lambda text, by: strings(text.split(by)),
    "trim": lambda text: celtypes.StringType(text.strip()),
    "join": lambda texts, by="": celtypes.StringType(by.join(texts)),
    "indexOf": lambda values, value: celtypes.IntType(list(values).index(value) if value in values else -1),
    "escapeKey": lambda _, key: celtypes.StringType(key.replace("~", "~0").replace("/", "~1")),
}


def plain(value):
    """As JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, list):
        return [plain(of) for of in value]
    if isinstance(value, (bool, celtypes.BoolType)):
        return bool(value)
    return int(value) if isinstance(value, int) else str(value)


@functools.lru_cache(maxsize=None)
def program(expression):
    # cel-python cannot have both Object.spec.volumes and Object.spec.volumes.hostPath as types.
    expression = re.sub(r"\b(Object|JSONPatch)[.\w]*\{", lambda name: name.group().replace(".", "_"), expression)
    types = {name: celtypes.MessageType for name in re.findall(r"\b((?:Object|JSONPatch)\w*)\{", expression)}
    environment = celpy.Environment(annotations=types)
    return environment.program(environment.compile(expression), functions=FUNCTIONS)


class Policy:
    def __init__(self, document):
        self.spec = document["spec"]

    def evaluate(self, expression, variables):
        return program(expression).evaluate(variables)

    def given(self, pod, namespace, old=None):
        variables = {"object": celpy.json_to_cel(pod), "namespaceObject": celpy.json_to_cel(namespace), "jsonpatch": celtypes.StringType(""),
                     "oldObject": celpy.json_to_cel(old) if old else None,
                     "request": celpy.json_to_cel({"operation": "UPDATE" if old else "CREATE"})}
        own = celtypes.MapType()
        for variable in self.spec.get("variables", []):
            own[celtypes.StringType(variable["name"])] = self.evaluate(variable["expression"], dict(variables, variables=own))
        return dict(variables, variables=own)

    def matches(self, pod):
        return all(self.evaluate(condition["expression"], {"object": celpy.json_to_cel(pod)}) for condition in self.spec.get("matchConditions", []))

    def mutate(self, pod, namespace):
        """The pod as it is afterwards."""
        pod = copy.deepcopy(pod)
        if self.matches(pod):
            for mutation in self.spec["mutations"]:
                for operation in plain(self.evaluate(mutation["jsonPatch"]["expression"], self.given(pod, namespace))):
                    patch(pod, operation)
        return pod

    def refusals(self, pod, namespace, old=None):
        given = self.given(pod, namespace, old)
        return [validation["message"] for validation in self.spec["validations"] if not self.evaluate(validation["expression"], given)]


def patch(document, operation):
    """One `add` of RFC 6902: the parent has to be there."""
    if operation["op"] != "add":
        raise ValueError("op " + operation["op"])
    keys = [key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")[1:]]
    for key in keys[:-1]:
        document = document[int(key) if isinstance(document, list) else key]
    if not isinstance(document, list):
        document[keys[-1]] = operation["value"]
    elif keys[-1] == "-":
        document.append(operation["value"])
    else:
        document.insert(int(keys[-1]), operation["value"])
