{{/* What the backend kuberay does in a namespace of runs, and no more: RULES in service/backends/kuberay/access.py says the same, and
a test compares. It writes Secrets and reads none. */}}
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
  verbs: [create, patch]
{{- end }}
