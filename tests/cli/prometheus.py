#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is in examples/monitoring, with a real Prometheus: it scrapes the exporter with that configuration, each query of the dashboard has an
answer there, and promtool finds nothing wrong with the alerts."""
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSIM_GPUS=2 SOFTSLICE_LOG=off
# timeout: 180
# unsanitized: it compares what a plain program takes
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from exporter_helper import MiB, ROOT, TMP, Exporter, begin, check, hold, need, status, wait_for, work

EXAMPLES = os.path.join(ROOT, "examples", "monitoring")
need("prometheus")
need("promtool")

for words in (["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
    result = subprocess.run(["promtool"] + words, cwd=EXAMPLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    check(result.returncode == 0, "promtool %s: %s" % (" ".join(words), result.stdout))
print("promtool")

work("team", vram="1037MiB", compute="20%", weight="150")
hold("team", mib=128, vram="1037MiB")
hold("full", mib=9999, vram="519MiB", compute="50%")
exporter = Exporter("--hami-names")


def serve(name, text):
    """A Prometheus with that configuration, the rules that it names and scrapes for as long as a test has: its address and process."""
    with open(os.path.join(TMP, name + ".yml"), "w", encoding="utf-8") as file:
        file.write(text.replace("15s", "1s").replace("alerts.yml", os.path.join(EXAMPLES, "alerts.yml")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    log = open(os.path.join(TMP, name + ".log"), "w", encoding="utf-8")
    return address, begin(["prometheus", "--config.file", os.path.join(TMP, name + ".yml"), "--storage.tsdb.path", os.path.join(TMP, name),
                           "--web.listen-address", address], stdout=log, stderr=log), log.name


def example(name):
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        return file.read()


# The configuration as it is, but for the port.
text = example("prometheus.yml")
check("127.0.0.1:9877" in text and text.count("15s") == 2, "prometheus.yml has another address or interval")
alone = serve("alone", text.replace("9877", str(exporter.port)))

# In Kubernetes, with targets as an API server would have told of them (Debian's Prometheus cannot ask one): the tenants' pods are in their
# labels, the exporter's own in none.
there = os.path.join(TMP, "pod")
os.mkdir(there, 0o700)
with open(os.path.join(there, "labels.ini"), "w", encoding="ascii") as file:
    file.write("[labels]\nnamespace = team-a\npod = trainer-0\ncontainer = main\n")
hold("labelled", vram="519MiB", env=dict(os.environ, SOFTSLICE_STATE_DIR=there))
beside = Exporter("--state-dir", there)
text = example("kubernetes.yml")
discovery = re.search(r"    kubernetes_sd_configs:\n(?:      .*\n)+", text).group()
TARGET = '      - {targets: ["127.0.0.1:%d"], labels: {__meta_kubernetes_pod_label_app_kubernetes_io_name: %s, ' \
    "__meta_kubernetes_pod_container_port_name: %s, __meta_kubernetes_pod_node_name: %s, __meta_kubernetes_namespace: softslice-system}}\n"
targets = "".join(TARGET % ((beside.port,) + of) for of in (("softslice-device-plugin", "metrics", "node-a"),
                                                           ("softslice-device-plugin", "other", "node-b"), ("another", "metrics", "node-c")))
pods = serve("pods", text.replace(discovery, "    static_configs:\n" + targets))


def ask(path, of=alone, **fields):
    try:
        with urllib.request.urlopen("http://%s/api/v1/%s?%s" % (of[0], path, urllib.parse.urlencode(fields)), timeout=20) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        # It says so while it is not ready yet.
        check(error.code == 503, "%s %s: %s" % (path, fields, error.read()))
    except OSError:
        check(of[1].poll() is None, "Prometheus has ended: " + open(of[2], encoding="utf-8").read()[-2000:])
    return None


def query(expression, of=alone):
    data = ask("query", of, query=expression)
    return data["result"] if data else []


wait_for("a scrape", lambda: query('up{job="softslice"} == 1'), 60)
wait_for("some scrapes", lambda: query("count_over_time(softslice_build_info[1m]) >= 6"), 60)

# Prometheus has what status has.
for tenant in status()["tenants"]:
    for device in tenant["devices"]:
        for name in ("limit", "current", "peak"):
            found = query('softslice_memory_%s_bytes{tenant="%s",gpu="%s"}' % (name, tenant["tenant"], device["gpu"]))
            check(len(found) == 1 and int(found[0]["value"][1]) == device["vram"][name + "_bytes"], "%s: %s" % (name, found))
wait_for("what the team uses", lambda: [one for one in query('rate(softslice_gpu_busy_seconds_total{tenant="team"}[5s])') if
                                        float(one["value"][1]) > 0])
check(query("scrape_samples_scraped") and not query('scrape_samples_post_metric_relabeling{job="softslice"} < 50'), "samples")
print("queries")

# The dashboard, with what Grafana puts in.
dashboard = json.loads(example("dashboard.json"))
variables = {variable["name"] for variable in dashboard["templating"]["list"]}
expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
check(len(expressions) >= 15, "the dashboard has %d queries" % len(expressions))
used = set()
for expression in expressions:
    filled = expression.replace("$__rate_interval", "8s")
    for name in variables:
        used |= {name} if "$" + name in filled else set()
        filled = filled.replace('"$%s"' % name, '".*"')
    check("$" not in filled, "a variable that there is not: " + expression)
    wait_for("data for " + expression, lambda filled=filled: query(filled))
check(used == variables - {"datasource"}, "variables that no query uses: %s" % (variables - used))
for variable in dashboard["templating"]["list"]:
    if variable["type"] == "query":
        selector, label = variable["definition"][len("label_values("):-1].rsplit(", ", 1)
        check([one for one in query("count by (%s) (%s)" % (label, selector)) if one["metric"].get(label)], "no value of $" + variable["name"])
ids = [panel["id"] for panel in dashboard["panels"]]
check(len(set(ids)) == len(ids) and all(panel["title"] for panel in dashboard["panels"]), "panels")
print("%d queries of the dashboard" % len(expressions))

# What docs/monitoring.md asks.
with open(os.path.join(ROOT, "docs", "monitoring.md"), encoding="utf-8") as file:
    asked = re.findall(r"^    # .*\n    ((?:softslice_|rate).*)", file.read(), re.M)
check(len(asked) == 3, "queries in docs/monitoring.md: %s" % asked)
for expression in asked:
    check(query(expression), "no data: " + expression)

# The alerts are in it, and the one that has something to say is on its way.
rules = {rule["name"]: rule for group in ask("rules")["groups"] for rule in group["rules"]}
for name, rule in rules.items():
    check(rule["health"] == "ok", "%s: %s" % (name, rule.get("lastError")))
check(len(rules) == 6, "rules: %s" % list(rules))
near = wait_for("the alert", lambda: next((rule for group in ask("rules")["groups"] for rule in group["rules"] if
                                           rule["name"] == "SoftsliceMemoryNearLimit" and rule["alerts"]), None))
check([alert["labels"]["tenant"] for alert in near["alerts"]] == ["full"], "near its limit: %s" % near["alerts"])
check(query('hami_vgpu_memory_limit_bytes{tenant="full"} == %d' % (519 * MiB)), "HAMi's names")

found = wait_for("a pod's figures", lambda: query('softslice_memory_limit_bytes{tenant="labelled"}', pods))
check({label: found[0]["metric"].get(label) for label in ("job", "instance", "pod", "namespace", "container", "exported_pod")} ==
      {"job": "softslice", "instance": "node-a", "pod": "trainer-0", "namespace": "team-a", "container": "main", "exported_pod": None},
      "a pod's labels: %s" % found)
check([one["labels"] for one in ask("targets", pods, state="active")["activeTargets"]] == [{"instance": "node-a", "job": "softslice"}], "targets")
print("pods")
with open(alone[2], encoding="utf-8") as first, open(pods[2], encoding="utf-8") as second:
    wrong = [line for file in (first, second) for line in file if "level=error" in line or "level=warn" in line]
check(not wrong, "Prometheus complains: %s" % wrong)

exporter.stop()
beside.stop()
sys.exit(0)
