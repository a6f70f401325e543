# test/convert.bats -- qrun convert, verify, inspect values= and --after as a user and a script meet them. QRUN names the program.

load support/shell

setup_file() {
    own_folder
    tiny="smoke synth_train=96 synth_val=64 batch_size=32 num_epochs=1"
    "$qrun" -q $tiny log_dir=a >a.txt 2>err.txt || { cat err.txt; return 1; }
}

teardown_file() {
    rm -rf "$shared"
}

setup() {
    cd "$shared"
    unset QRUN_DATA_DIR
    rm -f plain.safetensors new.safetensors back.safetensors from to
}

@test "convert: names there and back leave every value" {
    printf '%s\n' '# old names' "'layer1.0.conv{1,2}'," layer2. bn1 >from
    printf '%s\n' 'stage1.0.c{a,b}' stage2. '# and' norm1 >to
    both "$qrun" convert a from=from to=to
    is "$status" 0
    has "$out" "layer1.0.conv2.weight -> stage1.0.cb.weight"
    has "$out" "layer2.0.bn1.weight -> stage2.0.norm1.weight"
    has "$out" "nothing written"
    both "$qrun" convert a new.safetensors mf=from mt=to case=net.
    is "$status" 0
    both "$qrun" inspect new.safetensors
    has "$out" "net.stage1.0.cb.weight"
    has "$out" "deviation"
    case $out in *layer1.0.conv*) false ;; esac
    case $out in *optim.*) false ;; esac
    printf '%s\n' net. 'stage1.0.c{a,b}' stage2. norm1 >from
    printf '%s\n' "''" 'layer1.0.conv{1,2}' layer2. bn1 >to
    both "$qrun" convert new.safetensors back.safetensors from=from to=to
    is "$status" 0
    both "$qrun" convert a plain.safetensors
    is "$status" 0
    both "$qrun" diff plain.safetensors back.safetensors
    is "$status" 0
    both "$qrun" inspect plain.safetensors values=running_mean
    has "$out" "layer1.0.bn1.running_mean: "
    has "$(cat back.safetensors | head -c 3000 | tr -d '\0')" "qrun.input_mean"
}

@test "convert: keep, a net, and what is wrong" {
    printf 'layer1\n' >from
    printf 'stage1\n' >to
    both "$qrun" convert a new.safetensors from=from to=to keep=true
    is "$status" 0
    both "$qrun" inspect new.safetensors
    has "$out" "layer1.0.conv1.weight"
    has "$out" "stage1.0.conv1.weight"
    both "$qrun" convert a plain.safetensors
    is "$status" 0
    both "$qrun" convert new.safetensors back.safetensors config=smoke
    is "$status" 0
    has "$out" "are left over"
    both "$qrun" diff plain.safetensors back.safetensors
    is "$status" 0
    both "$qrun" convert a back.safetensors
    is "$status" 2
    has "$err" "back.safetensors: is there already"
    both "$qrun" convert a new.pth
    is "$status" 2
    has "$err" "ends in .safetensors"
    both "$qrun" convert a x.safetensors from=from
    is "$status" 2
    has "$err" "from without to"
    both "$qrun" convert a x.safetensors form=from
    is "$status" 2
    has "$err" "expected from=FILE"
    printf 'layer1\nlayer2\n' >from
    both "$qrun" convert a x.safetensors from=from to=to
    is "$status" 2
    has "$err" "from has 2 names and to has 1"
    printf 'layer{1,2}\n' >from
    printf 'stage{1}\n' >to
    both "$qrun" convert a x.safetensors from=from to=to
    is "$status" 2
    has "$err" "to:1: error: 1 alternatives; line 1 of from has 2"
    printf "''\n" >from
    both "$qrun" convert a x.safetensors from=from to=to
    is "$status" 2
    has "$err" "from:1: error: an empty name"
    printf 'layer{1\n' >from
    both "$qrun" convert a x.safetensors from=from to=to
    is "$status" 2
    has "$err" "from:1: error: 'layer{1'; expected one pair of braces"
    printf 'layer1\nnowhere\n' >from
    printf 'layer2\nx\n' >to
    both "$qrun" convert a x.safetensors from=from to=to
    is "$status" 2
    has "$err" "two tensors would be named 'layer2.0."
    has "$err" "from:2: 'nowhere' is in no name"
    both "$qrun" convert missing
    is "$status" 3
    [ ! -e x.safetensors ]
}

