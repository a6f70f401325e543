#!/usr/bin/env bats
# test/export.bats -- export_onnx as a user meets it: after training, again when the run is finished, after a test; what is
# refused before any work.

setup_file() {
    export DIR="$BATS_FILE_TMPDIR"
    cat >"$DIR/float.yml" <<YML
model: resnet20
dataset: synthetic
synth_train: 64
synth_val: 32
num_epochs: 1
batch_size: 32
export_onnx: $DIR/net.onnx
YML
    "$QRUN" "$DIR/float.yml" log_dir="$DIR/run" >"$DIR/out" 2>&1
}

@test "training leaves the best net as an ONNX file" {
    [ -s "$DIR/net.onnx" ]
    grep -q 'net.onnx: the net as an ONNX graph, float, opset 13' "$DIR/out"
}

@test "a finished run and a test write the same bytes" {
    run "$QRUN" "$DIR/float.yml" log_dir="$DIR/run" export_onnx="$DIR/again.onnx"
    [ "$status" -eq 0 ]
    cmp "$DIR/net.onnx" "$DIR/again.onnx"
    run "$QRUN" "$DIR/float.yml" log_dir="$DIR/run" test_only=true export_onnx="$DIR/test.onnx"
    [ "$status" -eq 0 ]
    cmp "$DIR/net.onnx" "$DIR/test.onnx"
}

@test "a path that cannot be written is refused first, at its line" {
    sed "s|^export_onnx.*|export_onnx: /nowhere/net.onnx|" "$DIR/float.yml" >"$DIR/bad.yml"
    run "$QRUN" "$DIR/bad.yml" log_dir="$DIR/run2"
    [ "$status" -eq 1 ]
    [ "$output" = "$DIR/bad.yml:7:1: error: export_onnx: /nowhere/net.onnx: cannot be written: No such file or directory" ]
    [ ! -e "$DIR/run2/checkpoints" ]
    run "$QRUN" "$DIR/float.yml" log_dir="$DIR/run3" export_onnx="$DIR"
    [ "$status" -eq 1 ]
    [ "$output" = "command line: error: export_onnx: $DIR: cannot be written: it is a folder" ]
}

@test "layers without a form in float operations are refused first" {
    run "$QRUN" "$DIR/float.yml" log_dir="$DIR/run4" wt_quant=hysteresis fm_quant=hysteresis bit=1 \
        fm_bit=3 quant_variant=pact_exponential
    [ "$status" -eq 2 ]
    [[ "$output" == *"7:1: error: export_onnx: layer1.0.conv1: its input is quantized to powers of two"* ]]
    [ "${#lines[@]}" -eq 1 ]
    run "$QRUN" "$DIR/float.yml" log_dir="$DIR/run5" wt_quant=f8net fm_quant=f8net bit=8
    [ "$status" -eq 2 ]
    [[ "$output" == *"7:1: error: export_onnx: conv1: fixed-point numbers are not written as float"* ]]
    [ "${#lines[@]}" -eq 1 ]
}

@test "several widths: a file and logits for each, the width in their names" {
    sed "s|^export_onnx.*|export_onnx: $DIR/wide.onnx|" "$DIR/float.yml" >"$DIR/wide.yml"
    set -- wt_quant=adabits fm_quant=adabits 'bits_list=[4,[3,5]]' adaptive_training=true log_dir="$DIR/run6"
    run "$QRUN" "$DIR/wide.yml" "$@"
    [ "$status" -eq 0 ]
    [ ! -e "$DIR/wide.onnx" ]
    for w in 4bit w3a5; do cp "$DIR/wide_$w.onnx" "$DIR/trained_$w.onnx"; done
    run "$QRUN" "$DIR/wide.yml" "$@" test_only=true dump_dir="$DIR/dump"
    [ "$status" -eq 0 ]
    for w in 4bit w3a5; do
        cmp "$DIR/wide_$w.onnx" "$DIR/trained_$w.onnx"
        [ -s "$DIR/dump/output_$w.npy" ]
    done
    [ ! -e "$DIR/dump/output.npy" ]
    run "$QRUN" "$DIR/wide.yml" "$@" test_only=true export_onnx=/nowhere/net.onnx
    [ "$status" -eq 1 ]
    [[ "$output" == *"export_onnx: /nowhere/net_4bit.onnx: cannot be written"* ]]
}

@test "export_weights keeps the state of the quantizers of inputs and outputs" {
    local keys="fm_quant=lsq fm_bit=3 ot_quant=lsq ot_bit=6 stable=1 batch_size=16 export_onnx="
    run "$QRUN" -q "$DIR/float.yml" $keys wt_quant=lsq wt_bit=2 log_dir="$DIR/run9" export_weights="$DIR/w.safetensors"
    [ "$status" -eq 0 ]
    run "$QRUN" inspect "$DIR/w.safetensors"
    [[ "$output" != *quant_weight* && "$output" == *quant_activation.iteration* && "$output" == *quant_output.clip_val* ]]
    "$QRUN" -q test "$DIR/float.yml" $keys wt_quant=lsq wt_bit=2 log_dir="$DIR/t9" pretrained_file="$DIR/run9" dump_dir="$DIR/d6"
    "$QRUN" -q test "$DIR/float.yml" $keys log_dir="$DIR/t10" pretrained_file="$DIR/w.safetensors" dump_dir="$DIR/d7"
    cmp "$DIR/d6/output.npy" "$DIR/d7/output.npy"
}
