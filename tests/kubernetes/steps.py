"""What the checks of cluster.py are made of: objects, pods that end, and waiting for what must come about."""

import json
import time

import helm_python

from cluster import ACCESS, NAMESPACE, TEAM
from machine import Cluster
from world import PATIENCE


def merged(base: dict, over: dict) -> dict:
    result = dict(base)
    for key, value in over.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def helm(cluster: Cluster) -> helm_python.Config:
    return helm_python.Config(kubeconfig_path=cluster.account("admin"), namespace=NAMESPACE)


def terrace(cluster: Cluster, *words: str) -> str:
    """A command in the catalog's pod, as the procedure gives it."""
    return cluster.kubectl("-n", NAMESPACE, "exec", "statefulset/terrace-catalog", "--", "/usr/bin/terrace", *words, *ACCESS)


def answers(cluster: Cluster) -> bool:
    """Whether the catalog can be reached: the proxy knows of a service some time after its pod is ready."""
    try:
        terrace(cluster, "dataset", "list")
    except AssertionError as why:
        assert "does not answer" in str(why), why
        return False
    return True


def apply(cluster: Cluster, *objects: dict, namespace: str = TEAM) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def path(name: str, kind: str = "pods", namespace: str = TEAM) -> str:
    return f"/api/v1/namespaces/{namespace}/{kind}/{name}"


def phase(*wanted: str):
    return lambda found: found is not None and found["status"].get("phase") in wanted


def said(cluster: Cluster, what: str, name: str, namespace: str = TEAM) -> str:
    """What a pod has written when it has ended well."""
    found = cluster.until(what, path(name, namespace=namespace), phase("Succeeded", "Failed"), 2 * PATIENCE)
    text = cluster.kubectl("-n", namespace, "logs", name)
    assert found["status"]["phase"] == "Succeeded", f"{what}: {text} {found['status']}"
    return text.strip()


def running(cluster: Cluster, name: str) -> None:
    cluster.until(f"{name} runs", path(name), phase("Running"), 2 * PATIENCE)


def wait_for(what: str, is_so, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.3)


def gone(found) -> bool:
    return found is None
