"""Values that the chart refuses, each with the word that its message must have."""

import helm_python

from common import Problems, merged, render

REFUSED = [
    ({"kubletPath": "/var/lib/kubelet"}, "kubletPath"),
    ({"kubeletPath": "var/lib/kubelet"}, "kubeletPath"),
    ({"kubeletPath": ""}, "kubeletPath"),
    ({"image": {"digest": "sha256:short"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"log": {"format": "xml"}}, "format"),
    ({"keeper": {"hot": {"size": "500G"}}}, "size"),
    ({"keeper": {"hot": {"hostPath": "/var/cache/../etc"}}}, None),
    ({"keeper": {"metricsPort": 0}}, "metricsPort"),
    ({"keeper": {"metricsPort": "9750"}}, "metricsPort"),
    ({"keeper": {"updateStrategy": "Recreate"}}, "updateStrategy"),
    ({"keeper": {"updateStrategy": "RollingUpdate"}}, "liveUpgrade"),
    ({"keeper": {"config": {"cache": {"store": {"attempts": 1.5}}}}}, "config"),
    ({"keeper": {"config": {"catalog": {}}}}, "config"),
    ({"keeper": {"resources": {"limit": {"memory": "1Gi"}}}}, "limit"),
    ({"csi": {"data": {"enabled": "yes"}}}, "enabled"),
    ({"csi": {"controller": {"replicas": 2}}}, "replicas"),
    ({"csi": {"data": {"inline": True}}}, "inline"),
    ({"csi": {"data": {"spool": {"hostPath": "spool"}}}}, "hostPath"),
    ({"csi": {"data": {"spool": {"size": "1G"}}}}, "size"),
    ({"csi": {"data": {"snapshots": True}}}, "csi.data.directories"),
    ({"csi": {"data": {"copies": {"enabled": True}}}}, "csi.data.directories"),
    ({"csi": {"data": {"cold": ["s3://archive"]}}}, "csi.data.directories"),
    ({"csi": {"data": {"cold": ["file:///mnt/archive"], "directories": ["/mnt/pfs"]}}}, "cold"),
    ({"csi": {"data": {"cold": ["webhdfs://namenode:9870/archive"], "directories": ["/mnt/pfs"]}}}, "cold"),
    ({"csi": {"data": {"copies": {"capabilities": ["NET_ADMIN"]}}}}, "capabilities"),
    ({"csi": {"data": {"snapshots": "yes"}}}, "snapshots"),
    ({"csi": {"local": {"snapshots": True, "limits": "ext4-project"}}}, "ext4"),
    ({"volumeSnapshotClasses": {"mine": {"driver": "other.io", "deletionPolicy": "Delete"}}}, "driver"),
    ({"volumeSnapshotClasses": {"mine": {"driver": "data.terrace.io"}}}, "deletionPolicy"),
    ({"volumeSnapshotClasses": {"mine": {"driver": "data.terrace.io", "deletionPolicy": "Delete", "parameters": {"a": "b"}}}},
     "parameters"),
    ({"csi": {"local": {"limits": "quota"}}}, "limits"),
    ({"csi": {"local": {"keepFree": "1G"}}}, "keepFree"),
    ({"csi": {"controller": {"persistence": {"size": "1G"}}}}, "size"),
    ({"controller": {"replicas": 100}}, "replicas"),
    ({"webhook": {"failurePolicy": "ignore"}}, "failurePolicy"),
    ({"webhook": {"timeoutSeconds": 60}}, "timeoutSeconds"),
    ({"catalog": {"replicas": 2}}, "RocksDB"),
    ({"catalog": {"enabled": False}}, "catalog.url"),
    ({"catalog": {"cold": ["http://models"]}}, "cold"),
    ({"catalog": {"cold": ["file://data"]}}, "cold"),
    ({"catalog": {"persistence": {"size": "0Gi"}}}, "size"),
    ({"catalog": {"grants": [{"namespace": "ml", "grants": ["write:ads"]}]}}, "grants"),
    ({"catalog": {"grants": [{"grants": ["read:ads"]}]}}, "namespace"),
    ({"catalog": {"issuers": [{"issuer": "https://login.example.com"}]}}, "audience"),
    ({"tls": {"source": "none"}}, "source"),
    ({"tls": {"source": "secret"}}, "caBundle"),
    ({"storageClasses": {"Mine": {}}}, None),
    ({"storageClasses": {"other": {"provisioner": "other.io", "reclaimPolicy": "Delete", "allowVolumeExpansion": True,
                                   "volumeBindingMode": "Immediate"}}}, "provisioner"),
    ({"storageClasses": {"terrace-scratch": {"volumeBindingMode": "Immediate"}}}, "volumeBindingMode"),
    ({"volumeAttributesClasses": {"empty": {"driverName": "data.terrace.io", "parameters": {}}}}, "parameters"),
    ({"metrics": {"interval": "30"}}, "interval"),
]
TAKEN = [
    {"keeper": {"config": {"cache": {"store": {"attempts": 5}, "hot": {"scrub_rate": "0B"}}}}},
    {"kubeletPath": "/var/snap/microk8s/common/var/lib/kubelet"},
    {"storageClasses": {"terrace-scratch": None}},
    {"volumeSnapshotClasses": {"terrace-scratch": None}},
    {"csi": {"local": {"snapshots": True, "limits": "image-ext4"}}},
    {"csi": {"data": {"directories": ["/mnt/pfs"], "cold": ["s3://archive", "hdfs://nameservice/archive"]}}},
    {"catalog": {"replicas": 3, "database": {"secret": "db"}}},
    {"tls": {"source": "secret", "caBundle": "QUJD"}},
    {"global": {"anything": "goes"}},
]

problems = Problems()
for values, word in REFUSED:
    try:
        render(values)
        problems.add(f"taken: {values}")
    except helm_python.HelmError as why:
        problems.check(word is None or word in str(why), f"{values}: the message does not name {word}: {why}")
for values in TAKEN:
    try:
        render(values)
    except helm_python.HelmError as why:
        problems.add(f"refused: {values}: {why}")
if merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) != {"a": {"b": 3, "c": 2}}:
    problems.add("values are not merged as Helm merges them")
problems.end(f"{len(REFUSED)} refused and {len(TAKEN)} taken sets of values")
