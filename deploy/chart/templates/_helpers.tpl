{{- define "softslice.image" -}}
{{ .root.Values.image.registry }}softslice/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "softslice.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: softslice
{{- end }}

{{- define "softslice.security" -}}
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where pods of both modes run, and how they are fetched. */}}
{{- define "softslice.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- if or .Values.tolerations (eq .Values.mode "plugin") }}
tolerations:
{{- with .Values.tolerations }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- if eq .Values.mode "plugin" }}
- key: softslice.io/vram-gib
  operator: Exists
  effect: NoSchedule
{{- end }}
{{- end }}
{{- with .Values.affinity }}
affinity:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
