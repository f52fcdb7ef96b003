#!/usr/bin/env bash
# The step of action.yml: audits, renders the report for every reader, and exits as `proviso audit` did. What it
# takes stands in PROVISO_*; GITHUB_OUTPUT and GITHUB_STEP_SUMMARY are used where they are set.
set -euo pipefail

proviso=${PROVISO:-proviso}
folder=${PROVISO_OUTPUT:-proviso-report}
report=$folder/report.yaml

mapfile -t lines <<<"${PROVISO_RULES:?names the rule files, one a line}"
rules=()
for line in "${lines[@]}"; do
  read -r file <<<"$line" # without the spaces around it
  [[ -z $file ]] || rules+=("$file")
done
read -r -a options <<<"${PROVISO_OPTIONS:-}"
[[ -z ${PROVISO_BASELINE:-} ]] || options+=(--baseline "$PROVISO_BASELINE")

mkdir -p "$folder"
rm -f "$folder"/report.{yaml,html,md,sarif,xml}
code=0
"$proviso" audit "${rules[@]}" --model "${PROVISO_MODEL:?names the model}" --fail-on "${PROVISO_FAIL_ON:-info}" \
  --evidence "${PROVISO_EVIDENCE:-hash}" "${options[@]}" -o "$report" || code=$?
# 2 and 3 leave no report.
[[ -f $report ]] || exit "$code"

"$proviso" report html "$report" -o "$folder/report.html"
"$proviso" report markdown "$report" -o "$folder/report.md"
"$proviso" report sarif --problems-only "$report" -o "$folder/report.sarif"
"$proviso" report junit "$report" -o "$folder/report.xml"
[[ -z ${GITHUB_STEP_SUMMARY:-} ]] || cat "$folder/report.md" >>"$GITHUB_STEP_SUMMARY"
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  echo "verdict=$(sed -n 's/^verdict: //p' "$report")" >>"$GITHUB_OUTPUT"
  echo "report=$report" >>"$GITHUB_OUTPUT"
fi
exit "$code"
