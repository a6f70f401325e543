# test/cli.bats -- the command line as a user and a script meet it. QRUN names the program.

load support/shell

setup() {
    qrun=${QRUN:-build/release/qrun}
    case $qrun in /*) ;; *) qrun=$PWD/$qrun ;; esac
    root=$PWD
    dir=$(mktemp -d)
    cd "$dir"
    unset NO_COLOR CLICOLOR_FORCE QRUN_DATA_DIR
    tiny="smoke synth_train=96 synth_val=64 num_epochs=1 batch_size=32 log_dir=run"
}

teardown() {
    cd /
    rm -rf "$dir"
}

# Starts a run that takes long enough, and waits until it has made some updates. $pid is the process.
start_long() {
    env --default-signal=INT,TERM,HUP "$qrun" smoke synth_train=6400 synth_val=64 num_epochs=50 batch_size=32 log_dir=run log_interval=1 \
        >out.txt 2>err.txt &
    pid=$!
    for _ in $(seq 300); do
        [ -s run/metrics.jsonl ] && return 0
        sleep 0.1
    done
    cat err.txt
    return 1
}

# Waits for $pid; its exit status in $status.
finish() {
    status=0
    wait $pid || status=$?
    out=$(cat out.txt) err=$(cat err.txt)
}

@test "--help and help go to stdout, status 0" {
    both "$qrun" --help
    is "$status" 0
    is "$err" ""
    has "$out" "Usage: qrun"
    has "$out" "summary"
    both "$qrun" help
    is "$status" 0
    has "$out" "Exit status"
    both "$qrun" help train
    has "$out" "Usage: qrun [OPTION]... train FILE"
    both "$qrun" help keys
    is "$status" 0
    has "$out" "batch_size"
    both "$qrun" help momentum
    has "$out" "momentum"
    both "$qrun" help nosuchkeyatall
    is "$status" 2
    is "$out" ""
}

@test "--version" {
    both "$qrun" --version
    is "$status" 0
    has "$out" "qrun 0."
    has "$out" "Apache-2.0"
    both "$qrun" --version -v
    has "$out" "oneDNN 2."
    has "$out" "libyaml 0."
    has "$out" "zlib 1."
}

@test "wrong usage: stderr, status 2, a suggestion, and where help is" {
    both "$qrun"
    is "$status" 2
    is "$out" ""
    has "$err" "Try 'qrun --help' for more information."
    for word in "" show check train predict; do # an empty name, as of a variable that is not set
        both "$qrun" $word ""
        is "$status:$out" "2:"
        case $word in predict) ;; *) has "$err" "no configuration file" ;; esac
    done
    both "$qrun" trian smoke
    is "$status" 2
    has "$err" "did you mean 'train'?"
    both "$qrun" --colour=never smoke
    is "$status" 2
    has "$err" "did you mean '--color'?"
    both "$qrun" --color=sometimes smoke
    is "$status" 2
    has "$err" "expected one of auto, always, never"
    both "$qrun" --max-time
    is "$status" 2
    has "$err" "needs a value"
    both "$qrun" -x smoke
    is "$status" 2
    has "$err" "unknown option '-x'"
    both "$qrun" --help=all
    is "$status" 2
    has "$err" "'--help=all' takes no value"
    both "$qrun" show smoke --json
    is "$status" 2
    has "$err" "--json"
    both "$qrun" list nets quant
    is "$status" 2
    both "$qrun" list netz
    is "$status" 2
    has "$err" "did you mean 'nets'?"
    both "$qrun" lr=0.1
    is "$status" 2
    both "$qrun" path worst run
    is "$status" 2
}

@test "a misspelt file is an error with a suggestion" {
    cp "$root/configs/smoke.yml" mine.yml
    both "$qrun" mnie.yml
    is "$status" 2
    has "$err" "mine.yml"
    is "$(ls)" "err.txt
mine.yml
out.txt"
}

@test "configuration faults: all at once, with places, nothing started" {
    printf 'model: resnet20\ndataset: synthetic\nwieght_decay: 1e-4\nlr: fast\n' >bad.yml
    both "$qrun" bad.yml log_dir=run momentun=0.9
    is "$status" 2
    is "$out" ""
    has "$err" "bad.yml:3:1: error:"
    has "$err" "did you mean 'weight_decay'?"
    has "$err" "bad.yml:4:"
    has "$err" "momentum"
    [ ! -e run ]
}

@test "show, list, summary, check, path, docs" {
    both "$qrun" show smoke lr=0.01
    is "$status" 0
    has "$out" "command line"
    for what in nets quant datasets transforms optimizers schedules modes; do
        both "$qrun" list $what
        is "$status" 0
        [ -n "$out" ]
        is "$err" ""
    done
    both "$qrun" summary smoke
    is "$status" 0
    has "$out" "total   272514 parameters, 40.81 M MACs"
    both "$qrun" summary smoke --json
    is "$status" 0
    has "$out" '"macs": 40813184'
    both "$qrun" check $tiny
    is "$status" 0
    has "$out" "nothing stands in the way"
    [ ! -e run ]
    both "$qrun" path best run
    is "$status" 3
    has "$err" "run/checkpoints/best.safetensors"
    both "$qrun" docs keys
    is "$status" 0
    has "$out" "batch_size"
}

@test "check finds what the run would find in its folder" {
    both "$qrun" $tiny
    is "$status" 0
    both "$qrun" check $tiny lr=0.3
    is "$status" 2
    has "$err" "what differs: lr"
    both "$qrun" check $tiny log_dir=run/run.json
    is "$status" 1
    has "$err" "is a file, not a folder"
    # Beside the folder: what a run refuses at its start or, of a policy, at an epoch.
    new="$tiny log_dir=new"
    both "$qrun" check $new test_only=true
    is "$status:$err" "3:qrun: error: nothing to test: no pretrained_file is given and new holds no checkpoint"
    both "$qrun" check $new export_onnx=none/net.onnx
    is "$status:$err" "1:command line: error: export_onnx: none/net.onnx: cannot be written: No such file or directory"
    both "$qrun" check $new log_file=none/log
    is "$status:$err" "1:command line: error: log_file: none/log: cannot be written: No such file or directory"
    both "$qrun" check $new class_names=none
    is "$status:$err" "3:command line: error: class_names: none: No such file or directory"
    both "$qrun" check $tiny test_only=true dump_dir=out.txt/dump
    is "$status:$err" "1:qrun: error: dump_dir out.txt/dump: out.txt is a file, not a folder"
    printf '%s\n' 'on epoch: 0' '  by_index: all' '  level_num: -300' >low.policy
    both "$qrun" check $new wt_quant=lsq fm_quant=lsq policy=low.policy
    is "$status" 2
    has "$err" "low.policy:3:1: error: policy: layer1.0.conv1: level_num: -284 levels; expected 2 to 256"
    [ ! -e new ]
    echo "model: [" >run/resolved.yml
    both "$qrun" $tiny
    is "$status" 2
    has "$err" "run/resolved.yml:2:1: error: not valid YAML"
    has "$err" "record of its configuration is damaged"
}

@test "killed after its last checkpoint, before the rest: the next call completes the folder" {
    both "$qrun" $tiny
    is "$status" 0
    line=${out% seconds=*}
    rm run/curves.svg run/checkpoints/best.safetensors
    rm run/run.json
    both "$qrun" $tiny
    is "$status" 0
    is "${out% seconds=*}" "$line"
    has "$err" "this run is finished"
    cmp run/checkpoints/best.safetensors run/checkpoints/last.safetensors
    [ -s run/curves.svg ]
    grep -q '"result"' run/run.json
}

# PHASE -- MiB of activations that `qrun summary` told for it.
planned() {
    printf '%s\n' "$out" | sed -n "s/.* \([0-9]*\)\.[0-9]* MiB in $1 .*/\1/p"
}

