{{- define "gateway.name" -}}
{{ .Values.name | default .Release.Name | default "istio-ingressgateway" }}
{{- end }}

{{/* The label `istio`: what a Gateway selects by. */}}
{{- define "gateway.istio" -}}
{{- $name := include "gateway.name" . -}}
{{- if hasKey .Values.labels "istio" -}}
{{ .Values.labels.istio }}
{{- else if has $name (list "istio-ingress" "istio-ingressgateway") -}}
ingressgateway
{{- else if has $name (list "istio-egress" "istio-egressgateway") -}}
egressgateway
{{- else -}}
{{ $name | trimPrefix "istio-" }}
{{- end }}
{{- end }}

{{- define "gateway.app" -}}
{{ .Values.labels.app | default (include "gateway.name" .) }}
{{- end }}

{{- define "gateway.selectorLabels" -}}
app: {{ include "gateway.app" . | quote }}
istio: {{ include "gateway.istio" . | quote }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/name: {{ include "gateway.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
istio.io/dataplane-mode: {{ get .Values.labels "istio.io/dataplane-mode" | default "none" | quote }}
{{- range $key, $value := omit .Values.labels "app" "istio" "istio.io/dataplane-mode" }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- with .Values.networkGateway }}
topology.istio.io/network: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "gateway.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* `auto` is what injection replaces. */}}
{{- define "gateway.image" -}}
{{- $global := .Values.global | default dict -}}
{{- if .Values.image -}}
{{ .Values.image }}
{{- else if or $global.hub $global.tag $global.image -}}
{{ $global.hub | default "docker.io/mizzen" }}/{{ $global.image | default "mizzen" }}:{{ $global.tag | default .Chart.AppVersion }}
{{- else -}}
auto
{{- end }}
{{- end }}

{{/* Ports of the Service, as a JSON list. */}}
{{- define "gateway.ports" -}}
{{- if .Values.networkGateway -}}
[{"name":"status-port","port":15021,"targetPort":15021},{"name":"tls","port":15443,"targetPort":15443},{"name":"tls-istiod","port":15012,"targetPort":15012},{"name":"tls-webhook","port":15017,"targetPort":15017}]
{{- else -}}
{{ toJson .Values.service.ports }}
{{- end }}
{{- end }}
