#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is in deploy/ and examples/ for Kubernetes is rendered by kubectl's kustomize and by Helm itself (its SDK, from the registry of Python packages), and
held against Kubernetes' schemas; the chart's defaults are the same objects as the kustomizations'."""
# timeout: 600
import glob
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import manifests  # noqa: E402
import yaml  # noqa: E402

manifests.packages("helm", "helm-python-sdk==0.2.2")
import helm_python as helm  # noqa: E402

DEPLOY, EXAMPLES = os.path.join(manifests.ROOT, "deploy"), os.path.join(manifests.ROOT, "examples", "kubernetes")
NAMESPACE = "softslice-system"
problems = []
counted = 0


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def check(what, objects):
    """Each fits its schema, and what they say of each other is so."""
    global counted
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    problems.extend("%s: %s twice" % (what, name) for name in set(names) if names.count(name) > 1)
    for one in objects:
        counted += 1
        problems.extend("%s: %s: %s" % (what, one["kind"], complaint) for complaint in manifests.complaints(one))
        template = one["spec"].get("template", {}).get("spec") if one["kind"] in ("DaemonSet", "Deployment", "StatefulSet", "Job") else None
        spec = one["spec"] if one["kind"] == "Pod" else template
        if not spec:
            continue
        volumes = [volume["name"] for volume in spec.get("volumes", [])]
        if template and one["kind"] != "Job" and not one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items():
            problems.append("%s: %s selects other pods" % (what, one["metadata"]["name"]))
        for container in spec["containers"] + spec.get("initContainers", []):
            missing = {mount["name"] for mount in container.get("volumeMounts", [])} - set(volumes)
            if missing:
                problems.append("%s: %s mounts what is not there: %s" % (what, container["name"], missing))
            if one["metadata"].get("namespace") != NAMESPACE:
                continue
            security = container.get("securityContext", {})
            if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False or not security.get("readOnlyRootFilesystem") or \
                    "ALL" not in security.get("capabilities", {}).get("drop", []):
                problems.append("%s: %s has more rights than it needs" % (what, container["name"]))
    return objects


