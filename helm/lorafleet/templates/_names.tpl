{{/* Names and labels. */}}

{{- define "lorafleet.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "lorafleet.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lorafleet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "lorafleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lorafleet
{{- end }}

{{/* Of one component: (dict "of" $ "component" "control-plane"). */}}
{{- define "lorafleet.componentSelector" -}}
{{ include "lorafleet.selectorLabels" .of }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lorafleet.componentLabels" -}}
{{ include "lorafleet.labels" .of }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lorafleet.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* DNS name of the Service. */}}
{{- define "lorafleet.host" -}}
{{ include "lorafleet.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The port that needs no client certificate. */}}
{{- define "lorafleet.openPort" -}}
{{ if .Values.access.clientCa.secretName }}7602{{ else }}7600{{ end }}
{{- end }}

{{- define "lorafleet.databaseSecret" -}}
{{ if .Values.dev.postgresql.enabled }}{{ include "lorafleet.fullname" . }}-postgresql{{ else }}{{ .Values.database.secretName }}{{ end }}
{{- end }}

{{/* The Secret with the store's keys; empty: web identity. The name is the same in the namespaces of runs, where they need it. */}}
{{- define "lorafleet.storeSecret" -}}
{{ if .Values.dev.minio.enabled }}{{ include "lorafleet.fullname" . }}-store{{ else }}{{ .Values.storage.secretName }}{{ end }}
{{- end }}
