{{/* Peers and rules that policies share. */}}

{{- define "lorafleet.dnsRule" -}}
- to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "lorafleet.portOf" -}}
{{- $url := urlParse . -}}
{{ $url.host | regexFind ":[0-9]+$" | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}

{{/* Pods of runs, in all of their namespaces. */}}
{{- define "lorafleet.runPeers" -}}
{{- range $namespace, $_ := include "lorafleet.runNamespaces" . | fromJson }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $namespace }}}}
  podSelector: {matchLabels: {app.kubernetes.io/managed-by: lorafleet}}
{{- end }}
{{- end }}

{{/* Pods of a component, from anywhere: (dict "of" $ "component" ...). */}}
{{- define "lorafleet.componentPeer" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .of.Release.Namespace }}}}
  podSelector:
    matchLabels: {{- include "lorafleet.componentSelector" . | nindent 6 }}
{{- end }}

{{- define "lorafleet.storeRule" -}}
{{- if .Values.dev.minio.enabled -}}
- to: {{- include "lorafleet.componentPeer" (dict "of" . "component" "minio") | nindent 4 }}
  ports: [{port: 9000}]
{{- else -}}
# Public addresses: no other pod, no API server, and no metadata service, which would give out a node's identity.
- to:
    {{- with .Values.networkPolicy.store.peers }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
    {{- end }}
  ports: [{port: {{ .Values.networkPolicy.store.port }}}]
{{- end }}
{{- end }}

{{- define "lorafleet.databaseRule" -}}
{{- if .Values.dev.postgresql.enabled -}}
- to: {{- include "lorafleet.componentPeer" (dict "of" . "component" "postgresql") | nindent 4 }}
  ports: [{port: 5432}]
{{- else -}}
- ports: [{port: {{ .Values.networkPolicy.database.port }}}]
  {{- with .Values.networkPolicy.database.peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
