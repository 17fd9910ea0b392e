{{/* What a provisioner asks of the API server. No secrets: no storage class of ours names one. */}}
{{- define "terrace.rules.provisioner" -}}
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, update, patch]}
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [events], verbs: [list, watch, create, update, patch]}
- {apiGroups: [storage.k8s.io], resources: [storageclasses, csinodes, volumeattachments, volumeattributesclasses], verbs: [get, list, watch]}
{{- end -}}

{{/* What a resizer asks besides, which also carries out changes of a VolumeAttributesClass. */}}
{{- define "terrace.rules.resizer" -}}
- {apiGroups: [""], resources: [persistentvolumeclaims/status], verbs: [patch]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattributesclasses], verbs: [get, list, watch]}
{{- end -}}

{{/* What VolumeSnapshots need: the snapshotter works on contents, which the snapshot-controller makes of them; the
     provisioner reads what a claim is made of, and keeps it with a finalizer meanwhile. No secrets: snapshots take
     none. */}}
{{- define "terrace.rules.snapshots" -}}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses], verbs: [list, watch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents], verbs: [get, list, watch, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents/status], verbs: [update, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots], verbs: [get, list, watch, update]}
{{- end -}}

{{/* Electing one of several replicas. */}}
{{- define "terrace.rules.leases" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, update, patch, delete]}
{{- end -}}
