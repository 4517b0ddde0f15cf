{{- define "tallystream.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tallystream.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tallystream.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tallystream
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tallystream.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "tallystream.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "tallystream.polls" -}}
{{- if or .Values.openai.existingSecret .Values.integration.config.apiToken .Values.openai.adminToken .Values.anthropic.existingSecret .Values.anthropic.adminToken .Values.poller.resourcesConfigMap }}yes{{ end }}
{{- end }}

{{- define "tallystream.sinks" -}}
{{- if or .Values.port.existingSecret (and .Values.port.clientId .Values.port.clientSecret) }}yes{{ end }}
{{- end }}

{{/* The Secret that the chart creates from secret values. */}}
{{- define "tallystream.ownSecret" -}}
{{ include "tallystream.name" . }}
{{- end }}

{{- define "tallystream.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}

{{/* Environment of every component: the cluster, the topics, and the address of its ops port. */}}
{{- define "tallystream.env" -}}
- name: TALLYSTREAM_DATA_DIR
  value: /data
- name: TALLYSTREAM_OPS_HOST
  value: 0.0.0.0
- name: TALLYSTREAM_KAFKA
  value: {{ required "kafka.bootstrap is required: host:port of your cluster" .Values.kafka.bootstrap | quote }}
- name: TALLYSTREAM_KAFKA_PROTOCOL
  value: {{ .Values.kafka.protocol }}
{{- if hasPrefix "SASL" .Values.kafka.protocol }}
- name: TALLYSTREAM_KAFKA_SASL_MECHANISM
  value: {{ .Values.kafka.sasl.mechanism }}
{{- $secret := required "kafka.sasl.existingSecret is required with SASL" .Values.kafka.sasl.existingSecret }}
{{ include "tallystream.fromSecret" (dict "name" "TALLYSTREAM_KAFKA_USERNAME" "secret" $secret "key" .Values.kafka.sasl.usernameKey) }}
{{ include "tallystream.fromSecret" (dict "name" "TALLYSTREAM_KAFKA_PASSWORD" "secret" $secret "key" .Values.kafka.sasl.passwordKey) }}
{{- end }}
{{- if .Values.kafka.tls.existingSecret }}
- name: TALLYSTREAM_KAFKA_CA
  value: /etc/tallystream/kafka/ca.crt
{{- if .Values.kafka.tls.clientCertificate }}
- name: TALLYSTREAM_KAFKA_CERT
  value: /etc/tallystream/kafka/tls.crt
- name: TALLYSTREAM_KAFKA_KEY
  value: /etc/tallystream/kafka/tls.key
{{- end }}
{{- end }}
- name: TALLYSTREAM_PREFIX
  value: {{ .Values.prefix | quote }}
- name: TALLYSTREAM_PARTITIONS
  value: {{ .Values.partitions | int | quote }}
{{- with .Values.replication }}
- name: TALLYSTREAM_REPLICATION
  value: {{ . | int | quote }}
{{- end }}
- name: TALLYSTREAM_LATENESS
  value: {{ .Values.lateness | quote }}
{{- end }}

{{- define "tallystream.pod" -}}
{{- $root := .root }}
{{- $own := .own }}
serviceAccountName: {{ include "tallystream.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $name := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- $id := index $root.Values.podSecurityContext $name }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $name }}: {{ $id | int64 }}
  {{- end }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $own.affinity }}
affinity:
  {{- toYaml $own.affinity | nindent 2 }}
{{- else }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "tallystream.selector" . | nindent 14 }}
{{- end }}
{{- end }}

{{- define "tallystream.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The operator's extra variables. Kubernetes accepts only strings, and Helm reads numbers in values.yaml as floats. */}}
{{- define "tallystream.extraEnv" -}}
{{- range . }}
- name: {{ .name }}
  {{- if hasKey . "value" }}
  value: {{ include "tallystream.text" .value | quote }}
  {{- end }}
  {{- with omit . "name" "value" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "tallystream.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- define "tallystream.container" -}}
{{- $root := .root }}
image: {{ include "tallystream.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .own.resources | nindent 2 }}
{{- $ops := .ops | default "ops" }}
startupProbe:
  httpGet: {path: /healthz, port: {{ $ops }}}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /healthz, port: {{ $ops }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ $ops }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{- define "tallystream.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.kafka.tls.existingSecret }}
- {name: kafka-tls, mountPath: /etc/tallystream/kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "tallystream.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.sizeLimit }}
{{- if .Values.kafka.tls.existingSecret }}
- name: kafka-tls
  secret:
    secretName: {{ .Values.kafka.tls.existingSecret }}
{{- end }}
{{- end }}

{{/* The mapping, which the sink writes by and whose own endpoints the poller polls. */}}
{{/* The operator's own prices, for all that price or compare prices: worker, poller, console, and exports in the ledger. */}}
{{- define "tallystream.pricesEnv" -}}
{{- if .Values.worker.pricesConfigMap }}
- name: TALLYSTREAM_PRICES
  value: /etc/tallystream/prices/prices.toml
{{- end }}
{{- end }}

{{- define "tallystream.pricesMount" -}}
{{- if .Values.worker.pricesConfigMap }}
- {name: prices, mountPath: /etc/tallystream/prices, readOnly: true}
{{- end }}
{{- end }}

{{- define "tallystream.pricesVolume" -}}
{{- with .Values.worker.pricesConfigMap }}
- name: prices
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "tallystream.mappingEnv" -}}
{{- with .Values.sink }}
{{- if .mappingConfigMap }}
- name: TALLYSTREAM_PORT_MAPPING
  value: {{ if .mappingAddsToDefault }}default,{{ end }}/etc/tallystream/mapping
{{- end }}
{{- end }}
{{- end }}

{{/* The operator's own files for poller and sink: mapping, CA, and any volumes. */}}
{{- define "tallystream.filesMounts" -}}
{{- if .root.Values.sink.mappingConfigMap }}
- {name: mapping, mountPath: /etc/tallystream/mapping, readOnly: true}
{{- end }}
{{- if .ca }}
- {name: ca, mountPath: /etc/tallystream/ca, readOnly: true}
{{- end }}
{{- with .own.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tallystream.filesVolumes" -}}
{{- if .root.Values.sink.mappingConfigMap }}
- name: mapping
  configMap:
    name: {{ .root.Values.sink.mappingConfigMap }}
{{- end }}
{{- if .ca }}
- name: ca
  secret:
    secretName: {{ .ca }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with .own.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tallystream.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
spec:
  accessModes: {{ toJson .accessModes }}
  {{- if .storageClass }}
  storageClassName: {{ .storageClass | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .size }}
{{- end }}


{{/* Where a component may connect to: name servers, Kafka, and what its own task needs. */}}
{{- define "tallystream.egress" -}}
{{- $values := .root.Values }}
{{- $egress := $values.networkPolicy.egress }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    {{- range splitList "," $values.kafka.bootstrap }}
    - {port: {{ regexFind "[0-9]+$" . | int }}, protocol: TCP}
    {{- end }}
    {{- range $egress.kafkaPorts }}
    - {port: {{ . | int }}, protocol: TCP}
    {{- end }}
  {{- with $egress.kafka }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- $url := "" }}
{{- if eq .component "poller" }}{{- $url = $values.integration.config.baseUrl }}{{- end }}
{{- if eq .component "sink" }}{{- $url = $values.port.baseUrl }}{{- end }}
{{- if $url }}
- ports:
    - {port: 443, protocol: TCP}
    {{- $host := (urlParse $url).host }}
    {{- with regexFind ":[0-9]+$" $host }}
    - {port: {{ trimPrefix ":" . | int }}, protocol: TCP}
    {{- else }}
    {{- if hasPrefix "http:" $url }}
    - {port: 80, protocol: TCP}
    {{- end }}
    {{- end }}
{{- end }}
{{- if and (eq .component "ledger") $values.ledger.database.existingSecret }}
- ports:
    - {port: {{ $values.ledger.database.port | int }}, protocol: TCP}
{{- end }}
{{- with $egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tallystream.ledgerEnv" -}}
{{- if .Values.ledger.database.existingSecret }}
{{- include "tallystream.fromSecret" (dict "name" "TALLYSTREAM_LEDGER" "secret" .Values.ledger.database.existingSecret "key" .Values.ledger.database.urlKey) }}
{{- end }}
{{- end }}
