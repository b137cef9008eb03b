{{/* What our pods have in common: Pod Security "restricted", and nothing to write to but volumes. */}}

{{- define "lorafleet.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "lorafleet.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "lorafleet.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A volume of a development server: (dict "persistence" ... "name" ...). */}}
{{- define "lorafleet.devVolume" -}}
{{- if .persistence.existingClaim }}
persistentVolumeClaim: {claimName: {{ .persistence.existingClaim }}}
{{- else if .persistence.size }}
persistentVolumeClaim: {claimName: {{ .name }}}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}
