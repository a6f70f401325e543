#!/usr/bin/env bats
# test/stages.bats -- F8Net's stages one after the other, as configs/tiny and experiments have them: the numbers that a net
# has in training, as whole numbers, and on ONNX Runtime are the same. QRUN names the program.

LOGITS='logits differ from the simulated net'

setup_file() {
    export DIR="$BATS_FILE_TMPDIR" ROOT="$PWD" QRUN="${QRUN:-$PWD/build/release/qrun}"
    cd "$DIR"
    unset QRUN_DATA_DIR
    for s in float float_test fix fix_test fix_int_infer fix_integize fix_int_op_only \
        finetune finetune_test finetune_int_infer finetune_integize finetune_int_op_only; do
        tiny $s dump_dir="$DIR/dump/$s" || return 1
        case $s in
        *integize) exported "results/tiny/f8_${s%_*}/integize/onnx_files/integized_model.onnx" "dump/$s" ;;
        *int_op_only) exported "results/tiny/f8_${s%%_*}/int_op_only/onnx_files/int_op_only_model.onnx" "dump/$s" ;;
        esac
        case $s in fix | finetune) cksum results/tiny/f8_$s/*.* results/tiny/f8_$s/checkpoints/* >$s.sums ;; esac
    done
}

setup() {
    cd "$DIR"
    unset QRUN_DATA_DIR
}

# NAME KEY=VALUE... -- configs/tiny/f8_NAME.yml; the result in NAME.out, the log in NAME.err.
tiny() {
    name=$1
    shift
    "$QRUN" "$ROOT/configs/tiny/f8_$name.yml" "$@" >"$name.out" 2>"$name.err" || {
        cat "$name.err"
        return 1
    }
}

# FILE -- what a result line says of the net; the first of it: top-1.
result() { sed 's/ seconds=.*//' "$1.out"; }
top1() { sed -n 's/^\(top1=[0-9.]*\) .*/\1/p' "$1.out"; }

is() { # GOT WANTED
    [ "$1" = "$2" ] || {
        printf 'got: %s\nwanted: %s\n' "$1" "$2"
        return 1
    }
}

has() { # FILE TEXT
    grep -qF -- "$2" "$1" || {
        printf 'missing: %s\nin:\n' "$2"
        cat "$1"
        return 1
    }
}

# MODEL DUMP -- one more pair of an ONNX file and what qrun computed with its net, for the judges at the end.
exported() {
    [ -s "$1" ] && [ -s "$2/output.npy" ] && echo "$1 $2" >>exported.txt
}

@test "a float test repeats the best epoch of its training" {
    is "$(top1 float_test)" "$(sed -n 's/.*done: best top1 \([0-9.]*\) .*/top1=\1/p' float.err)"
}

@test "fixed-point training starts with the clipping thresholds and weights of the float net" {
    has fix.err "results/tiny/f8_float/checkpoints/best.safetensors (safetensors): 87 tensors loaded; of the quantizers 13 keep"
    has finetune.err "results/tiny/f8_float/checkpoints/best.safetensors"
    has finetune.err "16 updates an epoch"
}

@test "whole numbers give the simulated net's logits, in every stage" {
    for s in fix finetune; do
        is "$(wc -l <"${s}_test.out")" 1
        [ -n "$(top1 ${s}_test)" ]
        for stage in int_infer integize int_op_only; do
            has ${s}_$stage.err "0 of 2560 $LOGITS"
            is "$(top1 ${s}_$stage)" "$(top1 ${s}_test)"
            is "$(result ${s}_$stage)" "$(result ${s}_int_infer)"
            cmp dump/${s}_$stage/output.npy dump/${s}_int_infer/output.npy
        done
    done
}

