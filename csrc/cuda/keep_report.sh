#!/bin/sh
# Runs a compilation and keeps ptxas's report, from -Xptxas=-v, in OBJECT.ptxas; all else that is said is passed on.
# usage: keep_report.sh COMMAND... -o OBJECT...
object='' previous=''
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
report="^ptxas info|bytes stack frame"
"$@" 2>"$object.stderr"
code=$?
grep -E "$report" "$object.stderr" >"$object.ptxas"
grep -vE "$report" "$object.stderr" >&2
rm "$object.stderr"
exit $code
