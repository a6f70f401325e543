#!/usr/bin/env bats
# test/stages_faults.bats -- what is refused of configurations and checkpoints of F8Net's stages: one line with its place, the
# right exit status, before any work. QRUN names the program.

setup_file() {
    export DIR="$BATS_FILE_TMPDIR" ROOT="$PWD" QRUN="${QRUN:-$PWD/build/release/qrun}"
    cd "$DIR"
    "$QRUN" -q "$ROOT/configs/tiny/f8_fix.yml" log_dir=fix fp_pretrained_file= synth_train=32 synth_val=16 num_epochs=1
    "$QRUN" -q "$ROOT/configs/tiny/f8_float.yml" log_dir=float synth_train=32 synth_val=16 num_epochs=1
}

setup() {
    cd "$DIR"
    unset QRUN_DATA_DIR
}

# STATUS LINE TEXT YAML... -- int_op_only of the fixed-point net with these lines (from line 3 on) fails with the status and one
# line, which is LINE:1: error: TEXT..., and leaves no folder.
refused() {
    wanted=$1 line=$2 text=$3
    shift 3
    { echo "_default: $ROOT/configs/tiny/f8_fix_test.yml" && echo 'int_op_only: true' && printf '%s\n' "$@"; } >bad.yml
    grep -q '^pretrained_file' bad.yml || echo 'pretrained_file: fix' >>bad.yml
    rm -rf bad
    run "$QRUN" -q bad.yml log_dir=bad
    printf 'got: %s\nwanted: bad.yml:%s:1: error: %s\n' "$output" "$line" "$text"
    [ "$status" -eq "$wanted" ]
    [ "${#lines[@]}" -eq 1 ]
    [[ "$output" == "bad.yml:$line:"[0-9]*": error: $text"* ]]
    [ ! -e bad ]
}

@test "impossible formats" {
    refused 2 3 "weight_format: a word length of 1; expected 2 to 16" 'weight_format: [1, 0]'
    refused 2 3 "weight_format: a fractional length of 9 with 8 bits; expected 0 to 7" 'weight_format: [8, 9]'
    refused 2 3 "weight_format has 1 entries; expected [word length, fractional length]" 'weight_format: [8]'
    refused 2 3 "weight_format: 3 entries; expected at most 2" 'weight_format: [8, 7, 1]'
    refused 2 3 "weight_format: 32 is out of range; expected 0..16" 'weight_format: [32, 7]'
    refused 2 3 "weight_format: 'x' is not a whole number" 'weight_format: [x, 7]'
    refused 2 3 "input_format: a fractional length of 9 with 8 bits; expected 0 to 8" 'input_format: [8, 9]'
}

@test "nets without whole numbers" {
    refused 2 2 "int_op_only: the network is not quantized; expected wt_quant and fm_quant: f8net" 'floating_model: true'
    refused 2 2 "int_op_only: the network is not quantized" 'wt_quant: apot' 'fm_quant: apot' 'bit: 4' 'weight_format: []' \
        'input_format: []'
    refused 2 2 "int_op_only: the network is not quantized" 'fm_quant: none'
    refused 2 3 "fm_quant: none with wt_quant: f8net, which quantizes weights and inputs together" 'fm_quant: none' \
        'int_op_only: false'
    refused 2 2 "int_op_only: word lengths of 10 and 8; expected at most 8 bits" 'weight_format: [10, 9]'
    refused 2 2 "int_op_only: word lengths of 8 and 9; expected at most 8 bits" 'input_format: [9, 6]'
    refused 2 2 "int_op_only: word lengths of 12 and 8; expected at most 8 bits" 'wt_bit: 12'
    refused 2 2 "int_op_only: format_type: per_channel has no shift common to a layer" 'format_type: per_channel'
    refused 2 3 "int_op_only: the network is not quantized" 'int_op_only: true' 'integize: true' 'floating_model: true'
    refused 2 3 "int_compare: true without a stage" 'int_compare: true' 'int_op_only: false'
}

@test "several widths" {
    refused 2 3 "bits_list with wt_quant: f8net, which has one width only; expected adabits" 'bits_list: [5, 4]'
    refused 2 3 "adaptive_training: true without bits_list; expected a list of bit widths" 'adaptive_training: true'
    refused 2 3 "adaptive_training: true without bits_list" 'adaptive_training: true' 'bits_list: []'
}

@test "checkpoints" {
    head -c 30000 fix/checkpoints/best.safetensors >cut.safetensors
    mkdir -p folder
    refused 3 3 "pretrained_file: fix/checkpoints/best.safetensors holds mnist_resnet10, but the configuration asks for model: mnist_resnet14" \
        'pretrained_file: fix' 'model: mnist_resnet14'
    refused 3 3 "pretrained_file: cut.safetensors: tensor '" 'pretrained_file: cut.safetensors'
    refused 3 3 "pretrained_file: folder: no checkpoint in this run folder" 'pretrained_file: folder'
    refused 3 3 "pretrained_file: nowhere.pth: no such checkpoint or run folder" 'pretrained_file: nowhere.pth'
    refused 3 3 "fp_pretrained_file: nowhere.pth: no such checkpoint or run folder" 'fp_pretrained_file: nowhere.pth' \
        'pretrained_file: ~'
    refused 3 2 "int_op_only: float/checkpoints/best.safetensors: no 'layer1.0.conv1.input_fraclen' in it; expected a checkpoint of training in fixed point" \
        'pretrained_file: float'
    refused 3 2 "int_op_only: float/checkpoints/best.safetensors: no 'layer1.0.conv1.input_fraclen' in it" \
        'fp_pretrained_file: float' 'pretrained_file: ~'
    "$QRUN" -q "$ROOT/configs/tiny/f8_fix_int_op_only.yml" log_dir=fix synth_val=16
    refused 3 3 "pretrained_file: fix/int_op_only/checkpoints/int_op_only_model.safetensors: the whole numbers that int_op_only has written" \
        'pretrained_file: fix/int_op_only/checkpoints/int_op_only_model.safetensors'
}

@test "with fixed lengths a float net needs nothing of training in fixed point" {
    run "$QRUN" "$ROOT/configs/tiny/f8_fix_int_op_only.yml" log_dir=given pretrained_file=float synth_val=16 'format_type=~' \
        format_from_metric=false
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"0 of 160 logits differ"* ]]
}

@test "paths that cannot be written" {
    : >file
    refused 1 3 "int_op_only_file_path: file/x: cannot be made: Not a directory" 'int_op_only_file_path: file/x'
    refused 1 4 "integize_file_path: file/checkpoints: cannot be made: Not a directory" 'int_op_only: false' 'integize_file_path: file' \
        'integize: true'
    refused 1 3 "dump_dir: file: exists and is not a folder" 'dump_dir: file'
    refused 1 3 "export_onnx: file/net.onnx: cannot be written: Not a directory" 'export_onnx: file/net.onnx'
    refused 1 3 "export_onnx: folder2: cannot be written: it is a folder" "export_onnx: $(mkdir -p folder2 && echo folder2)"
}