@test "inspect values=: the values of names that end so" {
    both "$qrun" inspect a values=act_alpha,num_batches_tracked
    is "$status" 0
    has "$out" "num_batches_tracked: 3"
    both "$qrun" inspect a values=layer1.0.bn1.num_batches_tracked,er1.0.bn2.num_batches_tracked
    is "$(printf '%s\n' "$out" | wc -l)" 1
    both "$qrun" inspect a values=nothing
    is "$status" 2
    has "$err" "no tensor's name ends in 'nothing'"
    both "$qrun" inspect a values=act_alpha,nothing
    is "$status:$out" "2:"
    has "$err" "no tensor's name ends in 'nothing'"
    both "$qrun" inspect a values=
    is "$status" 2
    has "$err" "values= without a name"
    both "$qrun" inspect a valuse=x
    is "$status" 2
}

@test "verify: folders, lists, configurations; each fault by name, status 3" {
    mkdir -p img/more
    printf 'P5 not an image' >img/more/bad.png
    printf '%s' \
        iVBORw0KGgoAAAANSUhEUgAAACgAAAAeCAAAAAB7tgMBAAABh0lEQVR42mNgYOXiF5GUU9bQNTK3cXTzDgiNik/JzCuuqG1q75k4bfaCpavWb9m57zADMwevkLiMopq2gamVvYunX3BEbFJ6TmFZdUNrV/+UmfMWr1i7afueg8cY2LgFRKXkVTT1jC1sndx9AsOiE1Kz8ksq65o7eidNn7Nw2eoNW3ftP3KSgZNPWEJWSV3H0MzawdXLPyQyLjkjt6i8prGte8LUWfOXrFy3ecfeQ8fPMPAIikkrqGrpm1jaOXv4BoXHJKZlF5RW1bd09k2eMXfR8jUbt+0+cPTUeQaifHLi7CUGonxy+sJVBqJ8cu7yDQaifHLx2m0Gonxy5eY9BqJ8cv3OQwaifHLr/hMGonxy99FzBqJ88uDpKwaifPL4xVsGonzy7PUHBqJ88vLdZwaifPLm4zcGonzy/stPBqJ88un7HwaifPL1138Gonzy4y8TA1E++c3AykCUT/4xczAQ5RNGNm4GonzCwsnHQJRP2HkEGYjyCbDUYSDKJ8BSh4EonwBLHQDNvnYPwxhIdAAAAABJRU5ErkJggg== |
        base64 -d >img/good.png
    both "$qrun" verify img
    is "$status" 3
    has "$out" "img/more/bad.png"
    has "$out" "2 images, 1 at fault"
    is "$err" ""
    printf '# a list\nimg/good.png 0\nimg/none.png 1\n' >list.txt
    both "$qrun" verify list.txt
    is "$status" 3
    has "$out" "img/none.png"
    has "$out" "2 images, 1 at fault"
    both "$qrun" verify img/good.png
    is "$status" 0
    is "$out" "1 images, 0 at fault"
    both "$qrun" verify smoke synth_train=32 synth_val=16
    is "$status" 0
    is "$out" "48 images, 0 at fault"
    mkdir -p set/train/x set/val/x
    cp img/good.png set/train/x/1.png
    cp img/good.png set/val/x/1.png
    cp img/more/bad.png set/val/x/2.png
    printf 'model: resnet20\ndataset: folder\ndataset_dir: set\n' >set.yml
    both "$qrun" verify set.yml
    is "$status" 3
    has "$out" "set/val/x/2.png"
    has "$out" "3 images, 1 at fault"
    both "$qrun" verify
    is "$status" 2
}

@test "--after: begins when the process has ended, at once when there is none" {
    tiny="smoke synth_train=64 synth_val=32 batch_size=32 num_epochs=1"
    sleep 1.5 &
    pid=$!
    start=$(date +%s%N)
    both "$qrun" --after=$pid $tiny log_dir=after
    is "$status" 0
    [ $(($(date +%s%N) - start)) -ge 1000000000 ]
    has "$err" "waiting for process $pid to end"
    has "$err" "process $pid has ended"
    both "$qrun" test --after $pid $tiny pretrained_file=after log_dir=after
    is "$status" 0
    has "$err" "there is no process $pid"
    for bad in x -3 0 12x 99999999999; do
        both "$qrun" --after=$bad $tiny log_dir=never
        is "$status" 2
        has "$err" "--after: '$bad' is no process number"
    done
    both "$qrun" --after=$$ smoke lr=fast
    is "$status" 2
    has "$err" "'fast' is not a number"
    both "$qrun" --after=$$ list nets
    is "$status" 2
    has "$err" "--after is for a FILE, run, train and test"
    [ ! -e never ]
}
