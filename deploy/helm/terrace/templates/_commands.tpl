{{/* What each pod runs: one place that knows the command line of the binary. */}}

{{- define "terrace.command.csi-data-node" -}}
{{ include "terrace.flags" . }}
- --run-dir=/run/terrace
- csi
- --endpoint=unix:///csi/csi.sock
- --metrics=0.0.0.0:{{ .Values.metrics.port }}
- --driver=data
- --role=node
- --node-id=$(NODE_NAME)
- --state=/var/lib/terrace/csi
- --kubelet-dir={{ .Values.kubeletPath }}
- --hot={{ .Values.keeper.hot.hostPath }}
- --inline={{ .Values.csi.data.inline }}
{{- if .Values.csi.data.podTokens }}
- --pod-tokens=terrace
{{- end }}
{{- range .Values.csi.data.directories }}
- --directories={{ . }}
{{- end }}
{{- if .Values.csi.data.directories }}
- --spool={{ .Values.csi.data.spool.hostPath }}
{{- with .Values.csi.data.spool.size }}
- --spool-size={{ . }}
{{- end }}
{{- end }}
{{- include "terrace.flags.cold" . }}
- --token-file={{ include "terrace.access.dir" . }}/token
{{- end -}}

{{- define "terrace.command.csi-data-controller" -}}
{{ include "terrace.flags" . }}
- csi
- --endpoint=unix:///csi/csi.sock
- --metrics=0.0.0.0:{{ .Values.metrics.port }}
- --driver=data
- --role=controller
- --state=/var/lib/terrace/csi
{{- range .Values.csi.data.directories }}
- --directories={{ . }}
{{- end }}
{{- include "terrace.flags.cold" . }}
- --token-file={{ include "terrace.access.dir" . }}/token
{{- end -}}

{{/* Both roles judge a volume's store: one when it is made, the other when a node stages it. */}}
{{- define "terrace.flags.cold" -}}
{{- range .Values.csi.data.cold }}
- --cold={{ . }}
{{- end }}
{{- end -}}

{{- define "terrace.command.csi-local" -}}
{{ include "terrace.flags" . }}
- csi
- --endpoint=unix:///csi/csi.sock
- --metrics=0.0.0.0:{{ .Values.metrics.port }}
- --driver=local
- --role=all
- --node-id=$(NODE_NAME)
- --kubelet-dir={{ .Values.kubeletPath }}
- --scratch={{ .Values.csi.local.hostPath }}
{{- with .Values.csi.local.limits }}
- --scratch-limits={{ . }}
{{- end }}
- --scratch-keep-free={{ .Values.csi.local.keepFree }}
{{- if .Values.csi.local.onRoot }}
- --scratch-on-root
{{- end }}
# The resizer is one for all nodes.
- --scratch-grow-by-node
{{- end -}}

{{- define "terrace.command.controller" -}}
{{ include "terrace.flags" . }}
- controller
- --metrics=0.0.0.0:{{ .Values.metrics.port }}
- --token-file={{ include "terrace.access.dir" . }}/token
- --identity=$(POD_NAME)
{{- if .Values.webhook.enabled }}
- --webhook-listen=0.0.0.0:9443
- --webhook-cert=/etc/terrace/tls/tls.crt
- --webhook-key=/etc/terrace/tls/tls.key
{{- if ne .Values.csi.data.inline "any" }}
- --no-inline
{{- end }}
{{- end }}
{{- if .Values.controller.scratch.clean }}
- --clean-scratch
{{- end }}
- --scratch-gone-after={{ .Values.controller.scratch.goneAfter }}
{{- if .Values.controller.startupTaint }}
{{- if .Values.csi.data.enabled }}
- --untaint-after=data.terrace.io
{{- end }}
{{- if .Values.csi.local.enabled }}
- --untaint-after=local.terrace.io
{{- end }}
{{- end }}
{{- end -}}
