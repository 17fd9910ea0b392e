{{/*
A certificate with its key and its authority in base64: the one that the cluster has already, else a new
one. Made once a rendering, because the webhook's configuration and its secret must name the same one.
(list $ "catalog" host names)
*/}}
{{- define "terrace.tls.pair" -}}
{{- $root := index . 0 -}}
{{- $server := index . 1 -}}
{{- $made := get $root.Values "madePairs" | default dict -}}
{{- if not (hasKey $made $server) -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace (printf "%s-%s-tls" (include "terrace.name" $root) $server) -}}
{{- if $secret -}}
{{- $_ := set $made $server (pick $secret.data "tls.crt" "tls.key" "ca.crt") -}}
{{- else -}}
{{- $ca := genCA (printf "%s-%s" (include "terrace.name" $root) $server) 3650 -}}
{{- $pair := genSignedCert (index . 2) nil (index . 3) 3650 $ca -}}
{{- $_ := set $made $server (dict "tls.crt" (b64enc $pair.Cert) "tls.key" (b64enc $pair.Key) "ca.crt" (b64enc $ca.Cert)) -}}
{{- end -}}
{{- $_ := set $root.Values "madePairs" $made -}}
{{- end -}}
{{- toYaml (get $made $server) -}}
{{- end -}}