def kustomized(folder):
    done = subprocess.run(["kubectl", "kustomize", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        problems.append("%s: %s" % (folder, done.stderr))
        return []
    return check(os.path.relpath(folder, manifests.ROOT), documents(done.stdout))


def charted(**values):
    with helm.Chart.load(os.path.join(DEPLOY, "chart")) as chart:
        rendered = chart.render(values, name="softslice", namespace=NAMESPACE)
    return check("chart %s" % values, [one for name, text in sorted(rendered.items()) if name.endswith(".yaml") for one in documents(text)])


def refused(why, **values):
    try:
        with helm.Chart.load(os.path.join(DEPLOY, "chart")) as chart:
            chart.validate_schema(values)
    except helm.HelmError:
        return
    problems.append("chart: taken: %s (%s)" % (values, why))


def flat(value):
    """kubectl writes long lines anew: where they end means nothing in an expression."""
    if isinstance(value, dict):
        return {key: flat(of) for key, of in value.items()}
    if isinstance(value, list):
        return [flat(of) for of in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def spec_of(objects):
    """Each object without what the chart may add: by kind and name."""
    found = {}
    for one in flat(objects):
        if one["kind"] == "Namespace":
            continue
        body = {key: value for key, value in one.items() if key not in ("metadata",)}
        if one["kind"] == "ConfigMap":
            body = {}
        if one["kind"] == "DaemonSet":
            body["spec"]["template"]["metadata"].pop("annotations", None)
            for container in body["spec"]["template"]["spec"]["containers"] + body["spec"]["template"]["spec"].get("initContainers", []):
                container.pop("imagePullPolicy", None)
        found[one["kind"], one["metadata"]["name"]] = body
    return found


def same(what, chart, kustomization):
    if set(chart) != set(kustomization):
        problems.append("%s: the chart has %s, the kustomization %s" % (what, sorted(chart), sorted(kustomization)))
    for name in set(chart) & set(kustomization):
        if chart[name] != kustomization[name]:
            problems.append("%s: %s differs:\n%s\n%s" % (what, name, yaml.safe_dump(chart[name]), yaml.safe_dump(kustomization[name])))


charts = {"plugin": charted(), "library": charted(mode="library", policy={"checkCluster": False})}
if shutil.which("kubectl"):
    for folder in sorted(glob.glob(os.path.join(DEPLOY, "**", "kustomization.yaml"), recursive=True) +
                         glob.glob(os.path.join(EXAMPLES, "**", "kustomization.yaml"), recursive=True)):
        objects = kustomized(os.path.dirname(folder))
        mode = {"device-plugin": "plugin", "stock": "library"}.get(os.path.relpath(os.path.dirname(folder), DEPLOY))
        if mode:
            same(mode, spec_of(charts[mode]), spec_of(objects))
else:
    print("no kubectl here: kustomizations were not rendered")
for path in sorted(glob.glob(os.path.join(EXAMPLES, "**", "*.yaml"), recursive=True)):
    if os.path.basename(path) != "kustomization.yaml" and not os.path.exists(os.path.join(os.path.dirname(path), "kustomization.yaml")):
        with open(path, encoding="utf-8") as text:
            check(os.path.relpath(path, manifests.ROOT), documents(text.read()))

# The device plugin takes its arguments and its ini as they are here.
for one in charts["plugin"]:
    if one["kind"] == "ConfigMap":
        with open(os.path.join(os.environ["TEST_TMP"], "softslice.ini"), "w", encoding="ascii") as text:
            text.write(one["data"]["softslice.ini"])
    if one["kind"] == "DaemonSet":
        arguments = [word for word in one["spec"]["template"]["spec"]["containers"][0]["args"] if not word.startswith(("--config", "--library"))]
        done = subprocess.run([os.path.join(os.environ["TEST_BUILD"], "softslice-device-plugin"),
                               "--config=" + os.path.join(os.environ["TEST_TMP"], "softslice.ini"), "--library=" + os.environ["TEST_LIB"], "--dry-run",
                               *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode or "vram-gib" not in done.stdout:
            problems.append("the device plugin says: " + done.stdout)

# What values can say arrives.
said = charted(
    image={"registry": "example.org/", "tag": "9", "pullSecrets": ["s"]}, kubeletDirectory="/k", libraryDirectory="/l", runtimeClassName="",
    exporter={"enabled": False}, nodeSelector={"a": "b"}, tolerations=[], affinity={"nodeAffinity": {}}, plugin={"config": "[slice x]\nvram = 1GiB\n"})
text = yaml.safe_dump_all(said)
for word in ("example.org/softslice/device-plugin:9", "example.org/softslice/library:9", "/k/pod-resources", "--library=/l/libsoftslice.so", "[slice x]",
             "a: b"):
    if word not in text:
        problems.append("chart: %s did not arrive" % word)
for word in ("exporter", "runtimeClassName", "nvidia.com/gpu", "/var/lib/softslice"):
    if word in text:
        problems.append("chart: there is still %s" % word)
text = yaml.safe_dump_all(charted(mode="library", libraryDirectory="/l", policy={"checkCluster": False,
                                                                                 "namespaceLabel": "team", "namespaceLabelValue": "gpu"}))
if "/var/lib/softslice" in text or "softslice.io/limits: " in text or text.count("team: gpu") != 2:
    problems.append("chart: the policies do not follow the values")
if len(charted(mode="library", policy={"enabled": False})) != 1:
    problems.append("chart: policies that are off are there")

# A cluster is asked for the policy's kind. Helm's picture of a cluster, where there is none, has groups and versions alone.
ASKED = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
other = os.path.join(os.environ["TEST_TMP"], "chart")
shutil.copytree(os.path.join(DEPLOY, "chart"), other)
template = os.path.join(other, "templates", "policy.yaml")
with open(template, encoding="utf-8") as text:
    asking = text.read()
with open(template, "w", encoding="utf-8") as text:
    text.write(asking.replace('Has "' + ASKED, 'Has "' + ASKED.rpartition("/")[0]))
for folder, served in (os.path.join(DEPLOY, "chart"), False), (other, True):
    try:
        with helm.Chart.load(folder) as chart:
            chart.render({"mode": "library"}, name="softslice", namespace=NAMESPACE)
        answer = ""
    except helm.HelmRenderError as error:
        answer = str(error)
    if served != (answer == "") or (answer and "does not serve " + ASKED.rpartition("/")[0] not in answer):
        problems.append("chart: where the policy's kind is%s served: '%s'" % ("" if served else " not", answer))
refused("an unknown mode", mode="webhook")
refused("an unknown key", modes="plugin")
refused("a relative directory", libraryDirectory="lib")
refused("a directory of blanks", libraryDirectory="/a b")
refused("a policy for all namespaces", policy={"namespaceLabel": ""})
refused("a registry without a slash", image={"registry": "example.org"})

print("\n".join(problems) or "%d objects" % counted)
sys.exit(1 if problems else 0)