@test "a batch too large: summary tells what it needs, a run is refused in one line before it takes the memory" {
    both "$qrun" summary smoke batch_size=32 val_batch_size=4096
    is "$status" 0
    [ "$(planned training)" -lt 128 ]
    [ "$(planned evaluation)" -gt 512 ]
    both "$qrun" summary smoke batch_size=65536 # more than most machines have
    is "$status" 0
    [ "$(planned training)" -gt 100000 ]
    both "$qrun" -q smoke batch_size=65536 image_size=4096 log_dir=huge
    is "$status:$err" "2:command line: error: batch_size: 65536 images of 3 x 4096 x 4096; expected at most 42"
    [ "$(awk '/^(MemTotal|SwapTotal):/ { kb += $2 } END { printf "%d", kb }' /proc/meminfo)" -lt 31000000 ] || skip "this machine has 30 GiB or more, with swap"
    large="model=resnet152 dataset=fake image_size=4096 limit_train=1 limit_val=1 log_dir=huge"
    both "$qrun" -q smoke $large batch_size=40
    is "$status:$(printf '%s\n' "$err" | wc -l)" 1:1
    has "$err" "4 batches of 40 images need 30.0 GiB, and "
    has "$err" "memory can be had; expected a smaller batch_size"
    both "$qrun" -q smoke $large batch_size=1
    is "$status:$(printf '%s\n' "$err" | wc -l)" 1:1
    has "$err" "training on a batch of 1 needs 73.7 GiB of activations, and "
}

