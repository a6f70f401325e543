#!/bin/sh
# test/report.sh -- report.html of every kind of net and the page of a comparison, opened in headless Chromium (see
# test/report/browser.mjs). TAP on stdout; QRUN names the program. Skipped by name without Chromium (Debian package chromium;
# CHROMIUM names another) or Node.
set -u
qrun=${QRUN:-build/release/qrun}
case $qrun in /*) ;; *) qrun=$PWD/$qrun ;; esac
root=$PWD
dir=$(mktemp -d "${TMPDIR:-/tmp}/qrun-report.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

chromium=${CHROMIUM:-}
for name in chromium chromium-browser google-chrome; do
    [ -n "$chromium" ] || chromium=$(command -v $name)
done
if [ -z "$chromium" ] || ! command -v node >/dev/null; then
    echo '1..1'
    echo 'ok 1 - reports in a browser # SKIP no Chromium and Node here'
    exit 0
fi

fault() {
    echo "not ok 1 - $1"
    sed 's/^/# /' err.txt
    exit 1
}

# NAME FILE [KEY=VALUE...]: a training of seconds; leaves NAME/report.html
train() {
    name=$1
    shift
    "$qrun" -q "$@" dataset=synthetic data_transforms=synthetic synth_train=96 synth_val=32 num_epochs=2 batch_size=32 \
        log_interval=1 log_dir="$name" >out.txt 2>err.txt || fault "training of $name"
    [ -s "$name/report.html" ] || fault "$name/report.html"
}

train apot "$root/configs/apot/res20_4bit.yml" pretrained_file='""' experiment='"a & b <i>"'
train fat "$root/configs/fat/res20_3bit.yml" use_pretrain=false
train hysteresis "$root/configs/hysteresis/res20_w1a2.yml"
train adabits "$root/configs/tiny/adabits.yml"
train f8net "$root/configs/tiny/f8_fix.yml" fp_pretrained_file='""'
"$qrun" -q compare apot fat hysteresis adabits f8net html=compare.html >out.txt 2>err.txt || fault compare
"$qrun" -q test apot/resolved.yml pretrained_file=apot log_dir=apot >out.txt 2>err.txt || fault test
"$qrun" -q report apot/test >out.txt 2>err.txt || fault 'report of a test'

node "$root/test/report/browser.mjs" "$chromium" apot/report.html fat/report.html hysteresis/report.html \
    adabits/report.html f8net/report.html apot/test/report.html compare.html 2>err.txt || cat err.txt

# The judge itself: what it must find on a page that has every fault.
node "$root/test/report/browser.mjs" "$chromium" "$root/test/report/bad.html" >bad.txt 2>err.txt
n=28
for fault in 'request to http' 'pixels wide' 'over "' 'axis without a unit' 'h1: too little contrast' 'Uncaught' 'the ground is'; do
    n=$((n + 1))
    if grep -q "^# .*$fault" bad.txt; then echo "ok $n - found on a bad page: $fault"; else
        echo "not ok $n - found on a bad page: $fault"
        sed 's/^/# /' bad.txt
    fi
done
echo "1..$n"
