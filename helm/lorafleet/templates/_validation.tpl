{{/* Rules over several values; values.schema.json has those over one. All that are broken are told at once. */}}

{{- define "lorafleet.violations" -}}
{{- $v := .Values -}}
{{- if and (not $v.database.secretName) (not $v.dev.postgresql.enabled) }}
- database.secretName: name a Secret with LORAFLEET_DATABASE_URL (or, to try lorafleet out, set dev.postgresql.enabled)
{{- end }}
{{- if and $v.database.secretName $v.dev.postgresql.enabled }}
- database.secretName and dev.postgresql.enabled are both set: which database is meant?
{{- end }}
{{- if and $v.database.caSecretName $v.dev.postgresql.enabled }}
- database.caSecretName is of a database of your own; dev.postgresql speaks no TLS
{{- end }}
{{- if and (not $v.storage.artifacts) (not $v.dev.minio.enabled) }}
- storage.artifacts: name an s3:// folder for what jobs write (or, to try lorafleet out, set dev.minio.enabled)
{{- end }}
{{- if and $v.storage.caSecretName $v.dev.minio.enabled }}
- storage.caSecretName is of a store of your own; dev.minio speaks no TLS
{{- end }}
{{- if and $v.dev.minio.enabled (or $v.storage.endpointUrl $v.storage.secretName) }}
- storage.endpointUrl and storage.secretName are of another store than dev.minio: set them, or dev.minio.enabled
{{- end }}
{{- if not (or $v.access.apiTokens $v.access.oidc.issuer $v.access.clientCa.secretName) }}
- access: nobody could call; set access.oidc, access.clientCa or access.apiTokens
{{- end }}
{{- if not (or $v.access.oidc.issuer $v.access.clientCa.secretName) }}
- access: nobody could be an administrator; API tokens alone make none. Set access.oidc or access.clientCa, and access.admins
{{- end }}
{{- if and $v.access.oidc.issuer (not $v.access.oidc.audience) }}
- access.oidc.audience: must be set with access.oidc.issuer
{{- end }}
{{- if and $v.access.oidc.issuer (not (or $v.access.oidc.jwks $v.access.oidc.jwksJson)) }}
- access.oidc.jwks: must be set with access.oidc.issuer (or access.oidc.jwksJson)
{{- end }}
{{- if and $v.access.oidc.jwks $v.access.oidc.jwksJson }}
- access.oidc.jwks and access.oidc.jwksJson are both set: which keys are meant?
{{- end }}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef) }}
- tls.certManager.issuerRef: name the issuer, as {name, kind}
{{- end }}
{{- if and (eq $v.serve.backend "ray") (not $v.serve.rayAddress) }}
- serve.rayAddress: the backend ray needs the address of its Ray
{{- end }}
{{- if and (eq $v.serve.backend "kuberay") $v.serve.rayAddress }}
- serve.rayAddress is for the backend ray; with kuberay each run has a Ray of its own
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.host) }}
- ingress.host: must be set with ingress.enabled
{{- end }}
{{- if and $v.grpcRoute.enabled (not $v.grpcRoute.parentRefs) }}
- grpcRoute.parentRefs: name the Gateway
{{- end }}
{{- if and $v.access.clientCa.secretName (or $v.ingress.enabled $v.grpcRoute.enabled) }}
- access.clientCa asks every caller for a certificate, and a proxy has none of theirs: no ingress and no grpcRoute; give the Service an address (service.type)
{{- end }}
{{- if and $v.runs.standingCluster (or $v.runs.tenants $v.runs.kueue) }}
- runs.standingCluster is one place for all tenants, and starts no pods that Kueue could hold back: take runs.tenants and runs.kueue out
{{- end }}
{{- if hasKey (include "lorafleet.runNamespaces" . | fromJson) .Release.Namespace }}
- runs: {{ .Release.Namespace }} is the control plane's namespace, with its Secrets; give runs another
{{- end }}
{{- range $namespace, $_ := $v.runNamespaces.byName }}
{{- if not (hasKey (include "lorafleet.runNamespaces" $ | fromJson) $namespace) }}
- runNamespaces.byName.{{ $namespace }}: no run lives there; runs names {{ include "lorafleet.runNamespaces" $ | fromJson | keys | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}

{{- define "lorafleet.validate" -}}
{{- with include "lorafleet.violations" . | trim }}
{{- fail (printf "\n%s\n" .) }}
{{- end }}
{{- end }}

{{/* Secrets that somebody else makes and that are not there, a line each. */}}
{{- define "lorafleet.missingSecrets" -}}
{{- $needed := list -}}
{{- if not .Values.tls.certManager.enabled }}
{{- $keys := ternary "tls.crt, tls.key, ca.crt" "tls.crt, tls.key" .Values.tls.caInSecret -}}
{{- $needed = append $needed (list .Release.Namespace .Values.tls.secretName $keys) -}}
{{- end }}
{{- with .Values.access.clientCa.secretName }}{{ $needed = append $needed (list $.Release.Namespace . "ca.crt") }}{{ end -}}
{{- with .Values.access.storeCredentialsSecret }}{{ $needed = append $needed (list $.Release.Namespace . "credentials") }}{{ end -}}
{{- with .Values.database.secretName }}{{ $needed = append $needed (list $.Release.Namespace . "LORAFLEET_DATABASE_URL") }}{{ end -}}
{{- with .Values.database.caSecretName }}{{ $needed = append $needed (list $.Release.Namespace . "ca.crt") }}{{ end -}}
{{- $storeKeys := "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" -}}
{{- with .Values.storage.secretName }}{{ $needed = append $needed (list $.Release.Namespace . $storeKeys) }}{{ end -}}
{{- with .Values.storage.caSecretName }}{{ $needed = append $needed (list $.Release.Namespace . "ca.crt") }}{{ end -}}
{{- $storeCa := .Values.runs.storeCaSecret | default .Values.storage.caSecretName -}}
{{- range $namespace, $names := ternary (include "lorafleet.runNamespaces" . | fromJson) dict (eq .Values.serve.backend "kuberay") }}
{{- with $storeCa }}{{ $needed = append $needed (list $namespace . "ca.crt") }}{{ end -}}
{{- range without $names.storeSecrets (ternary (include "lorafleet.storeSecret" $) "" $.Values.dev.minio.enabled) }}
{{- $needed = append $needed (list $namespace . $storeKeys) -}}
{{- end }}
{{- end }}
{{- range $needed }}
{{- if not (lookup "v1" "Secret" (index . 0) (index . 1)) }}
  {{ index . 1 }} in {{ index . 0 }}, with {{ index . 2 }}
{{- end }}
{{- end }}
{{- end }}
