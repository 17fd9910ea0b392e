{{/* Name of the release's objects. */}}
{{- define "terrace.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object: (list $ "component"). */}}
{{- define "terrace.labels" -}}
{{ include "terrace.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: terrace
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end -}}

{{/* What selects the pods of a component; never changed after the first release. */}}
{{- define "terrace.selector" -}}
app.kubernetes.io/name: terrace
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "terrace.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "terrace.priority.node" -}}
{{- if .Values.priorityClass.create }}{{ include "terrace.name" . }}-node{{ else }}{{ .Values.priorityClass.node }}{{ end -}}
{{- end -}}

{{- define "terrace.priority.control" -}}
{{- if .Values.priorityClass.create }}{{ include "terrace.name" . }}-control{{ else }}{{ .Values.priorityClass.control }}{{ end -}}
{{- end -}}

{{/* Address of the catalog, as pods reach it. */}}
{{- define "terrace.catalog.url" -}}
{{- if .Values.catalog.enabled -}}
https://{{ include "terrace.name" . }}-catalog.{{ .Release.Namespace }}.svc:{{ .Values.catalog.service.port }}
{{- else -}}
{{ required "catalog.url: where is the catalog, when catalog.enabled is false?" .Values.catalog.url }}
{{- end -}}
{{- end -}}

{{/* Where the token of a pod for the catalog is, and the certificates to trust. */}}
{{- define "terrace.access.dir" -}}/var/run/secrets/terrace.io/catalog{{- end -}}

{{/* Both as one volume: a projected token for the catalog, which believes the cluster's API server. */}}
{{- define "terrace.access.volume" -}}
- name: catalog-access
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, audience: terrace, expirationSeconds: 3600}
      {{- if .Values.catalog.enabled }}
      - secret:
          name: {{ include "terrace.name" . }}-catalog-tls
          items: [{key: ca.crt, path: ca.crt}]
      {{- end }}
{{- end -}}

{{- define "terrace.access.env" -}}
- name: TERRACE_CATALOG
  value: {{ include "terrace.catalog.url" . }}
{{- if .Values.catalog.enabled }}
- name: TERRACE_CA_FILE
  value: {{ include "terrace.access.dir" . }}/ca.crt
{{- end }}
{{- end -}}

{{- define "terrace.access.mount" -}}
- {name: catalog-access, mountPath: {{ include "terrace.access.dir" . }}, readOnly: true}
{{- end -}}

{{/* Settings of a container that needs nothing of its host. */}}
{{- define "terrace.confined" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Settings of a sidecar whose socket belongs to root. */}}
{{- define "terrace.sidecar" -}}
runAsUser: 0
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Settings of a container that mounts on its host. Bidirectional propagation is refused without it. */}}
{{- define "terrace.privileged" -}}
privileged: true
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
{{- with .Values.keeper.seLinuxOptions }}
seLinuxOptions: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Taints that a pod may run under: (list $ values), as a list. What a node with the startup taint waits for must
     be able to start there: the drivers, and the controller that takes the taint away. */}}
{{- define "terrace.tolerations" -}}
{{- $root := index . 0 -}}
{{- $found := (index . 1).tolerations -}}
{{- if $root.Values.controller.startupTaint -}}
{{- $found = append $found (dict "key" "terrace.io/agent-not-ready" "operator" "Exists") -}}
{{- end -}}
{{- if $found -}}
{{- toYaml $found -}}
{{- end -}}
{{- end -}}

{{/* Where pods of every node may run: (list $ values), the values with tolerateAllTaints, tolerations, ... */}}
{{- define "terrace.everywhere" -}}
{{- $where := index . 1 -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $where.nodeSelector }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with $where.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if $where.tolerateAllTaints }}
tolerations: [{operator: Exists}]
{{- else }}
{{- with include "terrace.tolerations" . }}
tolerations: {{ . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where pods of a Deployment may run: (list $ "component" values). Replicas prefer nodes of their own. */}}
{{- define "terrace.somewhere" -}}
{{- $where := index . 2 -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $where.nodeSelector }}{{ toYaml . | nindent 2 }}{{ end }}
{{- if $where.affinity }}
affinity: {{ toYaml $where.affinity | nindent 2 }}
{{- else }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{ include "terrace.selector" . | nindent 14 }}
{{- end }}
{{- if eq (index . 1) "controller" }}
{{- with include "terrace.tolerations" (list (index . 0) $where) }}
tolerations: {{ . | nindent 2 }}
{{- end }}
{{- else }}
{{- with $where.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "terrace.pull" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Flags of every command: (list $). */}}
{{- define "terrace.flags" -}}
- --log={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- end -}}

{{/* A map as TOML. Helm reads every number as a fraction; the configuration has whole ones only. */}}
{{- define "terrace.toml" -}}
{{- regexReplaceAll "(= |\\[|, )(-?[0-9]+)\\.0\\b" (toToml .) "${1}${2}" | trim -}}
{{- end -}}

{{/* Volumes and mounts of the hosts' shared file systems, below which volumes are directories. */}}
{{- define "terrace.directories.volume" -}}
{{- range $index, $path := .Values.csi.data.directories }}
- name: directory-{{ $index }}
  # Not made: an empty directory in place of a mount that is missing would be filled.
  hostPath: {path: {{ $path }}, type: Directory}
{{- end }}
{{- end -}}

{{- define "terrace.directories.mount" -}}
{{- range $index, $path := .Values.csi.data.directories }}
- {name: directory-{{ $index }}, mountPath: {{ $path }}, mountPropagation: HostToContainer}
{{- end }}
{{- end -}}

{{/* Settings of the driver that makes and removes directories: their files belong to the users of pods. Without
     directories it needs nothing of its host. Who copies files gives them to their owners besides. */}}
{{- define "terrace.csi-controller.driver" -}}
{{- if .Values.csi.data.directories -}}
{{- $add := list "DAC_OVERRIDE" "FOWNER" -}}
{{- if or .Values.csi.data.copies.enabled .Values.csi.data.snapshots -}}
{{- $add = concat $add (list "CHOWN" "FSETID") .Values.csi.data.copies.capabilities -}}
{{- end -}}
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL], add: [{{ join ", " $add }}]}
seccompProfile: {type: RuntimeDefault}
{{- else -}}
{{ include "terrace.confined" . }}
{{- end -}}
{{- end -}}

{{/* Settings of the containers beside it: the socket is its user's. */}}
{{- define "terrace.csi-controller.sidecar" -}}
{{- if .Values.csi.data.directories }}{{ include "terrace.sidecar" . }}{{ else }}{{ include "terrace.confined" . }}{{ end -}}
{{- end -}}

{{/* Volume and mount of Hadoop's configuration. */}}
{{- define "terrace.hadoop.volume" -}}
{{- with .Values.stores.hadoopConfigMap }}
- name: hadoop
  configMap: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "terrace.hadoop.mount" -}}
{{- if .Values.stores.hadoopConfigMap }}
- {name: hadoop, mountPath: /etc/hadoop/conf, readOnly: true}
{{- end }}
{{- end -}}