@test "tests leave the training's files alone" {
    for s in fix finetune; do
        is "$(cksum results/tiny/f8_$s/*.* results/tiny/f8_$s/checkpoints/*)" "$(cat $s.sums)"
        [ ! -e results/tiny/f8_$s/int_infer/checkpoints ]
        [ -s results/tiny/f8_$s/int_op_only/checkpoints/int_op_only_model.safetensors ]
        [ -s results/tiny/f8_$s/integize/checkpoints/integized_model.safetensors ]
    done
}

@test "without the input_fraclen of its training a net has no stage of whole numbers" {
    for stage in int_infer integize int_op_only; do
        run "$QRUN" -q "$ROOT/configs/tiny/f8_fix_$stage.yml" log_dir=none pretrained_file=results/tiny/f8_float
        is "$status" 3
        is "${#lines[@]}" 1
        [[ "$output" == *.yml:?:1:" error: $stage: results/tiny/f8_float/checkpoints/best.safetensors: no 'layer1.0.conv1.input_fraclen' in it"* ]]
        [ ! -e none/$stage ]
    done
}

@test "compat: original runs through all stages" {
    tiny fix log_dir=original compat=original num_epochs=1 quant_avgpool=true pool_fusing=true
    for stage in test int_infer integize int_op_only; do
        tiny fix_$stage log_dir=original compat=original dump_dir=dump/original_$stage
        [ -n "$(top1 fix_$stage)" ]
        cp fix_$stage.out original_$stage.out
    done
    is "$(result original_int_op_only)" "$(result original_integize)"
    cmp dump/original_int_op_only/output.npy dump/original_integize/output.npy
    exported original/integize/onnx_files/integized_model.onnx dump/original_integize
    exported original/int_op_only/onnx_files/int_op_only_model.onnx dump/original_int_op_only
}

# NET NORMALIZE -- two updates of a MobileNet in fixed point, then whole numbers. The factor of rescale_forward is no power of two:
# with it the simulation in float is off by a unit where logits are in the millions.
mobilenet() {
    run_dir=$1_$2
    cat >"$run_dir.yml" <<YML
_default: $ROOT/configs/f8net/$1_fix_quant_train.yml
dataset: synthetic
data_transforms: synthetic
image_size: 32
num_classes: 10
normalize: $2
synth_train: 32
synth_val: 16
batch_size: 16
num_epochs: 1
fp_pretrained_file: ''
rescale_forward: false
log_dir: $DIR/$run_dir
quant_bias: true
topk: [1]
YML
    "$QRUN" -q "$run_dir.yml"
    "$QRUN" "$run_dir.yml" int_op_only=true int_compare=true dump_dir="dump/$run_dir" 2>"$run_dir.err"
    has "$run_dir.err" "0 of 160 $LOGITS"
    exported "$run_dir/int_op_only/onnx_files/int_op_only_model.onnx" "dump/$run_dir"
}

@test "MobileNet V1, pixels and normalized (signed) images" {
    mobilenet mbv1 false
    mobilenet mbv1 true
}

@test "MobileNet V2, pixels and normalized (signed) images" {
    mobilenet mbv2 false
    mobilenet mbv2 true
}

# The judges look at what the tests above have left in exported.txt.

@test "the ONNX files of all these nets pass the full check" {
    is "$(wc -l <exported.txt)" 10
    for python in python3 /usr/bin/python3; do # that of the path may be another one than the package's
        command -v $python >/dev/null || continue
        run $python "$ROOT/test/onnx/check.py" $(cut -d ' ' -f 1 exported.txt)
        [ "$status" -eq 77 ] || break
    done
    [ "${status:-77}" -ne 77 ] || skip "python3-onnx is not installed"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "ONNX Runtime computes their logits bit for bit" {
    command -v node >/dev/null || skip "node is not installed"
    is "$(wc -l <exported.txt)" 10
    while read -r model dump; do
        run node "$ROOT/test/onnx/onnx-run.mjs" "$model" -i "$dump/input.npy" --expect "$dump/output.npy"
        [ "$status" -ne 77 ] || skip "ONNX Runtime for node is not installed"
        echo "$model: $output"
        [ "$status" -eq 0 ]
        [[ "$output" == *"ok   output: 0 of "*" beyond tolerance"* ]]
    done <exported.txt
}

@test "a fixed-point training killed and started again ends with the same bytes" {
    run env TMPDIR="$DIR" QRUN="$QRUN" sh "$ROOT/test/kill.sh" 4 model=mnist_resnet10 wt_quant=f8net fm_quant=f8net bit=8 \
        input=k256 format_type=per_layer format_from_metric=true fp_pretrained_file="$DIR/results/tiny/f8_float"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"ok 2 - 4 kills in "* ]]
}

