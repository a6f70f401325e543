#!/usr/bin/env bats
# test/experiments.bats -- scripts of experiments on drawn images and few of them: what they run, what they write, and that a
# second start runs nothing again. QRUN names the program.

load support/shell

few='dataset=synthetic limit_train=64 limit_val=100 batch_size=32'

setup_file() {
    export DIR="$BATS_FILE_TMPDIR" ROOT="$PWD" QRUN="${QRUN:-$PWD/build/release/qrun}"
    cd "$DIR"
    unset QRUN_DATA_DIR
    "$QRUN" -q "$ROOT/experiments/compare/float.yml" $few log_dir=float num_epochs=1 2>float.err
    "$QRUN" -q convert float float.safetensors
}

setup() {
    cd "$DIR"
    qrun=$QRUN
    unset QRUN_DATA_DIR
}

@test "compare.sh: a run for each method and width, a table, a picture; once" {
    both "$ROOT/experiments/compare/compare.sh" -q "$qrun" -i float.safetensors -s "float xnor dorefa" -e 1 $few
    is "$status" 0
    is "$(printf '%s\n' "$out" | grep -c '^| \(float\|xnor\|dorefa\) ')" 3
    is "$out" "$(cat results/compare/table.md)"
    has "$(cat results/compare/accuracy.svg)" "dorefa"
    has "$(cat results/compare/page.html)" "xnor"
    is "$(ls -d results/compare/*_w* | wc -l)" 5
    cksum results/compare/*/checkpoints/last.safetensors results/compare/*/metrics.jsonl >first
    both "$ROOT/experiments/compare/compare.sh" -q "$qrun" -i float.safetensors -s "float xnor dorefa" -e 1 $few
    is "$status" 0
    cksum results/compare/*/checkpoints/last.safetensors results/compare/*/metrics.jsonl >second
    cmp first second
    both "$ROOT/experiments/compare/compare.sh" -q "$qrun" -i float.safetensors -s "apto"
    has "$err" "unknown method 'apto'"
    both "$ROOT/experiments/compare/compare.sh" -q "$qrun" -i missing.pth
    [ "$status" != 0 ]
    has "$err" "missing.pth"
}

@test "methods_res20.sh: stages that start from each other, a table with flips" {
    both "$ROOT/experiments/methods_res20.sh" -q "$qrun" -i float.safetensors -r table.md \
        -s "float apot4 fat5 fat4 hysteresis" $few num_epochs=1
    is "$status" 0
    is "$(grep -c '^| \(float\|apot4\|fat5\|fat4\|hysteresis\) ' table.md)" 5
    has "$(cat table.md)" "| fat4 | fat5 |"
    has "$(cat table.md)" "| 1 | "
    has "$(cat results/methods_hysteresis/resolved.yml)" "grad_clip: 1 "
    # Where nothing is said, the table is with the runs, and the figures of experiments/results/ stay as they are.
    both "$ROOT/experiments/methods_res20.sh" -q "$qrun" -i float.safetensors -s float $few num_epochs=1
    is "$out" "$(printf '%s\n' "$out" | head -n 1; echo 'table: results/methods_res20.md')"
    cmp table.md results/methods_res20.md
}
