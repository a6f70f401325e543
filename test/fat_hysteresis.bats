#!/usr/bin/env bats
# test/fat_hysteresis.bats -- FAT's chain, files of weights as quantized, the log in the layout of Quantized_ResNet, and what of
# these is refused: one line, the right exit status, before any work. QRUN names the program.

setup_file() {
    export DIR="$BATS_FILE_TMPDIR" ROOT="$PWD" QRUN="${QRUN:-$PWD/build/release/qrun}"
    export TINY="dataset=synthetic data_transforms=synthetic synth_train=96 synth_val=64 batch_size=32 num_epochs=1"
    cd "$DIR"
    unset QRUN_DATA_DIR
    "$QRUN" -q "$ROOT/configs/fat/res20_5bit.yml" $TINY use_pretrain=false log_dir=fat_5bit export_weights=fat.safetensors \
        >fat.out 2>fat.err || { cat fat.err && return 1; }
    "$QRUN" -q "$ROOT/configs/hysteresis/res20_w1a2.yml" $TINY log_dir=hyst export_weights=hyst.safetensors \
        >hyst.out 2>hyst.err || { cat hyst.err && return 1; }
}

setup() {
    cd "$DIR"
    unset QRUN_DATA_DIR
}

# KEY=VALUE... -- 4-bit FAT, by its own configuration; a test of a net; each on drawn images.
fat4() { run "$QRUN" -q "$ROOT/configs/fat/res20_4bit.yml" $TINY "$@"; }
tested() { "$QRUN" -q test "$@" 2>test.err >test.out || { cat test.err && return 1; }; }

# FILE -- a result line without its time.
result() { sed 's/ seconds=.*//' "$1"; }

# STATUS LINE -- of the last run; nothing else was said.
says() {
    printf 'status %s, got: %s\nwanted: %s, %s\n' "$status" "$output" "$1" "$2"
    [ "$status" -eq "$1" ]
    [ "$output" = "$2" ]
}

