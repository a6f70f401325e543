# test/tools.bats -- qrun inspect, diff, predict, report and compare as a user and a script meet them. QRUN names the program.

load support/shell

setup_file() {
    own_folder
    tiny="smoke synth_train=96 synth_val=64 batch_size=32"
    "$qrun" -q $tiny num_epochs=2 log_dir=a >a.txt 2>err.txt || { cat err.txt; return 1; }
    "$qrun" -q $tiny num_epochs=1 lr=0.01 bit=3 log_dir=b >b.txt 2>err.txt || { cat err.txt; return 1; }
    # A PNG of 40 x 30 pixels, grey, and a part of it.
    printf '%s' \
        iVBORw0KGgoAAAANSUhEUgAAACgAAAAeCAAAAAB7tgMBAAABh0lEQVR42mNgYOXiF5GUU9bQNTK3cXTzDgiNik/JzCuuqG1q75k4bfaCpavWb9m57zADMwevkLiMopq2gamVvYunX3BEbFJ6TmFZdUNrV/+UmfMWr1i7afueg8cY2LgFRKXkVTT1jC1sndx9AsOiE1Kz8ksq65o7eidNn7Nw2eoNW3ftP3KSgZNPWEJWSV3H0MzawdXLPyQyLjkjt6i8prGte8LUWfOXrFy3ecfeQ8fPMPAIikkrqGrpm1jaOXv4BoXHJKZlF5RW1bd09k2eMXfR8jUbt+0+cPTUeQaifHLi7CUGonxy+sJVBqJ8cu7yDQaifHLx2m0Gonxy5eY9BqJ8cv3OQwaifHLr/hMGonxy99FzBqJ88uDpKwaifPL4xVsGonzy7PUHBqJ88vLdZwaifPLm4zcGonzy/stPBqJ88un7HwaifPL1138Gonzy4y8TA1E++c3AykCUT/4xczAQ5RNGNm4GonzCwsnHQJRP2HkEGYjyCbDUYSDKJ8BSh4EonwBLHQDNvnYPwxhIdAAAAABJRU5ErkJggg== |
        base64 -d >grey.png
    mkdir -p images/more
    cp grey.png images/one.png
    cp grey.png images/more/two.png
    echo text >images/notes.txt
    head -c 60 grey.png >cut.png
    echo 'no image' >text.jpg
}

teardown_file() {
    rm -rf "$shared"
}

setup() {
    cd "$shared"
    unset QRUN_DATA_DIR
}

lines() { # TEXT
    printf '%s\n' "$1" | wc -l
}

@test "inspect: a run folder, its file, JSON" {
    both "$qrun" inspect a
    is "$status" 0
    is "$err" ""
    has "$out" "a/checkpoints/best.safetensors: safetensors"
    printf '%s\n' "$out" | grep -Eq '^layer1\.0\.conv1\.weight +F32 +\[16, 16, 3, 3\] +-[0-9.]+ +[0-9.]+ +-?[0-9.e-]+ +[0-9.]+ [0-9]+$'
    printf '%s\n' "$out" | grep -Eq '^bn1\.num_batches_tracked +I64 +\[\] +[36] +[36] +[36] +0 1$'
    both "$qrun" inspect a/checkpoints/last.safetensors --json
    is "$status" 0
    printf '%s' "$out" | grep -q '"qrun.step": "6"'
    printf '%s' "$out" | grep -q '"levels": '
}

@test "inspect and diff: ONNX; a safetensors file whose first bytes look like one" {
    both "$qrun" -q smoke bit=32 wt_quant=none fm_quant=none synth_train=32 synth_val=32 batch_size=32 num_epochs=1 \
        log_dir=float export_onnx=float.onnx
    is "$status" 0
    both "$qrun" inspect float.onnx
    is "$status" 0
    has "$out" "float.onnx: onnx, 44 tensors"
    has "$out" "21 Conv"
    both "$qrun" diff float.onnx float
    is "$status" 5
    has "$out" "only in the second"
    is "$(printf '%s\n' "$out" | grep -c '^fc.weight: ')" 0
    head -c 300 float.onnx >cut.onnx
    both "$qrun" inspect cut.onnx
    is "$status" 3
    is "$(lines "$err")" 1
    # A header of 264 bytes: 08 01 00 ..., then a tensor of one float.
    { printf '\010\001\000\000\000\000\000\000'
      printf '%-264s' '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
      printf '\000\000\200\077'; } >like.safetensors
    both "$qrun" inspect like.safetensors
    is "$status" 0
    has "$out" "like.safetensors: safetensors, 1 tensors, 1 values"
}

