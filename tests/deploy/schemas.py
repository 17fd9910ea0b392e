"""Whether objects are what Kubernetes accepts: strictly, for each of its releases.

Kinds of others (Prometheus operator, cert-manager, external-snapshotter) are held against the small schemas below, which know
the fields that are used here and refuse every other one.
"""

import json

import jsonschema
import kubernetes_validate

from common import KUBERNETES, Problems, identity


def closed(properties: dict, required: tuple = ()) -> dict:
    """A map with these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


TEXT = {"type": "string"}
SELECTOR = closed({"matchLabels": {"type": "object"}}, ("matchLabels",))
RELABEL = closed({"sourceLabels": {"type": "array", "items": TEXT}, "regex": TEXT, "replacement": TEXT,
                  "targetLabel": TEXT}, ("sourceLabels", "targetLabel"))
ENDPOINT = {"path": TEXT, "interval": TEXT, "port": TEXT, "scheme": {"enum": ["http", "https"]},
            "relabelings": {"type": "array", "items": RELABEL},
            "tlsConfig": closed({"ca": closed({"secret": closed({"name": TEXT, "key": TEXT}, ("name", "key"))}),
                                 "serverName": TEXT})}
RULE = closed({"alert": TEXT, "expr": TEXT, "for": TEXT, "labels": {"type": "object"}, "annotations": {"type": "object"}},
              ("alert", "expr", "labels", "annotations"))
# Names and meta data are the same everywhere; these kinds have no `spec`.
HEAD = {"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}}
WHOLE = {
    "snapshot.storage.k8s.io/v1 VolumeSnapshotClass": closed(
        {**HEAD, "driver": TEXT, "deletionPolicy": {"enum": ["Delete", "Retain"]},
         "parameters": {"type": "object", "additionalProperties": TEXT}}, ("driver", "deletionPolicy")),
}
OTHERS = {
    "snapshot.storage.k8s.io/v1 VolumeSnapshot": closed(
        {"volumeSnapshotClassName": TEXT,
         "source": {"oneOf": [closed({"persistentVolumeClaimName": TEXT}, ("persistentVolumeClaimName",)),
                              closed({"volumeSnapshotContentName": TEXT}, ("volumeSnapshotContentName",))]}}, ("source",)),
    "monitoring.coreos.com/v1 PodMonitor": closed(
        {"selector": SELECTOR, "podMetricsEndpoints": {"type": "array", "items": closed(ENDPOINT)}},
        ("selector", "podMetricsEndpoints")),
    "monitoring.coreos.com/v1 ServiceMonitor": closed(
        {"selector": SELECTOR, "endpoints": {"type": "array", "items": closed(ENDPOINT, ("port",))}},
        ("selector", "endpoints")),
    "monitoring.coreos.com/v1 PrometheusRule": closed(
        {"groups": {"type": "array", "items": closed({"name": TEXT, "rules": {"type": "array", "items": RULE}},
                                                     ("name", "rules"))}}, ("groups",)),
    "cert-manager.io/v1 Issuer": {"oneOf": [closed({"selfSigned": closed({})}, ("selfSigned",)),
                                            closed({"ca": closed({"secretName": TEXT}, ("secretName",))}, ("ca",))]},
    "cert-manager.io/v1 Certificate": closed(
        {"secretName": TEXT, "dnsNames": {"type": "array", "items": TEXT}, "commonName": TEXT, "isCA": {"type": "boolean"},
         "duration": TEXT, "privateKey": closed({"algorithm": TEXT, "size": {"type": "integer"}, "rotationPolicy": TEXT}),
         "issuerRef": closed({"name": TEXT, "kind": TEXT}, ("name", "kind"))}, ("secretName", "issuerRef")),
}


def refused(found: dict, version: str) -> str | None:
    """Why a release of Kubernetes does not take an object; None when it does."""
    kind = f"{found['apiVersion']} {found['kind']}"
    other = WHOLE.get(kind) or OTHERS.get(kind)
    if other is not None:
        judged = found if kind in WHOLE else found["spec"]
        errors = list(jsonschema.Draft202012Validator(other).iter_errors(judged))
        return errors[0].message if errors else None
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as why:
        return str(why).splitlines()[0][:300]
    return None


# Objects that were taken: most are the same under every set of values.
TAKEN: set[tuple[str, str]] = set()


def check(what: str, found: list[dict], problems: Problems, versions: tuple = KUBERNETES) -> None:
    """Holds objects against every release."""
    for version in versions:
        for one in found:
            key = (version, json.dumps(one, sort_keys=True))
            if key in TAKEN:
                continue
            why = refused(one, version)
            if why is None:
                TAKEN.add(key)
            else:
                problems.add(f"{what}, Kubernetes {version}: {identity(one)}: {why}")
