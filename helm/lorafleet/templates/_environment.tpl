{{/* Values to the environment of `lorafleet serve`. */}}

{{/* How clients of S3, ours and the runs', reach the store: a map. */}}
{{- define "lorafleet.storeEnv" -}}
{{- $storage := .Values.storage -}}
{{- $minio := printf "http://%s-minio.%s.svc:9000" (include "lorafleet.fullname" .) .Release.Namespace -}}
{{- with $storage.endpointUrl | default (ternary $minio "" .Values.dev.minio.enabled) }}
AWS_ENDPOINT_URL: {{ . | quote }}
{{- end }}
AWS_REGION: {{ $storage.region | quote }}
{{- with $storage.addressingStyle }}
LORAFLEET_S3_ADDRESSING_STYLE: {{ . | quote }}
{{- end }}
{{- end }}

{{/* `lorafleet serve`'s options: a map of names to strings. */}}
{{- define "lorafleet.serveEnv" -}}
LORAFLEET_LISTEN: 0.0.0.0:7600
LORAFLEET_METRICS_LISTEN: 0.0.0.0:7601
LORAFLEET_STATE_DIR: /var/lib/lorafleet
LORAFLEET_ARTIFACTS: {{ .Values.storage.artifacts | default (ternary (printf "s3://%s/artifacts" .Values.dev.minio.bucket) "" .Values.dev.minio.enabled) | quote }}
{{- with .Values.storage.cache }}
LORAFLEET_CACHE: {{ . | quote }}
{{- end }}
{{- range $option, $value := omit .Values.serve "isolateTenants" }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
LORAFLEET_{{ $option | snakecase | upper }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
{{- with .Values.serve.isolateTenants }}
LORAFLEET_ISOLATE_TENANT: {{ join " " . | quote }}
{{- end }}
{{- if eq .Values.serve.backend "kuberay" }}
LORAFLEET_KUBERAY_CONFIG: /etc/lorafleet/kuberay.yaml
{{- end }}
{{- end }}

{{/* Its options of access: a map of names to strings. */}}
{{- define "lorafleet.accessEnv" -}}
{{- $access := .Values.access -}}
LORAFLEET_SERVE_TLS_CERT: /etc/lorafleet-tls/tls.crt
LORAFLEET_SERVE_TLS_KEY: /etc/lorafleet-tls/tls.key
LORAFLEET_API_TOKENS: {{ $access.apiTokens | quote }}
LORAFLEET_REPORT_ADDRESS: {{ $access.reportAddress | default (printf "%s:%s" (include "lorafleet.host" .) (include "lorafleet.openPort" .)) | quote }}
{{- if .Values.tls.caInSecret }}
LORAFLEET_REPORT_TLS_CA: /etc/lorafleet-tls/ca.crt
{{- end }}
{{- with $access.admins }}
LORAFLEET_ADMIN: {{ join " " . | quote }}
{{- end }}
{{- if $access.storeCredentialsSecret }}
LORAFLEET_STORE_CREDENTIALS: /etc/lorafleet-store-credentials/credentials
{{- end }}
{{- with $access.runTokenTtlS }}
LORAFLEET_RUN_TOKEN_TTL_S: {{ toJson . | quote }}
{{- end }}
{{- if $access.oidc.issuer }}
LORAFLEET_OIDC_ISSUER: {{ $access.oidc.issuer | quote }}
LORAFLEET_OIDC_AUDIENCE: {{ $access.oidc.audience | quote }}
LORAFLEET_OIDC_JWKS: {{ ternary "/etc/lorafleet/jwks.json" $access.oidc.jwks (ne $access.oidc.jwksJson "") | quote }}
LORAFLEET_OIDC_CLAIM: {{ $access.oidc.claim | quote }}
LORAFLEET_OIDC_LEEWAY_S: {{ toJson $access.oidc.leewayS | quote }}
{{- end }}
{{- if $access.clientCa.secretName }}
LORAFLEET_SERVE_TLS_CLIENT_CA: /etc/lorafleet-client-ca/ca.crt
LORAFLEET_REPORT_LISTEN: 0.0.0.0:7602
{{- end }}
{{- end }}

{{/* All of it, as a container's env. What Secrets hold is referred to. */}}
{{- define "lorafleet.env" -}}
{{- $plain := merge (include "lorafleet.serveEnv" . | fromYaml) (include "lorafleet.accessEnv" . | fromYaml) (include "lorafleet.storeEnv" . | fromYaml) -}}
{{- range $name, $value := $plain }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{ include "lorafleet.databaseEnv" . }}
{{- with include "lorafleet.storeSecret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- if .Values.storage.caSecretName }}
- {name: AWS_CA_BUNDLE, value: /etc/lorafleet-store/ca.crt}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lorafleet.databaseEnv" -}}
- name: LORAFLEET_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ include "lorafleet.databaseSecret" . }}, key: LORAFLEET_DATABASE_URL}}
{{- if .Values.database.caSecretName }}
- {name: PGSSLROOTCERT, value: /etc/lorafleet-database/ca.crt}
{{- end }}
{{- end }}