@test "inspect and diff: bad input is one line, status 3 or 2" {
    both "$qrun" inspect nowhere
    is "$status" 3
    is "$err" "qrun: error: nowhere: no such checkpoint or run folder"
    both "$qrun" inspect text.jpg
    is "$status" 3
    is "$err" "qrun: error: text.jpg: no checkpoint; expected a PyTorch or safetensors file"
    head -c 2000 a/checkpoints/last.safetensors >cut.safetensors
    both "$qrun" diff a cut.safetensors
    is "$status" 3
    has "$err" "cut.safetensors"
    is "$out" ""
    both "$qrun" inspect
    is "$status" 2
    both "$qrun" diff a
    is "$status" 2
    both "$qrun" diff a b tol=-1
    is "$status" 2
    has "$err" "expected a number, 0 or more"
}

@test "diff: the same is 0; other values are status 5, said with their size; a tolerance" {
    cp a/checkpoints/last.safetensors copy.safetensors
    both "$qrun" diff a/checkpoints/last.safetensors copy.safetensors
    is "$status" 0
    is "$err" ""
    has "$out" "tensors the same, 0 with other values"
    both "$qrun" diff a b
    is "$status" 5
    is "$err" ""
    printf '%s\n' "$out" | grep -Eq '^layer1\.0\.conv1\.weight: [0-9]+ of 2304 values differ, at most by 0\.[0-9]+ \(value [0-9]+: '
    both "$qrun" diff a b tol=1e9
    is "$status" 0
    both "$qrun" diff a b rtol=2
    is "$status" 0
    both "$qrun" diff a b --json
    is "$status" 5
    has "$out" '"what": "values"'
}

@test "predict: files, folders, standard input; five classes by name" {
    both "$qrun" -q predict a grey.png
    is "$status" 0
    is "$err" ""
    is "$(lines "$out")" 6
    has "$out" " %  ring"
    first=$(printf '%s\n' "$out" | tail -n 5)
    both sh -c '"$qrun" -q predict a - <grey.png'
    is "$status" 0
    is "$(printf '%s\n' "$out" | tail -n 5)" "$first"
    both "$qrun" -q predict a images
    is "$status" 0
    has "$out" "images/more/two.png"
    has "$out" "images/one.png"
    hasnt "$out" "notes"
    is "$(lines "$out")" 12
    both "$qrun" -q predict smoke pretrained_file=a grey.png --json
    is "$status" 0
    has "$out" '"image": "grey.png"'
    is "$(printf '%s\n' "$out" | grep -c '"probability"')" 5
}

@test "predict: what is no image is one line and status 3; the others are classified" {
    both "$qrun" -q predict a text.jpg
    is "$status" 3
    is "$out" ""
    is "$err" "qrun: error: text.jpg: neither JPEG nor PNG (starts with 6e 6f)"
    both "$qrun" -q predict a cut.png
    is "$status" 3
    is "$(lines "$err")" 1
    both "$qrun" -q predict a missing.png grey.png
    is "$status" 3
    is "$(lines "$err")" 1
    has "$out" "grey.png"
    both "$qrun" -q predict a text.jpg grey.png --json
    is "$status" 3
    has "$out" '"error": "text.jpg: neither'
    has "$out" '"probability"'
    both sh -c '"$qrun" -q predict a - </dev/null'
    is "$status" 3
    has "$err" "standard input: empty; expected an image"
    mkdir -p empty
    both "$qrun" -q predict a empty
    is "$status" 3
    has "$err" "no image in this folder"
}

