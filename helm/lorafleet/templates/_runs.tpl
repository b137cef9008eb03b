{{/* The namespaces of runs, and the file of the backend kuberay. */}}

{{/* Of `runs`, with what the chart fills in: YAML. */}}
{{- define "lorafleet.kuberayConfig" -}}
{{- $runs := deepCopy .Values.runs -}}
{{- $_ := set $runs "image" ($runs.image | default (printf "%s:%s" .Values.trainerImage.repository (.Values.trainerImage.tag | default .Chart.AppVersion))) -}}
{{- $_ := set $runs "env" (merge (deepCopy ($runs.env | default dict)) (include "lorafleet.storeEnv" . | fromYaml)) -}}
{{- $secret := $runs.storeSecret | default (ternary (include "lorafleet.storeSecret" .) "" .Values.dev.minio.enabled) -}}
{{- if $secret }}{{ $_ := set $runs "storeSecret" $secret }}{{ else }}{{ $_ := unset $runs "storeSecret" }}{{ end -}}
{{- $ca := $runs.storeCaSecret | default .Values.storage.caSecretName -}}
{{- if $ca }}{{ $_ := set $runs "storeCaSecret" $ca }}{{ else }}{{ $_ := unset $runs "storeCaSecret" }}{{ end -}}
{{- toYaml $runs }}
{{- end }}

{{/* Each namespace that runs live in, with the ServiceAccounts and store Secrets that `runs` names there: JSON. */}}
{{- define "lorafleet.runNamespaces" -}}
{{- $runs := include "lorafleet.kuberayConfig" . | fromYaml -}}
{{- $found := dict $runs.namespace (dict "serviceAccounts" (list $runs.serviceAccount) "storeSecrets" (compact (list $runs.storeSecret))) -}}
{{- range $tenant := $runs.tenants }}
{{- $namespace := $tenant.namespace | default $runs.namespace -}}
{{- $there := get $found $namespace | default (dict "serviceAccounts" list "storeSecrets" list) -}}
{{- $accounts := append $there.serviceAccounts ($tenant.serviceAccount | default $runs.serviceAccount) | uniq -}}
{{- $secrets := append $there.storeSecrets ($tenant.storeSecret | default $runs.storeSecret) | compact | uniq -}}
{{- $_ := set $found $namespace (dict "serviceAccounts" $accounts "storeSecrets" $secrets) -}}
{{- end }}
{{- with $runs.standingCluster }}
{{- $namespace := .namespace | default $runs.namespace -}}
{{- if not (hasKey $found $namespace) }}
{{- $_ := set $found $namespace (dict "serviceAccounts" (list $runs.serviceAccount) "storeSecrets" (compact (list $runs.storeSecret))) -}}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* What runNamespaces says of one: (dict "of" $ "namespace" ...): JSON. */}}
{{- define "lorafleet.runNamespace" -}}
{{- $all := .of.Values.runNamespaces -}}
{{- toJson (merge (deepCopy (get $all.byName .namespace | default dict)) (dict "serviceAccountAnnotations" $all.serviceAccountAnnotations "quota" $all.quota)) }}
{{- end }}