@test "the same for a cut epoch with searched lengths" {
    run env TMPDIR="$DIR" QRUN="$QRUN" sh "$ROOT/test/kill.sh" 4 model=mnist_resnet10 wt_quant=f8net fm_quant=f8net bit=8 \
        no_clipping=true format_type=per_layer format_grid_search=true finetune_iters=7 fp_pretrained_file="$DIR/results/tiny/f8_float"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"ok 2 - 4 kills in "* ]]
}

@test "experiments/f8net_chain.sh: from float to ONNX, again without training" {
    run sh "$ROOT/experiments/f8net_chain.sh" tiny -q "$QRUN" -o chain -c 64
    echo "$output"
    [ "$status" -eq 0 ]
    grep -E '^tiny ' <<<"$output" >first.txt
    is "$(sed -E 's/^(tiny [a-z_]+).*/\1/' first.txt | uniq | tr '\n' ' ')" "tiny float tiny fix tiny test tiny int_infer tiny int_op_only tiny onnx "
    grep -qE '^tiny onnx: (0 of 640 beyond tolerance|skipped: )' first.txt
    run sh "$ROOT/experiments/f8net_chain.sh" tiny -q "$QRUN" -o chain -c 64
    [ "$status" -eq 0 ]
    [[ "$output" == *"this run is finished"* ]]
    grep -E '^tiny ' <<<"$output" >second.txt
    is "$(sed 's/ seconds=.*//' second.txt)" "$(sed 's/ seconds=.*//' first.txt)"
}

@test "experiments: help, commands without running, wrong usage" {
    for s in f8net_res18 f8net_res20 adabits_res20 apot_res20 fat_res20 methods_res20; do
        run sh "$ROOT/experiments/$s.sh" -h
        [ "$status" -eq 0 ]
        [[ "$output" == Usage:* ]]
        run sh "$ROOT/experiments/$s.sh" -n -i weights.pth -d data threads=1
        [ "$status" -eq 0 ]
        [[ "$output" == *"dataset_dir=data"*"threads=1"* ]]
        for config in $(grep -oE '[^ ]+\.yml' <<<"$output"); do [ -f "$config" ]; done
        run sh "$ROOT/experiments/$s.sh" -z
        [ "$status" -eq 2 ]
        run sh "$ROOT/experiments/$s.sh" -n -i weights.pth threads=1 -d data
        [ "$status" -eq 2 ]
        [[ "$output" == *"'-d' behind 'threads=1'; options come before KEY=VALUE"* ]]
    done
    for net in res18 mbv1 mbv2 res18_ptcv res50_ptcv res50_nvidia res20_cifar tiny tiny_finetune; do
        run sh "$ROOT/experiments/f8net_chain.sh" $net -n -s "float fix test int_infer integize int_op_only onnx"
        [ "$status" -eq 0 ]
        for config in $(grep -oE '[^ ]+\.yml' <<<"$output"); do "$QRUN" show "$config" >/dev/null; done
    done
    run sh "$ROOT/experiments/f8net_chain.sh" res19
    [ "$status" -eq 2 ]
    run sh "$ROOT/experiments/f8net_chain.sh" tiny -o empty -s test
    [ "$status" -eq 3 ]
}
