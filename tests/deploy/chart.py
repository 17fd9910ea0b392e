"""The chart as Helm and Kubernetes see it: linted, rendered, and every object strictly valid."""

import copy
import json
import sys

import helm_python
import yaml

import schemas
from common import CHART, EVERYTHING, KUBERNETES, LITTLE, Problems, identity, merged, objects, pod_of, render, run

SETS = {"default values": {}, "everything": EVERYTHING, "little": LITTLE,
        "single-node": yaml.safe_load((CHART.parent / "single-node.yaml").read_text())}
RESTART_RULES = {"keeper": {"liveUpgrade": True, "updateStrategy": "RollingUpdate"}}


def lint(problems: Problems) -> None:
    for name, values in SETS.items():
        report = helm_python.lint(str(CHART), values, strict=True, namespace="terrace-system")
        for message in report["messages"]:
            problems.check(message["severity"] < 2, f"helm lint, {name}: {message['path']}: {message['error']}")
        problems.check(not report["errors"], f"helm lint, {name}: {report['errors']}")


def valid(problems: Problems) -> None:
    for name, values in SETS.items():
        found = render(values)
        names = [identity(one) for one in found]
        problems.check(len(names) == len(set(names)), f"{name}: two objects have one name")
        problems.check(len(found) > 15, f"{name}: only {len(found)} objects")
        schemas.check(name, found, problems)


def volumes_by_hand(problems: Problems) -> None:
    """What the procedure for one node gives to the chart's claims."""
    found = objects((CHART.parent / "single-node-volumes.yaml").read_text())
    schemas.check("volumes by hand", found, problems)
    values = yaml.safe_load((CHART.parent / "single-node.yaml").read_text())
    asked = {one["metadata"]["name"]: one["spec"]["resources"]["requests"]["storage"]
             for one in render(values) if one["kind"] == "PersistentVolumeClaim"}
    held = {one["metadata"]["name"]: one["spec"]["capacity"]["storage"] for one in found if one["kind"] == "PersistentVolume"}
    problems.check(asked == held, f"volumes by hand are {held}, the claims {asked}")


def the_judge_judges(problems: Problems) -> None:
    """A validator that takes everything would take this chart too."""
    keeper = next(one for one in render() if identity(one) == "DaemonSet terrace-system/terrace-keeper")
    for path, value in ((("spec", "updateStrategi"), {}), (("spec", "template", "spec", "hostPid"), True),
                        (("spec", "minReadySeconds"), "soon")):
        wrong = copy.deepcopy(keeper)
        place = wrong
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        for version in KUBERNETES:
            problems.check(schemas.refused(wrong, version) is not None, f"{'.'.join(path)} is taken by {version}")


def live_upgrade(problems: Problems) -> None:
    """What the chart says of releases: restart rules of containers begin with 1.35."""
    keeper = next(one for one in render(RESTART_RULES) if identity(one) == "DaemonSet terrace-system/terrace-keeper")
    schemas.check("live upgrade", [keeper], problems, versions=tuple(one for one in KUBERNETES if one >= "1.35"))
    # Linting goes on after a refusal of the templates and says it in its log only.
    script = "import json, sys, helm_python; helm_python.lint(sys.argv[1], json.loads(sys.argv[2]), kube_version=sys.argv[3])"
    for version, refusal in (("v1.34.9", True), ("v1.35.0", False)):
        said = run([sys.executable, "-c", script, str(CHART), json.dumps(RESTART_RULES), version]).stderr
        problems.check(("needs Kubernetes 1.35" in said) == refusal, f"live upgrade, {version}: {said}")
    problems.check(keeper["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0},
                   "live upgrade: the next keeper must be there before the last one goes")
    ports = [port for one in keeper["spec"]["template"]["spec"]["containers"] for port in one.get("ports", [])]
    problems.check(not ports, "live upgrade: two pods of a node cannot declare one port of the host")


def certificates_agree(problems: Problems) -> None:
    """The webhook's secret and the two configurations must come from one authority."""
    found = {identity(one): one for one in render()}
    ours = found["Secret terrace-system/terrace-webhook-tls"]["data"]["ca.crt"]
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for hook in found[f"{kind} /terrace"]["webhooks"]:
            problems.check(hook["clientConfig"]["caBundle"] == ours, f"{kind}: another authority than the secret's")
            problems.check(hook["failurePolicy"] == "Ignore", f"{kind}: a webhook that is down would stop pods")
    pods = found["MutatingWebhookConfiguration /terrace"]["webhooks"][0]
    problems.check(pods["reinvocationPolicy"] == "IfNeeded", "the webhook does not see what others add after it")
    kept = pods["namespaceSelector"]["matchExpressions"][0]
    problems.check({"kube-system", "terrace-system"} <= set(kept["values"]), "the webhook is asked about its own pods")


def names_follow(problems: Problems) -> None:
    """Two releases in one cluster must not share an object of the cluster."""
    cluster = ("ClusterRole", "ClusterRoleBinding", "PriorityClass", "MutatingWebhookConfiguration",
               "ValidatingWebhookConfiguration")
    for one in render(merged(EVERYTHING, {"fullnameOverride": "second"})):
        if one["kind"] in cluster:
            problems.check(one["metadata"]["name"].startswith("second"), f"{identity(one)}: not named by the release")


def roles_agree(problems: Problems) -> None:
    """A volume that one role takes and the other refuses is made and never mounted."""
    both = {"csi": {"data": {"directories": ["/mnt/pfs/volumes"], "cold": ["s3://archive/terrace", "hdfs://archive/terrace"]}}}
    for values, count in ((both, 3), ({}, 0)):
        said = {}
        for one in render(values):
            for container in (pod_of(one) or {}).get("containers", []):
                if "--driver=data" in container.get("args", []):
                    said[one["metadata"]["name"]] = [word for word in container["args"] if word.startswith(("--cold=", "--directories="))]
        node, controller = said["terrace-csi-data"], said["terrace-csi-controller"]
        problems.check(node == controller and len(node) == count, f"the roles of data.terrace.io serve {node} and {controller}")


def startup_taint(problems: Problems) -> None:
    """On a cluster whose every node has the taint nothing would start that takes it away."""
    taint = {"key": "terrace.io/agent-not-ready", "operator": "Exists"}
    few = {"tolerateAllTaints": False, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    found = render({"controller": {"startupTaint": True}, "keeper": few, "csi": few})
    for one in found:
        needed = one["kind"] == "DaemonSet" or one["metadata"]["name"] == "terrace-controller"
        if pod_of(one) and needed:
            held = pod_of(one).get("tolerations", [])
            problems.check(taint in held, f"{identity(one)}: waits for itself under the startup taint")
            problems.check(one["kind"] == "Deployment" or few["tolerations"][0] in held, f"{identity(one)}: lost a toleration")


problems = Problems()
for judged in (lint, valid, volumes_by_hand, the_judge_judges, live_upgrade, certificates_agree, names_follow, roles_agree,
               startup_taint):
    judged(problems)
problems.end(f"chart, {len(SETS)} sets of values, Kubernetes {', '.join(KUBERNETES)}")
