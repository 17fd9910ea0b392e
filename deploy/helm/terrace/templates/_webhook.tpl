{{/* Where the API server finds the webhook: (list $ "/path" authority). */}}
{{- define "terrace.webhook.client" -}}
{{- $root := index . 0 -}}
service: {name: {{ include "terrace.name" $root }}-webhook, namespace: {{ $root.Release.Namespace }}, path: {{ index . 1 }}, port: 443}
{{- with index . 2 }}
caBundle: {{ . }}
{{- end }}
{{- end -}}

{{/* Namespaces whose pods are asked about. */}}
{{- define "terrace.webhook.namespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toJson }}
{{- end -}}
