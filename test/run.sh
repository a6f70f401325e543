#!/bin/sh
# test/run.sh [PATTERN] -- runs every test program whose name contains PATTERN, and adds up. BUILD names the build folder.
# Test programs speak TAP; what failed or was skipped is listed by name at the end.
set -u
pattern=${1:-}
build=${BUILD:-build/release}
log=$build/test-log
mkdir -p "$log"
passed=0 failed=0 skipped=0
bad= left=

# NAME COMMAND...: a TAP producer
tap() {
    name=$1
    shift
    case $name in *"$pattern"*) ;; *) return ;; esac
    t0=$(date +%s)
    "$@" >"$log/$name.log" 2>&1
    status=$?
    ok=$(grep -c '^ok [0-9]' "$log/$name.log")
    skip=$(grep -ciE '^(not )?ok [0-9]+ .*# *skip' "$log/$name.log")
    no=$(grep -E '^not ok [0-9]' "$log/$name.log" | grep -cviE '# *skip')
    ok=$((ok - $(grep -ciE '^ok [0-9]+ .*# *skip' "$log/$name.log")))
    if [ "$status" != 0 ] && [ "$no" = 0 ]; then no=1; bad="$bad
  $name: exit status $status, see $log/$name.log"; tail -n 20 "$log/$name.log"; fi
    tally
}
tally() {
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + skip))
    printf '%-24s %4d passed, %d failed, %d skipped  (%d s)\n' "$name" "$ok" "$no" "$skip" $(($(date +%s) - t0))
    if [ "$no" != 0 ]; then
        bad="$bad
$(grep -E '^not ok' "$log/$name.log" | grep -viE '# *skip' | sed "s/^/  $name: /")"
        grep -E '^(not ok|#)' "$log/$name.log" | grep -viE '# *skip' | head -n 40
    fi
    [ "$skip" = 0 ] || left="$left
$(grep -iE '# *skip' "$log/$name.log" | sed "s/^/  $name: /")"
}
# NAME COMMAND...: ends with 'N passed, N failed, N skipped'
counted() {
    name=$1
    shift
    case $name in *"$pattern"*) ;; *) return ;; esac
    t0=$(date +%s)
    "$@" >"$log/$name.log" 2>&1
    status=$?
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log/$name.log" | tail -n 1)
    ok=$(echo "$last" | sed -nE 's/^([0-9]+) passed.*/\1/p') no=$(echo "$last" | sed -nE 's/.* ([0-9]+) failed.*/\1/p')
    skip=$(echo "$last" | sed -nE 's/.* ([0-9]+) skipped.*/\1/p')
    ok=${ok:-0} no=${no:-1} skip=${skip:-0}
    [ "$status" = 0 ] || [ "$no" != 0 ] || no=1
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + skip))
    printf '%-24s %4d passed, %d failed, %d skipped  (%d s)\n' "$name" "$ok" "$no" "$skip" $(($(date +%s) - t0))
    [ "$no" = 0 ] || { bad="$bad
$(grep -iE '^fail' "$log/$name.log" | sed "s/^/  $name: /")"; tail -n 20 "$log/$name.log"; }
    [ "$skip" = 0 ] || left="$left
$(grep -iE '^skip' "$log/$name.log" | sed "s/^/  $name: /")"
}

export CMOCKA_MESSAGE_OUTPUT=TAP
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}" # as main.c sets it: threads that wait do not spin for long
QRUN=$(cd "$build" && pwd)/qrun
export QRUN
for t in test/test_*.c; do
    n=$(basename "$t" .c)
    tap "$n" "$build/test/$n"
done
counted golden "$build/test/golden" test/golden
for t in test/*.sh; do
    case $t in test/run.sh) continue ;; esac
    tap "$(basename "$t" .sh)" sh "$t"
done
for t in test/*.bats; do
    [ -e "$t" ] && tap "$(basename "$t")" bats --tap "$t"
done

[ -z "$left" ] || printf 'skipped:%s\n' "$left"
[ -z "$bad" ] || printf 'failed:%s\n' "$bad"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
