#!/usr/bin/env bats
# test/probe.bats -- probe_list and the word probe as a user meets them: where the files go, what a test without them
# leaves, what is refused before any work. What is in the files: test/test_probe_list.c.

setup_file() {
    export DIR="$BATS_FILE_TMPDIR"
    unset QRUN_DATA_DIR
    cat >"$DIR/net.yml" <<YML
model: resnet20
dataset: synthetic
synth_train: 32
synth_val: 20
num_epochs: 1
batch_size: 16
keyword: [origin, cbsa, fix, cifar10, dorefa, lsq, probe]
wt_bit: 3
fm_bit: 2
probe_index: [0, 5]
log_dir: $DIR/run
YML
    "$QRUN" "$DIR/net.yml" >"$DIR/out" 2>&1
}

setup() {
    unset QRUN_DATA_DIR
}

tested() { run "$QRUN" "$DIR/net.yml" test_only=true "$@"; }

# FOLDER -- holds what the word alone asks for.
holds_inputs() {
    printf '%s\n' 0-layer1.0.conv1.0-{after,before}-quant.npy 5-layer1.2.conv2.0-{after,before}-quant.npy probe.json |
        diff - <(LC_ALL=C ls "$1")
}

@test "the word alone: a layer's input before and after its quantizer, of one batch, below the test's folder" {
    tested
    [ "$status" -eq 0 ]
    holds_inputs "$DIR/run/test/probe"
    cd "$DIR/run/test/probe"
    [ "$(head -1 probe.json)" = '[{"file": "0-layer1.0.conv1.0-before-quant.npy", "index": 0, "layer": "layer1.0.conv1.0", "item": "before-quant", "shape": [16, 64, 32, 32], "method": "none", "bits": 32},' ]
    grep -q '"item": "after-quant", "shape": \[16, 64, 32, 32\], "method": "lsq", "bits": 2}' probe.json
}

@test "beside input, logits and labels in dump_dir; the logits are those of a test without it" {
    tested dump_dir="$DIR/on" probe_iteration=2 probe_list=before-quant,weight-quant,output,clip_val
    [ "$status" -eq 0 ]
    tested dump_dir="$DIR/off" probe_list=[]
    [ "$status" -eq 0 ]
    cmp "$DIR/on/output.npy" "$DIR/off/output.npy"
    [ "$(ls "$DIR/off" | wc -l)" -eq 3 ]
    [ "$(ls "$DIR/on" | wc -l)" -eq 12 ]
    grep -q '"shape": \[20, 64, 32, 32\]' "$DIR/on/probe.json"
}

@test "a training: its first evaluation; what it learns is what it learns without" {
    holds_inputs "$DIR/run/probe"
    cmp "$DIR/run/probe/0-layer1.0.conv1.0-after-quant.npy" "$DIR/run/test/probe/0-layer1.0.conv1.0-after-quant.npy"
    run "$QRUN" "$DIR/net.yml" log_dir="$DIR/plain" probe_list=[]
    [ "$status" -eq 0 ]
    [ ! -e "$DIR/plain/probe" ]
    cmp "$DIR/run/checkpoints/last.safetensors" "$DIR/plain/checkpoints/last.safetensors"
}

@test "an unknown tensor or layer: one line, status 2, nothing is begun" {
    tested log_dir="$DIR/new" pretrained_file="$DIR/run" probe_list=weights
    [ "$status" -eq 2 ]
    [[ "$output" == "command line: error: probe_list: no tensor 'weights'; expected before-quant, after-quant, weight, "*"; did you mean 'weight'?" ]]
    sed 's/^probe_index.*/probe_index: [3, 40]/' "$DIR/net.yml" >"$DIR/far.yml"
    run "$QRUN" "$DIR/far.yml" test_only=true log_dir="$DIR/new" pretrained_file="$DIR/run"
    [ "$status" -eq 2 ]
    [ "$output" = "$DIR/far.yml:10:1: error: probe_index: there is no layer 40; expected 0 (layer1.0.conv1.0) to 19 (layer3.2.conv2.0)" ]
    run "$QRUN" check "$DIR/far.yml" log_dir="$DIR/new"
    [ "$status" -eq 2 ]
    [[ "$output" == *"probe_index: there is no layer 40"* ]]
    [ ! -e "$DIR/new" ]
}
