{{/* What the backend kuberay does in a namespace of runs, and no more: `rules` in service/backends/kuberay/access.py says the same, and
a test compares. It makes Secrets and reads none: (dict "of" $ "namespace" ...). */}}
{{- define "lorafleet.runRules" -}}
- apiGroups: [ray.io]
  resources: [rayjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- with .of.Values.runs.standingCluster }}
{{- if eq .namespace $.namespace }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ .tokenSecret | default "lorafleet-run-tokens" }}]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
{{- end }}
{{- end }}
