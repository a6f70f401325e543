#!/bin/sh
# test/kill.sh [N [KEY=VALUE...]] -- N SIGKILLs (default 6; the full proof is 50) at random moments of a short run, which is started
# again each time with the same command. Its last and best checkpoint must be, byte for byte, those of a run that was
# never disturbed, and metrics.jsonl must hold the same rows. When a run ends before its kill, it is compared and a
# new one begins. Further keys (finetune_iters=7) are added to those of the run. TAP on stdout; QRUN names the program.
set -u
kills=${1:-${QRUN_KILLS:-6}}
[ $# = 0 ] || shift
more=$*
qrun=${QRUN:-build/release/qrun}
case $qrun in /*) ;; *) qrun=$PWD/$qrun ;; esac
dir=$(mktemp -d "${TMPDIR:-/tmp}/qrun-kill.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

run() {
    exec "$qrun" -q smoke log_dir="$1" synth_train=320 synth_val=96 num_epochs=3 batch_size=32 lr=0.1 \
        save_every_steps=4 save_every_seconds=0.3 log_interval=3 $more >/dev/null 2>>"$1.err"
}
# A random whole number below $1.
below() {
    echo $(($(od -An -N4 -tu4 /dev/urandom) % $1))
}
# What must not differ between two runs: everything but the measured figures.
rows() {
    sed 's/,"img_s":[^,}]*//; s/,"data_wait":[^,}]*//; s/,"time":[^,}]*//' "$1/metrics.jsonl"
}
same() {
    cmp "$1/checkpoints/last.safetensors" clean/checkpoints/last.safetensors &&
        cmp "$1/checkpoints/best.safetensors" clean/checkpoints/best.safetensors && {
        rows "$1" >a.rows
        rows clean >b.rows
        diff a.rows b.rows
    }
}

echo 1..3
t0=$(date +%s%N)
(run clean)
status=$?
ms=$((($(date +%s%N) - t0) / 1000000))
if [ $status = 0 ]; then echo "ok 1 - undisturbed run ($ms ms)"; else
    echo "not ok 1 - undisturbed run: exit status $status"
    sed 's/^/# /' clean.err
    exit 1
fi

done=0 early=0 rounds=0 wrong=0
while [ $done -lt "$kills" ]; do
    (run victim) &
    pid=$!
    delay=$(below $ms)
    sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    status=$?
    if [ $status = 137 ]; then
        done=$((done + 1))
        continue
    fi
    early=$((early + 1))
    if [ $status != 0 ] || ! same victim >cmp.log 2>&1; then
        wrong=$((wrong + 1))
        echo "# round ended after kill $done with status $status"
        sed 's/^/# /' victim.err cmp.log
        break
    fi
    rounds=$((rounds + 1))
    rm -rf victim victim.err
done
if [ $wrong = 0 ]; then
    (run victim)
    status=$?
    if [ $status = 0 ] && same victim >cmp.log 2>&1; then rounds=$((rounds + 1)); else
        wrong=1
        echo "# last round: exit status $status"
        sed 's/^/# /' victim.err cmp.log
    fi
fi
if [ $wrong = 0 ]; then w=ok; else w='not ok'; fi
echo "$w 2 - $done kills in $rounds runs: last and best checkpoint and metrics are those of the undisturbed run"
if [ -z "$(find . -name '*.tmp.*' 2>/dev/null)" ]; then echo 'ok 3 - no temporary file is left'; else
    echo 'not ok 3 - temporary files are left'
    find . -name '*.tmp.*' | sed 's/^/# /'
    wrong=1
fi
exit $wrong