@test "predict: names of classes from a file, or numbers where none are known" {
    printf 'n%02d, a thing\r\n' 1 2 3 4 5 6 7 8 9 10 >names.txt
    echo >>names.txt
    both "$qrun" -q predict a grey.png class_names=names.txt
    is "$status" 0
    is "$err" ""
    is "$(printf '%s\n' "$out" | tail -n 5 | grep -cE '^ +[0-9.]+ %  n[01][0-9], a thing$')" 5
    head -n 9 names.txt >nine.txt
    both "$qrun" -q predict a grey.png class_names=nine.txt
    is "$status" 3
    is "$err" "command line: error: class_names: nine.txt: 9 lines; expected the names of 10 classes, one a line"
    both "$qrun" -q predict a grey.png class_names=nowhere.txt
    is "$status" 3
    is "$err" "command line: error: class_names: nowhere.txt: No such file or directory"
    # A net of more classes than the data set has names for: none of them is that of a class.
    both "$qrun" -q smoke synth_train=32 synth_val=32 batch_size=32 num_epochs=1 num_classes=3000 log_dir=wide
    is "$status" 0
    both "$qrun" -q predict wide grey.png
    is "$status" 0
    has "$err" "classes are shown as numbers; class_names=FILE names them"
    is "$(printf '%s\n' "$out" | grep -cE '%  class [0-9]+$')" 5
    # CIFAR's names need no data set.
    both "$qrun" -q smoke synth_train=32 synth_val=32 batch_size=32 num_epochs=1 log_dir=drawn
    both "$qrun" -q predict drawn/resolved.yml dataset=cifar10 pretrained_file=drawn grey.png
    is "$status" 0
    is "$err" ""
    is "$(printf '%s\n' "$out" | grep -cE '%  (airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck)$')" 5
}

@test "predict: a checkpoint or an image where the configuration belongs" {
    both "$qrun" predict a/checkpoints/best.safetensors grey.png
    is "$status" 2
    has "$err" "a/checkpoints/best.safetensors is no configuration; expected one or a run folder first, then pretrained_file="
    both "$qrun" predict grey.png
    is "$status" 2
    has "$err" "grey.png is an image; expected a configuration or a run folder first"
}

@test "predict RUN: a pretrained_file that is typed counts" {
    both "$qrun" -q predict a pretrained_file=nowhere grey.png
    is "$status" 3
    is "$err" "qrun: error: nowhere: no such checkpoint or run folder"
    both "$qrun" predict a pretrained_file=a/checkpoints/last.safetensors grey.png
    is "$status" 0
    has "$err" "a/checkpoints/last.safetensors (safetensors)"
}

@test "predict: wrong usage, no net" {
    both "$qrun" predict
    is "$status" 2
    both "$qrun" predict a
    is "$status" 2
    has "$err" "no image given"
    both "$qrun" predict smoke log_dir=none grey.png
    is "$status" 3
    has "$err" "no net to predict with"
    both "$qrun" predict images grey.png
    is "$status" 2
    has "$err" "expected a configuration or a run folder"
    both "$qrun" predict a wieght_decay=1 grey.png
    is "$status" 2
    has "$err" "did you mean 'weight_decay'?"
}

