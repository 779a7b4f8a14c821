{{/* The revision as resources name it. */}}
{{- define "control.revision" -}}
{{ .Values.revision | default "default" }}
{{- end }}

{{/* What the names of objects of this revision end in. */}}
{{- define "control.suffix" -}}
{{- if ne (include "control.revision" .) "default" }}-{{ .Values.revision }}{{ end }}
{{- end }}

{{/* Name of the Deployment and what belongs to it. */}}
{{- define "control.name" -}}
istiod{{ include "control.suffix" . }}
{{- end }}

{{/* What the names of cluster-wide webhooks end in: other namespaces may have a control plane of the same revision. */}}
{{- define "control.webhookSuffix" -}}
{{ include "control.suffix" . }}{{ if ne .Release.Namespace "istio-system" }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "control.tag" -}}
{{ .Values.global.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "control.image" -}}
{{- $image := .Values.image | default .Values.global.image -}}
{{- if contains "/" $image -}}
{{ $image }}
{{- else -}}
{{ .Values.hub | default .Values.global.hub }}/{{ $image }}:{{ .Values.tag | default (include "control.tag" .) }}
{{- end }}
{{- end }}

{{- define "control.clusterName" -}}
{{ .Values.global.multiCluster.clusterName | default "Kubernetes" }}
{{- end }}

{{- define "control.selectorLabels" -}}
app: istiod
istio.io/rev: {{ include "control.revision" . | quote }}
{{- end }}

{{- define "control.commonLabels" -}}
istio.io/rev: {{ include "control.revision" . | quote }}
app.kubernetes.io/name: istiod
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "control.labels" -}}
app: istiod
{{ include "control.commonLabels" . }}
{{- end }}

{{/* The address where proxies find this control plane. */}}
{{- define "control.discoveryAddress" -}}
{{ include "control.name" . }}.{{ .Release.Namespace }}.svc:15012
{{- end }}

{{/* The mesh configuration: the defaults of an installation, and the user's own over them. */}}
{{- define "control.mesh" -}}
{{- $defaults := dict
  "defaultConfig" (dict "discoveryAddress" (include "control.discoveryAddress" .))
  "defaultProviders" (dict "metrics" (list "prometheus"))
  "enablePrometheusMerge" true
  "rootNamespace" .Release.Namespace
  "trustDomain" (.Values.global.trustDomain | default "cluster.local")
}}
{{- if .Values.global.meshID }}
{{- $_ := set $defaults.defaultConfig "meshId" .Values.global.meshID }}
{{- end }}
{{- toYaml (mergeOverwrite $defaults (deepCopy .Values.meshConfig)) }}
{{- end }}

{{/* What injection reads. Only what it reads is here, so that a change of anything else does not restart anything. */}}
{{- define "control.injectionValues" -}}
{{- $global := deepCopy .Values.global }}
{{- $_ := set $global "tag" (include "control.tag" .) }}
{{- $_ := set $global "istioNamespace" .Release.Namespace }}
{{- /* Written out, because `istioctl analyze` compares it with the images of pods. */}}
{{- $_ := set $global.proxy "image" ($global.proxy.image | default $global.image) }}
{{- $_ := set $global.multiCluster "clusterName" (include "control.clusterName" .) }}
{{- dict
  "revision" .Values.revision
  "global" $global
  "sidecarInjectorWebhook" .Values.sidecarInjectorWebhook
  "pilot" (dict "env" .Values.env)
  | toPrettyJson }}
{{- end }}

{{/* One webhook. Takes `root`, `name`, `namespace` and `object`: lists of match expressions. */}}
{{- define "control.injector" -}}
{{- $root := .root }}
- name: {{ .name }}.sidecar-injector.istio.io
  clientConfig:
    # The control plane fills in `caBundle`.
    service:
      name: {{ include "control.name" $root }}
      namespace: {{ $root.Release.Namespace }}
      path: /inject
      port: 443
  rules:
    - operations: [CREATE]
      apiGroups: [""]
      apiVersions: [v1]
      resources: [pods]
  failurePolicy: Fail
  sideEffects: None
  timeoutSeconds: 10
  reinvocationPolicy: {{ $root.Values.sidecarInjectorWebhook.reinvocationPolicy }}
  admissionReviewVersions: [v1]
  namespaceSelector:
    matchExpressions:
      # What the cluster needs to live never waits for the mesh.
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: [kube-system, kube-public, kube-node-lease, local-path-storage]
      {{- toYaml .namespace | nindent 6 }}
  objectSelector:
    matchExpressions:
      {{- toYaml .object | nindent 6 }}
{{- end }}

{{/* The webhooks for `istio.io/rev: REVISION`. Takes `root` and `revision`. */}}
{{- define "control.revisionInjectors" -}}
{{- $absent := "DoesNotExist" }}
{{- $wanted := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- $revision := dict "key" "istio.io/rev" "operator" "In" "values" (list .revision) }}
{{- $noInjection := dict "key" "istio-injection" "operator" $absent }}
{{ include "control.injector" (dict "root" .root "name" "rev.namespace"
  "namespace" (list $revision $noInjection)
  "object" (list $wanted)) }}
{{ include "control.injector" (dict "root" .root "name" "rev.object"
  "namespace" (list (dict "key" "istio.io/rev" "operator" $absent) $noInjection)
  "object" (list $wanted $revision)) }}
{{- end }}

{{/* The webhooks for namespaces and pods that name no revision. Takes `root`. */}}
{{- define "control.defaultInjectors" -}}
{{- $absent := "DoesNotExist" }}
{{- $noRevision := dict "key" "istio.io/rev" "operator" $absent }}
{{- $noInjection := dict "key" "istio-injection" "operator" $absent }}
{{ include "control.injector" (dict "root" .root "name" "namespace"
  "namespace" (list (dict "key" "istio-injection" "operator" "In" "values" (list "enabled")))
  "object" (list (dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false")))) }}
{{ include "control.injector" (dict "root" .root "name" "object"
  "namespace" (list $noInjection $noRevision)
  "object" (list (dict "key" "sidecar.istio.io/inject" "operator" "In" "values" (list "true")) $noRevision)) }}
{{- if .root.Values.sidecarInjectorWebhook.enableNamespacesByDefault }}
{{ include "control.injector" (dict "root" .root "name" "auto"
  "namespace" (list $noInjection $noRevision
    (dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (list .root.Release.Namespace)))
  "object" (list (dict "key" "sidecar.istio.io/inject" "operator" $absent) $noRevision)) }}
{{- end }}
{{- end }}