@test "profile adds up its kinds of op" {
    both "$qrun" profile smoke batch_size=8
    is "$status" 0
    has "$out" "sums by kind"
    has "$out" "GB/s (triad)"
}

@test "a run: the result is the only line on stdout, the folder explains itself, a second call says finished" {
    both "$qrun" $tiny
    is "$status" 0
    echo "$out" | grep -Ex 'top1=[0-9]+\.[0-9]{2} top5=[0-9]+\.[0-9]{2} loss=[0-9.]+ images=64 seconds=[0-9.]+'
    has "$err" "epoch 1/1"
    [ -s run/run.json ] && [ -s run/resolved.yml ] && [ -s run/log.txt ] && [ -s run/metrics.jsonl ] && [ -s run/curves.svg ]
    [ -s run/checkpoints/last.safetensors ] && [ -s run/checkpoints/best.safetensors ] && [ -n "$(ls run/tb)" ]
    has "$(cat run/run.json)" '"status": "finished"'
    first=$out
    sums=$(cat run/checkpoints/*.safetensors run/metrics.jsonl | cksum)
    both "$qrun" $tiny
    is "$status" 0
    is "$out" "$first"
    has "$err" "finished"
    is "$(cat run/checkpoints/*.safetensors run/metrics.jsonl | cksum)" "$sums"
    both "$qrun" path best run
    is "$out" "run/checkpoints/best.safetensors"

    # another configuration is refused by the names of its keys, and touches nothing
    both "$qrun" $tiny lr=0.3 momentum=0.5
    is "$status" 2
    has "$err" "lr"
    has "$err" "momentum"
    is "$(cat run/checkpoints/*.safetensors run/metrics.jsonl | cksum)" "$sums"

    # testing writes below run/test and agrees with the evaluation of the training
    both "$qrun" $tiny test_only=true pretrained_file=run
    is "$status" 0
    is "${out% seconds=*}" "${first% seconds=*}"
    has "$err" "clipping threshold weight alpha: "
    [ -s run/test/run.json ]
    is "$(cat run/checkpoints/*.safetensors run/metrics.jsonl | cksum)" "$sums"

    # more epochs are the same run; fine-tuning from a run folder to fewer bits is another
    both "$qrun" $tiny num_epochs=2
    is "$status" 0
    has "$err" "going on from epoch 2"
    both "$qrun" $tiny log_dir=tuned bit=3 pretrained_file=run
    is "$status" 0
    has "$err" "tensors loaded"
}

@test "from 32 bits to 4: the quantizers' own parameters may be missing, anything else may not" {
    both "$qrun" $tiny bit=32
    is "$status" 0
    both "$qrun" $tiny log_dir=tuned pretrained_file=run
    is "$status" 0
    both "$qrun" $tiny log_dir=other model=resnet32 pretrained_file=run
    is "$status" 3
    has "$err" "command line: error: pretrained_file: run/checkpoints/best.safetensors holds resnet20_cifar"
    is "$(echo "$err" | grep -c resnet32)" 1
    [ ! -e other ]
    both "$qrun" $tiny log_dir=other names=fat pretrained_file=run
    is "$status" 3
    has "$err" "missing in the file"
    [ ! -e other ]
    both "$qrun" $tiny log_dir=none pretrained_file=nowhere.pth
    is "$status" 3
    has "$err" "nowhere.pth"
}

@test "quiet: nothing but the result; json: objects" {
    both "$qrun" -q $tiny
    is "$status" 0
    is "$err" ""
    is "$(wc -l <out.txt)" 1
    both "$qrun" --log-format=json $tiny log_dir=json
    is "$status" 0
    head -n 1 err.txt | grep -E '^\{"time":".*","level":"info","text":".*"\}$'
}

@test "piped output has neither carriage returns nor colours; NO_COLOR and --color are heeded" {
    both "$qrun" $tiny
    ! grep -q "$(printf '\r')" err.txt out.txt run/log.txt
    ! grep -q "$(printf '\033')" err.txt out.txt run/log.txt
    grep -Eq '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z info ' err.txt
    both "$qrun" --color=always $tiny
    grep -q "$(printf '\033')" err.txt
    # on a terminal (script makes one): colours unless NO_COLOR, and the line is redrawn
    if command -v script >/dev/null; then
        script -qec "$qrun $tiny log_dir=tty" typescript >/dev/null </dev/null
        grep -q "$(printf '\033')" typescript
        NO_COLOR=1 TERM=dumb script -qec "$qrun $tiny log_dir=tty2" typescript2 >/dev/null </dev/null
        ! grep -q "$(printf '\033')" typescript2
    fi
}

@test "an expectation that does not hold: status 5, now and when asked again" {
    both "$qrun" $tiny expect.top1_min=99.9
    is "$status" 5
    has "$out" "top1="
    has "$err" "expect"
    both "$qrun" $tiny expect.top1_min=99.9
    is "$status" 5
}

@test "a diverging training: status 4, the last good checkpoint stays" {
    both "$qrun" $tiny lr=1000 weight_decay=10 num_epochs=20
    is "$status" 4
    is "$out" ""
    has "$err" "epoch 2, update"
    has "$err" "the last good state"
    [ -s run/checkpoints/last.safetensors ]
    has "$(cat run/run.json)" '"status": "failed"'
}

@test "a run that failed before its first checkpoint does not stand in the way of a corrected one" {
    both "$qrun" -q $tiny image_size=40 log_dir=failed
    is "$status" 3
    [ -z "$(ls failed/checkpoints)" ]
    both "$qrun" $tiny log_dir=failed
    is "$status" 0
    has "$err" "failed here before its first checkpoint; it begins anew"
    both "$qrun" -q $tiny log_dir=unspoilt
    cmp failed/checkpoints/last.safetensors unspoilt/checkpoints/last.safetensors
    is "$(cut -d, -f1-4 failed/metrics.jsonl)" "$(cut -d, -f1-4 unspoilt/metrics.jsonl)"
    both "$qrun" $tiny log_dir=failed image_size=40
    is "$status" 2
    has "$err" "holds a run of another configuration; what differs: image_size: 0 -> 40"
}

@test "a net that its method cannot take: status 2 before anything is written" {
    both "$qrun" -q $tiny model=nin wt_quant=f8net fm_quant=f8net bit=8 log_dir=untouched
    is "$status:$err" "2:qrun: error: body.0: F8Net needs a batch norm right behind each convolution, and none of its own bias"
    [ ! -e untouched ]
}

@test "missing data: status 3, and what to type; no folder stays behind" {
    both "$qrun" $tiny dataset=cifar10 dataset_dir=nowhere log_dir=new/er/run
    is "$status" 3
    has "$err" "nowhere"
    [ ! -e new ]
}

@test "damaged checkpoints: the one before is taken; none left is status 3 naming the file" {
    both "$qrun" $tiny num_epochs=2
    is "$status" 0
    cp run/checkpoints/last.safetensors good
    cp run/checkpoints/previous.safetensors before
    rm run/checkpoints/best.safetensors
    head -c 1000 good >run/checkpoints/last.safetensors
    both "$qrun" $tiny num_epochs=2
    is "$status" 0
    has "$err" "previous.safetensors"
    cmp good run/checkpoints/last.safetensors # the second epoch was made again
    for f in last previous best; do
        rm -f run/checkpoints/$f.safetensors
        head -c 1000 good >run/checkpoints/$f.safetensors
    done
    both "$qrun" $tiny num_epochs=2
    is "$status" 3
    has "$err" "run/checkpoints/last.safetensors"
}

@test "max_steps ends a run; max_time stops it with status 75, and it goes on" {
    both "$qrun" $tiny max_steps=2
    is "$status" 0
    both "$qrun" $tiny log_dir=slow num_epochs=3 --max-time=0.001
    is "$status" 75
    is "$out" ""
    has "$err" "to go on, type:"
    both "$qrun" $tiny log_dir=slow num_epochs=3
    is "$status" 0
    both "$qrun" $tiny log_dir=straight num_epochs=3
    cmp slow/checkpoints/last.safetensors straight/checkpoints/last.safetensors
    cmp slow/checkpoints/best.safetensors straight/checkpoints/best.safetensors
}

@test "saving by steps or by time does not change the result" {
    both "$qrun" $tiny num_epochs=2 log_dir=a
    both "$qrun" $tiny num_epochs=2 log_dir=b save_every_steps=1 log_interval=50
    both "$qrun" $tiny num_epochs=2 log_dir=c save_every_seconds=0.01 save_every_epochs=0
    cmp a/checkpoints/last.safetensors b/checkpoints/last.safetensors
    cmp a/checkpoints/last.safetensors c/checkpoints/last.safetensors
    cmp a/checkpoints/best.safetensors c/checkpoints/best.safetensors
}

@test "a second process on the same log_dir is refused and named" {
    start_long
    both "$qrun" $tiny synth_train=6400 num_epochs=50
    kill -KILL $pid
    wait $pid || true
    is "$status" 1
    has "$err" "process $pid"
}

@test "SIGINT saves and ends by the signal (130); SIGTERM likewise (143); the same command goes on" {
    start_long
    kill -INT $pid
    finish
    is "$status" 130
    has "$err" "to go on, type:"
    [ -s run/checkpoints/last.safetensors ]
    rows=$(wc -l <run/metrics.jsonl)
    rm out.txt err.txt
    start_long
    for _ in $(seq 300); do
        [ "$(wc -l <run/metrics.jsonl)" -gt "$rows" ] && break
        sleep 0.1
    done
    kill -TERM $pid
    finish
    is "$status" 143
    has "$err" "going on from epoch"
    has "$(cat run/run.json)" '"status": "stopped"'
    # every update has one row, in order, whatever happened between
    steps=$(sed -n 's/^{"step":\([0-9]*\),"epoch":1,"split":"train".*/\1/p' run/metrics.jsonl)
    is "$steps" "$(seq "$(echo "$steps" | wc -l)")"
}

@test "SIGUSR1 prints a status line, SIGUSR2 saves; both go on" {
    start_long
    kill -USR1 $pid
    kill -USR2 $pid
    for _ in $(seq 300); do
        [ -s run/checkpoints/last.safetensors ] && grep -q 'status: epoch' err.txt && break
        sleep 0.1
    done
    kill -0 $pid
    kill -KILL $pid
    finish
    has "$err" "status: epoch 1/50"
    [ -s run/checkpoints/last.safetensors ]
}

@test "a closed stdout is a quiet end of output" {
    "$qrun" help keys 2>err.txt | head -n 1
    is "$(cat err.txt)" ""
}

@test "standard files closed at the start: nothing that is printed goes into a file of the run" {
    "$qrun" $tiny <&- >&- 2>&-
    [ "$(wc -w <run/.lock)" = 1 ]
}

@test "stdout on a full disk: status 1, and said" {
    [ -c /dev/full ] || skip "no /dev/full"
    status=0
    "$qrun" show smoke >/dev/full 2>err.txt || status=$?
    is "$status" 1
    has "$(cat err.txt)" "stdout: cannot be written"
}

adabits_file() { # as the original's: batch size inside, words twice
    cat >exp.yml <<'EOF'
model: q_resnet_cifar
depth: 20
dataset: synthetic
synth_train: 640
synth_val: 32
bits_list: [4, 3]
adaptive_training: True
num_epochs: 8
batch_size: 64
lr: 0.01
lr_scheduler: cos_annealing_iter
warmup_epochs: 2
num_gpus_per_job: 4
distributed: True
gpu_type: some
resume: ''
profiling: [gpu]
max_steps: 1
log_dir: run
tensorboard: false
EOF
}

@test "app:FILE bs:N: batch, rate and warm-up by the originals' rule" {
    adabits_file
    both "$qrun" show app:exp.yml bs:512
    is "$status" 0
    [[ $out =~ batch_size\ +512\ +command\ line ]]
    [[ $out =~ \ lr\ +0.02\ +rule\ of\ app:/bs:\ for\ batches\ above\ 256 ]]
    [[ $out =~ warmup_lr\ +0.01\ +rule ]]
    [[ $out =~ warmup_epochs\ +5\ +rule ]] # AdaBits: the file's 2 does not count
    [[ $out =~ gpu_type\ +no\ effect:\ never\ read ]]
    [[ $out =~ distributed\ +no\ effect ]]
    both "$qrun" show bs:256 app:exp.yml
    [[ $out =~ \ lr\ +0.01\ +exp.yml:10 ]]
    [[ $out =~ warmup_epochs\ +0\ +rule\ of\ app:/bs:\ for\ batches\ up\ to\ 256 ]]
    both "$qrun" show exp.yml # without the words the file stands as it is
    [[ $out =~ warmup_epochs\ +2\ +exp.yml:12 ]]
    sed -e '/bits_list/d' -e '/adaptive/d' -e 's/q_resnet_cifar/res20/' -e '/depth/d' -e '/profiling/d' exp.yml >f8.yml
    both "$qrun" show app:f8.yml bs:1024
    [[ $out =~ \ lr\ +0.04\ +rule ]]
    [[ $out =~ warmup_epochs\ +2\ +f8.yml|warmup_epochs\ +2\ +rule ]] # F8Net: the file's counts
    both "$qrun" app:exp.yml bs:none
    is "$status" 2
    has "$err" "batch_size: 'none' is not a whole number"
    both "$qrun" app:missing.yml bs:64
    is "$status" 2
    has "$err" "missing.yml"
}

@test "app:FILE bs:N trains; the cost table is logged; a line tells the rule" {
    adabits_file
    both "$qrun" app:exp.yml bs:320
    is "$status" 0
    has "$err" "batch_size 320, lr 0.0125, warm-up over 5 epochs from 0.01"
    has "$err" "costs by bit width"
    has "$err" "4bit "
    has "$err" "total                                      270906        40817280"
    has "$out" "top1_4bit="
    both "$qrun" exp.yml profiling_only=true profiling=false bits_list='[[4, 8], 3]'
    is "$status" 0
    has "$out" "w4a8 "
    has "$out" "3bit "
    both "$qrun" -v exp.yml profiling_only=true resume=some/latest.pt
    has "$err" "resume: 'some/latest.pt' is not read"
    is "$(grep -c 'gpu_type: no effect' err.txt)" 1
    is "$(grep -c 'distributed: no effect' err.txt)" 1
}

@test "start_epoch: a new run begins there, one that goes on keeps its place" {
    adabits_file
    both "$qrun" exp.yml start_epoch=7 max_steps=0 bits_list=[4] synth_train=128 profiling=false
    is "$status" 0
    has "$err" "epoch 8/8"
    is "$(grep -c '"split":"epoch"' run/metrics.jsonl)" 1
    both "$qrun" exp.yml start_epoch=7 max_steps=0 bits_list=[4] synth_train=128 profiling=false num_epochs=9
    is "$status" 0
    has "$err" "going on from epoch 9"
    both "$qrun" exp.yml start_epoch=8
    is "$status" 2
    has "$err" "start_epoch: 8; expected less than num_epochs: 8"
}

@test "a policy: faults with their line, status 2; an epoch that never begins is told" {
    lsq="$tiny wt_quant=lsq fm_quant=lsq" # one epoch
    printf '%s\n' 'on init:' '  by_index: all' '  clip_val: nan' >nan.policy
    both "$qrun" check $lsq policy=nan.policy
    is "$status" 2
    has "$err" "nan.policy:3:1: error: policy: layer1.0.conv1: clip_val: nan; expected a number"
    : >empty.policy
    both "$qrun" check $lsq policy=empty.policy
    is "$status:$err" "2:empty.policy:1:1: error: policy: no section in this file; expected on init: or on epoch: 10 20"
    printf '%s\n' 'on epoch: 0 1' '  by_index: all' '  stable: 3' >late.policy
    both "$qrun" show $lsq policy=late.policy
    is "$status" 0
    has "$err" "late.policy:2: policy: epoch 1 never begins: the last of 1 is 0"
}

@test "config.xxxx files and words: show, list, one error with its line" {
    cat >config.lsq.a <<'END'
# comment
model='resnet20'
dataset=cifar100
epochs=2
keyword='cifar100,origin,cbsa,fix_pooling,singleconv,fix,dorefa,lsq,my_label'
options="$options --wt_bit 2 --wt_enable"
#options="$options --fm_bit 2 --fm_enable"
END
    both "$qrun" show config.lsq.a lr=0.5
    is "$status" 0
    has "$out" "lsq                 wt_quant: lsq: LSQ"
    has "$out" "config.lsq.a:6"
    has "$err" "config.lsq.a:5:10: keyword: nobody knows 'my_label'"
    printf '%s\n' 'touch executed' >>config.lsq.a
    both "$qrun" show config.lsq.a
    is "$status" 2
    is "$err" "config.lsq.a:8:1: error: neither a comment nor NAME=VALUE; a configuration is read, not executed"
    [ ! -e executed ]
    both "$qrun" show config.none
    is "$status" 2
    has "$err" "config.none: no such file"
    both "$qrun" list keywords
    is "$status" 0
    has "$out" "ReShapeResolution"
    both "$qrun" docs keywords
    is "$status" 0
    has "$out" '| `lsq` |'
}