@test "a training leaves report.html and pictures; they are the same when written again" {
    [ -s a/report.html ]
    for p in loss accuracy learning_rate clip_weights sqnr weights_conv1; do [ -s a/pictures/$p.svg ]; done
    cp a/report.html before.html
    both "$qrun" -q report a
    is "$status" 0
    is "$out" "a/report.html"
    cmp a/report.html before.html
    has "$(cat a/report.html)" "prefers-color-scheme"
    # xmlns names a language, it is no address.
    is "$(grep -oE '(src|href|url|@import)[=( ]"?[^")]*' a/report.html | grep -v 'data:,')" ""
    is "$(grep -c '<script' a/report.html)" 0
}

@test "report: pictures as SVG, PNG or both" {
    cp -r a shown
    rm -r shown/pictures
    both "$qrun" -q report shown pictures=png
    is "$status" 0
    for p in loss accuracy sqnr weights_conv1; do
        is "$(head -c 8 shown/pictures/$p.png | od -An -tx1 | tr -d ' ')" 89504e470d0a1a0a
        [ ! -e shown/pictures/$p.svg ]
    done
    cp -r shown/pictures first
    both "$qrun" -q report pictures=both shown # the same bytes again
    for p in first/*; do
        cmp "$p" "shown/pictures/${p#first/}"
        [ -s "shown/pictures/$(basename "$p" .png).svg" ]
    done
    both "$qrun" report shown pictures=jpeg
    is "$status" 2
    has "$err" "report: pictures=jpeg; expected svg, png or both"
    both "$qrun" report pictures=png
    is "$status" 2
    has "$err" "expected RUN..."
    both "$qrun" -q smoke synth_train=32 synth_val=32 batch_size=32 num_epochs=1 pictures=png log_dir=painted
    is "$status" 0
    [ -s painted/pictures/loss.png ] && [ ! -e painted/pictures/loss.svg ]
    both "$qrun" smoke pictures=pgn
    is "$status" 2
    has "$err" "did you mean 'png'?"
}

@test "report: no run folder; plots=false writes none; a damaged run.json is left out" {
    both "$qrun" report nowhere
    is "$status" 3
    is "$err" "qrun: error: nowhere: no such run folder"
    both "$qrun" report a picture=png
    is "$status:$out" "2:"
    has "$err" "report: 'picture=png'; expected a run folder or pictures=svg|png|both"
    both "$qrun" report images
    is "$status" 3
    has "$err" "neither run.json nor resolved.yml"
    both "$qrun" -q smoke synth_train=32 synth_val=32 batch_size=32 num_epochs=1 plots=false log_dir=plain
    is "$status" 0
    [ ! -e plain/report.html ]
    echo '{' >plain/run.json
    both "$qrun" -q report plain
    is "$status" 0
    has "$err" "damaged"
    [ -s plain/report.html ]
}

@test "compare by=KEY: a table by two keys, and its picture" {
    both "$qrun" compare a b by=wt_bit rows=model picture=by.svg html=by.html
    is "$status" 0
    is "$err" ""
    printf '%s\n' "$out" | grep -Eq '^\| model \| wt_bit 4, top-1 \(%\) \| wt_bit 3, top-1 \(%\) \| speed'
    printf '%s\n' "$out" | grep -Eq '^\| [a-z0-9_]+ \| [0-9.]+ \| [0-9.]+ \| [0-9]+ \| [0-9]+ \|$'
    has "$(cat by.svg)" "Accuracy by wt_bit"
    has "$(cat by.html)" "Accuracy by wt_bit"
    for wrong in htm=x.html by= html=; do
        both "$qrun" compare a b $wrong
        is "$status" 2
        has "$err" "compare: '$wrong'; expected a run folder, html=FILE, by=KEY, rows=KEY or picture=FILE"
    done
    both "$qrun" compare a b by=wt_bit --json
    printf '%s' "$out" | tr -d ' \n' | grep -Eq '"table":\[.*"top1":\{"4":[0-9.]+,"3":[0-9.]+\}'
    both "$qrun" compare a b by=no_key
    is "$status" 2
    has "$err" "no key 'no_key'"
    both "$qrun" compare a b by=momentum rows=model
    is "$status" 2
    has "$err" "one run for each pair"
    both "$qrun" compare a b by=wt_bit rows=model picture=by.png
    is "$status" 0
    is "$(head -c 8 by.png | od -An -tx1 | tr -d ' ')" 89504e470d0a1a0a
    both "$qrun" compare a b picture=x.svg
    is "$status" 2
    [ ! -e x.svg ]
}

@test "compare: results and keys that differ, as text, JSON and a page" {
    both "$qrun" compare a b
    is "$status" 0
    is "$err" ""
    printf '%s\n' "$out" | grep -Eq '^top-1, last \(%\) +[0-9.]+ +[0-9.]+$'
    printf '%s\n' "$out" | grep -Eq '^lr +0\.05 +0\.01$'
    printf '%s\n' "$out" | grep -Eq '^wt_bit +4 +3$'
    hasnt "$out" "momentum"
    hasnt "$out" "log_dir"
    both "$qrun" compare a a
    has "$out" "no key differs"
    mkdir -p deep/in
    cp -r a b deep/in
    both "$qrun" compare deep/in/a deep/in/b html=deep.html
    is "$status" 0
    hasnt "$(cat deep.html)" "deep/in"
    both "$qrun" compare a b --json html=page.html
    is "$status" 0
    printf '%s' "$out" | tr -d ' \n' | grep -q '"lr":\["0.05","0.01"\]'
    has "$(cat page.html)" "Keys that differ"
    both "$qrun" compare a
    is "$status" 2
    both "$qrun" compare a nowhere
    is "$status" 3
}