# A checkpoint of fat_5bit whose transform of one layer has another shape, in a folder: what a run of another net would leave.
# The sums over it are taken out, or it would count as damaged.
other_shape() {
    name=layer2.0.conv1.weight_quant.transform.weight
    rm -rf "$1" && cp -r fat_5bit "$1"
    LC_ALL=C sed "s/\"qrun\.\(header_\)\{0,1\}crc32\"/\"gone.\1crc32\"/g
        s/\(\"$name\":{\"dtype\":\"F32\",\"shape\":\)\[32,32\]/\1[16,64]/" fat_5bit/checkpoints/best.safetensors \
        >"$1/checkpoints/best.safetensors"
    "$QRUN" inspect "$1" | grep -qE "^$name +F32 +\[16, 64\]"
}

@test "export_weights: FAT's weights without transforms give the same logits without its quantizer" {
    "$QRUN" inspect fat_5bit | grep -q 'layer1.0.conv1.weight_quant.transform.weight'
    run "$QRUN" inspect fat.safetensors
    [[ "$output" != *transform* && "$output" != *wgt_alpha* && "$output" == *act_alpha* ]]
    tested fat_5bit/resolved.yml pretrained_file=fat_5bit log_dir=t1 dump_dir=d1 export_weights=again.safetensors
    tested fat_5bit/resolved.yml pretrained_file=fat.safetensors log_dir=t2 dump_dir=d2 wt_quant=none wt_bit=32 export_weights=
    is=$(result test.out)
    cmp d1/output.npy d2/output.npy
    [ "$is" = "$(result fat.out)" ]
    cmp fat.safetensors again.safetensors # after a training as after a test
    # 5 bits: at most 31 levels a layer
    levels=$("$QRUN" inspect fat.safetensors | awk '$1 == "layer1.0.conv1.weight" { print $NF }')
    [ "$levels" -le 31 ]
}

@test "export_weights: hysteresis writes what the net computes with, without the latent copy" {
    "$QRUN" inspect hyst | grep -q 'layer1.0.conv1.latent'
    run "$QRUN" inspect hyst.safetensors
    [[ "$output" != *latent* && "$output" == *layer1.0.conv1.weight* ]]
    tested hyst/resolved.yml pretrained_file=hyst log_dir=t3 dump_dir=d3 export_weights=
    tested hyst/resolved.yml pretrained_file=hyst.safetensors log_dir=t4 dump_dir=d4 wt_quant=none wt_bit=32 export_weights=
    cmp d3/output.npy d4/output.npy
}

@test "export_weights: what cannot be written is said before training" {
    fat4 use_pretrain=false log_dir=no_4bit export_weights=/nonexistent/w.safetensors
    says 1 "command line: error: export_weights: /nonexistent/w.safetensors: cannot be written: No such file or directory"
    run "$QRUN" -q "$ROOT/configs/tiny/adabits.yml" log_dir=no export_weights=w.safetensors
    says 2 "command line: error: export_weights: a net of several widths has no one set of weights; expected one without bits_list"
    run "$QRUN" -q "$ROOT/configs/tiny/f8_fix.yml" fp_pretrained_file= log_dir=no export_weights=w.safetensors
    says 2 "command line: error: export_weights: f8net makes weights together with the norms; expected another method, or integize"
    [ ! -e w.safetensors ]
    run "$QRUN" -q test fat_5bit/resolved.yml pretrained_file=fat.safetensors log_dir=no wt_quant=none export_weights=
    [ "$status" -eq 2 ]
    [[ "$output" == *"wt_bit: 5 has no effect with wt_quant: none; expected 32, or a name"* ]]
}

@test "log_file: the layout of Quantized_ResNet, appended to" {
    number='[0-9]+\.[0-9]+'
    time="Time $number \\($number\\)"
    value="Loss $number \\($number\\)	Prec $number% \\($number%\\)"
    for again in 1 2; do
        "$QRUN" -q "$ROOT/configs/hysteresis/res20_base.yml" $TINY num_epochs=2 use_quantize_weight=true quantized_layer1=2 \
            quantized_layer2=2 quantized_layer3=1 weight_thres=0.05 log_dir=log$again log_file=log.txt print_freq=2
    done
    {
        for again in 1 2; do
            printf '%s\n' 'CIRAR10 baseline using resnet20' 'epochs:  2' 'learning rate:  0\.1' 'momentum:  0\.9' 'print-freq:  2' \
                'log file:  log\.txt' 'quantize_layer1:  2' 'quantize_layer2:  2' 'quantize_layer3:  1' 'solver quantization:  True' \
                'sigmoid_alpha:  1' 'loss_regu:  0' 'weight_thres:  0\.05' 'use_alpha_decay:  False' 'start_alpha:  1' 'end_alphaL  1'
            for epoch in 0 1; do
                for batch in 0 2; do # of 0, 1, 2
                    printf '%s\n' "Epoch: \\[$epoch\\]\\[$batch/3\\]	$time	Data $number \\($number\\)	$value"
                done
                printf '%s\n' 'Testing on model of full precision' "Test: \\[0/1\\]	$time	$value" " \\* Prec $number% "
            done
        done
    } >patterns
    [ "$(wc -l <log.txt)" -eq "$(wc -l <patterns)" ]
    paste -d '\n' log.txt patterns | while IFS= read -r line && IFS= read -r pattern; do
        [[ "$line" =~ ^$pattern$ ]] || { printf 'got: %s\nwanted: %s\n' "$line" "$pattern" && exit 1; }
    done
    # The accuracy of the last line is that of the result.
    top1=$("$QRUN" -q "$ROOT/configs/hysteresis/res20_base.yml" $TINY num_epochs=2 use_quantize_weight=true quantized_layer1=2 \
        quantized_layer2=2 quantized_layer3=1 weight_thres=0.05 log_dir=log2 print_freq=2 | sed 's/top1=\([0-9.]*\) .*/\1/')
    [[ "$(tail -n 1 log.txt)" == " * Prec $top1"[0-9]"% " ]]
}

@test "log_file: none without the key; a place that cannot be written" {
    [ ! -e log_0614_CIFAR10.txt ] # the original's default
    run "$QRUN" -q "$ROOT/configs/hysteresis/res20_base.yml" $TINY log_dir=no log_file=/nonexistent/log.txt
    says 1 "qrun: error: log_file: /nonexistent/log.txt: No such file or directory"
}

@test "use_pretrain: the run one bit wider, or status 3" {
    fat4 log_dir=fat_4bit
    [ "$status" -eq 0 ]
    grep -q 'fat_5bit' fat_4bit/run.json
    fat4 log_dir=none_4bit
    says 3 "qrun: error: use_pretrain: no checkpoint in none_5bit, the run one bit wider; expected that it is trained first, or another file as pretrained_file"
    mkdir empty_5bit
    fat4 log_dir=empty_4bit
    says 3 "qrun: error: use_pretrain: no checkpoint in empty_5bit, the run one bit wider; expected that it is trained first, or another file as pretrained_file"
    fat4 log_dir=fat
    [ "$status" -eq 2 ]
    [[ "$output" == *"configs/fat/res20_4bit.yml:6:1: error: use_pretrain: the run one bit wider is looked for beside log_dir: fat; expected a log_dir with '4bit' in its name, or pretrained_file" ]]
    cp -r fat_5bit cut_5bit
    head -c 5000 fat_5bit/checkpoints/best.safetensors >cut_5bit/checkpoints/best.safetensors
    fat4 log_dir=cut_4bit
    says 3 "qrun: error: cut_5bit/checkpoints/best.safetensors: the file ends inside its header"
    for d in none empty cut; do [ ! -e ${d}_4bit/checkpoints ]; done
}

@test "a transform of another shape in a checkpoint: status 3, with both shapes" {
    other_shape other_5bit
    is='layer2.0.conv1.weight_quant.transform.weight is f32 [16, 64] in the file, f32 [32, 32] in the net'
    fat4 log_dir=other_4bit
    says 3 "qrun: error: other_5bit/checkpoints/best.safetensors: $is"
    fat4 log_dir=x_4bit pretrained_file=other_5bit/checkpoints/best.safetensors
    says 3 "command line: error: pretrained_file: other_5bit/checkpoints/best.safetensors: $is"
    fat4 log_dir=x_4bit pretrained_file=other_5bit strict_load=false # which forgives missing names only
    [ "$status" -eq 3 ]
    [[ "$output" == *"$is" ]]
}

@test "weight_thres below zero, and no number: status 2" {
    run "$QRUN" -q "$ROOT/configs/hysteresis/res20_w1a2.yml" $TINY log_dir=no weight_thres=-0.1
    says 2 "command line: error: weight_thres: -0.1 is out of range; expected at least 0"
    run "$QRUN" -q "$ROOT/configs/hysteresis/res20_w1a2.yml" $TINY log_dir=no weight_thres=nan
    [ "$status" -eq 2 ]
    [ "${#lines[@]}" -eq 1 ]
    printf '_default: %s\nweight_thres: -1\n' "$ROOT/configs/hysteresis/res20_w1a2.yml" >thres.yml
    run "$QRUN" -q thres.yml $TINY log_dir=no
    says 2 "thres.yml:2:15: error: weight_thres: -1 is out of range; expected at least 0"
    [ ! -e no ]
}

@test "a predict image that is no image: status 3, the others are classified" {
    echo 'no image' >text.png
    run "$QRUN" -q predict fat_5bit text.png
    says 3 "qrun: error: text.png: neither JPEG nor PNG (starts with 6e 6f)"
    run "$QRUN" -q predict hyst text.png /dev/null
    [ "$status" -eq 3 ]
    [ "${#lines[@]}" -eq 2 ]
}
