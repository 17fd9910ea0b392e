{{/* Containers beside a driver, each speaking to it over the socket in /csi. */}}

{{/* Tells the kubelet of a driver: (list $ "data.terrace.io"). */}}
{{- define "terrace.sidecar.registrar" -}}
{{- $root := index . 0 -}}
{{- $driver := index . 1 -}}
- name: registrar
  image: {{ $root.Values.sidecars.registrar.image }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --kubelet-registration-path={{ $root.Values.kubeletPath }}/plugins/{{ $driver }}/csi.sock
    - --v=2
  # The kubelet may forget a driver; then registering again is a restart of this container alone.
  livenessProbe:
    exec:
      command:
        - /csi-node-driver-registrar
        - --kubelet-registration-path={{ $root.Values.kubeletPath }}/plugins/{{ $driver }}/csi.sock
        - --mode=kubelet-registration-probe
    initialDelaySeconds: 30
    timeoutSeconds: 15
  resources: {{ toYaml $root.Values.sidecars.registrar.resources | nindent 4 }}
  securityContext: {{ include "terrace.sidecar" $root | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    - {name: registration, mountPath: /registration}
{{- end -}}

{{/* Answers the kubelet's probes by the driver's Probe, which asks nothing of the data path: (list $ port). */}}
{{- define "terrace.sidecar.liveness" -}}
{{- $root := index . 0 -}}
- name: liveness
  image: {{ $root.Values.sidecars.livenessProbe.image }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --http-endpoint=:{{ index . 1 }}
    - --v=2
  resources: {{ toYaml $root.Values.sidecars.livenessProbe.resources | nindent 4 }}
  securityContext: {{ include "terrace.sidecar" $root | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
{{- end -}}

{{/* What the kubelet asks of a driver: the port of its liveness container. */}}
{{- define "terrace.probe" -}}
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  initialDelaySeconds: 15
  timeoutSeconds: 5
  failureThreshold: 5
{{- end -}}

{{/* Where a driver's numbers are, and whether it takes calls. */}}
{{- define "terrace.numbers" -}}
ports:
  - {name: metrics, containerPort: {{ .Values.metrics.port }}}
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  timeoutSeconds: 5
{{- end -}}

{{/* Directories of a driver's pod on a node: (list $ "data.terrace.io"). */}}
{{- define "terrace.driver.volumes" -}}
{{- $root := index . 0 -}}
- name: socket
  hostPath: {path: {{ $root.Values.kubeletPath }}/plugins/{{ index . 1 }}, type: DirectoryOrCreate}
- name: registration
  hostPath: {path: {{ $root.Values.kubeletPath }}/plugins_registry, type: Directory}
- name: kubelet
  hostPath: {path: {{ $root.Values.kubeletPath }}, type: Directory}
{{- end -}}

{{/* A provisioner, resizer or snapshotter of which one acts for the cluster: (list $ "provisioner" arguments settings). */}}
{{- define "terrace.sidecar.elected" -}}
{{- $root := index . 0 -}}
{{- $sidecar := index $root.Values.sidecars (index . 1) -}}
- name: {{ index . 1 }}
  image: {{ $sidecar.image }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --leader-election
    - --leader-election-namespace={{ $root.Release.Namespace }}
    {{- range index . 2 }}
    - {{ . }}
    {{- end }}
    - --v=2
  resources: {{ toYaml $sidecar.resources | nindent 4 }}
  securityContext: {{ include (index . 3) $root | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    - {name: api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* The API server's token as a volume of its own, so that only the containers that need it have it. */}}
{{- define "terrace.api.volume" -}}
- name: api
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end -}}
